"""Our SVG as pixels, by matplotlib, which is there for the charts anyway.

matplotlib cannot read SVG, and what can (Cairo, resvg, a browser) is a heavy thing to ask of everybody
for a figure on a slide. Our drawings use a handful of elements: groups that are moved, paths of
straight lines and curves, hatches, text. Those few lie below.
"""

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from .palette import HATCHES

__all__ = ["png_of"]

SVG = "{http://www.w3.org/2000/svg}"
DPI = 72
NUMBER = r"-?(?:\d+\.?\d*|\.\d+)"
ANCHORS = {"start": "left", "middle": "center", "end": "right"}
MATPLOTLIB_HATCHES = ("", "////", "---", "|||")
INHERITED = ("fill", "stroke", "stroke-width", "font-size", "font-weight", "text-anchor")

Attributes = dict[str, str]


class Element(NamedTuple):
    """A path or a text, with what it inherits, and how far its groups have moved it."""

    found: ET.Element
    attributes: Attributes
    x: float
    y: float


def png_of(svg: str, scale: float = 2.0) -> bytes:
    """A PNG of one of our drawings.

    Parameters
    ----------
    svg
        What the functions of this package give.
    scale
        Pixels of the PNG per pixel of the drawing.
    """
    root = ET.fromstring(svg)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    figure = Figure((width / DPI, height / DPI), dpi=DPI * scale)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    patterns = _patterns(root)
    for element in _elements(root, {}, 0, 0):
        if element.found.tag == f"{SVG}text":
            _add_text(axes, element)
        else:
            _add_path(axes, element, patterns)
    out = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(out, format="png")
    return out.getvalue()


def _elements(parent: ET.Element, inherited: Attributes, x: float, y: float) -> Iterator[Element]:
    attributes = inherited | {k: v for k, v in parent.attrib.items() if k in INHERITED}
    moved = re.findall(NUMBER, parent.get("transform", ""))
    if moved:
        x, y = x + float(moved[0]), y + float(moved[1])
    for child in parent:
        if child.tag == f"{SVG}g":
            yield from _elements(child, attributes, x, y)
        elif child.tag in (f"{SVG}path", f"{SVG}text"):
            yield Element(child, attributes | child.attrib, x, y)


def _patterns(root: ET.Element) -> dict[str, tuple[str, str]]:
    """Pattern id -> its colour and matplotlib's hatch."""
    out = {}
    for pattern in root.iter(f"{SVG}pattern"):
        square, strokes = list(pattern)
        out[pattern.attrib["id"]] = (
            square.attrib["fill"],
            MATPLOTLIB_HATCHES[HATCHES.index(strokes.attrib["d"])],
        )
    return out


def _add_text(axes: Any, element: Element) -> None:
    a = element.attributes
    axes.text(
        element.x + float(a["x"]),
        element.y + float(a.get("y", 0)),
        # matplotlib reads a dollar as the start of a formula.
        "".join(element.found.itertext()).replace("$", r"\$"),
        fontsize=float(a["font-size"]),
        # Of the weights that we use, matplotlib's own font has the plain one and the bold one.
        fontweight="bold" if "font-weight" in a else "normal",
        color=a["fill"],
        ha=ANCHORS[a.get("text-anchor", "start")],
        va="baseline",
    )


def _add_path(axes: Any, element: Element, patterns: Mapping[str, tuple[str, str]]) -> None:
    a = element.attributes
    name = re.fullmatch(r"url\(#(.*)\)", a["fill"])
    fill, hatch = patterns[name[1]] if name else (a["fill"], "")
    dashes = tuple(float(n) for n in a.get("stroke-dasharray", "").split())
    patch = PathPatch(
        _path_of(a["d"], element.x, element.y),
        facecolor=fill,
        edgecolor=a.get("stroke", "none"),
        linewidth=float(a.get("stroke-width", 1)),
        linestyle=(0, dashes) if dashes else "solid",
        alpha=float(a["fill-opacity"]) if "fill-opacity" in a else None,
    )
    axes.add_patch(patch)
    if hatch:
        # Hatches take the colour of the edge: they get a patch of their own.
        lines = PathPatch(patch.get_path(), facecolor="none", edgecolor="#00000059", hatch=hatch, linewidth=0)
        axes.add_patch(lines)


def _path_of(d: str, x: float, y: float) -> Path:
    """A path of the commands M, L, l, h, v, C and z."""
    points: list[tuple[float, float]] = []
    codes = []
    at = (x, y)
    for command, numbers in re.findall(r"([MLlhvCz])([^MLlhvCz]*)", d):
        n = [float(value) for value in re.findall(NUMBER, numbers)]
        if command == "z":
            points.append(points[0])
            codes.append(Path.CLOSEPOLY)
            continue
        for step in _steps(command, n):
            at = (at[0] + step[0], at[1] + step[1]) if command in "lhv" else (x + step[0], y + step[1])
            points.append(at)
            codes.append({"M": Path.MOVETO, "C": Path.CURVE4}.get(command, Path.LINETO))
    return Path(points, codes)


def _steps(command: str, n: list[float]) -> list[tuple[float, float]]:
    if command == "h":
        return [(value, 0.0) for value in n]
    if command == "v":
        return [(0.0, value) for value in n]
    return list(zip(n[::2], n[1::2], strict=True))
