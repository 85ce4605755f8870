"""Patterns of names, compared part by part, so that no pattern takes a name that only ends alike.

::

    pattern              fits                                    does not fit
    *.v_proj.weight      layers.0.self_attn.v_proj.weight        layers.0.self_attn.qkv_proj.weight
    *v_proj.weight       the same: a star at the beginning stands for whole parts of a name, or none
    *.experts.*.weight   experts.0.w1.weight: any other star stands for any text
    *.*norm.weight       input_layernorm.weight: any text after any parts
"""

import re
from fnmatch import translate
from functools import lru_cache

__all__ = ["name_fits"]


@lru_cache(maxsize=4096)
def _pattern(match: str) -> tuple[str, re.Pattern[str]]:
    """The text with which every name that fits ends, and the pattern."""
    ending = re.split(r"[*?\]]", match)[-1]
    if not match.startswith("*"):
        return ending, re.compile(translate(match), re.DOTALL)
    rest = match[1:].removeprefix(".")
    parts = r"(?:.*\.)?" if rest else ".*"
    return ending.removeprefix("."), re.compile(parts + translate(rest), re.DOTALL)


def name_fits(match: str, name: str) -> bool:
    """Whether a pattern is for this name.

    Examples
    --------
    >>> [name_fits("*v_proj.weight", name) for name in ("a.v_proj.weight", "a.qkv_proj.weight")]
    [True, False]
    >>> name_fits("*.*norm.weight", "layers.0.input_layernorm.weight")
    True
    """
    ending, pattern = _pattern(match)
    return name.endswith(ending) and pattern.match(name) is not None
