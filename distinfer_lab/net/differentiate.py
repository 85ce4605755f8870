"""Differentiation: a graph in, more nodes of the same operators out.

Walk the nodes backwards; each propagates the gradient of its output to its inputs; where a value
was used twice, its gradients are added.
"""

from collections.abc import Sequence

from ..errors import GraphError
from ..text import shown
from .build import GraphBuilder
from .graph import Node, faulty, naming
from .operators import Add, Constant

__all__ = ["differentiate"]


def differentiate(build: GraphBuilder, loss: str, wrt: Sequence[str]) -> dict[str, str]:
    """Add the gradient of `loss` to what was built: parameter -> name of its gradient.

    Parameters
    ----------
    loss
        A value of no dims.
    wrt
        The parameters or inputs to differentiate by. One that the loss does not depend on is
        not in the result.

    Raises
    ------
    GraphError
        If the loss has dims, or an operator on the way has no gradient.
    """
    spec = build.spec(loss)
    if spec.shape != ():
        raise GraphError(
            f"the loss has shape {list(spec.shape)}; a gradient needs one number: use reduction='mean' or 'sum'"
        )
    forward = tuple(build.nodes)
    reached = _reached(forward, wrt)
    with build.origin(loss, None):
        grads = {loss: build.add(Constant(1.0, str(spec.dtype)))}
    for node in reversed(forward):
        if node.output in grads and node.output in reached:
            _propagate(build, node, grads, reached)
    return {name: grads[name] for name in wrt if name in grads}


def _reached(nodes: Sequence[Node], wrt: Sequence[str]) -> set[str]:
    """The values that depend on what is differentiated by."""
    out = set(wrt)
    for node in nodes:
        if any(name in out for name in node.inputs):
            out.add(node.output)
    return out


def _propagate(build: GraphBuilder, node: Node, grads: dict[str, str], reached: set[str]) -> None:
    grad = grads[node.output]
    with build.origin(node.output, grad):
        parts = _parts(build, node, grad)
        for name, part in zip(node.inputs, parts, strict=True):
            if part is None or name not in reached:
                continue
            grads[name] = part if name not in grads else build.add(Add(), grads[name], part)


def _parts(build: GraphBuilder, node: Node, grad: str) -> Sequence[str | None]:
    """The gradient of each input, by the node's operator."""
    given = [build.spec(name) for name in (*node.inputs, grad)]
    with naming(node.op, "gradient", given, node.output):
        parts: object = node.op.gradient(build, node.inputs, node.output, grad)
    if not isinstance(parts, list | tuple) or len(parts) != len(node.inputs):
        raise faulty(node.op, "gradient", given, f"returned {shown(parts)}", node.output)
    for name, part in zip(node.inputs, parts, strict=True):
        if part is None:
            continue
        if not isinstance(part, str):
            raise faulty(node.op, "gradient", given, f"returned {shown(part)}", node.output)
        if build.spec(part).shape != build.spec(name).shape:
            shapes = f"{list(build.spec(part).shape)} for {name!r} of {list(build.spec(name).shape)}"
            raise faulty(node.op, "gradient", given, f"returned {part!r}, {shapes}", node.output)
    return parts
