"""Pictures of runs: every span where and as long as it was, every step once, arrows from who reads whom."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinfer_lab.errors import ContextError
from distinfer_lab.trace import KINDS, Span, Trace
from distinfer_lab.views import Step, graph_svg, line_chart, timeline_svg
from tests.views.reading import collisions, elements, keys, numbers, rectangles, spills, words

TIMES = st.floats(0, 100).map(lambda t: round(t, 3))
SPANS = st.builds(
    lambda card, kind, times: Span(card, kind, f"v{card}", *sorted(times)),
    st.integers(0, 5),
    st.sampled_from(KINDS),
    st.tuples(TIMES, TIMES),
)


@given(st.lists(SPANS, max_size=12))
def test_spans_stand_where_they_were_and_never_on_each_other(spans):
    """Starts and lengths are in one scale; spans of a card that overlap lie below each other."""
    trace = Trace(spans)
    svg = timeline_svg(trace, "run")
    assert keys(svg) == [f"card:{c}" for c in range(trace.cards)]
    for card in range(trace.cards):
        outline, *bars = rectangles(svg, f"card:{card}")
        scale = 520 / max(trace.seconds, 1e-12)
        found = [(bar.x - outline.x, bar.width) for bar in bars]
        for span in trace.of_card(card):
            expected = span.start_seconds * scale, max(span.seconds * scale, 0.5)
            found.remove(next(bar for bar in found if bar == pytest.approx(expected, abs=0.12)))
        assert found == []
        for i, bar in enumerate(bars):
            assert not any(bar.overlaps(other) for other in bars[i + 1 :] if min(bar.width, other.width) > 1)
    assert spills(svg) == []


def test_a_long_run_shows_what_a_card_was_mostly_at():
    """Of thousands of spans each moment gets the kind that fills most of it, and the picture says so."""
    spans = [
        s
        for i in range(5000)
        for s in (Span(0, "read", "x", i, i + 0.2), Span(0, "send", "x", i + 0.2, i + 1))
    ]
    svg = timeline_svg(Trace([*spans, Span(0, "wait", "x", 5000, 5200)]))
    assert "very many spans: for each moment what the card was mostly at" in words(svg)
    (send, wait) = rectangles(svg, "card:0")[1:]
    assert send.width / wait.width == pytest.approx(5000 / 200, rel=0.1)
    assert len(svg) < 5000


def test_a_thousand_cards_show_the_last_of_their_neighbours():
    """Above 32 cards the one of a run that was done last is drawn."""
    trace = Trace([Span(c, "compute", "h", 0, 2 + (c % 32 == 5)) for c in range(1024)])
    svg = timeline_svg(trace)
    assert keys(svg) == [f"card:{c}" for c in range(5, 1024, 32)]
    assert "of each 32 neighbours the one that was done last" in words(svg)
    assert len(svg) < 36_000


def test_a_trace_adds_up_what_each_card_did():
    """Seconds by kind, card by card; a card that did nothing has none."""
    trace = Trace([Span(2, "read", "w", 0, 1), Span(0, "wait", "w", 1, 3), Span(2, "read", "v", 1, 1.5)])
    assert trace.totals() == ({"wait": 2.0}, {}, {"read": 1.5})
    assert trace.seconds == 3
    assert [span.card for span in trace.spans] == [0, 2, 2]
    assert repr(trace).splitlines()[2] == "  card 1  nothing"


@pytest.mark.parametrize(
    ("span", "match"),
    [
        (Span(0, "sleep", "w", 0, 1), "kind 'sleep' is not one of read, send"),
        (Span(0, "read", "w", 2, 1), "'w' goes from 2 to 1 s"),
        (Span(9, "read", "w", 0, 1), "a span of card 9 in a trace of 4 cards"),
    ],
)
def test_a_span_that_cannot_be_is_refused(span, match):
    """Unknown kinds, spans that end before they start, and cards that are not there."""
    with pytest.raises(ContextError, match=match):
        Trace([span], cards=4)


def chain(count):
    """Steps one after another, each third one an all-reduce."""
    steps = [Step("v0", "input", ())]
    for i in range(1, count):
        sent = 1024 * i if i % 3 == 0 else None
        steps.append(
            Step(f"v{i}", "AllReduce" if sent else "MatMul", (f"v{i - 1}", f"w{i}"), "rows cut", sent)
        )
    return steps


def test_a_graph_names_its_operators_their_cut_and_what_is_sent():
    """Each step is there once; collectives say their bytes; parameters stand beside their reader."""
    svg = graph_svg(chain(7), "net", params={"w1": "[4, 4] whole"})
    assert keys(svg) == [f"step:v{i}" for i in range(7)]
    said = words(svg)
    assert {"w1 [4, 4] whole", "a card sends at most 3 KiB", "a card sends at most 6 KiB", "rows cut"} <= set(
        said
    )
    assert "2 collectives (orange); in all a card sends at most 9 KiB" in said
    assert spills(svg) == []
    assert collisions(svg) == []


def test_arrows_around_boxes_never_share_a_place():
    """A value that is read much later gets a way of its own at the left: no two ways overlap."""
    steps = [Step(f"v{i}", "Add", tuple(f"v{j}" for j in range(max(i - 3, 0), i))) for i in range(8)]
    ways = []
    for path, _, _, _, _ in elements(graph_svg(steps, "net")):
        n = numbers(path.get("d", ""))
        if path.get("class") == "rule" and "h-" in path.get("d"):
            ways.append((n[0] + n[2], n[1], n[1] + n[3]))
    assert len(ways) == sum(i - 1 - max(i - 3, 0) for i in range(2, 8))
    for i, (x, top, bottom) in enumerate(ways):
        for other_x, other_top, other_bottom in ways[i + 1 :]:
            assert x != other_x or bottom <= other_top or other_bottom <= top


def test_a_long_graph_says_what_follows():
    """Above the limit the first steps are drawn and the rest is counted."""
    svg = graph_svg(chain(500), "net")
    assert len(keys(svg)) == 40
    assert "the first 40 are drawn, 460 more follow" in words(svg)
    assert len(svg) < 36_000


def test_a_chart_has_its_words_and_a_line_for_each_series(tmp_path):
    """Lines differ by more than colour, axes are named, and the figure saves itself."""
    figure = line_chart({"8 cards": [3, 2, 1], "1 card": ([0, 2], [3, 1])}, "Loss", y_label="loss")
    (axes,) = figure.axes
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("Loss", "step", "loss")
    assert [line.get_label() for line in axes.lines] == ["8 cards", "1 card"]
    assert len({(line.get_linestyle(), line.get_marker()) for line in axes.lines}) == 2
    figure.savefig(tmp_path / "loss.svg")
    assert "<svg" in (tmp_path / "loss.svg").read_text()
