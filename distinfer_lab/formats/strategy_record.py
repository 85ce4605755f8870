"""What a strategy file says: a layout for each parameter, by the file's own names, and how operators were cut.

Where pipeline stages were merged into one file, a parameter is named "<stage>-<name>".
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..display import Displayed, counted
from ..errors import LayoutError
from ..layout import Layout, Strategy
from ..layout.dialects.mindspore import MindSporeLayout, from_layout, to_layout
from ..text import printable, shown

__all__ = ["OperatorStrategy", "StrategyFile"]

MOST_STAGE_DIGITS = 6
STAGE_NAME = re.compile(r"(\d+)-(.+)", re.DOTALL)


class OperatorStrategy(NamedTuple):
    """How one operator was cut."""

    stage: int
    """Its pipeline stage."""
    inputs: tuple[tuple[int, ...], ...]
    """For each input, for each dim, the number of parts."""


@dataclass(frozen=True, repr=False)
class StrategyFile(Displayed):
    """What a strategy file says, by its own names."""

    current_stage: int = 1
    """How often the file was saved (no pipeline stage)."""
    operators: Mapping[str, OperatorStrategy] = field(default_factory=dict)
    """`<operator>_<parameter>` -> its strategy."""
    layouts: Mapping[str, MindSporeLayout] = field(default_factory=dict)
    """Parameter, as named in the file -> its layout."""

    @property
    def merged(self) -> bool:
        """Whether every parameter is named "<stage>-<name>", as merging pipeline stages does."""
        return bool(self.layouts) and all(STAGE_NAME.fullmatch(name) for name in self.layouts)

    def strategy(self) -> Strategy:
        """The layouts as a Strategy; a parameter of several merged stages lies on the ranks of all.

        Raises
        ------
        LayoutError
            If a layout is not possible; the text names the parameter.
        """
        if not self.layouts:
            raise LayoutError(
                "the strategy file holds no parameter's layout; save it after the net was compiled"
            )
        stages: dict[str, list[int]] = {}
        items: dict[str, MindSporeLayout] = {}
        merged = self.merged
        for full_name, item in self.layouts.items():
            found = STAGE_NAME.fullmatch(full_name) if merged else None
            name = found[2] if found else full_name
            if name in items and items[name] != item:
                raise LayoutError(
                    f"{name}: its pipeline stages lay it out differently; they must agree", parameter=name
                )
            items[name] = item
            stages.setdefault(name, []).append(_stage(full_name, found[1]) if found else 0)
        shapes = {n: item.tensor_shape for n, item in items.items() if item.tensor_shape is not None}
        # Names share the item that a file says for many of them, and then the layout, too.
        known: dict[tuple[int, tuple[int, ...]], Layout] = {}
        layouts: dict[str, Layout] = {}
        for name, item in items.items():
            alike = id(item), tuple(stages[name])
            if alike not in known:
                known[alike] = _layout(name, item, stages[name])
            layouts[name] = known[alike]
        return Strategy(layouts, shapes)

    @classmethod
    def from_strategy(
        cls,
        strategy: Strategy,
        operators: Mapping[str, OperatorStrategy] | None = None,
        current_stage: int = 1,
    ) -> "StrategyFile":
        """The file that says this strategy; layouts beyond the first stage get "<stage>-" names.

        Raises
        ------
        LayoutError
            If MindSpore cannot say a layout; the text names the parameter.
        """
        layouts: dict[str, MindSporeLayout] = {}
        staged = any(layout.first_ranks != (0,) for layout in strategy.values())
        for name, layout in strategy.items():
            try:
                item = from_layout(layout, strategy.shapes.get(name))
            except LayoutError as err:
                raise LayoutError(f"{name}: {err}", of=err, parameter=name) from err
            for first in layout.first_ranks:
                layouts[f"{first // layout.mesh.size}-{name}" if staged else name] = item
        return cls(current_stage, dict(operators or {}), layouts)

    def __repr__(self) -> str:
        lines = [
            f"StrategyFile of {counted(len(self.layouts), 'parameter')} "
            f"and {counted(len(self.operators), 'operator')}"
        ]
        for name, item in self.layouts.items():
            lines.append(
                f"  {printable(name)}  "
                f"dev_matrix {shown(item.dev_matrix)} tensor_map {shown(item.tensor_map)}"
            )
        return "\n".join(lines)


def _stage(full_name: str, digits: str) -> int:
    if len(digits) > MOST_STAGE_DIGITS:
        raise LayoutError(
            f"{full_name:.80}: pipeline stage {digits:.20} is larger than any supported", parameter=full_name
        )
    return int(digits)


def _layout(name: str, item: MindSporeLayout, stages: Sequence[int]) -> Layout:
    try:
        return to_layout(item, sorted(set(stages)))
    except LayoutError as err:
        raise LayoutError(f"{name}: {err}", of=err, parameter=name) from err
