"""A mesh is written as Python that makes it, and as the text of commands; other ways to write one are corrected."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinfer_lab.errors import ArgumentTypeError, LayoutError
from distinfer_lab.layout import Layout, Mesh
from distinfer_lab.rules import Rules
from tests.strategies import meshes

NAMES = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        ["self", "in", "ﬁ", "fi", "a b", "größe", "__debug__", "axes", "'", '"', "\ud800", "=", ","]
    ),
)
NAMED = st.lists(st.tuples(NAMES, st.integers(1, 3)), max_size=5, unique_by=lambda axis: axis[0])


@given(NAMED)
def test_a_repr_is_the_constructor(axes):
    """Whatever the axes are called: keywords of Python, quotes, nothing, half a surrogate pair."""
    mesh = Mesh.from_axes((name for name, _ in axes), (size for _, size in axes))
    assert (mesh.axis_names, mesh.axis_sizes) == (tuple(n for n, _ in axes), tuple(s for _, s in axes))
    assert eval(repr(mesh), {"Mesh": Mesh}) == mesh
    assert Mesh(**dict(axes)) == mesh
    assert pickle.loads(pickle.dumps(mesh)) == mesh


@given(NAMED.filter(bool))
def test_a_text_is_read_as_it_was_written(axes):
    """`Mesh.parse` reads what `text` wrote."""
    mesh = Mesh(**dict(axes))
    assert Mesh.parse(mesh.text) == mesh


@given(meshes(), st.data())
def test_names_that_python_knows_are_keywords(mesh, data):
    """The repr is the short form, and spaces in the text mean nothing."""
    axes = ", ".join(f"{n}={s}" for n, s in zip(mesh.axis_names, mesh.axis_sizes, strict=True))
    assert repr(mesh) == f"Mesh({axes})"
    space = st.sampled_from(["", " "])
    assert (
        Mesh.parse("".join(data.draw(space) + c if c in ",=" else c for c in axes.replace(" ", ""))) == mesh
    )


def test_a_name_that_is_no_identifier():
    """It is given and shown in a mapping."""
    mesh = Mesh(**{"a b": 2, "tp": 4})
    assert repr(mesh) == "Mesh(**{'a b': 2, 'tp': 4})"
    assert mesh.text == "'a b'=2,tp=4"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *((t, "is not a mesh: write the axes") for t in ("", "tp", "tp=x", "=4", "tp=4;dp=2", "tp=4,", "4")),
        ("tp=" + "9" * 30, "is not a mesh: write the axes"),
        ("tp=0", "axis 'tp' has size 0; a size is at least 1"),
        ("tp=2,tp=2", "repeat"),
        ("a=9999999,b=9999999", r"at most \d+ are supported"),
    ],
)
def test_a_text_that_is_not_a_mesh(text, words):
    """The message says how one is written."""
    with pytest.raises(LayoutError, match=words):
        Mesh.parse(text)


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (("tp", 4), "Mesh(tp=4)"),
        ((("dp", "tp"), (2, 4)), "Mesh(dp=2, tp=4)"),
        (((2, 4), ("dp", "tp")), "Mesh(dp=2, tp=4)"),
        (([2, 4], ["a b", "tp"]), "Mesh(**{'a b': 2, 'tp': 4})"),
        (("tp=4",), "Mesh.parse('tp=4')"),
        (({"tp": 4},), "Mesh(**{'tp': 4})"),
        ((np.arange(4), ("tp",)), "Mesh(dp=2, tp=4)"),
        ((4,), "Mesh(dp=2, tp=4)"),
        ((None, None), "Mesh(dp=2, tp=4)"),
    ],
)
def test_axes_by_position(given, written):
    """Refused, with what was meant as it is written here."""
    with pytest.raises(ArgumentTypeError) as err:
        Mesh(*given)
    assert str(err.value).endswith(f"; write {written}")


@pytest.mark.parametrize("make", [lambda mesh: Layout(mesh, "tp"), lambda mesh: Rules(mesh, ())])
@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("tp=4", "Mesh.parse('tp=4')"),
        ({"tp": 4}, "Mesh(**{'tp': 4})"),
        (4, "Mesh(dp=2, tp=4)"),
        (None, "Mesh(dp=2, tp=4)"),
    ],
)
def test_what_is_given_for_a_mesh(make, given, written):
    """Refused where a mesh is needed, with the call that makes one of it."""
    with pytest.raises(ArgumentTypeError) as err:
        make(given)
    assert str(err.value) == f"mesh={given!r} is not a Mesh; write {written}"


def test_axes_that_make_no_mesh():
    """A size that is not a whole number, a name that is not text, names and sizes of other numbers."""
    for make, words in [
        (lambda: Mesh(tp=2.5), r"sizes of axes \('tp',\) are \(2.5,\); give integers"),
        (lambda: Mesh.from_axes((3,), (2,)), r"axis names are \(3,\); give text"),
        (lambda: Mesh.from_axes(("a", "b"), (2,)), "2 axis names"),
        (lambda: Mesh.from_axes(("a", "a"), (2, 2)), "repeat"),
    ]:
        with pytest.raises(LayoutError, match=words):
            make()
