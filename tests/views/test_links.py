"""Which cards are linked, against counting elements one by one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinfer_lab.errors import LayoutError
from distinfer_lab.layout import Layout, Mesh, box_at
from distinfer_lab.views import hold, link_cards, needed_volumes, partner_sets
from tests.strategies import layouts, shapes_for


@st.composite
def pairs(draw):
    """Two layouts of one tensor, and its shape."""
    ndim = draw(st.integers(0, 3))
    src = draw(layouts(ndim))
    dst = draw(layouts(ndim))
    if src.sizes and dst.sizes:
        dst = Layout(dst.mesh, dst.dims, first_ranks=dst.first_ranks)
    if src.sizes or dst.sizes:
        uneven, even = (src, dst) if src.sizes else (dst, src)
        even = Layout(even.mesh, ((), *even.dims[1:]), first_ranks=even.first_ranks)
        src, dst = (uneven, even) if src.sizes else (even, uneven)
    return src, dst, draw(shapes_for(src, dst))


def elements_of(layout, shape):
    """For every rank the set of the numbers of the elements that it holds."""
    numbers = np.arange(math.prod(shape)).reshape(shape)
    out = [set() for _ in range(int(layout.ranks.max()) + 1)]
    for row, rank in enumerate(layout.ranks):
        out[rank] = set(numbers[box_at(layout.boxes(shape), row).slices()].ravel().tolist())
    return out


@given(pairs())
def test_linked_cards_are_those_that_share_elements(case):
    """The elements between two cards are counted exactly, and a link is where there is one."""
    src, dst, shape = case
    gives, needs = elements_of(src, shape), elements_of(dst, shape)
    expected = [[len(g & n) for n in needs] for g in gives]
    np.testing.assert_array_equal(needed_volumes(hold(src, shape), hold(dst, shape)), expected)
    partners = link_cards(src, dst, shape, max_cards=2000).partners()
    for i, g in enumerate(gives):
        assert partners[f"train:{i}"] == tuple(f"infer:{j}" for j, n in enumerate(needs) if g & n)
    for j, n in enumerate(needs):
        assert partners[f"infer:{j}"] == tuple(f"train:{i}" for i, g in enumerate(gives) if g & n)


@given(pairs(), st.integers(2, 8))
def test_groups_link_where_any_of_their_cards_do(case, limit):
    """Grouping cards adds up their elements and keeps to the limit."""
    src, dst, shape = case
    gives, needs = elements_of(src, shape), elements_of(dst, shape)
    links = link_cards(src, dst, shape, max_cards=limit)
    assert len(links.keys) <= limit
    for i in range(len(links.src.cards)):
        for j in range(len(links.dst.cards)):
            some = gives[i * links.src.group : (i + 1) * links.src.group]
            others = needs[j * links.dst.group : (j + 1) * links.dst.group]
            assert links.elements[i, j] == sum(len(g & n) for g in some for n in others)


@given(pairs())
def test_what_is_sent_says_the_same_as_the_partners(case):
    """Numbered sets give every key its own partners back, each set once."""
    src, dst, shape = case
    partners = link_cards(src, dst, shape, max_cards=256).partners()
    of_key, sets = partner_sets(partners)
    assert {key: sets[number] for key, number in of_key.items()} == partners
    assert len(set(sets)) == len(sets)


def test_a_thousand_replicas_need_one_set():
    """Sets are shared: 1,024 training cards that all hold everything have one set between them."""
    links = link_cards(Layout.replicated(1024, 2), Layout.replicated(256, 2), (4, 4), max_cards=2000)
    assert [len(s) for s in partner_sets(links.partners())[1]] == [256, 1024]


def test_a_card_says_what_it_holds_and_who_needs_it():
    """The sentence names the box, the partners and the elements, and counts what it leaves out."""
    columns = Layout(Mesh(tp=2), "- tp")
    sentences = link_cards(columns, Layout.replicated(10, 2), (4, 6), max_cards=256).sentences()
    assert sentences["train:1"] == (
        "Training card 1 holds [0:4, 3:6]; needed by inference cards 0 (12), 1 (12), 2 (12), 3 (12), "
        "4 (12), 5 (12), 6 (12), 7 (12) and 2 more (elements in brackets)."
    )
    assert sentences["infer:9"] == (
        "Inference card 9 needs [0:4, 0:6]; held by training cards 0 (12), 1 (12) (elements in brackets)."
    )


def test_a_card_of_another_stage_is_linked_to_nobody():
    """A rank that holds nothing of the tensor has no partners and says so."""
    late = Layout(Mesh(tp=2), "tp", first_ranks=(2,))
    links = link_cards(late, Layout.replicated(1, 1), (4,), max_cards=256)
    assert links.partners()["train:0"] == ()
    assert links.sentences()["train:0"] == "Training card 0 holds nothing."


def test_a_shape_that_a_layout_cannot_cut_is_refused():
    """The layout's own error reaches the caller."""
    thirds = Layout(Mesh(tp=3), "tp")
    with pytest.raises(LayoutError, match=r"dim 0 \(cut by tp\) has 4 elements, which 3 parts"):
        link_cards(thirds, Layout.replicated(1, 1), (4,), max_cards=256)
