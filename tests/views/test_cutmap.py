"""The cut map says the truth: colours are partners, every element lies under its slice, everything stays readable."""

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distinfer_lab.layout import Layout, Mesh
from distinfer_lab.views.drawing import pale, slice_colours
from distinfer_lab.views.holdings.cut_flows import flows_of
from distinfer_lab.views.holdings.cut_sides import drawn_dims
from distinfer_lab.views.holdings.cut_stage import stage_body, stage_of
from distinfer_lab.views.holdings.cutmap import cutmap_svg
from tests.strategies import any_layouts, examples
from tests.views.reading import collisions, keys, rectangles, spills, words

GREY = "#f2f2f2"
TP = Mesh(tp=4)
COLUMNS, ROWS = Layout(Mesh(dp=2, tp=4), "- tp"), Layout(TP, "tp -")


@st.composite
def pairs(draw, least=0, most=5):
    """Two layouts of every kind, of one tensor."""
    shape = tuple(draw(st.lists(st.integers(1, 8), min_size=least, max_size=most)))
    return draw(any_layouts(shape)), draw(any_layouts(shape)), shape


def holders(layout, shape):
    """For each rank which elements it holds, bool, element by element."""
    regions = layout.regions(shape)
    out = {}
    for rank, box in zip(regions.ranks.tolist(), regions.boxes.tolist(), strict=True):
        held = out.setdefault(rank, np.zeros(shape, bool))
        held[tuple(slice(a, b) for a, b in box)] = True
    return out


def slices(held, shape):
    """The slice that each element lies in, numbered by the first index of each; and the number of every rank's."""
    distinct = sorted({mask.tobytes() for mask in held.values() if mask.any()}, key=lambda m: m.find(b"\1"))
    number = {mask: i for i, mask in enumerate(distinct)}
    of = np.full(shape, -1)
    for mask, i in number.items():
        of[np.frombuffer(mask, bool).reshape(shape)] = i
    return of, {rank: number[mask.tobytes()] for rank, mask in held.items() if mask.any()}


def bars(svg, key):
    """The colours of what is drawn of one card, its outline apart."""
    fills = {r.attributes["fill"] for r in rectangles(svg, key)}
    return fills - {"#fff", "none"}


@settings(max_examples=examples(1000))
@given(pairs(least=2))
def test_the_colours_of_a_card_are_its_partners(pair):
    """And no others: brute force over elements; a training card has one colour, pale where copies send it."""
    train, infer, shape = pair
    svg = cutmap_svg(train, infer, shape)
    before, after = holders(train, shape), holders(infer, shape)
    of, number = slices(before, shape)
    both = {
        shade: colour
        for colour in slice_colours(len(set(number.values())))
        for shade in (colour, pale(colour))
    }
    colours = {}
    for rank, i in number.items():
        (colour,) = {both[fill] for fill in bars(svg, f"train:{rank}")}
        assert colours.setdefault(i, colour) == colour
    assert len(set(colours.values())) == len(colours)
    for rank, held in after.items():
        if held.any():
            assert bars(svg, f"infer:{rank}") == {colours[i] for i in np.unique(of[held])}
    drawn = {f"train:{r}" for r in number} | {f"infer:{r}" for r, held in after.items() if held.any()}
    assert set(keys(svg)) == drawn


@settings(max_examples=examples(300))
@given(pairs(least=1))
def test_every_element_lies_under_the_colour_of_its_slice(pair):
    """On every sheet that is drawn: the middle of an element shows the slice that holds it."""
    train, infer, shape = pair
    flows = flows_of(train, infer, shape)
    dims = drawn_dims(flows.train, flows.infer)
    stage = stage_of(flows.train, flows.infer, dims, 600)
    colours = slice_colours(flows.slices)
    body = stage_body(stage, flows, colours)
    fills = [
        r
        for r in rectangles(f'<svg xmlns="http://www.w3.org/2000/svg">{body}</svg>')
        if r.attributes["fill"] not in ("none", GREY)
    ]
    of, number = slices(holders(train, shape), shape)
    colours = {i: colours[int(flows.train.shards[rank])] for rank, i in number.items()}
    for place, sheet in enumerate(stage.drawn):
        if sheet is None:
            continue
        runs = dict(zip(dims.sheets, stage.sheets[sheet], strict=True))
        for index in np.ndindex(*shape):
            if not all(a <= index[d] < b for d, (a, b) in runs.items()):
                continue
            i = index[dims.row] if dims.row is not None else 0
            x = stage.left(place) + sum(stage.across(index[dims.column], index[dims.column] + 1)) / 2
            y = sum(stage.down(i, i + 1)) / 2
            over = [r for r in fills if r.x <= x <= r.x + r.width and r.y <= y <= r.y + r.height]
            assert over
            assert over[-1].attributes["fill"] == colours[of[index]]


@settings(max_examples=examples(200))
@given(pairs())
def test_nothing_is_clipped_and_no_words_meet(pair):
    """Whatever the layouts, the picture is at most 760 pixels wide and all words can be read."""
    svg = cutmap_svg(*pair, name="layers.0.attention.query_key_value.weight", itemsize=4)
    assert float(ET.fromstring(svg).attrib["width"]) <= 760
    assert not spills(svg)
    assert not collisions(svg)


@given(pairs(), st.booleans())
def test_what_moves_and_stays_is_said(pair, same_cards):
    """An element stays where the card held it, brute force says; every other one is received."""
    train, infer, shape = pair
    flows = flows_of(train, infer, shape, same_cards=same_cards)
    before, after = holders(train, shape), holders(infer, shape)
    nothing = np.zeros(shape, bool)
    kept = sum(int((mask & before.get(rank, nothing)).sum()) for rank, mask in after.items()) * same_cards
    assert int(flows.kept.sum()) == kept
    assert int(flows.received.sum()) == sum(int(mask.sum()) for mask in after.values()) - kept


def test_columns_become_rows():
    """The first picture: who stays, who sends, and what the frames are."""
    svg = cutmap_svg(COLUMNS, ROWS, (384, 512), name="up", itemsize=4)
    said = words(svg)
    assert "Columns on 8 cards become rows on 4" in said
    assert "up [384, 512_tp] → [384_tp, 512] · 576 KiB must move · 192 KiB stay where they are" in said
    assert said.count("stays") == 4
    assert sum(bool(re.fullmatch(r"from \d", w)) for w in said) == 12
    frames = [r for r in rectangles(svg) if r.attributes.get("class") == "frame"]
    assert len(frames) == 4 + 1  # and the legend's
    for rank in range(4):
        assert bars(svg, f"infer:{rank}") == set(slice_colours(4))


@pytest.mark.parametrize(
    ("train", "infer", "shape", "words_of_title"),
    [
        (ROWS, ROWS, (8, 8), "Nothing moves: each of the 4 cards already holds what it needs"),
        (ROWS, Layout(Mesh(tp=2), "tp -"), (8, 8), "Rows on 4 cards become other rows on 2"),
        (ROWS, Layout.replicated(1, 2), (8, 8), "Rows on 4 cards become whole copies on 1"),
        (Layout(TP, "tp"), Layout(Mesh(tp=2), "tp"), (8,), "Parts on 4 cards become other parts on 2"),
        (Layout(Mesh(a=2, b=2), "a b"), ROWS, (8, 8), "Blocks on 4 cards become rows on 4"),
        (
            Layout(TP, "tp - -"),
            Layout(TP, "- - tp"),
            (8, 2, 8),
            "Slices of dim 0 on 4 cards become slices of dim 2 on 4",
        ),
    ],
)
def test_the_title_is_the_finding(train, infer, shape, words_of_title):
    """By what is cut and what moves."""
    assert words_of_title in words(cutmap_svg(train, infer, shape))


def test_a_thousand_cards_fit():
    """A still of 1,024 cards is small; a live one has every card, and a colour for each of 64 slices."""
    train, infer = Layout(Mesh(dp=16, tp=64), "- tp"), Layout(Mesh(dp=8, tp=8), "tp -")
    still = cutmap_svg(train, infer, (8192, 8192))
    assert len(still) < 36_000
    live = cutmap_svg(train, infer, (8192, 8192), max_tiles=1024)
    assert set(keys(live)) == {f"train:{r}" for r in range(1024)} | {f"infer:{r}" for r in range(64)}
    assert len({r.attributes["fill"] for r in rectangles(still)} & set(slice_colours(64))) == 64


@pytest.mark.parametrize("count", [1, 7, 8, 9, 28, 64, 512])
def test_no_two_slices_share_a_colour(count):
    """Up to 512, and none is paper or ink."""
    colours = slice_colours(count)
    assert len(set(colours)) == count
    assert not {"#ffffff", "#222222", "#000000"} & set(colours)


def test_cards_of_other_stages_are_named():
    """Those that hold none of the tensor are said in a line, not drawn as empty boxes."""
    train = Layout(Mesh(tp=2), "tp -", first_ranks=(2,))
    svg = cutmap_svg(train, Layout(Mesh(tp=2), "- tp"), (4, 4), ranks=(4, 2))
    assert "Training cards 0, 1 hold none of it" in words(svg)
    assert set(keys(svg)) == {"train:2", "train:3", "infer:0", "infer:1"}
    assert math.isclose(float(ET.fromstring(svg).attrib["width"]), 760)
