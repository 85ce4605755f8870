"""Sizes that depend on a model's configuration, as rules write them.

::

    num_key_value_heads or num_attention_heads
    head_dim or hidden_size // num_attention_heads
    qk_nope_head_dim + v_head_dim

The text is parsed as Python and walked node by node, never run: names, positive whole numbers, `+`, `*`, `//`
without a remainder, and `or`.
"""

import ast
import operator
from collections.abc import Callable
from functools import lru_cache

from ..text import shown

__all__ = ["AbsentField", "check_expression", "evaluate", "label"]

LONGEST = 400
LARGEST = 1 << 50

OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}

NODES = (ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.BoolOp, ast.Or, *OPERATORS)

Lookup = Callable[[str], int | None]


class AbsentField(Exception):  # noqa: N818 - an absent field is an ordinary answer, which `or` passes over
    """A field of the configuration that is not there."""


@lru_cache(maxsize=1024)
def _parsed(text: str) -> ast.expr:
    if len(text) > LONGEST:
        raise ValueError(f"an expression of {len(text)} characters; at most {LONGEST} are accepted")
    try:
        root = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as err:
        raise ValueError(f"{shown(text)} is not a valid expression: {type(err).__name__}") from err
    for node in ast.walk(root):
        if isinstance(node, ast.Constant) and (type(node.value) is not int or not 1 <= node.value <= LARGEST):
            raise ValueError(f"{shown(text)}: {shown(node.value)} is not a whole number above 0")
        if not isinstance(node, NODES):
            raise ValueError(  # noqa: TRY004 - the text is wrong, not the type of an argument
                f"{shown(text)} is not a valid expression: use fields of config.json, numbers, +, *, // and or"
            )
    return root


def check_expression(size: int | str | None) -> None:
    """Raise unless a size is a number above 0, a valid expression, or None.

    Raises
    ------
    ValueError
        With the rule that it breaks.
    """
    if isinstance(size, str):
        _parsed(size)
    elif size is not None and not 1 <= size <= LARGEST:
        raise ValueError(f"{shown(size)} is not a whole number above 0")


def evaluate(size: int | str, lookup: Lookup) -> int:
    """The value of a size.

    Parameters
    ----------
    lookup
        The value of a field, None where the configuration does not have it.

    Raises
    ------
    AbsentField
        With the name of the field, if the last alternative lacks one.
    ValueError
        If the text is not a valid expression, or a division leaves a remainder.

    Examples
    --------
    >>> fields = {"hidden_size": 64, "num_attention_heads": 8}
    >>> evaluate("head_dim or hidden_size // num_attention_heads", fields.get)
    8
    """
    return size if isinstance(size, int) else _value(_parsed(size), lookup)


def _value(node: ast.expr, lookup: Lookup) -> int:
    if isinstance(node, ast.BoolOp):
        for side in node.values[:-1]:
            try:
                return _value(side, lookup)
            except AbsentField:
                continue
        return _value(node.values[-1], lookup)
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, lookup), _value(node.right, lookup)
        if isinstance(node.op, ast.FloorDiv) and left % right:
            raise ValueError(f"{ast.unparse(node)} is {left} // {right}, which leaves a remainder")
        return OPERATORS[type(node.op)](left, right)
    if isinstance(node, ast.Name):
        value = lookup(node.id)
        if value is None:
            raise AbsentField(node.id)
        return value
    assert isinstance(node, ast.Constant)
    assert isinstance(node.value, int)
    return node.value


def label(size: int | str) -> str:
    """What a size is called in a message: the first alternative of an expression."""
    return size.partition(" or ")[0] if isinstance(size, str) else "units"
