"""The layout editor as Python sees it: edits, undo, costs, reasons, code; against plans made by hand."""

import numpy as np
import pytest

from distinfer_lab.checkpoint import open_checkpoint
from distinfer_lab.errors import LayoutError, ReshardError
from distinfer_lab.formats import save_slice
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.layout.dialects.mindspore import layout_tuple, strategy_from_tuples
from distinfer_lab.reshard import Draft, plan_reshard
from distinfer_lab.widgets import LayoutEditor

GRID = Mesh(dp=2, tp=4)
SHAPES = {"a.weight": (96, 16), "b.weight": (32, 64), "bias": (16,), "scale": ()}
SRC = Strategy(
    {
        "a.weight": Layout(GRID, "- tp"),
        "b.weight": Layout(GRID, "dp tp"),
        "bias": Layout(GRID, "-"),
        "scale": Layout(GRID, ""),
    },
    SHAPES,
)


@pytest.fixture
def editor():
    return LayoutEditor(SRC)


def test_it_begins_as_the_source_lies(editor):
    """Nothing would move; the fields say what is there."""
    assert editor.strategy == SRC
    assert editor.assessment.plan.moved_bytes == 0
    assert editor.mesh.value == "dp=2,tp=4"
    assert [(box.description, box.value) for box in editor.dims.children] == [
        ("dim 0 (96)", ()),
        ("dim 1 (16)", ("tp",)),
    ]
    assert (editor.back.disabled, editor.again.disabled) == (True, True)


def test_choosing_in_the_page_makes_the_strategy(editor):
    """A mesh, one tensor's dims, and a pattern's; the costs are those of a plan made by hand."""
    editor.mesh.value = "tp=2"
    editor.choice.listed.value = "b.weight"
    assert editor.match.value == "b.weight"
    first, second = editor.dims.children
    second.value = ()
    first.value = ("tp",)
    assert editor.dims.children == (first, second)
    assert editor.meant.value == ""
    editor.match.value = "*"
    assert "2 tensors with 2 dims; of the cuts that fit a tensor the last one counts" in editor.meant.value
    editor.match.value = "*.weight"
    editor.dims.children[0].value = ()
    editor.dims.children[1].value = ("tp",)
    two = Mesh(tp=2)
    columns = Layout(two, "- tp")
    expected = {
        "a.weight": columns,
        "b.weight": columns,
        "bias": Layout(two, "-"),
        "scale": Layout(two, ""),
    }
    assert dict(editor.strategy) == expected
    plan = plan_reshard(SRC, Strategy(expected))
    assert editor.assessment.plan.moved_bytes == plan.moved_bytes > 0
    assert "8 -&gt; 2 cards; where rank r stays on card r: moved " in editor.summary.value
    assert editor.choice.listed.options[1] == ("b.weight  [32, 64]  - tp", "b.weight")


def test_every_change_can_be_undone_and_made_again(editor):
    """One by one, back to the beginning; a new change forgets what was undone."""
    drafts = [editor.draft]
    for change in (
        lambda: editor.on("tp=4"),
        lambda: setattr(editor.dims.children[0], "value", ("tp",)),
        lambda: setattr(editor.dims.children[1], "value", ()),
        lambda: setattr(editor, "draft", Draft(Mesh(x=2))),
    ):
        change()
        assert editor.draft != drafts[-1]
        drafts.append(editor.draft)
    for draft in drafts[-2::-1]:
        editor.back.click()
        assert editor.draft == draft
    editor.undo()
    assert (editor.draft, editor.back.disabled) == (drafts[0], True)
    for draft in drafts[1:]:
        editor.again.click()
        assert editor.draft == draft
    editor.undo()
    editor.on("tp=1")
    assert editor.again.disabled
    assert editor.mesh.value == "tp=1"


def test_a_sharding_is_written_as_text(editor):
    """Whatever the notation says: uneven, fused, optimizer shards. The boxes follow, and change only the axes."""
    editor.on("dp=2,tp=4")
    assert editor.sharding.value == "- tp"
    editor.sharding.value = "  tp/2 -"
    assert editor.strategy["a.weight"] == Layout(Mesh(dp=2, tp=4), "tp/2 -")
    assert editor.sharding.value == "tp/2 -"
    assert [box.value for box in editor.dims.children] == [("tp",), ()]
    editor.dims.children[0].value = ()
    assert editor.strategy["a.weight"] == Layout(Mesh(dp=2, tp=4), "-/2 -")
    editor.sharding.value = "tp -/2"
    assert "optimizer shards are of dim 0" in editor.errors.value
    assert editor.strategy["a.weight"] == Layout(Mesh(dp=2, tp=4), "-/2 -")
    editor.cut("a.weight", "- tp[8|8]")
    assert editor.strategy["a.weight"].fused
    assert editor.picture.layout.display == "none"
    editor.undo()
    assert editor.sharding.value == "-/2 -"


def test_a_cut_is_forgotten(editor):
    """Its tensor is whole again; where there is no cut of that name there is nothing to forget."""
    assert not editor.forget.disabled
    editor.forget.click()
    assert editor.strategy["a.weight"] == Layout(GRID, "- -")
    assert editor.forget.disabled


def test_the_fields_show_the_cut_that_counts(editor):
    """A pattern that was given after a name's own cut: its axes are shown and told; a choice counts again."""
    editor.on("cols=4").cut("*.weight", "- cols")
    assert editor.match.value == "a.weight"
    assert [box.value for box in editor.dims.children] == [(), ("cols",)]
    assert "follows the pattern *.weight" in editor.meant.value
    assert editor.forget.disabled
    editor.dims.children[0].value, editor.dims.children[1].value = ("cols",), ()
    assert editor.meant.value == ""
    assert not editor.forget.disabled
    assert editor.strategy["a.weight"].dims == (("cols",), ())
    editor.forget.click()
    assert [box.value for box in editor.dims.children] == [(), ("cols",)]


def test_every_reason_why_not_is_shown(editor):
    """The tensors are marked in the list, the strategy is refused with all reasons, the picture hides."""
    editor.on("dp=2,tp=5")
    assert list(editor.assessment.problems) == ["a.weight", "b.weight"]
    assert "dim 1 (cut by tp) has 16 elements, which 5 parts cannot share evenly" in editor.reasons.value
    assert editor.choice.listed.options[0][0].startswith("✗ a.weight")
    assert editor.picture.layout.display == "none"
    assert repr(editor) == "LayoutEditor(4 tensors on Mesh(dp=2, tp=5), cannot be: 2 reasons)"
    with pytest.raises(LayoutError, match=r"a\.weight: .*16 elements(.|\n)*b\.weight: .*64 elements"):
        _ = editor.strategy
    assert editor.code.value.startswith("# It cannot be:\n# a.weight: ")
    editor.undo()
    assert (editor.reasons.value, editor.picture.layout.display) == ("", None)


def test_axes_that_are_gone_are_shown_as_such(editor):
    """After another mesh a cut keeps its axes, and says that they are not there."""
    editor.on("x=2")
    assert editor.dims.children[1].label == "tp (not in this mesh)"
    editor.dims.children[1].value = ("x",)
    assert list(editor.assessment.problems) == ["b.weight"]


def test_a_mesh_that_is_none_is_told_and_changes_nothing(editor):
    """In words, with how to write one; the field may then be mended."""
    before = editor.draft
    editor.mesh.value = "tp=four"
    assert "&#x27;tp=four&#x27; is not a mesh" in editor.errors.value
    assert editor.draft == before
    editor.mesh.value = "tp=20000"
    assert "has 20,000 cards; the editor takes up to 16,384" in editor.errors.value
    assert editor.draft == before
    editor.mesh.value = "tp=4"
    assert (editor.errors.value, editor.draft.mesh) == ("", Mesh(tp=4))


def test_a_name_that_nothing_has(editor):
    """There is nothing to choose then, and it says so."""
    editor.match.value = "nothing.*"
    assert "no tensor is called" in editor.dims.children[0].value
    editor.on("tp=2")
    assert editor.match.value == editor.parameter
    editor.parameter = "scale"
    assert "no dims to cut" in editor.dims.children[0].value


def test_a_limit_is_a_reason():
    """Cards that would need more are named; more cards help."""
    editor = LayoutEditor(SRC, buffer=4096, card_memory="16 KiB")
    editor.on("tp=1").cut("*.weight", "- -")
    assert list(editor.assessment.problems) == ["card 0"]
    assert "above the limit of 16384" in editor.reasons.value
    assert "moved" in editor.summary.value
    editor.on("tp=4").cut("*.weight", "- tp")
    assert editor.assessment.problems == {}


def test_it_is_said_as_code(editor):
    """MindSpore's tuples and our own give the strategy back; JAX's and torch's name the mesh."""
    found = {}
    exec(editor.text("MindSpore"), found)
    assert {
        n: la.boxes(SHAPES[n]).tolist() for n, la in strategy_from_tuples(found["predict_strategy"]).items()
    } == {n: la.boxes(SHAPES[n]).tolist() for n, la in SRC.items()}
    editor.dialect.value = "JAX"
    assert "'b.weight': NamedSharding(mesh, P('dp', 'tp'))" in editor.code.value
    editor.dialect.value = "torch"
    assert "'b.weight': (mesh, [Shard(0), Shard(1)])" in editor.code.value
    exec(editor.text("distinfer_lab"), found)
    assert found["strategy"] == SRC
    with pytest.raises(LayoutError, match="dialect='TF' is not one of MindSpore, JAX, torch"):
        editor.text("TF")


def test_a_checkpoint_is_a_source(tmp_path):
    """Its dtypes count; its bytes are on no card yet, so all are brought."""
    for rank in range(2):
        save_slice(tmp_path / f"rank_{rank}/a.ckpt", {"w": np.ones((4, 8), np.float16)}, sync=False)
    rows = Layout(Mesh(tp=2), "tp -")
    with open_checkpoint(tmp_path, Strategy({"w": rows})) as checkpoint:
        editor = LayoutEditor(checkpoint, buffer=1000)
        assert editor.strategy["w"] == rows
        assert editor.assessment.plan.moved_bytes == 8 * 8 * 2
        assert editor.assessment.peak_bytes == (64 + 1000,) * 2


def test_mindspore_tuples_are_a_source():
    """As `infer_predict_layout` gives them."""
    editor = LayoutEditor({"w": layout_tuple(Layout(GRID, "- tp"), (96, 16))})
    assert editor.mesh.value == "a=2,b=4"


def test_words_and_picture_are_the_same_each_time():
    """Text without an address; the shown tensor before and after as a still picture."""
    data = [LayoutEditor(SRC)._repr_mimebundle_()[0] for _ in range(2)]
    assert (
        data[0]["text/plain"]
        == data[1]["text/plain"]
        == ("LayoutEditor(4 tensors on Mesh(dp=2, tp=4), moved 0 B, peak 32 MiB a card)")
    )
    assert data[0]["text/html"] == data[1]["text/html"]


def test_what_cannot_be_edited_is_refused():
    """No tensors, no shapes, a buffer that is not a valid size."""
    with pytest.raises(LayoutError, match="the source has no tensors"):
        LayoutEditor(Strategy({}))
    with pytest.raises(LayoutError, match="w: the strategy does not know its shape"):
        LayoutEditor(Strategy({"w": Layout(GRID, "-")}))
    with pytest.raises(ReshardError, match="buffer='much' is not a valid size"):
        LayoutEditor(SRC, buffer="much")
