"""What Jupyter shows of nets: their graph, how it is cut, what their cards exchange; nothing is computed."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ... import display
from ...display import counted, format_bytes
from ...text import escape
from ..drawing import img_html
from ..holdings import describe_sharding
from ..moves import bars_svg
from ..runs import Step, graph_svg
from .layouts import strategy_html
from .tables import ROWS, bars_html, first, kept, lines_html, table_html

if TYPE_CHECKING:
    from ...net import Cell, Graph, Parameter, Tensor
    from ...net.nn import Optimizer
    from ...parallel import Communication, Program, Sharding

__all__ = ["cell_html", "graph_steps", "program_html", "program_steps", "register"]


def graph_steps(graph: "Graph") -> list[Step]:
    """A net's inputs and operators, uncut."""
    inputs = [Step(name, "input", (), str(list(spec.shape))) for name, spec in graph.inputs.items()]
    return inputs + [
        Step(node.output, node.op.name, node.inputs, str(list(graph.specs[node.output].shape)))
        for node in graph.nodes
    ]


def program_steps(program: "Program") -> list[Step]:
    """A program's inputs, operators and collectives, with how each value lies and what is sent for it."""
    sent = {c.value: (c.kind, int(c.sent_bytes.max(initial=0))) for c in program.collectives}
    return [Step(name, "input", (), _lies(program, name)) for name in program.inputs] + [
        _step(program, instruction, sent) for instruction in program.instructions
    ]


def _step(program: "Program", instruction: Any, sent: dict[str, tuple[str, int]]) -> Step:
    lies = _lies(program, instruction.output)
    if hasattr(instruction, "op"):
        return Step(instruction.output, instruction.op.name, instruction.inputs, lies)
    # What only changes how a value is counted, and not where it lies, sends nothing.
    kind, nbytes = sent.get(instruction.output, (type(instruction).__name__, None))
    return Step(instruction.output, kind, instruction.inputs, lies, nbytes)


def _lies(program: "Program", name: str) -> str:
    spec, layout = program.values[name]
    return f"{list(spec.shape)} {describe_sharding(layout)}"


def graph_html(graph: "Graph") -> str:
    """The operators in order."""
    params = {name: str(list(spec.shape)) for name, spec in graph.params.items()}
    steps = graph_steps(graph)
    return kept(
        lambda count: graph_svg(steps, "Graph", params=params, max_steps=max(count // 8, 4)),
        repr(graph).split("\n")[0],
    )


def program_html(program: "Program") -> str:
    """The operators and collectives in order, and the bytes of parameters on each card."""
    params = {name: _lies(program, name) for name in program.params}
    steps = program_steps(program)
    title = f"Program for {counted(program.ranks, 'card')}"
    picture = kept(
        lambda count: graph_svg(steps, title, params=params, max_steps=max(count // 8, 4)),
        repr(program).split("\n")[0],
    )
    bars = bars_svg(program.resident_bytes.tolist(), "Bytes of parameters on each card")
    return picture + img_html(bars, "Bytes of parameters on each card")


def sharding_html(sharding: "Sharding") -> str:
    """How parameters lie, and for each operator how it is cut and what must be summed."""
    rows = [
        [
            name,
            "; ".join(map(describe_sharding, node.inputs)),
            describe_sharding(node.output),
            ", ".join(node.sums),
        ]
        for name, node in first(sharding.nodes.items())
    ]
    columns = ["operator's output", "its inputs", "its output", "summed over"]
    return strategy_html(sharding.strategy) + table_html(columns, rows, len(sharding.nodes))


def communication_html(communication: "Communication") -> str:
    """What each card sends in all, what each kind of collective does, and the collectives that send most."""
    words = format_bytes
    kinds = [[kind, f"{calls:,}", words(sent)] for kind, (calls, sent) in communication.by_kind().items()]
    # Equal ones, such as those of each layer, in one row.
    calls = Counter[tuple[str, str, int]]()
    sent = Counter[tuple[str, str, int]]()
    for row in communication.rows:
        key = row.kind, row.operator, max(row.sent_bytes) // max(row.calls, 1)
        calls[key] += row.calls
        sent[key] += sum(row.sent_bytes)
    rows = [
        [kind, of, f"{calls[kind, of, once]:,}", words(once), words(total)]
        for (kind, of, once), total in sent.most_common(ROWS)
    ]
    columns = ["collective", "of what", "calls", "a card sends in one", "all cards send"]
    title = "Bytes that each card sends in one run"
    return (
        img_html(bars_svg(communication.sent_bytes.tolist(), title), title)
        + table_html(["collective", "calls", "all cards send"], kinds, len(kinds))
        + table_html(columns, rows, len(sent))
    )


def _sizes(params: dict[str, "Parameter"]) -> Iterator[tuple[str, int]]:
    for name, param in params.items():
        yield name, math.prod(param.shape) * param.spec.dtype.itemsize


def _params_html(params: dict[str, "Parameter"], head: str) -> str:
    rows = [
        [name, str(list(p.shape)), str(p.dtype), format_bytes(math.prod(p.shape) * p.spec.dtype.itemsize)]
        for name, p in first(params.items())
    ]
    table = table_html(["parameter", "shape", "dtype", "bytes"], rows, len(params))
    return f"<p>{escape(head)}</p>{bars_html(_sizes(params), 'Bytes of each parameter')}{table}"


def cell_html(cell: "Cell") -> str:
    """The parameters of a net, by size."""
    # Not `parameters_dict`, which refuses a net of two equal names: a repr shows what there is.
    params = dict(cell.parameters_and_names())
    total = format_bytes(sum(n for _, n in _sizes(params)))
    return _params_html(params, f"{type(cell).__name__}: {counted(len(params), 'parameter')}, {total}")


def optimizer_html(optimizer: "Optimizer") -> str:
    """What an optimizer keeps in addition to the parameters."""
    count = counted(len(optimizer.params), "parameter")
    return _params_html(optimizer.states, f"{type(optimizer).__name__} of {count}; beside them it keeps")


def value_html(value: "Tensor | Parameter") -> str:
    """Name, shape and dtype; the elements of a tensor that is here, as its text has them."""
    return lines_html(repr(value))


def register() -> None:
    """Tell `display` how these are drawn."""
    display.register("distinfer_lab.net.Graph", graph_html)
    display.register("distinfer_lab.parallel.Program", program_html)
    display.register("distinfer_lab.parallel.Sharding", sharding_html)
    display.register("distinfer_lab.parallel.Communication", communication_html)
    display.register("distinfer_lab.net.Cell", cell_html)
    display.register("distinfer_lab.net.Optimizer", optimizer_html)
    display.register("distinfer_lab.net.Tensor", value_html)
    display.register("distinfer_lab.net.Parameter", value_html)
