"""What a picture of two layouts says, as a sentence: computed from the transfers, never from the layouts' names."""

from ...display import counted, format_bytes
from ...layout import Layout
from .cut_flows import Flows

__all__ = ["facts", "headline", "notation"]


def headline(train: Layout, infer: Layout, flows: Flows) -> str:
    """The finding.

    Examples
    --------
    >>> from distinfer_lab.layout import Mesh
    >>> from .cut_flows import flows_of
    >>> columns, rows = Layout(Mesh(dp=2, tp=4), "- tp"), Layout(Mesh(tp=4), "tp -")
    >>> headline(columns, rows, flows_of(columns, rows, (8, 8)))
    'Columns on 8 cards become rows on 4'
    >>> headline(rows, rows, flows_of(rows, rows, (8, 8)))
    'Nothing moves: each of the 4 cards already holds what it needs'
    """
    before, after = len(flows.train.cards), len(flows.infer.cards)
    if flows.same_cards and not flows.received.any():
        who = f"each of the {after} cards already holds" if after > 1 else "the card already holds"
        return f"Nothing moves: {who} what it needs"
    cards = counted(before, "card")
    one, other = _pieces(train), _pieces(infer)
    if one == other:
        return f"{one.capitalize()} on {cards} become other {other} on {after:,}"
    return f"{one.capitalize()} on {cards} become {other} on {after:,}"


def _pieces(layout: Layout) -> str:
    """What the layout's shards are called."""
    cut = [d for d in range(layout.ndim) if layout.dims[d] or (d == 0 and layout.optimizer_shards > 1)]
    if not cut:
        return "whole copies"
    if layout.ndim == 1:
        return "parts"
    if layout.ndim == 2 and len(cut) == 1:
        return ("rows", "columns")[cut[0]]
    return "blocks" if len(cut) > 1 else f"slices of dim {cut[0]}"


def notation(layout: Layout, shape: tuple[int, ...]) -> str:
    """The shape with the axes that cut each dim.

    Examples
    --------
    >>> from distinfer_lab.layout import Mesh
    >>> notation(Layout(Mesh(tp=4), "- tp"), (384, 512))
    '[384, 512_tp]'
    """
    dims = (f"{n}_{'+'.join(axes)}" if axes else str(n) for n, axes in zip(shape, layout.dims, strict=True))
    return f"[{', '.join(dims)}]"


def facts(train: Layout, infer: Layout, flows: Flows, name: str, itemsize: int | None) -> str:
    """The tensor, how both sides cut it, and what moves and stays."""
    shape = flows.train.shape
    moves, stays = int(flows.received.sum()), int(flows.kept.sum())
    words = [f"{name or 'tensor'} {notation(train, shape)} → {notation(infer, shape)}"]
    if moves:
        words.append(f"{_amount(moves, itemsize)} must move")
    if stays:
        words.append(f"{_amount(stays, itemsize)} {'stay' if stays > 1 else 'stays'} where they are")
    return " · ".join(words)


def _amount(elements: int, itemsize: int | None) -> str:
    return counted(elements, "element") if itemsize is None else format_bytes(elements * itemsize)
