"""Colours that the colour-blind can tell apart, and hatches where they repeat.

Seven Okabe-Ito fills (the eighth, black, is the ink), then the same seven hatched, and so on::

    number  0..6 plain    7..13 ////    14..20 ----    21..27 ||||    28 plain again

A colour is never the only sign: whatever is filled also has its number printed.
"""

from typing import NamedTuple

__all__ = [
    "INK",
    "OKABE_ITO",
    "SHADES",
    "Swatch",
    "hatch_of",
    "ink_on",
    "pale",
    "shade_of",
    "slice_colours",
    "swatch",
]

OKABE_ITO = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
INK = "#222"
MUTED = "#616161"
SHADES = ("#ffffff", "#d6e9f5", "#9fcdea", "#56b4e9", "#0072b2")
"""From none to most, in one hue; the amount is always printed as well."""

HATCHES = ("", "M-1 7l8-8M-1 3l4-4M3 7l4-4", "M0 3h6", "M3 0v6")


class Swatch(NamedTuple):
    """A fill colour and the number of its hatch, 0 for none."""

    colour: str
    hatch: int


def swatch(number: int) -> Swatch:
    """The fill of shard `number`.

    Examples
    --------
    >>> swatch(1), swatch(8)
    (Swatch(colour='#56b4e9', hatch=0), Swatch(colour='#56b4e9', hatch=1))
    """
    return Swatch(OKABE_ITO[number % len(OKABE_ITO)], number // len(OKABE_ITO) % len(HATCHES))


GREY = "#8a8a8a"
HUES = (*OKABE_ITO, GREY)
DARKEST, LIGHTEST = 0.0, 0.62
"""How far the first and the last slice of a run of one hue are mixed with white."""


def slice_colours(count: int) -> list[str]:
    """A fill for each of `count` slices, no two alike up to 512.

    Up to eight slices have a hue each; of more, neighbours share a hue and become lighter from first to last, so
    that the order is seen.

    Examples
    --------
    >>> slice_colours(2)
    ['#e69f00', '#56b4e9']
    >>> slice_colours(16)[:3]
    ['#e69f00', '#f6db9e', '#56b4e9']
    """
    run = max(-(-count // len(HUES)), 1)
    step = (LIGHTEST - DARKEST) / max(run - 1, 1)
    return [_mixed(HUES[i // run], DARKEST + step * (i % run)) for i in range(count)]


def pale(colour: str) -> str:
    """The same hue, far lighter: held, but another copy sends it.

    Examples
    --------
    >>> pale("#e69f00")
    '#f8e6bd'
    """
    return _mixed(colour, 0.74)


def _mixed(colour: str, white: float) -> str:
    channels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(c + (255 - c) * white):02x}" for c in channels)


def hatch_of(number: int) -> str:
    """The strokes of a hatch, as the path of a 6 x 6 pattern."""
    return HATCHES[number]


def shade_of(value: float, most: float) -> str:
    """The shade of an amount relative to the largest; near amounts have near shades, zero is white.

    Examples
    --------
    >>> shade_of(0, 8), shade_of(1, 8000), shade_of(4, 8), shade_of(8, 8)
    ('#ffffff', '#d6e9f5', '#7ac0ea', '#0072b2')
    """
    if not value:
        return SHADES[0]
    place = (len(SHADES) - 2) * min(value / max(most, 1), 1.0)
    at = min(int(place), len(SHADES) - 3)
    below, above = ([int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in SHADES[at + 1 : at + 3])
    return "#" + "".join(
        f"{round(a + (b - a) * (place - at)):02x}" for a, b in zip(below, above, strict=True)
    )


def ink_on(colour: str) -> str:
    """Black or white, whichever reads better on `colour` (by its relative luminance).

    Examples
    --------
    >>> ink_on("#f0e442"), ink_on("#0072b2")
    ('#000', '#fff')
    """
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Equal contrast with black and with white: (L + .05)^2 = 1.05 * .05.
    return "#000" if luminance > 0.1791 else "#fff"
