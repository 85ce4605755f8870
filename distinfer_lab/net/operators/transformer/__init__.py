"""Operators of transformers: attention with and without a cache, positions, fused weights, the loss of tokens."""

from .activations import ErfGeLU, SiLU
from .attention import AttentionWeights, GroupedMatMul, GroupedOuter
from .cached_attention import CachedAttention
from .cross_entropy import PartialLogSumExp, PartialLogSumExpGrad, SparseCrossEntropy, SparseCrossEntropyGrad
from .part import Part, PartGrad
from .rms_norm import RMSNorm, RMSNormGrad, RootMeanSquare
from .rotary import Angles, Positions, Rotary

__all__ = [
    "Angles",
    "AttentionWeights",
    "CachedAttention",
    "ErfGeLU",
    "GroupedMatMul",
    "GroupedOuter",
    "Part",
    "PartGrad",
    "PartialLogSumExp",
    "PartialLogSumExpGrad",
    "Positions",
    "RMSNorm",
    "RMSNormGrad",
    "RootMeanSquare",
    "Rotary",
    "SiLU",
    "SparseCrossEntropy",
    "SparseCrossEntropyGrad",
]
