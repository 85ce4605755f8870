"""The text that says how dims are sharded: what it means, that reprs are Python that runs, and what errors say."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from distinfer_lab.errors import ArgumentTypeError, LayoutError
from distinfer_lab.layout import Layout, Mesh
from distinfer_lab.layout.notation import (
    Sharding,
    format_dims,
    format_sharding,
    parse_dims,
    parse_sharding,
)
from tests.strategies import any_layouts

MESH = Mesh(dp=2, tp=4)
NAMES = st.one_of(
    st.text(max_size=5),
    st.sampled_from(
        ["-", "+", "/2", "(1)", "[1|1]", "a b", " ", "'", '"', "'\"", "\\", "\n", "\ud800", "größe", "None"]
    ),
)
SHAPES = st.lists(st.integers(1, 12), max_size=3).map(tuple)


@given(SHAPES.flatmap(any_layouts), st.data())
@example(Layout(Mesh(), ""), None)
def test_a_layout_is_written_as_python_that_makes_it(layout, data):
    """Of any kind: uneven, fused, replicated, optimizer shards, strides, a stage, several stages, one rank."""
    if data is not None and data.draw(st.booleans()):
        layout = replace(layout, first_ranks=(*layout.first_ranks, layout.last_rank + 1))
    assert eval(repr(layout), {"Mesh": Mesh, "Layout": Layout}) == layout
    assert Layout(layout.mesh, layout.sharding) == Layout(
        layout.mesh,
        layout.dims,
        optimizer_shards=layout.optimizer_shards,
        sizes=layout.sizes,
        fused=layout.fused,
    )


@given(st.lists(NAMES, min_size=1, max_size=4, unique=True), st.data())
def test_whatever_an_axis_is_called(names, data):
    """Text of the notation, of Python, or none at all: it comes back, alone and in a layout."""
    at = [data.draw(st.integers(0, 2)) for _ in names]
    dims = tuple(tuple(n for n, dim in zip(names, at, strict=True) if dim == d) for d in range(3))
    assert parse_dims(format_dims(dims)) == dims
    layout = Layout(Mesh(**dict.fromkeys(names, 1)), dims)
    assert eval(repr(layout), {"Mesh": Mesh, "Layout": Layout}) == layout


SIZES = st.lists(st.integers(0, 99), min_size=1, max_size=3).map(tuple)


@given(st.data())
def test_what_is_written_is_read(data):
    """Sizes, fused parts and optimizer shards, whether or not they fit a mesh."""
    dims = data.draw(st.lists(st.sampled_from([(), ("a",), ("b", "c")]), max_size=3).map(tuple))
    optional = st.tuples(*(st.none() | SIZES for _ in dims))
    sizes, fused = (
        given if any(one is not None for one in given) else ()
        for given in (data.draw(optional), data.draw(optional))
    )
    sharding = Sharding(dims, sizes, fused, data.draw(st.integers(1, 9)) if dims else 1)
    assert parse_sharding(format_sharding(sharding)) == sharding


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("- -", {0: (96, 16), 7: (96, 16)}),
        ("- tp", {0: (96, 4)}),
        ("tp -", {0: (24, 16)}),
        ("dp+tp -", {0: (12, 16)}),
        ("dp tp", {0: (48, 4)}),
        ("tp(40,30,20,6) -", {0: (40, 16), 1: (30, 16), 2: (20, 16), 3: (6, 16), 4: (40, 16)}),
        ("tp[48|24|24] -", {0: (24, 16)}),
        ("tp/2 -", {0: (12, 16)}),
    ],
)
def test_the_examples_of_the_module(text, shapes):
    """The shards of (96, 16) on 2 x 4 ranks."""
    layout = Layout(MESH, text)
    assert {rank: layout.shard_shape((96, 16), rank) for rank in shapes} == shapes
    assert layout.sharding == text
    assert repr(layout) == f'Layout(Mesh(dp=2, tp=4), "{text}")'


def test_the_parts_of_the_text_are_the_fields():
    """Each part of a text, and space wherever it may be."""
    layout = Layout(MESH, "  tp[ 48 | 24|24 ]/2\n-(16)  ")
    assert (layout.dims, layout.optimizer_shards) == ((("tp",), ()), 2)
    assert (layout.fused, layout.sizes) == (((48, 24, 24), None), (None, (16,)))
    assert Layout(MESH, "").dims == Layout(MESH, " ").dims == ()
    assert Layout(MESH, "tp -", fused=((8, 8), None)) == Layout(MESH, "tp[8|8] -")
    assert Layout(MESH, "tp -", optimizer_shards=2) == Layout(MESH, "tp/2 -")


def test_what_a_repr_says_beside_the_text():
    """How a dim is shared that does not come out even, and the ranks."""
    layout = Layout(MESH, "tp", split="torch_chunk", first_ranks=(8,), strides=(8, 2))
    assert (
        repr(layout)
        == 'Layout(Mesh(dp=2, tp=4), "tp", first_ranks=(8,), split="torch_chunk", strides=(8, 2))'
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "-, tp",
            "sharding '-, tp': dim 0, position 1: ',' is not expected here; dims have spaces between them, "
            'not commas: write "- tp"',
        ),
        ("tp(5,3),-", 'not commas: write "tp(5,3) -"'),
        (
            "None tp",
            "dim 0, position 0: 'None' is not expected here; write \"-\" for a dim that no axis shards",
        ),
        ("tp null", "dim 1, position 3: 'null' is not expected here; write \"-\""),
        ("- " * 1_000_000, "more than 30 dims"),
        ("-, " * 1_000_000, "spaces between them, not commas"),
        ("tp +dp", "dim 1, position 3: '+' is not expected here; a dim is \"-\" or axes such as"),
        ("tp+", "dim 0, position 2: '+' is not expected"),
        ("tp- -", "dim 0, position 2: '-' is not expected"),
        ("- tp/2", "dim 1, position 4: '/' is not expected here; optimizer shards are of dim 0"),
        ("tp() -", "dim 0, position 2: '(' is not expected"),
        ("tp(1,2", "dim 0, position 2: '(' is not expected"),
        ("tp[1,2]", "dim 0, position 2: '[' is not expected"),
        ("tp(-1,2)", "dim 0, position 2: '(' is not expected"),
        ("- 'tp", 'dim 1, position 2: "\'" is not expected'),
        ("tp/", "dim 0, position 2: '/' is not expected"),
        ("tp(" + "9" * 5000 + ")", "dim 0, position 2"),
        ("('tp', None)", "dim 0, position 0: '(' is not expected"),
        (r"'\N{nothing}'", r"axis name '\\N{nothing}'.*Python string"),
    ],
)
def test_a_text_that_is_not_a_sharding(text, words):
    """The message has the text, the dim, the position, and what to write."""
    with pytest.raises(LayoutError) as err:
        Layout(MESH, text)
    if "Python string" not in words:
        assert words in str(err.value)


@pytest.mark.parametrize(
    ("dims", "written"),
    [
        (("tp", None), '"tp -"'),
        ((None, ("dp", "tp")), '"- dp+tp"'),
        (["tp", None], '"tp -"'),
        (("tp", ()), '"tp -"'),
        (("-", "tp"), '"- tp"'),
        ((), None),
        (None, '"- tp": a word per dim'),
        ((4, 1), '"- tp": a word per dim'),
    ],
)
def test_dims_in_the_form_of_another_library(dims, written):
    """JAX's names and None: refused, with the text that says the same."""
    if written is None:
        assert Layout(MESH, dims) == Layout(MESH, "")
        return
    with pytest.raises(ArgumentTypeError, match="is not a sharding; write ") as err:
        Layout(MESH, dims)
    assert written in str(err.value)


@pytest.mark.parametrize(
    ("text", "beside"),
    [
        ("tp(1,1,1,1)", {"sizes": ((1,) * 4,)}),
        ("tp[4|4]", {"fused": ((4, 4),)}),
        ("-/2", {"optimizer_shards": 2}),
    ],
)
def test_a_thing_that_is_said_twice(text, beside):
    """In the text and beside it: refused, though both say the same."""
    with pytest.raises(LayoutError, match=f"says {next(iter(beside))}, and so does"):
        Layout(MESH, text, **beside)


def test_where_only_axes_are_said():
    """Anything more is refused, with the text without it."""
    assert parse_dims("dp+tp -") == (("dp", "tp"), ())
    with pytest.raises(LayoutError, match="only axes can be given here; write 'tp -'"):
        parse_dims("tp[8|4|4]/2 -")
