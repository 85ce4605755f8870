"""The command that prints rules: which tensors each mesh axis shards, by kind of model."""

import click

from .messages import say
from .options import wrong_call

__all__ = ["rules"]


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME|FILE[,...]]...")
def rules(names: tuple[str, ...]) -> None:
    """Print rules as JSON, or list the known kinds of models.

    A rule says how the axes of a mesh shard the tensors whose names match a pattern; the first match applies. To
    write your own, start from `distinfer rules llama > mine.json`; with `--rules llama,mine.json` yours take
    precedence.

    \b
    match      a pattern of names, compared part by part: *.v_proj.weight does not match qkv_proj.weight
    dims       for each dim the axes that shard it, or -, e.g. "tp -"; null: every rank holds the whole tensor
    fused      tensors stored as one, sharded one by one: for each dim the number of parts, their sizes, or null
    units      number of units (heads) in the sharded dim; no unit is split
    unit_size  elements per unit
    split      if the size is not divisible: even (refuse), torch_chunk or gspmd_ceil
    stage      with an axis pp: first, last, embedding, head or all; by default the stage of the layer

    Sizes and units are numbers, or expressions of fields of config.json such as
    "head_dim or hidden_size // num_attention_heads".
    """  # noqa: D301 - click reads the character backspace
    from ..rules import MODEL_TYPES, RULES, read_rules, rules_json

    if names:
        with wrong_call("NAME"):
            read = read_rules(names)
        say(rules_json(read))
        return
    for name in RULES:
        say(f"{name:12} model_type {', '.join(MODEL_TYPES[name])}")
