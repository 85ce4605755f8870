"""What a JSON file is, by its fields, where it was given for something else."""

from typing import Any, NamedTuple

from .errors import Option, Remark

__all__ = ["kind_of_json"]


class _Kind(NamedTuple):
    role: str
    fields: frozenset[str]
    """An object that has all of them is of this kind."""
    what: str
    advice: str
    options: tuple[Option, ...] = ()
    """What each {} in the advice stands for."""


KINDS = (
    _Kind(
        "manifest",
        frozenset({"format", "files", "strategy"}),
        "the manifest of an output",
        "its folder opens without a strategy, for the manifest says who holds what",
    ),
    _Kind(
        "strategy",
        frozenset({"parallel_layout_item"}),
        "a strategy file",
        "give it as {}, or as the destination",
        (Option("strategy"),),
    ),
    _Kind(
        "strategy",
        frozenset({"layouts", "tensors"}),
        "JSON layouts, which are a strategy file",
        "give it as {}, or as the destination",
        (Option("strategy"),),
    ),
    _Kind(
        "index",
        frozenset({"weight_map"}),
        "an index of safetensors files",
        "give it, or its folder, as the checkpoint",
    ),
    _Kind("config", frozenset({"model_type"}), "a model's config.json", "give it as {}", (Option("config"),)),
    _Kind(
        "config", frozenset({"architectures"}), "a model's config.json", "give it as {}", (Option("config"),)
    ),
)
RULES = frozenset({"match", "dims"})


def kind_of_json(found: Any, given_for: str) -> Remark:
    """What a parsed JSON file is, and what to do with it, as "it is ..."; "" if its fields do not tell.

    Parameters
    ----------
    given_for
        What it should be: "manifest", "strategy", "index", "config" or "rules"; "" if it is that, too.

    Examples
    --------
    >>> index = {"metadata": {}, "weight_map": {}}
    >>> kind_of_json(index, "strategy")
    'it is an index of safetensors files; give it, or its folder, as the checkpoint'
    >>> kind_of_json(index, "index"), kind_of_json([], "strategy"), kind_of_json({"a": 1}, "strategy")
    ('', '', '')
    """
    if isinstance(found, dict):
        kind = next((kind for kind in KINDS if kind.fields <= found.keys()), None)
        if kind is None or kind.role == given_for:
            return Remark("")
        return Remark(f"it is {kind.what}; {kind.advice.format(*kind.options)}", *kind.options)
    rules = isinstance(found, list) and found and isinstance(found[0], dict) and found[0].keys() >= RULES
    if not rules or given_for == "rules":
        return Remark("")
    return Remark(f"it is a list of rules; give it as {Option('rules')}", Option("rules"))
