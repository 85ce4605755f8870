"""Pictures of bytes: every number printed, every length in proportion, nothing lost by grouping."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from distinfer_lab.display import bytes_in_words
from distinfer_lab.views import CardBytes, bands_svg, bars_svg, memory_svg, traffic_svg
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
        expected += [bytes_in_words(n) for n in [*filter(None, row), sum(row)]]
    expected += [bytes_in_words(n) for n in [*matrix.sum(axis=0).tolist(), int(matrix.sum())]]
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


def test_what_stays_on_its_card_is_marked():
    """Bytes of a destination that lives on the card of its source carry a sign, the others none."""
    matrix = np.array([[1, 2], [3, 4]], np.int64)
    assert [w for w in words(traffic_svg(matrix, "t", placement=[1, 0])) if w.endswith("B")][:6] == [
        *("1 B", "= 2 B", "3 B"),
        *("= 3 B", "4 B", "7 B"),
    ]
    assert "striped bands stay on their card" in words(bands_svg(matrix, "t", placement=[1, 0]))


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
        left, right = n[-1] - n[1], n[9] - n[7]
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
            assert band[1] >= edge - 0.1
            assert band[-1] <= bottom + 0.1
            edge = band[-1]


def test_memory_shows_before_peak_and_after_in_one_scale():
    """Three bars a card, in proportion; the limit is a line, and who goes over it is told."""
    cards = [CardBytes(0, 100, 400, 200), CardBytes(1, 50, 300, 100)]
    svg = memory_svg(cards, "memory", limit=350)
    for card in cards:
        before, peak, after = rectangles(svg, f"card:{card.card}")
        assert before.width == pytest.approx(peak.width * card.before / card.peak, abs=0.1)
        assert after.width == pytest.approx(peak.width * card.after / card.peak, abs=0.1)
    assert {"400 B", "over!", "dashed line: the limit, 350 B; 1 of 2 cards go over it"} <= set(words(svg))
    (limit,) = [p for p, _, _, a, _ in elements(svg) if a.get("stroke") == "#d55e00"]
    peak = rectangles(svg, "card:0")[1]
    at = peak.x + peak.width * 350 / 400
    assert numbers(limit.get("d"))[0] + 12 == pytest.approx(at, abs=0.2)


def test_memory_of_a_thousand_cards_shows_the_worst():
    """Above 32 cards the one with the highest peak stands for its neighbours."""
    cards = [CardBytes(i, 0, 1000 + (i % 32 == 7), 0) for i in range(1024)]
    svg = memory_svg(cards, "memory")
    assert keys(svg) == [f"card:{i}" for i in range(7, 1024, 32)]
    assert "1,024 cards; of each 32 neighbours the one that needs most" in words(svg)
    assert spills(svg) == []
