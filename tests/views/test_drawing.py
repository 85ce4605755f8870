"""Drawings as files, and the few elements that they are made of."""

import io
import xml.etree.ElementTree as ET
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from distinfer_lab.errors import ArgumentTypeError
from distinfer_lab.layout import Layout, Mesh
from distinfer_lab.views import Drawing, bands_svg, layout_svg, mesh_svg
from distinfer_lab.views.drawing import (
    document,
    fitted,
    label,
    path,
    side_by_side,
    stored,
    text,
    text_width,
    themed,
)
from distinfer_lab.views.drawing.blocks import Block
from distinfer_lab.views.drawing.png import png_of
from distinfer_lab.views.drawing.svg import ADVANCE_OF
from tests.views.reading import advance, rectangles

GRID = Layout(Mesh(dp=2, tp=4), "dp tp")


def test_a_drawing_is_saved_as_what_its_name_says(tmp_path):
    """The same picture as SVG, as a page that stands alone, and as pixels at the scale asked for."""
    drawing = Drawing(layout_svg(GRID, (96, 16), title="<w> & $v$"), 'cards "a" & b')
    for name in ("x.svg", "x.html", "x.png"):
        drawing.save(tmp_path / name)
    assert (tmp_path / "x.svg").read_text() == themed(drawing.svg)
    page = (tmp_path / "x.html").read_text()
    assert drawing.svg in page
    assert "<title>cards &quot;a&quot; &amp; b</title>" in page
    root = ET.fromstring(drawing.svg)
    height, width, _ = imread(tmp_path / "x.png").shape
    assert (width, height) == (2 * int(root.get("width")), 2 * int(root.get("height")))
    drawing.save(tmp_path / "small.png", scale=1)
    assert imread(tmp_path / "small.png").shape[1] == int(root.get("width"))


def test_another_ending_is_refused(tmp_path):
    """The error names the file, the ending and the ones there are."""
    with pytest.raises(
        ArgumentTypeError, match=r"x\.gif: a drawing is saved as \.svg, \.png or \.html, not as '\.gif'"
    ):
        Drawing(mesh_svg(GRID.mesh), "").save(tmp_path / "x.gif")


def pixel(picture, x, y):
    """The colour at a place of a drawing, as SVG spells it."""
    return "#" + "".join(f"{round(255 * c):02x}" for c in picture[int(y), int(x), :3])


def test_pixels_have_the_colours_of_the_drawing():
    """Rectangles are where the SVG has them, in groups that are moved too."""
    svg = layout_svg(GRID, (96, 16))
    picture = imread(io.BytesIO(png_of(svg, 1.0)))
    for rectangle in rectangles(svg):
        fill = rectangle.attributes["fill"]
        # Small ones are mostly stroke; hatched ones have two colours.
        if (
            fill.startswith("#")
            and len(fill) == 7
            and rectangle.attributes.get("class") is None
            and rectangle.width > 20
        ):
            at = rectangle.x + 4, rectangle.y + 4
            assert pixel(picture, *at) == fill


def test_hatches_and_bands_are_drawn():
    """A band reaches from its card to the other; a hatch darkens a part of what it covers."""

    def middle(giver):
        matrix = np.zeros((8, 1), np.int64)
        matrix[giver] = 7
        picture = imread(io.BytesIO(png_of(bands_svg(matrix, "t"), 1.0)))
        return picture[60:, picture.shape[1] // 2 - 40 : picture.shape[1] // 2 + 40, :3].mean()

    assert middle(7) < middle(0) - 0.002  # the same colour, hatched
    assert middle(0) < 0.99


@given(
    st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]), max_size=40),
    st.floats(0, 300),
)
def test_words_are_never_wider_than_they_are_taken_for(words, width):
    """The estimate is an upper bound in the widest usual font, and shortened words keep to their room."""
    true = sum(advance(c, False) for c in words) * 11
    assert true <= text_width(words) + 0.01
    assert sum(advance(c, True) for c in words) * 11 <= text_width(words, bold=True) + 0.1 * len(words)
    assert text_width(fitted(words, width)) <= width or fitted(words, width) == ""


def test_words_become_text_and_never_markup():
    """What comes from a file cannot become an element, neither in ink nor on a fill."""
    evil = '"><script>x</script>'
    svg = document(
        10, 10, evil, [text(0, 0, evil), label(0, 0, evil, "#000"), path(0, 0, 1, 1, 'fill="#fff"')]
    )
    assert {e.tag.split("}")[1] for e in ET.fromstring(svg).iter()} == {"svg", "text", "path"}


def test_blocks_beside_each_other_wrap_before_they_get_too_wide():
    """Blocks go into further rows where a row would be wider than the bound; nothing overlaps."""
    block = Block(300, 50, path(0, 0, 300, 50, 'fill="#fff"'))
    made = side_by_side([block] * 5)
    assert made.width <= 760
    found = rectangles(document(made.width, made.height, "", [made.body]))[-5:]
    assert not any(a.overlaps(b) for i, a in enumerate(found) for b in found[i + 1 :])
    assert len({r.y for r in found}) == 3


def test_what_is_stored_is_asked_for_with_fewer_cards_until_it_fits():
    """The largest of the halved numbers whose picture is within the bound is taken."""
    asked = []

    def draw(cards):
        asked.append(cards)
        return "x" * cards

    assert len(stored(draw, 100)) == 64
    assert asked == [256, 128, 64]


def test_a_text_s_width_does_not_depend_on_python_s_version():
    """The sum over its letters is the exact one, rounded once: sum() rounds in another way since Python 3.12."""
    words = "cards by columns and rows, 1.5 KiB of 12 MiB"
    exact = float(sum(Fraction(ADVANCE_OF.get(letter, 1.0)) for letter in words))
    one_by_one = 0.0
    for letter in words:
        one_by_one += ADVANCE_OF.get(letter, 1.0)
    assert one_by_one != exact
    assert text_width(words, 1) == exact
