"""What Jupyter is given of a record."""

import base64
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given

from distinfer_lab import display
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.parallel import Communication
from distinfer_lab.parallel.communication import Sent
from distinfer_lab.reshard import plan_reshard
from distinfer_lab.views import Drawing
from tests.strategies import layouts_with_shape

TP = Layout(Mesh(tp=4), "- tp")
RECORDS = {
    "mesh": Mesh(dp=2, tp=4),
    "mesh of no axes": Mesh(),
    "large mesh": Mesh(dp=128, tp=256),
    "layout": TP,
    "layout of no dims": Layout(Mesh(dp=8), ""),
    "uneven layout": Layout(Mesh(tp=3), "tp(0,0,0)"),
    "strategy": Strategy({"w": TP, "b": Layout.replicated(4, 1)}, {"w": (96, 16)}),
    "empty strategy": Strategy({}),
    "large strategy": Strategy({f"layers.{i}.weight": TP for i in range(5000)}),
    "full strategy": Strategy(
        {
            f"{'n' * 60}{i}": Layout(Mesh.from_axes(("a" * 60,), (256,)), ((), ("a" * 60,))[: i % 2 + 1])
            for i in range(4)
        }
        | {f"{'m' * 60}{i}": Layout.replicated(256, i) for i in range(20)}
    ),
    "long names": Strategy({f"{'n' * 400}{i}": Layout.replicated(1024, i % 9) for i in range(200)}),
}


def picture(html):
    """The SVG inside the first image of some HTML."""
    return ET.fromstring(base64.b64decode(html.split("base64,")[1].split('"')[0]))


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_a_record_has_text_and_a_picture_below_50_kb(record):
    """Text is the repr, the start of a long one; HTML is an image with words for those who do not see it."""
    bundle = record._repr_mimebundle_()
    lines = bundle["text/plain"].split("\n")
    assert lines[:60] == [
        line if len(line) <= 400 else line[:399] + "…" for line in repr(record).split("\n")[:60]
    ]
    assert len(lines) <= 61
    assert bundle["text/html"].startswith('<img alt="')
    assert picture(bundle["text/html"]).tag.endswith("svg")
    assert len(bundle["text/html"]) < 50_000


@given(layouts_with_shape())
def test_every_layout_has_a_picture(case):
    """No layout is so odd that its picture fails."""
    layout, _ = case
    assert "text/html" in layout._repr_mimebundle_()


def test_a_failing_view_costs_the_picture_only(monkeypatch):
    """The text stays and says why there is no picture."""

    class Odd(display.Displayed):
        def __repr__(self):
            return "Odd()"

    def broken(record):
        raise RuntimeError("no ink")

    monkeypatch.setitem(display._html, display.public_name(Odd), broken)
    assert Odd()._repr_mimebundle_() == {"text/plain": "Odd()\n(no picture: RuntimeError: no ink)"}


def test_the_nearest_registered_base_draws(monkeypatch):
    """A subclass is drawn as its base is, by name or by class."""

    class Fine(Mesh):
        pass

    monkeypatch.setitem(display._html, "distinfer_lab.layout.Mesh", lambda record: "the base's picture")
    assert Fine(tp=2)._repr_mimebundle_()["text/html"] == "the base's picture"


def test_importing_a_layout_draws_nothing():
    """The views are loaded when something is shown, and neither dask, scipy nor matplotlib even then."""
    code = (
        "import sys, distinfer_lab.layout as l; assert 'distinfer_lab.views' not in sys.modules;"
        "assert 'text/html' in l.Mesh(tp=2)._repr_mimebundle_();"
        "assert not {'dask', 'distributed', 'matplotlib', 'ipywidgets', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_drawing_shows_itself():
    """A still picture is text and HTML."""
    drawing = Drawing('<svg xmlns="http://www.w3.org/2000/svg"/>', 'cards "a" & b')
    assert repr(drawing) == 'cards "a" & b'
    assert 'alt="cards &quot;a&quot; &amp; b"' in drawing._repr_mimebundle_()["text/html"]


def test_who_gives_nothing_is_explained():
    """Two copies on four cards: one is enough; where all give, or hold nothing, there is nothing to say."""
    mesh, shapes = Mesh(dp=2, tp=2), {"w": (4, 4)}
    src = Strategy({"w": Layout(mesh, "tp -")}, shapes)
    dst = Strategy({"w": Layout(Mesh(tp=2), "tp -")}, shapes)
    plan = plan_reshard(src, dst, same_cards=False)
    silent = np.flatnonzero(plan.traffic.sum(axis=1) == 0).tolist()
    assert len(silent) == 2
    html = plan._repr_mimebundle_()["text/html"]
    assert f"cards {silent[0]}, {silent[1]} give nothing: others hold the same" in html
    assert plan.held_bytes.tolist() == [32] * 4
    assert "give nothing" not in plan_reshard(dst, dst, same_cards=False)._repr_mimebundle_()["text/html"]


def test_equal_collectives_are_one_row():
    """Those of two layers, with the calls and bytes of both; those that send most first, and sums by kind."""
    rows = [Sent(f"v{i}", "MatMul", "AllReduce", 2, (48, 40)) for i in range(2)]
    rows.append(Sent("w", "wte", "AllGather", 1, (500, 500)))
    html = Communication(2, tuple(rows))._repr_mimebundle_()["text/html"]
    table = [re.findall("<td>(.*?)</td>", row) for row in re.findall("<tr>(.*?)</tr>", html)]
    assert [row for row in table if row] == [
        ["AllReduce", "4", "176 B"],
        ["AllGather", "1", "1000 B"],
        ["AllGather", "wte", "1", "500 B", "1000 B"],
        ["AllReduce", "MatMul", "4", "24 B", "176 B"],
    ]
