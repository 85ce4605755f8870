"""Transformers from Hugging Face configurations, with Hugging Face's parameter names."""

from .causal import CausalLM, Decoder, NextTokenLoss
from .family import FAMILIES, from_pretrained_config, model_type_of
from .gpt2 import GPT2
from .llama import Llama

__all__ = [
    "FAMILIES",
    "GPT2",
    "CausalLM",
    "Decoder",
    "Llama",
    "NextTokenLoss",
    "from_pretrained_config",
    "model_type_of",
]
