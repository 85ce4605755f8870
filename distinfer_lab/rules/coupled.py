"""Tensors that depend on each other get the same sharding, whatever the rules say for each.

::

    keys and values of a block       the heads of one are weighted by those of the other
    embedding and its tied head      one table under two names
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ..layout import Layout
from .configuration import part_of

__all__ = ["unlike"]

EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
HEADS = ("lm_head.weight", "embed_out.weight")


def unlike(
    layouts: Mapping[str, Layout], shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any] | None
) -> Iterator[str]:
    """What is wrong with layouts that should be alike and are not, a text for each pair."""
    for keys in layouts:
        if keys.endswith("k_proj.weight"):
            values = f"{keys.removesuffix('k_proj.weight')}v_proj.weight"
            if values in layouts and _cut(layouts[keys]) != _cut(layouts[values]):
                yield _differ(keys, values, layouts, "keys and values of one attention")
    for table in (name for name in layouts if name.endswith(EMBEDDINGS)):
        if part_of(table, config or {}).fields.get("tie_word_embeddings") is not True:
            continue
        for head in (name for name in layouts if name.endswith(HEADS) and shapes[name] == shapes[table]):
            if _cut(layouts[head])[1:] != _cut(layouts[table])[1:]:
                yield _differ(table, head, layouts, "the embedding and its tied head")


def _cut(layout: Layout) -> tuple[Any, ...]:
    """What cuts a tensor, without the pipeline stage that holds it."""
    return layout.mesh, layout.dims, layout.split if max(layout.parts, default=1) > 1 else ""


def _differ(one: str, other: str, layouts: Mapping[str, Layout], what: str) -> str:
    return (
        f"{one} ({layouts[one].describe_cut()}) and {other} ({layouts[other].describe_cut()}) are {what}, which "
        "are cut alike; give both the same rule"
    )
