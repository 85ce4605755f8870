"""Reading a drawing back: what is in it, where it stands, how large it is."""

import re
import xml.etree.ElementTree as ET
from functools import cache
from typing import NamedTuple

SVG = "{http://www.w3.org/2000/svg}"


class Rectangle(NamedTuple):
    """A path of a rectangle, in the coordinates of the whole drawing."""

    x: float
    y: float
    width: float
    height: float
    attributes: dict

    @property
    def area(self):
        """In square pixels."""
        return self.width * self.height

    def overlaps(self, other, slack=0.15):
        """Whether both have more in common than rounding explains."""
        across = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        down = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return across > slack and down > slack


class Words(NamedTuple):
    """A line of text, in the coordinates of the whole drawing."""

    x: float
    y: float
    text: str
    size: float
    anchor: str
    bold: bool


def numbers(text):
    """All numbers of a path or a transform."""
    return [float(n) for n in re.findall(r"-?(?:\d+\.?\d*|\.\d+)", text)]


def elements(svg):
    """Every path and text with its offset, inherited attributes and the key that it stands under."""

    def walk(parent, x, y, inherited, key):
        x, y = (a + b for a, b in zip((x, y), numbers(parent.get("transform", "")) or (0, 0), strict=True))
        inherited = inherited | parent.attrib
        key = parent.get("data-key", key)
        for child in parent:
            if child.tag == f"{SVG}g":
                yield from walk(child, x, y, inherited, key)
            elif child.tag in (f"{SVG}path", f"{SVG}text"):
                yield child, x, y, inherited | child.attrib, key

    yield from walk(ET.fromstring(svg), 0.0, 0.0, {}, None)


def keys(svg):
    """The keys of all tiles, in order."""
    return [e.get("data-key") for e in ET.fromstring(svg).iter() if e.get("data-key")]


def words(svg):
    """All text in a drawing."""
    return ["".join(e.itertext()) for e in ET.fromstring(svg).iter(f"{SVG}text")]


def rectangles(svg, key=None):
    """Every rectangle, or those under one key."""
    out = []
    for element, x, y, attributes, of in elements(svg):
        if key not in (None, of):
            continue
        for found in re.finditer(r"M([-\d. ]+)h([\d.]+)v([\d.]+)h-[\d.]+z", element.get("d", "")):
            left, top = numbers(found[1])
            out.append(Rectangle(x + left, y + top, float(found[2]), float(found[3]), attributes))
    return out


def tiles(svg):
    """Key -> the first rectangle under it, which is its outline."""
    out = {}
    for element, x, y, attributes, key in elements(svg):
        found = re.fullmatch(r"M(.*?)h([\d.]+)v([\d.]+)h-[\d.]+z", element.get("d", ""))
        if found and key not in out:
            left, top = numbers(found[1])
            out[key] = Rectangle(x + left, y + top, float(found[2]), float(found[3]), attributes)
    return out


def lines_of_text(svg):
    """Every text with its place."""
    return [
        Words(
            x + float(a["x"]),
            y + float(a.get("y", 0)),
            "".join(element.itertext()),
            float(a["font-size"]),
            a.get("text-anchor", "start"),
            "font-weight" in element.attrib,
        )
        for element, x, y, a, _ in elements(svg)
        if element.tag == f"{SVG}text"
    ]


@cache
def advance(character, bold):
    """The width of a character of DejaVu Sans, the widest of the usual fonts, in em."""
    from matplotlib import get_data_path
    from matplotlib.ft2font import FT2Font

    font = FT2Font(f"{get_data_path()}/fonts/ttf/DejaVuSans{'-Bold' * bold}.ttf")
    font.set_size(1000, 72)
    return font.load_char(ord(character)).linearHoriAdvance / 65536 / 1000


def spans(svg):
    """For each text where it begins and ends across, in DejaVu Sans, and its place."""
    out = []
    for line in lines_of_text(svg):
        wide = sum(advance(c, line.bold) for c in line.text) * line.size
        start = line.x - wide * {"start": 0, "middle": 0.5, "end": 1}[line.anchor]
        out.append((start, start + wide, line))
    return out


def spills(svg):
    """Texts that leave the drawing."""
    root = ET.fromstring(svg)
    width, height = float(root.get("width")), float(root.get("height"))
    return [
        line.text
        for start, stop, line in spans(svg)
        if start < -0.5 or stop > width + 0.5 or not 0 < line.y <= height
    ]


def collisions(svg):
    """Pairs of texts on one line that run into each other."""
    found = sorted((line.y, start, stop, line.text) for start, stop, line in spans(svg))
    return [
        (a[3], b[3])
        for i, a in enumerate(found)
        for b in found[i + 1 : i + 40]
        if abs(a[0] - b[0]) < 7 and min(a[2], b[2]) - max(a[1], b[1]) > 1
    ]
