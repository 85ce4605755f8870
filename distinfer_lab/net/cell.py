"""Nets as people write them: cells that hold parameters and other cells.

::

    class Net(Cell):
        def __init__(self):
            super().__init__()
            self.fc1 = Dense(96, 64)        # parameters fc1.weight and fc1.bias
            self.relu = ops.ReLU()

        def construct(self, x):
            return self.relu(self.fc1(x))
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from ..display import Displayed
from ..errors import ArgumentTypeError, GraphError
from .tensor import Parameter, Value, building

__all__ = ["Cell", "SequentialCell"]


def _no_construct(self: "Cell", *inputs: object) -> NoReturn:
    raise GraphError(f"{type(self).__name__} has no `construct`; write what it computes there")


class Cell(Displayed):
    """Base of all nets and layers.

    Attributes that are Parameters or Cells are registered under their names. A Parameter
    without a name takes that of its attribute; those of inner cells carry the cell's path in
    front.
    """

    construct: Callable[..., Any] = _no_construct
    """Compute the output; every net defines how, with inputs of its own."""

    _pipeline_stage: int | None = None

    def __init__(self) -> None:
        self._named()

    def _named(self) -> tuple[dict[str, Parameter], dict[str, "Cell"]]:
        if "_params" not in self.__dict__:
            self.__dict__["_params"], self.__dict__["_cells"] = {}, {}
        return self.__dict__["_params"], self.__dict__["_cells"]

    def __setattr__(self, name: str, value: Any) -> None:
        params, cells = self._named()
        params.pop(name, None)
        cells.pop(name, None)
        if isinstance(value, Parameter):
            if not value.named:
                value.name, value.named = name, True
            params[name] = value
        elif isinstance(value, Cell):
            cells[name] = value
        object.__setattr__(self, name, value)

    def __call__(self, *inputs: Any) -> Any:
        build = building()
        if build is None or self.pipeline_stage is None:
            return self.construct(*inputs)
        with build.at_stage(self.pipeline_stage):
            return self.construct(*inputs)

    @property
    def pipeline_stage(self) -> int | None:
        """The pipeline stage at which this cell, and the cells in it that have none of their own, compute.

        Of n stages (`set_auto_parallel_context(pipeline_stages=n)`) stage s has the s-th run of an n-th of
        the cards. None, the default, is the latest stage of a cell's inputs.
        """
        return self._pipeline_stage

    @pipeline_stage.setter
    def pipeline_stage(self, stage: int | None) -> None:
        if stage is not None and (not isinstance(stage, int) or isinstance(stage, bool) or stage < 0):
            raise ArgumentTypeError(f"pipeline_stage is a number, 0 or more, not {stage!r}")
        self._pipeline_stage = stage

    def parameters_and_names(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter once, with its full name, in the order of definition."""
        seen: set[int] = set()
        yield from self._walk("", seen)

    def _walk(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, Parameter]]:
        params, cells = self._named()
        for attribute, param in params.items():
            if id(param) not in seen:
                seen.add(id(param))
                own = (
                    param.name.rsplit(".", 1)[-1] if prefix and param.name.startswith(prefix) else param.name
                )
                yield prefix + (own or attribute), param
        for name, cell in cells.items():
            yield from cell._walk(f"{prefix}{name}.", seen)

    def parameters_dict(self) -> dict[str, Parameter]:
        """Full name -> parameter, every parameter carrying its full name from now on.

        Raises
        ------
        GraphError
            If two parameters have one name.
        """
        out: dict[str, Parameter] = {}
        for name, param in list(self.parameters_and_names()):
            if name in out:
                raise GraphError(
                    f"{type(self).__name__} has two parameters named {name!r}; give Parameter(..., name=) "
                    "another name",
                    parameter=name,
                )
            out[name] = param
        for name, param in out.items():
            param.name = name
        return out

    def get_parameters(self) -> Iterator[Parameter]:
        """Every parameter, in the order of definition."""
        return iter(self.parameters_dict().values())

    def trainable_params(self) -> list[Parameter]:
        """The parameters that optimizers train."""
        return [param for param in self.get_parameters() if param.requires_grad]

    def set_train(self, mode: bool = True) -> "Cell":
        """Accepted for MindSpore's scripts; no layer here behaves differently in training."""
        return self

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {list(param.shape)}" for name, param in self.parameters_and_names())
        return f"{type(self).__name__}({shapes})"


class SequentialCell(Cell):
    """Cells one after another: `SequentialCell([Dense(8, 4), ReLU()])`, or without the list.

    Raises
    ------
    GraphError
        If one of them is not a Cell or cannot be called.
    """

    def __init__(self, *cells: Any) -> None:
        super().__init__()
        steps: Sequence[Any] = cells[0] if len(cells) == 1 and isinstance(cells[0], list | tuple) else cells
        for i, cell in enumerate(steps):
            if not callable(cell):
                raise GraphError(f"SequentialCell: item {i} is {cell!r}, which cannot be called")
            setattr(self, str(i), cell)
        self.steps = tuple(steps)

    def construct(self, *inputs: Value) -> Value:
        (x,) = inputs
        for step in self.steps:
            x = step(x)
        return x

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> Any:
        return self.steps[index]
