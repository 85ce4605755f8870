"""The command that prints rules: what a mesh axis cuts, by kind of model."""

import click

from .messages import say
from .options import wrong_call

__all__ = ["rules"]


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME|FILE[,...]]...")
def rules(names: tuple[str, ...]) -> None:
    """Print rules as JSON, as --rules reads them from a file; without a name, the kinds that are known.

    A rule says what the axes of a mesh cut in the tensors whose names fit a pattern; the first that fits is taken.
    `distinfer rules llama > mine.json` is a start for rules of your own; `--rules llama,mine.json` tries yours first.

    \b
    match      a pattern of names, compared part by part: *.v_proj.weight does not fit qkv_proj.weight
    dims       a word for each dim, the axes that cut it or -, as in "tp -"; null: every rank holds everything
    fused      what is in one tensor and cut part by part, for each dim: a number of parts, their sizes, or null
    units      how many units (heads) the cut dim has, none of which is cut apart
    unit_size  elements of a unit
    split      for sizes that do not divide: even (refuse), torch_chunk or gspmd_ceil
    stage      with an axis pp: first, last, embedding, head or all, instead of the stage of the layer

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
