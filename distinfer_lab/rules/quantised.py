"""Quantised weights: which tensors of a checkpoint are the codes of one weight, and which are its scales.

::

    gate_proj.weight             float8  [256, 512]   codes, one for each place of the weight
    gate_proj.weight_scale_inv   float32 [  2,   4]   one for each block of 128 x 128

A weight is described by its logical shape ([out, in], or with experts before). Each stored dim of a tensor
that belongs to it runs along one logical dim, and one stored step stands for a number of places: (0, 128),
(1, 128) above. A cut is right if it falls on whole steps of all tensors.

References
----------
fp8 blocks and MXFP4: transformers' `quantizers`; AWQ, GPTQ: AutoAWQ and AutoGPTQ, whose kernels unpack 32-bit
words; `weight_packed` and what goes with it: compressed-tensors; NVFP4: NVIDIA's ModelOpt; bitsandbytes' 4 bits.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..dtypes import as_stored

__all__ = ["Along", "QuantisedTensor", "QuantisedWeight", "is_quantised_config", "quantised_weights"]

Shape = tuple[int, ...]

UNKNOWN = 0
"""The step of a dim of which it is not known how many places it stands for."""
MXFP4_BLOCK, NVFP4_BLOCK = 32, 16

# Longest first: "_scale" would also end "input_scale".
MODULE_TAILS = (
    *(".input_global_scale", ".input_scale_inv", ".input_scale", ".activation_scale", ".output_scale"),
    *(
        ".pre_quant_scale",
        ".scale_weight",
        ".scale_input",
        ".scales",
        ".scale",
        ".qzeros",
        ".g_idx",
        ".biases",
    ),
    *(".SCB", ".weight_format", ".weight._scale", ".weight._shift", ".zero", ".q_scale", ".q_scale_max"),
    *(".codebooks", ".s"),
)
"""What follows a module's name."""
WEIGHT_TAILS = (
    *(
        "_scale_inv",
        "_global_scale",
        "_scale_2",
        "_scales",
        "_scale",
        ".scale",
        "_zero_point",
        "_zeros",
        "_shape",
    ),
    *("_g_idx", ".absmax", ".nested_absmax", ".quant_map", ".nested_quant_map"),
    *(".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4"),
)
"""What follows a weight's name."""
WHOLE_TAILS = ("weight_shape", ".weight_format", "quant_map", "_fp4", "_nf4")
"""Of which every rank needs all."""
OPAQUE_TAILS = (".W_q", ".weight._data", ".q_weight", ".codes", ".B")
"""Of codes whose order is not known here: HQQ, quanto, EXL2, AQLM, Marlin."""
CODE_TAILS = {
    True: (".weight", ".qweight", ".weight_packed", *OPAQUE_TAILS),
    False: ("", "_packed", "_blocks"),
}
HINT = re.compile(
    r"scale|zero|absmax|quant_|g_idx|SCB|\.biases|weight_shape|weight_format|\._shift|\.codebooks|\.s$"
)


class Along(NamedTuple):
    """Along which dim of the weight a stored dim runs."""

    dim: int
    step: int
    """Places of the weight for each stored step; 0 if that is not known."""


class QuantisedTensor(NamedTuple):
    """A tensor that is part of a quantised weight."""

    name: str
    shape: Shape
    along: tuple[Along | None, ...] | None
    """For each stored dim; None for a dim that is whole whatever is cut. None: it cannot be cut with the weight."""


class QuantisedWeight(NamedTuple):
    """The tensors of one quantised weight."""

    name: str
    """What the weight would be called if it were not quantised."""
    shape: Shape
    """The logical shape: [out, in], [experts, out, in]; of gpt-oss' MXFP4 experts [experts, in, out]."""
    tensors: tuple[QuantisedTensor, ...]
    """The codes first."""

    @property
    def codes(self) -> QuantisedTensor:
        """The tensor that holds the codes."""
        return self.tensors[0]


class Scheme(NamedTuple):
    """What a configuration says of the way in which weights are quantised."""

    block: tuple[int, int] | None = None
    group: int | None = None
    bits: int | None = None
    act_order: bool | None = None


def _section(config: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    for fields in (config, (config or {}).get("text_config")):
        for name in ("quantization_config", "compression_config", "quantization"):
            if isinstance(fields, Mapping) and isinstance(fields.get(name), Mapping):
                section: Mapping[str, Any] = fields[name]
                return section
    return None


def is_quantised_config(config: Mapping[str, Any] | None) -> bool:
    """Whether a `config.json` says that weights are quantised."""
    return _section(config) is not None


def _scheme(config: Mapping[str, Any] | None) -> Scheme:
    section = _section(config) or {}
    groups = section.get("config_groups")
    sources: list[Any] = [section]
    if isinstance(groups, Mapping) and len(groups) == 1:
        (only,) = groups.values()
        sources.append(only.get("weights") if isinstance(only, Mapping) else {})
    found = {
        k: v for source in sources if isinstance(source, Mapping) for k, v in source.items() if v is not None
    }
    block = found.get("weight_block_size", found.get("block_structure"))
    pair = isinstance(block, list) and len(block) == 2 and all(map(_is_size, block))
    bits = next((found[name] for name in ("bits", "num_bits", "w_bit") if _is_size(found.get(name))), None)
    order = found.get("desc_act")
    group = found.get("group_size", found.get("q_group_size"))
    return Scheme(
        (block[0], block[1]) if pair and isinstance(block, list) else None,
        group if _is_size(group) else None,
        bits if bits is not None and bits <= 32 else None,
        order if isinstance(order, bool) else None,
    )


def _is_size(value: Any) -> bool:
    return type(value) is int and 1 <= value < 1 << 40


def quantised_weights(
    shapes: Mapping[str, Sequence[int]],
    dtypes: Mapping[str, np.dtype[Any]] | None = None,
    config: Mapping[str, Any] | None = None,
) -> tuple[QuantisedWeight, ...]:
    """The quantised weights among tensors, by their names, shapes and dtypes.

    Parameters
    ----------
    shapes, dtypes
        Name -> shape of the whole tensor, and its dtype; without dtypes every tensor that has a scale is taken
        for codes.
    config
        The fields of `config.json`, which say the size of blocks. Without them it is the power of two that
        the shapes admit, if there is one.

    Examples
    --------
    >>> (found,) = quantised_weights({"up_proj.weight": (256, 512), "up_proj.weight_scale_inv": (2, 4)})
    >>> found.tensors[1].along
    (Along(dim=0, step=128), Along(dim=1, step=128))
    """
    parts: dict[str, list[str]] = {}
    for name in shapes:
        if HINT.search(name) and (codes := _codes_of(name, shapes, dtypes)) is not None:
            parts.setdefault(codes, []).append(name)
    scheme = _scheme(config) if parts else Scheme()
    return tuple(
        _weight(codes, {name: tuple(shapes[name]) for name in (codes, *names)}, scheme, dtypes)
        for codes, names in parts.items()
    )


def _codes_of(name: str, shapes: Mapping[str, Any], dtypes: Mapping[str, np.dtype[Any]] | None) -> str | None:
    """The tensor of codes that a scale, by its name, belongs to; None if there is none."""
    for tails, ends in ((MODULE_TAILS, CODE_TAILS[True]), (WEIGHT_TAILS, CODE_TAILS[False])):
        for tail in tails:
            if not name.endswith(tail):
                continue
            for end in ends:
                codes = name[: -len(tail)] + end
                if codes in shapes and codes != name and (dtypes is None or _holds_codes(dtypes[codes])):
                    return codes
    # Whatever else is called a scale in the module of codes.
    module, _, last = name.rpartition(".")
    codes = f"{module}.weight"
    is_scale = "scale" in last and dtypes is not None and codes in dtypes and _holds_codes(dtypes[codes])
    return codes if is_scale and codes != name else None


def _holds_codes(dtype: np.dtype[Any]) -> bool:
    return str(dtype) not in ("float16", "bfloat16", "float32", "float64")


def _weight(
    codes: str, shapes: Mapping[str, Shape], scheme: Scheme, dtypes: Mapping[str, np.dtype[Any]] | None
) -> QuantisedWeight:
    if codes.endswith(".qweight"):
        return _packed_words(codes, shapes, scheme)
    if codes.endswith("_blocks"):
        return _mxfp4(codes, shapes)
    if codes.endswith(OPAQUE_TAILS):
        (tail,) = (tail for tail in OPAQUE_TAILS if codes.endswith(tail))
        return _opaque(f"{codes.removesuffix(tail)}.weight", codes, shapes)
    if any(
        name.endswith((".absmax", ".nested_absmax")) for name in shapes
    ):  # flattened, in blocks of the whole
        return _opaque(codes, codes, shapes)
    shape, pack = shapes[codes], _pack(codes, shapes, scheme, dtypes)
    last = len(shape) - 1
    if last < 0:
        return _opaque(codes, codes, shapes)
    full = shape if dtypes is None else _elements(dtypes[codes], shape)  # of units smaller than a byte
    logical = (*full[:-1], full[-1] * max(pack, 1))
    along = tuple(
        Along(dim, (size // max(stored, 1) or 1) if pack or dim < last else UNKNOWN)
        for dim, (size, stored) in enumerate(zip(logical, shape, strict=True))
    )
    hints = _hints(logical, pack, scheme, _is_nvfp4(codes, shapes, dtypes))
    tensors = [QuantisedTensor(codes, shape, along)]
    tensors += [
        QuantisedTensor(name, other, _along(name, other, logical, hints))
        for name, other in shapes.items()
        if name != codes
    ]
    return QuantisedWeight(re.sub(r"_packed$", "", codes), logical, tuple(tensors))


def _elements(dtype: np.dtype[Any], shape: Shape) -> Shape:
    """The shape in elements, of a tensor that is stored in units of several elements."""
    stored = as_stored(dtype, shape)
    return shape if stored is None else stored.shape


def _opaque(name: str, codes: str, shapes: Mapping[str, Shape]) -> QuantisedWeight:
    return QuantisedWeight(name, shapes[codes], tuple(QuantisedTensor(n, s, None) for n, s in shapes.items()))


def _pack(
    codes: str, shapes: Mapping[str, Shape], scheme: Scheme, dtypes: Mapping[str, np.dtype[Any]] | None
) -> int:
    """How many codes a stored element of the last dim holds."""
    dtype = None if dtypes is None else dtypes[codes]
    if dtype in (np.dtype("<i4"), np.dtype("<u4")):
        return 32 // scheme.bits if scheme.bits and 32 % scheme.bits == 0 else UNKNOWN
    if _is_nvfp4(codes, shapes, dtypes):
        return 2
    return UNKNOWN if codes.endswith("_packed") else 1


def _is_nvfp4(codes: str, shapes: Mapping[str, Shape], dtypes: Mapping[str, np.dtype[Any]] | None) -> bool:
    """Whether bytes of two codes have a float8 scale for each 16 codes of a row, as nothing else has."""
    if dtypes is None or dtypes[codes] != np.uint8:
        return False
    rows = shapes[codes][:-1]
    return any(
        str(dtypes[name]) == "float8_e4m3fn" and shape == (*rows, 2 * shapes[codes][-1] // NVFP4_BLOCK)
        for name, shape in shapes.items()
    )


def _hints(logical: Shape, pack: int, scheme: Scheme, nvfp4: bool) -> list[tuple[int, ...]]:
    """For each dim the block sizes that the configuration says; none where it says nothing."""
    hints: list[tuple[int, ...]] = [()] * len(logical)
    if scheme.block is not None and len(logical) >= 2:
        hints[-2:] = [(scheme.block[0],), (scheme.block[1],)]
    elif nvfp4:
        hints[-1] = (NVFP4_BLOCK,)
    elif scheme.group is not None:
        hints[-1] = (scheme.group,)
    if pack > 1 and len(logical) == 2:
        hints[0] = (*hints[0], pack)  # zero points are packed along out
    return hints


def _along(
    name: str, shape: Shape, logical: Shape, hints: Sequence[tuple[int, ...]]
) -> tuple[Along | None, ...] | None:
    last = len(logical) - 1
    if name.endswith(WHOLE_TAILS) or all(size == 1 for size in shape):
        return (None,) * len(shape)
    if name.endswith(("g_idx", ".pre_quant_scale")) or (name.count("input_") and shape == logical[-1:]):
        return (Along(last, 1),) if shape == logical[-1:] else None
    if len(shape) > len(logical):
        return None
    along: list[Along | None] = []
    for dim, size in enumerate(shape):
        if size == 1:
            along.append(None)
        elif size == logical[dim]:
            along.append(Along(dim, 1))
        elif len(shape) == len(logical):
            along.append(Along(dim, _step(logical[dim], size, hints[dim])))
        else:
            return None
    return tuple(along)


def _step(length: int, count: int, hints: Sequence[int]) -> int:
    """The block size of which `count` cover `length` places."""
    candidates = hints or [1 << k for k in range(length.bit_length())]
    return next((size for size in candidates if -(-length // size) == count), UNKNOWN)


def _mxfp4(codes: str, shapes: Mapping[str, Shape]) -> QuantisedWeight:
    """Experts [experts, out, in / 32, 16], two codes a byte; as gpt-oss computes with them, [experts, in, out]."""
    name, shape = codes.removesuffix("_blocks"), shapes[codes]
    others = [s for n, s in shapes.items() if n != codes]
    if len(shape) != 4 or shape[3] * 2 != MXFP4_BLOCK or any(other != shape[:3] for other in others):
        return _opaque(name, codes, shapes)
    along = (Along(0, 1), Along(2, 1), Along(1, MXFP4_BLOCK))
    tensors = [QuantisedTensor(n, s, along if n != codes else (*along, None)) for n, s in shapes.items()]
    return QuantisedWeight(name, (shape[0], shape[2] * MXFP4_BLOCK, shape[1]), tuple(tensors))


def _packed_words(codes: str, shapes: Mapping[str, Shape], scheme: Scheme) -> QuantisedWeight:
    """AWQ, [in, out / pack], and GPTQ, [in / pack, out]: scales are [groups, out]."""
    stem = codes.removesuffix(".qweight")
    name = f"{stem}.weight"
    words, scales, order = (shapes.get(f"{stem}.{tail}") for tail in ("qweight", "scales", "g_idx"))
    if words is None or scales is None or len(words) != 2 or len(scales) != 2:
        return _opaque(name, codes, shapes)
    out = scales[1]
    is_gptq = words[1] == out
    zeros = shapes.get(f"{stem}.qzeros")
    per_word = out // zeros[1] if zeros and len(zeros) == 2 and zeros[1] and out % zeros[1] == 0 else UNKNOWN
    if not is_gptq:
        per_word = out // words[1] if words[1] and out % words[1] == 0 else UNKNOWN
    elif per_word == UNKNOWN and scheme.bits:
        per_word = 32 // scheme.bits if 32 % scheme.bits == 0 else UNKNOWN
    if per_word == UNKNOWN or (order is not None and order != (words[0] * (per_word if is_gptq else 1),)):
        return _opaque(name, codes, shapes)
    inner = words[0] * (per_word if is_gptq else 1)
    group = Along(1, _step(inner, scales[0], (scheme.group,) if scheme.group else ()))
    # With act_order a place's group is said by g_idx, by its number in the whole: all groups are needed.
    by_group = None if scales[0] == 1 or (order is not None and scheme.act_order) else group
    if order is not None and scheme.act_order is None and scales[0] > 1:
        by_group = Along(1, UNKNOWN)
    along: dict[str, tuple[Along | None, ...]] = {
        "qweight": (Along(1, per_word), Along(0, 1)) if is_gptq else (Along(1, 1), Along(0, per_word)),
        "qzeros": (by_group, Along(0, per_word)),
        "scales": (by_group, Along(0, 1)),
        "g_idx": (Along(1, 1),),
    }
    tensors = [QuantisedTensor(n, s, along.get(n.removeprefix(f"{stem}."))) for n, s in shapes.items()]
    return QuantisedWeight(name, (out, inner), tuple(tensors))
