"""Rotary position embeddings: by how much each angle grows from token to token, as `config.json` says.

References
----------
`modeling_rope_utils.py` of https://github.com/huggingface/transformers.
"""

import math

from .fields import Fields

__all__ = ["inverse_frequencies"]

ROPE_TYPES = ("default", "linear", "llama3")


def inverse_frequencies(fields: Fields, head_dim: int) -> tuple[float, ...]:
    """The head_dim / 2 frequencies, in radians per token (`inv_freq` in transformers).

    Raises
    ------
    GraphError
        If the kind of scaling is not supported, or one of its fields is missing.
    """
    rope = fields.nested("rope_parameters" if fields.has("rope_parameters") else "rope_scaling")
    theta = (rope if rope.has("rope_theta") else fields).number("rope_theta", 10000.0)
    kind = rope.choice("rope_type" if rope.has("rope_type") else "type", ROPE_TYPES, "default")
    for place in (rope, fields):
        place.refuse_unless("partial_rotary_factor", 1.0, "is not supported; whole heads are rotated")
    plain = [theta ** (-2 * i / head_dim) for i in range(head_dim // 2)]
    if kind == "default":
        return tuple(plain)
    factor = rope.number("factor")
    return tuple(f / factor for f in plain) if kind == "linear" else tuple(_llama3(rope, plain, factor))


def _llama3(rope: Fields, plain: list[float], factor: float) -> list[float]:
    """Low frequencies are divided by `factor`, high ones stay, those between are blended."""
    low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
    if high <= low:
        raise rope.error("high_freq_factor", high, f"must be above low_freq_factor={low}")
    trained = rope.integer("original_max_position_embeddings", most=1 << 40)
    scaled = []
    for frequency in plain:
        turns = trained * frequency / (2 * math.pi)  # full turns within the context that was trained
        share = min(max((turns - low) / (high - low), 0.0), 1.0)
        scaled.append((1 - share) * frequency / factor + share * frequency)
    return scaled
