"""Who sends: the least busy holder, held to brute force, to water filling and to plain Python."""

from itertools import combinations, product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distinfer_lab.layout.senders import fewest_holders, least_busy, water_fill

from ..strategies import examples

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def sent(sizes, senders, cards):
    return np.bincount(senders, sizes, cards).astype(int)


@given(SIZES, st.integers(1, 3))
@settings(max_examples=examples(100))
def test_equal_holders_send_at_most_a_third_more_than_the_least_possible(sizes, count):
    """Graham's bound, against every way there is to share the pieces out."""
    found = least_busy(
        np.array(sizes), np.zeros(len(sizes), int), np.arange(count)[None], np.zeros(count, int)
    )
    best = min(sent(sizes, way, count).max() for way in product(range(count), repeat=len(sizes)))
    assert 3 * sent(sizes, found, count).max() <= 4 * best


@given(st.data())
def test_only_holders_send_and_none_could_hand_its_last_piece_on(data):
    """Several groups of holders, some busy before: none of them would send less than the card that does."""
    cards = data.draw(st.integers(1, 6))
    groups = data.draw(
        st.lists(st.sets(st.integers(0, cards - 1), min_size=1).map(sorted), min_size=1, max_size=4)
    )
    sizes = np.array(data.draw(SIZES))
    group = np.array([data.draw(st.integers(0, len(groups) - 1)) for _ in sizes])
    before = np.array(data.draw(st.lists(st.integers(0, 20), min_size=cards, max_size=cards)))
    holders = np.array([row + [-1] * (cards - len(row)) for row in groups])
    loads = before.copy()
    found = least_busy(sizes, group, holders, loads)
    np.testing.assert_array_equal(loads, before + sent(sizes, found, cards))
    for card in set(found.tolist()):
        pieces = np.flatnonzero(found == card)
        assert all(card in groups[group[piece]] for piece in pieces)
        # The last of the smallest, for of equal ones it was chosen last.
        last = pieces[sizes[pieces] == sizes[pieces].min()][-1]
        assert all(loads[card] <= loads[other] + sizes[last] for other in groups[group[last]])


@given(SIZES, st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_piece_by_piece_is_within_a_piece_of_water_filling(sizes, before):
    """The closed form for a model's pieces and the plain one for a few: no holder that sends is higher by more."""
    loads = np.array(before)
    filled = water_fill(loads, np.array(sum(sizes)))
    level = (loads + filled)[filled > 0].max()
    after = loads.copy()
    found = least_busy(np.array(sizes), np.zeros(len(sizes), int), np.arange(len(before))[None], after)
    assert after[np.unique(found)].max() <= level + max(sizes)


@given(st.lists(st.frozensets(st.integers(0, 5), min_size=1), min_size=1, max_size=5))
def test_few_holders_have_every_piece(choices):
    """And those that alone hold a piece are among them; against all sets, never more than one each."""
    found = fewest_holders(choices)
    assert found == sorted(set(found))
    assert all(choice & set(found) for choice in choices)
    enough = (len(some) for n in range(1, 6) for some in combinations(range(6), n) if _covers(some, choices))
    assert min(enough) <= len(found) <= len(set(choices))


def _covers(some, choices):
    return all(choice & set(some) for choice in choices)
