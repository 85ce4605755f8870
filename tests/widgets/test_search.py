"""The list with search: what is listed, what is chosen, and how the two go together."""

from distinfer_lab.widgets.parts import ErrorLine, SearchList
from distinfer_lab.widgets.parts.search import MOST_LISTED

NAMES = ["layers.0.weight", "layers.0.bias", "layers.1.weight", "head"]


def listed(choice):
    return [name for _, name in choice.listed.options]


def test_typing_narrows_and_keeps_the_choice():
    """A part of a name in any case, or a pattern; the choice stays, listed or not, and is marked when it is."""
    choice = SearchList(NAMES, ErrorLine())
    choice.value = "layers.1.weight"
    choice.search.value = "LAYERS.0"
    assert listed(choice) == ["layers.0.weight", "layers.0.bias"]
    assert (choice.value, choice.listed.index) == ("layers.1.weight", None)
    choice.search.value = "*.weight"
    assert listed(choice) == ["layers.0.weight", "layers.1.weight"]
    assert (choice.value, choice.listed.index) == ("layers.1.weight", 1)
    assert "2 of 4" in choice.count.value


def test_nothing_found_is_said():
    """An empty list counts itself, and chooses nothing."""
    choice = SearchList(NAMES, ErrorLine())
    choice.search.value = "nothing like it"
    assert listed(choice) == []
    assert "0 of 4" in choice.count.value
    assert choice.value == ""


def test_narrowing_chooses_nothing_by_itself():
    """A list of another content marks its first entry; that is no choice of the user's."""
    choice, chosen = SearchList(NAMES, ErrorLine()), []
    choice.observe(lambda change: chosen.append(change["new"]), "value")
    choice.search.value = "head"
    assert chosen == []
    choice.listed.value = "head"
    assert chosen == ["head"]


def test_other_names_and_another_order():
    """A choice that is gone is let go; labels are shown in place of names."""
    choice = SearchList(NAMES, ErrorLine())
    choice.value = "head"
    choice.show(NAMES[::-1], {"head": "head  [4]"})
    assert choice.value == "head"
    assert choice.listed.options[0] == ("head  [4]", "head")
    choice.show(NAMES[:2])
    assert choice.value == ""


def test_very_many_names_are_listed_in_part():
    """The count says so, and a search finds the others."""
    choice = SearchList([f"w{i}" for i in range(60_000)], ErrorLine())
    assert len(choice.listed.options) == MOST_LISTED
    assert f"60,000 of 60,000; the first {MOST_LISTED} are listed" in choice.count.value
    choice.search.value = "w59999"
    assert listed(choice) == ["w59999"]
    assert repr(choice) == "SearchList(60000 names)"
