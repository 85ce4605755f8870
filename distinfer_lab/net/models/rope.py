"""By how much each angle of a rotary head grows from token to token, as a configuration says.

References
----------
`modeling_rope_utils.py` of https://github.com/huggingface/transformers.
"""

import math

from .fields import Fields

__all__ = ["frequencies"]

KINDS = ("default", "linear", "llama3")


def frequencies(fields: Fields, head_size: int) -> tuple[float, ...]:
    """The frequencies of the head_size / 2 angles, in radians a token.

    Raises
    ------
    GraphError
        If the kind of scaling is not known, or one of its fields is missing.
    """
    rope = fields.inner("rope_parameters" if fields.has("rope_parameters") else "rope_scaling")
    theta = (rope if rope.has("rope_theta") else fields).number("rope_theta", 10000.0)
    kind = rope.word("rope_type" if rope.has("rope_type") else "type", KINDS, "default")
    for place in (rope, fields):
        place.refuse_unless("partial_rotary_factor", 1.0, "is not supported; whole heads are rotated")
    plain = [theta ** (-2 * i / head_size) for i in range(head_size // 2)]
    if kind == "default":
        return tuple(plain)
    factor = rope.number("factor")
    return tuple(f / factor for f in plain) if kind == "linear" else tuple(_llama3(rope, plain, factor))


def _llama3(rope: Fields, plain: list[float], factor: float) -> list[float]:
    """Slow angles are slowed down by `factor`, fast ones stay, those between are blended."""
    low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
    if high <= low:
        raise rope.error("high_freq_factor", high, f"must be above low_freq_factor={low}")
    trained = rope.whole("original_max_position_embeddings", most=1 << 40)
    out = []
    for frequency in plain:
        turns = trained * frequency / (2 * math.pi)  # how often it goes round within what was trained
        share = min(max((turns - low) / (high - low), 0.0), 1.0)
        out.append((1 - share) * frequency / factor + share * frequency)
    return out
