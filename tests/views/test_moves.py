"""Pictures of bytes: every number printed, every length in proportion, nothing lost by grouping."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from distinfer_lab.checkpoint import open_checkpoint
from distinfer_lab.display import format_bytes
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy, box_at
from distinfer_lab.views import (
    FILES,
    CardBytes,
    FileBytes,
    bands_svg,
    bars_svg,
    files_of,
    files_svg,
    link_moves,
    memory_svg,
    traffic_svg,
)
from distinfer_lab.views.moves.files import ReadPiece, TensorBytes
from tests.views.reading import elements, keys, numbers, rectangles, spills, words

TRAFFIC = arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 1 << 40))


def test_bars_print_every_number():
    """Each card's bytes stand behind its bar, and runs of cards are summed."""
    assert {"card 1", "1.5 KiB", "2 MiB"} <= set(words(bars_svg([1536, 2 << 20], "bytes of each card")))
    long = words(bars_svg([1] * 256, "bytes"))
    assert "card 252-255" in long
    assert "256 cards in runs of 4, summed" in long


@given(TRAFFIC)
def test_a_matrix_prints_what_crosses_and_its_totals(matrix):
    """A cell holds the bytes from its row's card to its column's, the margins hold the sums."""
    svg = traffic_svg(matrix, "traffic")
    said = [w for w in words(svg) if w.endswith("B")]
    expected = []
    for row in matrix.tolist():
        expected += [format_bytes(n) for n in [*filter(None, row), sum(row)]]
    expected += [format_bytes(n) for n in [*matrix.sum(axis=0).tolist(), int(matrix.sum())]]
    assert said == expected
    moves = [f"move:{i}>{j}" for i, j in np.argwhere(matrix).tolist()]
    assert [k for k in keys(svg) if k.startswith("move")] == moves
    assert spills(svg) == []


def test_a_large_matrix_is_summed_and_says_so():
    """Above 16 a side, neighbours share a cell with the sum of their bytes."""
    svg = traffic_svg(np.ones((64, 4), np.int64), "traffic")
    assert [w for w in words(svg) if w == "4 B"] == ["4 B"] * 64
    assert "64 x 4 cards, neighbours summed" in words(svg)
    assert "train:60-63" in keys(svg)
    assert "move:60-63>3" in keys(svg)


@pytest.mark.parametrize("draw", [traffic_svg, bands_svg])
def test_summed_cards_are_not_said_to_be_others(draw):
    """Where neighbours share a row, what stays cannot be marked; that is no reason to say that nothing does."""
    apart, summed = "inference runs on other cards", "what stays on its card is not marked"
    matrix = np.ones((64, 4), np.int64)
    for placement, said, unsaid in ((None, apart, summed), (range(4), summed, apart)):
        texts = " ".join(words(draw(matrix, "t", placement=placement)))
        assert said in texts
        assert unsaid not in texts


def test_what_stays_on_its_card_is_marked():
    """Bytes of a destination that lives on the card of its source carry a sign and are in no sum, the others are."""
    matrix = np.array([[1, 2], [3, 4]], np.int64)
    assert [w for w in words(traffic_svg(matrix, "t", placement=[1, 0])) if w.endswith("B")] == [
        *("1 B", "= 2 B", "1 B"),
        *("= 3 B", "4 B", "4 B"),
        *("1 B", "4 B", "5 B"),
    ]
    said = words(bands_svg(matrix, "t", placement=[1, 0]))
    assert "white bands with a dashed edge stay on their card" in said
    assert {"card 0 sends 1 B, keeps 2 B", "card 1 sends 4 B, keeps 3 B"} <= set(said)
    assert {"card 0 receives 1 B, keeps 3 B", "card 1 receives 4 B, keeps 2 B"} <= set(said)


@pytest.mark.parametrize("draw", [traffic_svg, bands_svg])
def test_summed_cards_send_what_does_not_stay(draw):
    """Neighbours in one row: their sum is that of what leaves its card, also within the run."""
    rng = np.random.default_rng(5)
    matrix, place = rng.integers(1, 1000, (40, 36)), rng.permutation(40)[:36].tolist()
    moved = matrix.copy()
    moved[place, range(36)] = 0
    said = " ".join(words(draw(matrix, "t", placement=place)))
    row_size = 3 if draw is traffic_svg else 4  # at most 16 rows, or 12 cards a side
    for start in range(0, 40, row_size):
        assert format_bytes(int(moved[start : start + row_size].sum())) in said
    for start in range(0, 36, 3):
        assert format_bytes(int(moved[:, start : start + 3].sum())) in said


def test_thin_bands_are_counted_and_have_their_cards_colour():
    """What has no room for a number is told by its sum; what is thinner than an edge is drawn without one."""
    svg = bands_svg(np.array([[10_000, 3], [2, 10_000]], np.int64), "t")
    assert "2 bands are too thin for a number: 5 B in all" in words(svg)
    edges = {
        key: (path.get("stroke"), path.get("fill"))
        for path, _, _, _, key in elements(svg)
        if key and key.startswith("move") and path.get("d")
    }
    assert edges["move:0>1"][0] == edges["move:0>1"][1]
    assert edges["move:0>0"][0] == "#444"


def test_what_is_nothing_has_no_bar():
    """A bar for each number but 0, in bars and in the memory of cards."""
    assert len(rectangles(bars_svg([5, 0, 1], "t"))) == 2
    none, some = (rectangles(memory_svg([CardBytes(0, n, 7, 7)], "t"), "card:0") for n in (0, 7))
    assert len(none) == len(some) - 1


def test_what_several_ranks_read_is_told():
    """The grey bytes once and as each reads them, and who reads together: 100 and 60 bytes by two, 40 by one."""
    pieces = (
        ReadPiece((0, 1), 0.0, 0.5, 0.0, 1.0),
        ReadPiece((2, 3), 0.5, 0.8, 0.0, 1.0),
        ReadPiece((4,), 0.8, 1.0, 0.0, 1.0),
    )
    said = words(files_svg([FileBytes("a.ckpt", (TensorBytes("w", 200, pieces),))], "files"))
    assert "grey: 160 B that several ranks read; all they read of it comes to 320 B" in said
    assert "a grey part is read by the ranks 0, 1 | 2, 3" in said


def test_files_are_called_by_their_names():
    """In the rows of a matrix; what each rank reads is what is counted."""
    said = words(traffic_svg(np.array([[3, 4]], np.int64), "t", sides=FILES, names=["rank_0/w.ckpt"]))
    assert {"rank_0/w.ckpt", "gives", "gets", "7 B"} <= set(said)
    assert "what several ranks read counts for each of them" in said


@given(TRAFFIC)
def test_a_band_is_as_wide_as_its_bytes_are_many(matrix):
    """The widths of all bands are in one proportion to their bytes, at both ends, and none is missing."""
    svg = bands_svg(matrix, "traffic")
    bands = {
        key: numbers(path.get("d"))
        for path, _, _, _, key in elements(svg)
        if key and key.startswith("move") and path.get("d")
    }
    assert list(bands) == [f"move:{i}>{j}" for i, j in np.argwhere(matrix).tolist()]
    scale = min(240, 60 * max(matrix.shape)) / max(int(matrix.sum()), 1)
    for (i, j), n in zip(np.argwhere(matrix), bands.values(), strict=True):
        left, right = n[16] - n[1], n[10] - n[8]
        assert left == pytest.approx(matrix[i, j] * scale, abs=0.02)
        assert right == pytest.approx(matrix[i, j] * scale, abs=0.02)
    assert spills(svg) == []


@given(TRAFFIC)
def test_bands_leave_a_card_below_each_other_and_inside_it(matrix):
    """At a card's edge no two bands overlap, and none leaves the card."""
    found = {}
    for path, _, _, _, key in elements(bands_svg(matrix, "traffic")):
        if path.get("d") and key:
            found.setdefault(key, numbers(path.get("d")))
    for i, row in enumerate(matrix):
        _, edge, _, height, *_ = found[f"train:{i}"]
        bottom = edge + height
        for j in np.flatnonzero(row):
            band = found[f"move:{i}>{j}"]
            # Lengths have one decimal: two of them, added, may be 0.1 off.
            assert band[1] >= edge - 0.11
            assert band[16] <= bottom + 0.11
            edge = band[16]


def test_memory_shows_before_peak_and_after_in_one_scale():
    """Three bars a card, in proportion; the limit is a line, and who goes over it is told."""
    cards = [CardBytes(0, 100, 400, 200), CardBytes(1, 50, 300, 100)]
    svg = memory_svg(cards, "memory", limit=350)
    for card in cards:
        row, before, peak, after = rectangles(svg, f"card:{card.card}")
        assert row.x <= before.x
        assert row.width > 2 * peak.width  # the whole row, with its numbers, is what is hovered
        assert before.width == pytest.approx(peak.width * card.before / card.peak, abs=0.1)
        assert after.width == pytest.approx(peak.width * card.after / card.peak, abs=0.1)
    assert {"400 B", "over!", "dashed line: the limit, 350 B; 1 of 2 cards go over it"} <= set(words(svg))
    (limit,) = [p for p, _, _, a, _ in elements(svg) if a.get("stroke") == "#d55e00"]
    peak = rectangles(svg, "card:0")[2]
    at = peak.x + peak.width * 350 / 400
    assert numbers(limit.get("d"))[0] + 12 == pytest.approx(at, abs=0.2)


def test_a_card_that_tells_nothing_is_unknown():
    """Question marks and no bars, but for what it had before."""
    svg = memory_svg([CardBytes(0, 100, 400, 200), CardBytes(1, 50, None, None)], "memory", limit=350)
    assert len(rectangles(svg, "card:1")) == 2
    assert words(svg).count("?") == 2
    assert spills(svg) == []


def test_memory_of_a_thousand_cards_shows_the_worst():
    """Above 32 cards the one with the highest peak stands for its neighbours."""
    cards = [CardBytes(i, 0, 1000 + (i % 32 == 7), 0) for i in range(1024)]
    svg = memory_svg(cards, "memory")
    assert keys(svg) == [f"card:{i}" for i in range(7, 1024, 32)]
    assert "1,024 cards; of each 32 neighbours the one that needs most" in words(svg)
    assert spills(svg) == []


@given(TRAFFIC, st.integers(1, 8))
def test_links_of_moves_are_those_of_the_matrix(matrix, limit):
    """Heads and moves belong together where bytes go, counted cell by cell, for groups as they are drawn."""
    links = link_moves(matrix, max_cells=limit)
    svg = traffic_svg(matrix, "t", max_cells=limit)
    assert sorted(links.partners()) == sorted(links.sentences()) == sorted(keys(svg))
    row_size, column_size = (-(-n // limit) for n in matrix.shape)
    for i, row in enumerate(matrix):
        for j, nbytes in enumerate(row):
            give, get = links.src[i // row_size], links.dst[j // column_size]
            if nbytes:
                assert f"infer:{get}" in links.partners()[f"train:{give}"]
                assert links.partners()[f"move:{give}>{get}"] == (f"train:{give}", f"infer:{get}")
    for key, partners in links.partners().items():
        assert all(key in links.partners()[partner] for partner in partners)


@given(TRAFFIC, st.data(), st.integers(1, 8))
def test_a_window_shows_a_part_under_its_own_names(matrix, data, limit):
    """Bytes as of the part alone, card by card or summed; the cards keep their numbers."""
    window = []
    for count in matrix.shape:
        first = data.draw(st.integers(0, count - 1))
        window.append(range(first, data.draw(st.integers(first + 1, count))))
    part = matrix[window[0].start : window[0].stop, window[1].start : window[1].stop]
    found = link_moves(matrix, max_cells=limit, window=tuple(window))
    alone = link_moves(part, max_cells=limit)
    np.testing.assert_array_equal(found.cells, alone.cells)
    for names, cards in ((found.src, window[0]), (found.dst, window[1])):
        assert names[0].split("-")[0] == str(cards.start)
        assert names[-1].split("-")[-1] == str(cards.stop - 1)
    for draw, most in ((traffic_svg, "max_cells"), (bands_svg, "max_cards")):
        svg = draw(matrix, "t", window=tuple(window), **{most: limit})
        assert sorted(keys(svg)) == sorted(found.sentences())


def test_a_move_says_its_bytes_and_its_ends():
    """Sentences name the most first, and who has none."""
    sentences = link_moves(np.array([[1024, 2048], [0, 0]])).sentences()
    assert sentences["train:0"] == "Card 0 gives 3 KiB: to 1 (2 KiB), 0 (1 KiB)."
    assert sentences["train:1"] == "Card 1 gives nothing."
    assert sentences["move:0>1"] == "2 KiB from card 0 to card 1."
    kept = link_moves(np.array([[1024, 2048], [0, 512]]), placement=[0, 1]).sentences()
    assert kept["train:0"] == "Card 0 gives 3 KiB: to 1 (2 KiB), 0 (1 KiB). 1 KiB of it stays where it is."
    assert kept["infer:1"] == "Card 1 gets 2.5 KiB: from 0 (2 KiB), 1 (512 B). 512 B of it stays where it is."


@pytest.fixture(scope="module")
def sliced(tmp_path_factory):
    """A checkpoint of four ranks: one tensor cut by columns, one by rows and columns, one whole."""
    folder = tmp_path_factory.mktemp("sliced")
    mesh = Mesh(a=2, b=2)
    strategy = Strategy(
        {"w": Layout(mesh, "- b"), "v": Layout(mesh, "a b"), "n": Layout(mesh, "-")},
        {"w": (8, 8), "v": (8, 12), "n": (5,)},
    )
    whole = {
        name: np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        for name, shape in strategy.shapes.items()
    }
    for rank in range(4):
        entries = {name: box_at(strategy.boxes(name), rank).of(whole[name]).copy() for name in strategy}
        (folder / f"rank_{rank}").mkdir()
        save_slice(folder / f"rank_{rank}" / "net.ckpt", entries)
    with open_checkpoint([folder / f"rank_{r}" / "net.ckpt" for r in range(4)], strategy) as checkpoint:
        yield checkpoint


def read_elements(plan, file, name):
    """For every element of a file's tensor the destination ranks that read it, by brute force."""
    tensor = plan.plan[name]
    box = box_at(plan.checkpoint.tensors[name].layout.boxes(tensor.shape), file)
    out = {index: set() for index in np.ndindex(*box.shape)}
    for row in np.flatnonzero(tensor.pieces.src_rank == file):
        piece = box_at(tensor.pieces.boxes, row).within(box)
        for index in np.ndindex(*piece.shape):
            out[tuple(np.add(index, piece.start))].add(int(tensor.pieces.dst_rank[row]))
    return out


@pytest.mark.parametrize("dims", [((), ("t",)), (("t",), ())], ids=["columns", "rows"])
def test_what_is_drawn_of_a_file_is_what_is_read_of_it(sliced, dims):
    """The part of a file's tensor that a set of ranks reads has the place and the area of its bytes."""
    tp = Mesh(t=4)
    dst = Strategy({"w": Layout(tp, dims), "v": Layout(tp, dims), "n": Layout.replicated(4, 1)})
    plan = sliced.plan(dst)
    for rank, file in enumerate(files_of(plan)):
        assert {t.name for t in file.tensors} == {"w", "v", "n"}
        for tensor in file.tensors:
            elements_read = read_elements(plan, rank, tensor.name)
            shape = plan.checkpoint.files[rank].entries[tensor.name].shape
            for index, readers in elements_read.items():
                at = (index[0] + 0.5) / shape[0]
                down = (index[1] + 0.5) / shape[1] if len(shape) > 1 else 0.5
                drawn = [p for p in tensor.pieces if p.start < at < p.stop and p.upper < down < p.lower]
                assert [set(p.readers) for p in drawn] == ([readers] if readers else [])
        nbytes = sum(
            4 * sum(bool(readers) for readers in read_elements(plan, rank, t.name).values())
            for t in file.tensors
        )
        assert file.read_bytes == nbytes


def test_files_are_drawn_with_areas_of_their_bytes(sliced):
    """Areas of what is read stand in one proportion to bytes; a file that nobody reads is striped."""
    plan = sliced.plan(Strategy({n: Layout.replicated(1, len(s.shape)) for n, s in sliced.tensors.items()}))
    files = files_of(plan)
    svg = files_svg(files, "files")
    assert keys(svg) == [f"file:{i}" for i in range(4)]
    for i, file in enumerate(files):
        bar, *parts = rectangles(svg, f"file:{i}")
        assert "url(#" in bar.attributes["fill"]
        assert sum(p.area for p in parts) / bar.area == pytest.approx(file.read_bytes / file.nbytes, abs=0.02)
        assert not any(a.overlaps(b) for k, a in enumerate(parts) for b in parts[k + 1 :])
    assert f"{format_bytes(files[0].read_bytes)} of {format_bytes(files[0].nbytes)} are read" in words(svg)
    assert spills(svg) == []


def test_a_plan_of_very_many_tensors_is_drawn_by_destination(sliced, monkeypatch):
    """Above the limit a file is one bar, cut by who reads how much of it."""
    monkeypatch.setattr("distinfer_lab.views.moves.files.MAX_TENSORS", 2)
    plan = sliced.plan(Strategy({n: Layout.replicated(2, len(s.shape)) for n, s in sliced.tensors.items()}))
    (tensor,) = files_of(plan)[0].tensors
    shares = {piece.readers: piece.share for piece in tensor.pieces}
    expected = plan.plan.traffic[0] / plan.plan.traffic[0].sum()
    assert shares == {(rank,): pytest.approx(share) for rank, share in enumerate(expected) if share}
    svg = files_svg(files_of(plan), "files")
    assert any("bytes are put in order of who reads them" in line for line in words(svg))


def test_tensors_too_small_to_be_seen_are_drawn_together():
    """And the picture says so; large ones stay by themselves."""
    whole = (ReadPiece((0,), 0.0, 1.0, 0.0, 1.0),)
    small = tuple(TensorBytes(f"t{i}", 100, whole) for i in range(60))
    for tensors, parts in ((small, 20), (small[:6], 6)):
        svg = files_svg([FileBytes("a.ckpt", tensors)], "files")
        assert len(rectangles(svg, "file:0")) == 1 + parts
        assert any("drawn together" in line for line in words(svg)) == (parts < len(tensors))


def test_parts_without_room_for_a_number_are_put_in_order_of_who_reads_them():
    """Columns for eight ranks would be stripes of 4 pixels; in order, each rank has one part, with its number."""
    stripes = tuple(ReadPiece((rank,), 0.0, 1.0, rank / 8, (rank + 1) / 8) for rank in range(8))
    tensors = tuple(TensorBytes(f"t{i}", 800, stripes) for i in range(30))
    svg = files_svg([FileBytes("a.ckpt", tensors)], "files")
    bar, *parts = rectangles(svg, "file:0")
    assert [part.area / bar.area for part in parts] == pytest.approx([1 / 8] * 8, abs=0.001)
    assert words(svg).count("7") == 2  # in the bar, and among the colours
    assert any("bytes are put in order of who reads them" in line for line in words(svg))


def test_files_are_called_files_in_every_picture():
    """Matrix, bands and sentences of a plan between files; of cards that are not the same nothing is said."""
    matrix = np.array([[1024, 2048], [0, 512]])
    for svg in (traffic_svg(matrix, "w", sides=FILES), bands_svg(matrix, "w", sides=FILES)):
        assert "card" not in " ".join(words(svg))
    sentences = link_moves(matrix, sides=FILES).sentences()
    assert sentences["train:1"] == "File 1 gives 512 B: to 1 (512 B)."
    assert sentences["infer:0"] == "Rank 0 gets 1 KiB: from 0 (1 KiB)."
    assert sentences["move:0>1"] == "2 KiB from file 0 to rank 1."
