"""Pictures of who holds what: tensors in true proportions, meshes by their coordinates, groups that open."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from distinfer_lab.layout import Layout, Mesh, Strategy, nonempty_boxes
from distinfer_lab.views import (
    Holding,
    cutmap_svg,
    hold,
    layout_svg,
    link_cards,
    mesh_svg,
    strategy_svg,
    tensor_svg,
)
from tests.strategies import layouts_with_shape
from tests.views.reading import collisions, keys, lines_of_text, rectangles, spills, tiles, words

TP = Mesh(tp=2)
QKV = Layout(TP, "tp[8|4|4] -")


def cuts_of(layout, shape):
    """For each dim where it is cut, from the boxes of all ranks."""
    boxes = layout.regions(shape).boxes
    boxes = boxes[nonempty_boxes(boxes)]
    return [sorted({0, n, *boxes[:, d].ravel().tolist()}) for d, n in enumerate(shape)]


def drawn_dims(cuts):
    """The dims that are rows and columns of a sheet: those that are cut, then the last ones."""
    order = sorted(range(len(cuts)), key=lambda d: (len(cuts[d]) <= 2, -d))
    return sorted(order[:2])


def owned_cells(layout, shape, cuts):
    """Every cell between cuts that some rank holds, by looking at its first element."""
    boxes = layout.regions(shape).boxes
    for cell in product(*(list(pairwise(c)) for c in cuts)):
        first = [a for a, _ in cell]
        if all(a < b for a, b in cell) and any(
            all(a <= x < b for x, (a, b) in zip(first, box, strict=True)) for box in boxes.tolist()
        ):
            yield cell


@given(layouts_with_shape())
def test_the_areas_of_a_tensor_are_its_elements(case):
    """In the sheets of a tensor a shard has the area of its part, no two overlap, and none is missing."""
    layout, shape = case
    cuts = cuts_of(layout, shape)
    cells = list(owned_cells(layout, shape, cuts))
    assume(len(shape) > 0 and math.prod(shape) > 0 and math.prod(len(c) - 1 for c in cuts) <= 64)
    svg = tensor_svg(layout, shape)
    sheets = [r for r in rectangles(svg) if r.attributes.get("class") == "sheet"]
    found = [r for r in rectangles(svg) if r.attributes.get("class") is None]
    dims = drawn_dims(cuts)
    facets = math.prod(len(c) - 1 for d, c in enumerate(cuts) if d not in dims)
    assert len(sheets) == facets
    unit = sheets[0].area / math.prod(shape[d] for d in dims)
    expected = sorted(math.prod(b - a for d, (a, b) in enumerate(cell) if d in dims) for cell in cells)
    areas = sorted(found, key=lambda r: r.area)
    assert len(areas) == len(expected)
    for rectangle, elements in zip(areas, expected, strict=True):
        slack = 0.15 * (rectangle.width + rectangle.height) + 0.1
        assert rectangle.area == pytest.approx(elements * unit, abs=slack)
    for i, rectangle in enumerate(found):
        assert sum(rectangle.overlaps(sheet) for sheet in sheets) == 1
        assert not any(rectangle.overlaps(other) for other in found[i + 1 :])


@given(layouts_with_shape())
def test_nothing_is_clipped_and_no_words_meet(case):
    """Every text of a tensor and of its cards stands inside the drawing and apart from others."""
    layout, shape = case
    for svg in (tensor_svg(layout, shape, title="layers.0.weight"), layout_svg(layout, shape)):
        assert spills(svg) == []
        assert collisions(svg) == []


def cell_words(svg):
    """What stands in the cells of a tensor: texts that have a colour of their own."""
    return [w.text for w in lines_of_text(svg) if w.anchor == "middle" and not w.text.isdigit()]


def test_each_kind_of_cut_is_said_in_words():
    """Copies, optimizer shards, fused parts, empty shards and idle cards are named, not only coloured."""
    copies = Layout(Mesh(dp=2, tp=2), "- tp")
    assert cell_words(tensor_svg(copies, (4, 6))) == ["cards 0, 2", "cards 1, 3"]
    shards = Layout(Mesh(dp=2, tp=2), "-/2 tp")
    said = words(tensor_svg(shards, (4, 6)))
    assert "dim 0: 4 elements, whole, then each shard in 2 among its copies (dashed lines)" in said
    assert 'stroke-dasharray="4 3"' in tensor_svg(shards, (4, 6))
    svg = tensor_svg(QKV, (16, 12))
    assert cell_words(svg) == ["card 0", "card 1"] * 3
    assert svg.count('stroke-width="3"') == 3
    uneven = Layout(Mesh(tp=4), "tp", split="torch_chunk")
    assert "card 3 holds an empty shard" in words(tensor_svg(uneven, (6,)))
    late = Layout(TP, "tp", first_ranks=(2,))
    assert "cards 0, 1 hold no part of this tensor" in words(tensor_svg(late, (4,)))
    assert "a single number" in words(tensor_svg(Layout(TP, ""), ()))


def test_a_long_tensor_says_that_it_is_not_to_scale():
    """Proportions are true unless the picture says by how much they are not."""
    assert not any("scale" in w for w in words(tensor_svg(Layout(TP, "tp -"), (40, 30))))
    said = words(tensor_svg(Layout(TP, "tp -"), (50256, 768)))
    assert any(w.startswith("not to scale: dim 0 is drawn") for w in said)


def test_a_thousand_shards_are_drawn_in_runs():
    """Cells that stand for several shards tell how many, and together they are all of them."""
    layout = Layout(Mesh(a=32, b=32), "a b")
    svg = tensor_svg(layout, (64, 64))
    counts = [
        int(w.text) for w in lines_of_text(svg) if w.anchor == "middle" and w.size == 10 and w.text == "16"
    ]
    assert sum(counts) - 16 == 1024  # one of them is the index 16 at the edge
    assert "1,024 shards are too many to draw: each cell tells how many lie in it" in words(svg)
    assert len(svg) < 20_000


@given(
    st.lists(st.tuples(st.sampled_from("abcdefg"), st.integers(1, 3)), max_size=4, unique_by=lambda p: p[0])
)
def test_a_mesh_has_every_rank_at_its_coordinates(axes):
    """Ranks of one row share all coordinates but the last, those of one column all but the one before."""
    mesh = Mesh.from_axes(tuple(n for n, _ in axes), tuple(s for _, s in axes))
    svg = mesh_svg(mesh, max_cards=10_000)
    assert sorted(int(k.removeprefix("card:")) for k in keys(svg)) == list(range(mesh.size))
    found = tiles(svg)
    place = {rank: found[f"card:{rank}"] for rank in range(mesh.size)}
    coordinates = mesh.coordinates().tolist()
    for a, b in product(range(mesh.size), repeat=2):
        if axes and coordinates[a][:-1] == coordinates[b][:-1]:
            assert place[a].y == place[b].y
            assert (place[a].x < place[b].x) == (a < b)
        if (
            len(axes) > 1
            and coordinates[a][-1] == coordinates[b][-1]
            and coordinates[a][:-2] == coordinates[b][:-2]
        ):
            assert place[a].x == place[b].x
    assert not any(place[a].overlaps(place[b]) for a in place for b in place if a < b)
    assert spills(svg) == []
    assert collisions(svg) == []


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple).filter(lambda s: math.prod(s) < 5000),
    st.integers(2, 300),
)
def test_a_large_mesh_is_drawn_in_runs_that_hold_all_ranks(sizes, limit):
    """Every rank is in exactly one tile, and there are no more tiles than asked for."""
    mesh = Mesh.from_axes(tuple("abc"[: len(sizes)]), sizes)
    labels = [key.removeprefix("card:") for key in keys(mesh_svg(mesh, max_cards=limit))]
    assert len(labels) <= limit
    ranks = [r for label in labels for r in range(int(label.split("-")[0]), int(label.split("-")[-1]) + 1)]
    assert ranks == list(range(mesh.size))


def test_fused_shards_are_linked_part_by_part():
    """Cards of a fused tensor are linked by the elements that they share, not by the box around them."""
    halves = Layout(TP, "tp -")
    links = link_cards(QKV, halves, (16, 12))
    assert links.elements.tolist() == [[4 * 12, 4 * 12], [4 * 12, 4 * 12]]
    assert links.sentences()["train:0"].startswith("Training card 0 holds [0:4 + 8:10 + 12:14, 0:12];")
    frames = [
        r for r in rectangles(cutmap_svg(halves, QKV, (16, 12))) if r.attributes.get("class") == "frame"
    ]
    assert len(frames) == 2 * 3 + 1  # three boxes of each card, and the legend's


def test_copies_say_whose():
    """A card that holds what an earlier one holds says so in words."""
    svg = layout_svg(Layout(Mesh(dp=2, tp=2), "- tp"), (4, 6))
    assert [w for w in words(svg) if w.startswith("=")] == ["= card 0", "= card 1"]


def test_small_inference_cards_keep_the_colours_of_their_bytes():
    """A small tile that takes from two slices has a stripe of each, as long as its part."""
    src = Layout(Mesh(tp=128), "tp")
    dst = Layout(Mesh(tp=64), "tp")
    svg = cutmap_svg(src, dst, (256,))
    for card in range(64):
        outline, first, second = rectangles(svg, f"infer:{card}")
        (_, one), (_, other) = (rectangles(svg, f"train:{2 * card + i}") for i in range(2))
        assert (first.attributes["fill"], second.attributes["fill"]) == (
            one.attributes["fill"],
            other.attributes["fill"],
        )
        assert first.height == pytest.approx(outline.height / 2, abs=0.1)
        assert second.height == pytest.approx(outline.height / 2, abs=0.1)


def test_a_lost_card_shows_nothing_of_what_it_held():
    """Its tile says so, in each tensor; the others are as they were; boxes that differ in two dims stand apart."""
    rows = Layout(TP, "tp -")
    strategy = Strategy({"w": rows}, {"w": (4, 6)})
    whole, lost = strategy_svg(strategy), strategy_svg(strategy, lost=[1])
    assert (whole.count(">lost<"), lost.count(">lost<")) == (0, 1)
    held = 'stroke-width=".6"'
    assert lost.count(held) == whole.count(held) - 1
    gone = hold(rows, (4, 6)).without([1])
    assert [gone.describe(row) for row in range(2)] == ["[0:2, 0:6]", "lost"]
    both = Holding(
        (4, 6), ("0",), np.array([[[[0, 2], [0, 3]], [[2, 4], [3, 6]]]]), np.array([0]), np.array([0]), 1
    )
    assert both.describe(0) == "[0:2, 0:3] + [2:4, 3:6]"


def test_a_group_of_a_fused_tensor_keeps_its_parts_apart():
    """Two of four cards hold half of each part, and nothing of what lies between."""
    quarter = Layout(Mesh(tp=4), "tp[8|4|4] -")
    pairs = hold(quarter, (16, 6)).grouped(2)
    assert pairs.cards == ("0-1", "2-3")
    assert [pairs.describe(row) for row in range(2)] == [
        "[0:4 + 8:10 + 12:14, 0:6] in 2 shards",
        "[4:8 + 10:12 + 14:16, 0:6] in 2 shards",
    ]


def test_a_group_shows_the_different_shards_of_its_cards():
    """Two of four cards hold two quarters: both are drawn; two copies are one."""
    four = Mesh(dp=2, tp=4)
    whole = hold(Layout(four, "tp -"), (16, 6))
    pairs = whole.grouped(4)
    assert [pairs.describe(row) for row in range(2)] == ["[0:8, 0:6] in 2 shards", "[8:16, 0:6] in 2 shards"]
    assert [(box.start, box.stop) for box in pairs.boxes_in(1)] == [((8, 0), (12, 6)), ((12, 0), (16, 6))]
    copies = hold(Layout(four, "dp -"), (16, 6)).grouped(4)
    assert [copies.describe(row) for row in range(2)] == ["[0:8, 0:6]", "[0:8, 0:6]"]
    assert len(copies.boxes_in(0)) == 1


def test_rather_fewer_layouts_than_groups_of_a_few_cards():
    """Eight cards that are too many for four layouts are drawn one by one for two."""
    mesh = Mesh(dp=2, tp=4)
    cuts = ["tp -", "- tp", "dp -", "dp tp"]
    strategy = Strategy(
        {f"w{i}": Layout(mesh, cut) for i, cut in enumerate(cuts)}, {f"w{i}": (8, 8) for i in range(4)}
    )
    svg = strategy_svg(strategy, max_cards=16)
    assert [key for key in keys(svg) if key] == [f"w{i}:{card}" for i in range(2) for card in range(8)]
    assert "not drawn: 2 tensors that lie in 2 other ways" in words(svg)


def test_what_is_not_drawn_and_what_is_left_is_said():
    """Kinds of cut beyond those that are drawn, and the copies of the shard of which most were lost."""
    mesh = Mesh(dp=2, tp=2)
    cuts = ["tp -", "- tp", "dp -", "- dp", "dp+tp -", "- -"]
    strategy = Strategy(
        {f"w{i}": Layout(mesh, cut) for i, cut in enumerate(cuts)}, {f"w{i}": (4, 4) for i in range(6)}
    )
    said = words(strategy_svg(strategy))
    assert "not drawn: 2 tensors that lie in 2 other ways" in said
    assert "nothing is cut: each of 4 cards holds all of it" in words(strategy_svg(strategy, max_layouts=6))
    assert not any(text.startswith("not drawn") for text in words(strategy_svg(strategy, max_layouts=6)))
    one = Strategy({"w": strategy["w0"]}, {"w": (4, 4)})
    assert "2 copies of each shard" in words(strategy_svg(one))
    assert "1 of 2 copies left of the shard that lost most" in words(strategy_svg(one, lost=[3]))
    assert "0 of 2 copies left of the shard that lost most" in words(strategy_svg(one, lost=[1, 3]))
