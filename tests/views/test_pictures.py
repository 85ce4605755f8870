"""Pictures: well-formed, deterministic, bounded, every card in them once and by number."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.views import (
    cutmap_svg,
    hold,
    img_html,
    layout_svg,
    mesh_svg,
    stored,
    strategy_html,
    strategy_svg,
)
from tests.strategies import layouts_with_shape
from tests.views.reading import SVG, collisions, keys, spills, words

GRID = Layout(Mesh(dp=2, tp=4), "dp tp")
COLUMNS = Layout(Mesh(tp=4), "- tp")


def big(rows, columns):
    """A layout of rows x columns cards in which every card holds its own box."""
    return Layout(Mesh(dp=rows, tp=columns), "dp tp")


@given(layouts_with_shape())
def test_every_card_is_drawn_once_by_number(case):
    """Each rank has one tile with its number printed in it, held or not."""
    layout, shape = case
    svg = layout_svg(layout, shape, max_cards=2000)
    cards = range(int(layout.ranks.max()) + 1)
    assert keys(svg) == [f"card:{r}" for r in cards]
    tiles = [e for e in ET.fromstring(svg).iter() if e.get("data-key")]
    for rank, tile in zip(cards, tiles, strict=True):
        assert str(rank) in " ".join("".join(t.itertext()) for t in tile.iter(f"{SVG}text")).split()


@given(layouts_with_shape())
def test_equal_boxes_have_equal_colours_and_different_boxes_differ(case):
    """The number that colours a card tells its box among the distinct ones."""
    layout, shape = case
    holding = hold(layout, shape)
    seen = {}
    for box, held, shard in zip(holding.boxes.tolist(), holding.held, holding.shards, strict=True):
        if held:
            assert seen.setdefault(shard, box) == box
    assert len({str(b) for b in seen.values()}) == len(seen)


@given(layouts_with_shape(), st.integers(2, 9))
def test_groups_cover_their_cards(case, limit):
    """A group's box is the smallest that covers the boxes of its cards."""
    layout, shape = case
    whole = hold(layout, shape)
    some = whole.grouped(limit)
    assert len(some.cards) <= limit
    for i, card in enumerate(some.cards):
        first, last = (card.split("-") * 2)[:2]
        rows = [r for r in range(int(first), int(last) + 1) if whole.held[r]]
        assert bool(some.held[i]) == bool(rows)
        if rows:
            np.testing.assert_array_equal(some.boxes[i, :, 0], whole.boxes[rows, :, 0].min(axis=0))
            np.testing.assert_array_equal(some.boxes[i, :, 1], whole.boxes[rows, :, 1].max(axis=0))


PICTURES = {
    "layout": lambda cards: layout_svg(big(32, 32), (64, 64), title="w" * 200, max_cards=cards),
    "layout 256": lambda cards: layout_svg(big(16, 16), (64, 64), max_cards=cards),
    "pair": lambda cards: cutmap_svg(big(32, 32), big(1, 256), (64, 256), max_tiles=cards),
    "pair medium": lambda cards: cutmap_svg(big(4, 8), big(8, 4), (64, 64), max_tiles=cards),
    "pair large": lambda cards: cutmap_svg(big(4, 4), big(1, 16), (64, 64), max_tiles=cards),
    "mesh": lambda cards: mesh_svg(Mesh(dp=16, pp=8, tp=16), max_cards=cards),
    "strategy": lambda cards: strategy_svg(
        Strategy({f"layer.{i}.{'x' * 90}": big(2**i, 256 >> i) for i in range(8)}), max_cards=cards
    ),
}


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_what_is_stored_is_small_and_says_that_it_groups(draw):
    """As it lies in a notebook every picture is below 50 kB; groups are named as such."""
    svg = stored(draw)
    assert len(img_html(svg, "x" * 300)) < 50_000
    if any("-" in key.split(":")[1] for key in keys(svg)):
        assert re.search(r"cards, drawn in \d+ groups of \d+", " ".join(words(svg)))


@pytest.mark.parametrize("cards", [32, 256, 2048])
@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_no_words_are_clipped_or_meet(draw, cards):
    """Whatever the size, every text stands inside the drawing and apart from its neighbours."""
    svg = draw(cards)
    assert spills(svg) == []
    assert collisions(svg) == []


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_pictures_are_deterministic_and_harmless(draw):
    """The same record gives the same bytes; no style, script, link or foreign address is in them."""
    svg = draw(256)
    assert svg == draw(256)
    names = {e.tag.removeprefix(SVG) for e in ET.fromstring(svg).iter()}
    assert names <= {"svg", "g", "path", "text", "defs", "pattern"}
    assert re.findall(r"https?://[^\"]+", svg) == ["http://www.w3.org/2000/svg"]


def test_live_pictures_show_every_single_card():
    """1,024 training and 256 inference cards fit one live picture, each as its own tile."""
    svg = cutmap_svg(big(32, 32), big(16, 16), (64, 64), max_tiles=1024)
    assert keys(svg) == [f"train:{i}" for i in range(1024)] + [f"infer:{i}" for i in range(256)]
    assert len(svg) < 600_000


def test_a_piece_is_drawn_where_its_box_lies():
    """In the picture of a tensor a card's box has the place and the size of its share."""
    halves = Layout(Mesh(tp=2), "- tp")
    svg = layout_svg(halves, (8, 8))
    tile = next(e for e in ET.fromstring(svg).iter() if e.get("data-key") == "card:1")
    sheet, piece = [
        [float(n) for n in re.findall(r"-?[\d.]+", p.get("d"))] for p in list(tile.iter(f"{SVG}path"))[1:]
    ]
    left, top, width, height = sheet[:4]
    assert piece[:4] == pytest.approx([left + width / 2, top, width / 2, height], abs=0.11)


def test_repeated_colours_are_hatched():
    """The eighth shard has the first one's colour under a hatch, by an id of this picture alone."""
    svg, other = layout_svg(GRID, (96, 16), title="a"), layout_svg(GRID, (96, 16), title="b")
    (pattern,) = ET.fromstring(svg).iter(f"{SVG}pattern")
    assert f'fill="url(#{pattern.get("id")})"' in svg
    assert pattern.get("id") not in other


def test_names_are_text_and_never_markup():
    """A parameter's name from a file cannot become an element."""
    evil = '<script>alert("x")</script>&'
    strategy = Strategy({evil: GRID}, {evil: (4, 8)})
    for page in (layout_svg(GRID, (4, 8), title=evil), strategy_svg(strategy), strategy_html(strategy)):
        assert "<script" not in page
    assert evil in words(layout_svg(GRID, (4, 8), title=evil))
