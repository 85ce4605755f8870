"""Names of tensors, axes and folders that somebody else chose: in texts, pictures, panels and generated code."""

import ast
import base64
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import ipywidgets
import numpy as np
import pytest

from distinfer_lab.checkpoint import open_checkpoint, verify_folder
from distinfer_lab.display import show
from distinfer_lab.errors import LayoutError
from distinfer_lab.flow.session import Session
from distinfer_lab.flow.session_code import opening, setting, writing
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.reshard import Draft
from distinfer_lab.views.drawing.svg import DARK
from distinfer_lab.widgets import LayoutEditor, LayoutView, PlanView, RunPanel

HOSTILE = {
    "orders": "\x1b[2J\x1b]0;x\x07\x9b31m\x00\x7f",
    "direction": "\u202egnp.w\u2066",
    "lines": "a\n  b  [8, 8] float32\r\u2028c\x0b",
    "markup": "<script>evil()</script>\"'><img src=x onerror=evil()>&amp;]]>",
    "code": '\'); evil(); (\'"""\\\n);evil()#',
    "nonprinting": "\ufeff\ufffe\u200b\U000e0041",
}
TAGS = {"script", "iframe", "object", "embed", "link", "style"}


class Tags(HTMLParser):
    """Fails at an element or an attribute that runs something."""

    def handle_starttag(self, tag, attrs):
        assert tag not in TAGS
        assert not any(name.startswith("on") for name, _ in attrs)


def check_html(html):
    """Nothing in it runs, nothing is there that XML forbids, and each picture is well-formed."""
    parser = Tags()
    parser.feed(html)
    parser.close()
    check_text(re.sub(r"[\n\t]", "", html))
    for data in re.findall(r"data:image/svg\+xml;base64,([^\"]*)", html):
        svg = base64.b64decode(data).decode()
        # The style of a still is a constant, which no name is in; without it the picture has none.
        check_svg(svg.replace(f"<style>{DARK}</style>", "", 1))


def check_svg(svg):
    tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(svg.encode()).iter()}
    assert not tags & TAGS


def check_text(text):
    assert all(line.isprintable() for line in text.split("\n"))


def check_code(lines):
    """It can be parsed, and runs nothing that a name says."""
    tree = ast.parse("\n".join(lines))
    assert "evil" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def check_widget(widget):
    """All that a panel sends to the page as HTML or SVG."""
    if isinstance(widget, ipywidgets.HTML):
        check_html(widget.value)
    if isinstance(getattr(widget, "svg", None), str) and widget.svg:
        check_svg(widget.svg)
    for option in getattr(widget, "_options_labels", ()):
        assert option.isprintable()
    for child in getattr(widget, "children", ()):
        check_widget(child)


@pytest.fixture(params=HOSTILE.values(), ids=HOSTILE.keys())
def name(request):
    return request.param


@pytest.fixture
def folder(tmp_path, name):
    """A folder of such a name with a checkpoint of such tensors."""
    out = tmp_path / name.replace("/", "").replace("\0", "")
    save_slice(
        out / "rank_0" / "one.ckpt", {name: np.ones((8, 8), np.float32), f"note{name}": name}, sync=False
    )
    return out


@pytest.fixture
def strategy(name):
    return Strategy({name: Layout(Mesh.from_axes((name, "tp"), (1, 2)), ((name, "tp"), ()))}, {name: (8, 8)})


def test_texts_and_pictures(folder, strategy):
    """Of a checkpoint, a plan, its explanation, its result and the verification of that."""
    with open_checkpoint(folder) as checkpoint:
        plan = checkpoint.plan(strategy)
        result = plan.write(folder.with_name(f"{folder.name}.out"))
        records = [
            checkpoint,
            checkpoint.files[0],
            plan,
            plan.explain(),
            result,
            verify_folder(result.folder),
        ]
        for record in [*records, strategy, strategy[next(iter(strategy))], Draft.like(strategy)]:
            check_text(repr(record))
            shown = show(record)
            assert "no picture" not in shown["text/plain"]
            check_text(shown["text/plain"])
            check_html(shown["text/html"])


def test_panels(folder, strategy):
    """What they send to the page, whatever is chosen."""
    name = next(iter(strategy))
    with open_checkpoint(folder) as checkpoint:
        plan = checkpoint.plan(strategy)
        editor = LayoutEditor(checkpoint)
        editor.parameter = name
        view, layouts = PlanView(plan), LayoutView(strategy, strategy)
        view.parameter = layouts.parameter = name
        for panel in (editor, view, layouts, RunPanel(plan, folder.with_name("out"))):
            check_widget(panel)
            check_html(show(panel.static)["text/html"])
            check_text(repr(panel))
            panel.close()


def test_generated_code(folder, strategy):
    """Of the layout editor in each notation, and of a session's steps."""
    with open_checkpoint(folder) as checkpoint:
        editor = LayoutEditor(checkpoint)
        editor.draft = Draft.like(strategy)
        for dialect in ("MindSpore", "JAX", "torch", "distinfer_lab"):
            editor.dialect.value = dialect
            check_code([editor.code.value])
        editor.close()
    check_code(opening(folder, strategy, {"file": folder.name}))
    check_code(setting(strategy, False))
    check_code(writing(folder, on_cards=True, overwrite=True))
    session = Session()
    session.open(folder)
    check_code([session.code()])


def test_errors(name, strategy):
    """A refusal that names such a tensor."""
    with pytest.raises(LayoutError) as caught:
        strategy.boxes(name, (7, 7))
    check_text(str(caught.value))
