"""An editor knows what every public call of the flow takes and returns."""

import inspect
import typing

import pytest

from distinfer_lab import flow
from distinfer_lab.flow import session


def calls():
    """Every public function of the flow, and the public methods and properties of its classes, by name."""
    out = {}
    for name, value in {**{n: getattr(flow, n) for n in flow.__all__}, "Session": session.Session}.items():
        if inspect.isfunction(value):
            out[name] = value
        for inner, member in vars(value).items() if inspect.isclass(value) else ():
            function = getattr(member, "fget", member)
            if inspect.isfunction(function) and (inner == "__init__" or not inner.startswith("_")):
                out[f"{name}.{inner}"] = function
    return out


@pytest.mark.parametrize("name", calls())
def test_a_public_call_has_types(name):
    """Every parameter and the result has an annotation, and none of them says that anything may be there."""
    function = inspect.unwrap(calls()[name])
    hints = typing.get_type_hints(function)
    parameters = [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]
    assert sorted(hints) == sorted([*parameters, "return"])
    assert [key for key, kind in hints.items() if kind is typing.Any] == []
