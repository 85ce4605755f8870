"""JAX's notation, there and back, against a plain reading of what a PartitionSpec means."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinfer_lab.errors import ArgumentTypeError, LayoutError
from distinfer_lab.layout import Layout, Mesh, Strategy
from distinfer_lab.layout.dialects.jax import from_layout, spec_text, strategy_text, to_layout

from ..strategies import layouts_with_shape

GRID = Mesh(dp=2, tp=4)


@st.composite
def specs(draw):
    """A mesh, a spec on it, and a shape that it cuts evenly."""
    names = ("a", "b", "c")[: draw(st.integers(1, 3))]
    mesh = {name: draw(st.integers(1, 3)) for name in names}
    order = draw(st.permutations(names))
    ndim = draw(st.integers(0, 3))
    entries = [[] for _ in range(ndim)]
    for name in order[: draw(st.integers(0, len(order)))] if ndim else []:
        entries[draw(st.integers(0, ndim - 1))].append(name)
    spec = tuple(e[0] if len(e) == 1 else tuple(e) or None for e in entries)
    shape = tuple(math.prod(mesh[n] for n in e) * draw(st.integers(1, 3)) for e in entries)
    return mesh, spec, shape


def plain_boxes(mesh, spec, shape):
    """The box of every device, one by one: an entry's axes count like digits, the first the highest."""
    out = []
    for place in np.ndindex(*mesh.values()):
        at = dict(zip(mesh, place, strict=True))
        box = []
        for entry, length in zip(spec, shape, strict=True):
            axes = () if entry is None else (entry,) if isinstance(entry, str) else entry
            number, parts = 0, 1
            for axis in axes:
                number, parts = number * mesh[axis] + at[axis], parts * mesh[axis]
            box.append((number * length // parts, (number + 1) * length // parts))
        out.append(box)
    return np.array(out, np.int64).reshape(len(out), len(shape), 2)


@given(specs())
def test_a_spec_means_what_jax_says(case):
    """Row-major devices, major axis first, missing entries whole; and the same spec comes back."""
    mesh, spec, shape = case
    layout = to_layout(mesh, spec, len(shape))
    np.testing.assert_array_equal(layout.boxes(shape), plain_boxes(mesh, spec, shape))
    assert from_layout(layout) == spec


@given(layouts_with_shape())
def test_what_can_be_said_is_said_right(case):
    """Optimizer shards become axes that cut dim 0 further; what has no spec is refused."""
    layout, shape = case
    try:
        spec = from_layout(layout)
    except LayoutError:
        return
    mesh = dict(zip(layout.mesh.axis_names, layout.mesh.axis_sizes, strict=True))
    np.testing.assert_array_equal(plain_boxes(mesh, spec, shape), layout.boxes(shape))


def test_missing_entries_are_whole():
    """A spec shorter than the tensor leaves its last dims whole."""
    assert to_layout(GRID, ("tp",), 3).dims == (("tp",), (), ())
    assert spec_text(Layout(GRID, "- - -")) == "P()"


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (Layout(GRID, "tp", split="torch_chunk"), "only express even sharding"),
        (Layout(GRID, "tp(1,2,3,4)"), "only express even sharding"),
        (Layout(GRID, "tp[4|4]"), "only express even sharding"),
        (Layout(GRID, "tp", first_ranks=(8,)), "from rank 0 on"),
        (Layout(Mesh(dp=4), "-/2"), "2 optimizer shards are not whole axes"),
    ],
)
def test_what_jax_cannot_say_is_refused(layout, words):
    """The text says what the notation lacks; of a strategy, it names the parameter."""
    with pytest.raises(LayoutError, match=words):
        from_layout(layout)
    with pytest.raises(LayoutError, match=f"layers.0.w: .*{words}"):
        strategy_text(Strategy({"layers.0.w": layout}))


def test_specs_that_mean_nothing_are_refused():
    """Too many entries, an unknown axis, one that cuts twice, an entry of another kind."""
    with pytest.raises(LayoutError, match=r"\('dp', 'tp'\) has 2 entries for a tensor of 1 dims"):
        to_layout(GRID, ("dp", "tp"), 1)
    with pytest.raises(LayoutError, match="no axis 'pp'"):
        to_layout(GRID, ("pp",), 1)
    with pytest.raises(LayoutError, match="'tp' is used more than once"):
        to_layout(GRID, ("tp", "tp"), 2)
    with pytest.raises(ArgumentTypeError, match=r"not \(1, 2\)"):
        to_layout(GRID, ((1, 2),), 1)


def test_the_code_runs_and_says_the_same():
    """Run with stand-ins for JAX's names, the code gives the meshes and specs of the strategy."""
    small = Mesh(tp=4)
    strategy = Strategy({"w": Layout(GRID, "dp+tp -"), "b": Layout(small, "tp")}, ranks=8)
    code = strategy_text(strategy).split("\n\n")[1]

    class jax:  # noqa: N801  it stands in for a module
        make_mesh = staticmethod(lambda sizes, names: dict(zip(names, sizes, strict=True)))

    found = {"jax": jax, "P": lambda *entries: entries, "NamedSharding": lambda mesh, spec: (mesh, spec)}
    exec(code, found)
    layouts = {n: to_layout(*s, ndim=strategy[n].ndim) for n, s in found["shardings"].items()}
    assert layouts == dict(strategy)
