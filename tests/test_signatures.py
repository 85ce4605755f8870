"""What a script passes by position means here what it means in MindSpore."""

import inspect
import json

import pytest

import distinfer_lab as dl

from .oracle import ORACLE

THEIRS = json.loads((ORACLE / "signatures.json").read_text())
OURS_ONLY = {"Model": ["cards"]}
"""In the place of MindSpore's metrics, which a Model refuses by name."""


def function_of(name):
    found = dl
    for part in name.split("."):
        found = getattr(found, part)
    return found.__init__ if inspect.isclass(found) else found


@pytest.mark.parametrize("name", sorted(THEIRS))
def test_arguments_by_position_are_mindspores(name):
    """As many as can be passed by position, in MindSpore's order; all others by name only."""
    function = function_of(name)
    known = inspect.signature(function).parameters.values()
    ours = [p.name for p in known if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"]
    ours = [argument for argument in ours if argument not in OURS_ONLY.get(name, [])]
    assert ours == THEIRS[name][: len(ours)]
