"""Training cards next to inference cards: hover one, and those that share its bytes light up."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import traitlets

from ..arguments import checked
from ..errors import LayoutError, Option
from ..views import Drawing
from .parts import LayoutPair, Panel, Picture, SearchList, Strategies, pair_layouts

__all__ = ["LayoutView"]


@checked
class LayoutView(Panel):
    """Who holds what in training, who needs what for inference, and how the two are linked.

    Parameters
    ----------
    train, infer
        Two layouts, or two strategies (a mapping of MindSpore's layout tuples will do); for
        strategies a parameter is chosen from a list. No inference strategy means one card.
    shape
        The full shape of the tensor, or a mapping of name to shape, where the strategies do
        not know it.
    parameter
        The parameter to show first.

    Attributes
    ----------
    selected, hover : str
        The key of a card, "train:3" or "infer:1", or "" for none. They may be set.
    parameter : str
        The parameter that is shown. It may be set.

    Raises
    ------
    ArgumentTypeError
        If the two sides are not of one kind.
    LayoutError
        If they have no parameter in common, a shape is missing, or a layout does not fit.

    Examples
    --------
    >>> from distinfer_lab.layout import Layout, Mesh
    >>> rows = Layout(Mesh(tp=4), "tp -")
    >>> view = LayoutView(rows, Layout.replicated(2, 2), shape=(8, 6))
    >>> view
    LayoutView(tensor [8, 6], training cards 4 (tp -) -> inference cards 2 (- -))
    >>> view.selected = "train:3"
    >>> view.linked
    ('infer:0', 'infer:1')
    """

    selected = traitlets.Unicode()
    hover = traitlets.Unicode()
    parameter = traitlets.Unicode()

    def __init__(
        self,
        train: Strategies,
        infer: Strategies | None,
        *,
        shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
        parameter: str | None = None,
    ) -> None:
        self._pairs = pair_layouts(train, infer, shape)
        first = next(iter(self._pairs)) if parameter is None else parameter
        pair = self._pair_named(first)
        self._links = pair.links()
        self._partners = self._links.partners()
        self.picture = Picture(pair.live(), self._links.sentences(), self._partners, still=pair.still())
        super().__init__(self.picture)
        self.parameter = first
        self.observe(self.errors.guard(self._redraw), "parameter")
        if len(self._pairs) > 1:
            self._add_choice()
        for name in ("selected", "hover"):
            traitlets.link((self.picture, name), (self, name))

    def _add_choice(self) -> None:
        labels = {name: f"{name}  {list(pair.shape)}" for name, pair in self._pairs.items()}
        choice = SearchList(list(self._pairs), self.errors, labels=labels)
        choice.value = self.parameter
        traitlets.link((choice, "value"), (self, "parameter"))
        self.children: tuple[Any, ...] = (choice, self.picture, self.errors)

    def _pair_named(self, name: str) -> LayoutPair:
        if name not in self._pairs:
            given = Option("parameter", name)
            raise LayoutError(
                f"{given} is not in both strategies; choose of {list(self._pairs)}", given, parameter=name
            )
        return self._pairs[name]

    @traitlets.validate("parameter")
    def _check_parameter(self, proposal: Any) -> str:
        name: str = proposal["value"]
        self._pair_named(name)
        return name

    def _redraw(self, change: Any) -> None:
        pair = self._pairs[change["new"]]
        self._links = pair.links()
        self._partners = self._links.partners()
        self.picture.show(pair.live(), self._links.sentences(), self._partners, still=pair.still())

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters that both strategies name."""
        return tuple(self._pairs)

    @property
    def linked(self) -> tuple[str, ...]:
        """The keys of the cards that share elements with the selected one."""
        return self._partners.get(self.selected, ())

    @property
    def static(self) -> Drawing:
        """The picture as it stands where there is no kernel: show it in a cell of its own."""
        return self.picture.still

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the picture that is shown to `file`, as SVG."""
        Drawing(self.picture.svg, self.static.alt).save(file)

    def __repr__(self) -> str:
        others = f"; {len(self._pairs)} parameters" if len(self._pairs) > 1 else ""
        return f"LayoutView({self.static.alt}{others})"
