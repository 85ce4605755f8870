"""Optimizers by MindSpore's names: each adds, to a graph, the nodes that make the new values.

Their states are parameters like any other, named as MindSpore names them in a checkpoint:
`moments.<p>` (Momentum), `moment1.<p>` and `moment2.<p>` (Adam), `accum.<p>` (SGD).

References
----------
Kingma and Ba, "Adam", 2014, algorithm 1 and the note on its order of computation.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from ..display import Displayed, counted
from ..errors import ContextError, GraphError
from .build import GraphBuilder
from .initializer import initializer
from .operators import Add, AddScalar, Cast, Div, Mul, Scale, Sqrt, Square, Sub
from .tensor import Parameter

__all__ = ["SGD", "Adam", "Momentum", "Optimizer"]


class Optimizer(Displayed):
    """Base of all optimizers.

    Parameters
    ----------
    params
        What to train, usually `net.trainable_params()`.
    learning_rate
        A number of 0 or more.
    weight_decay
        This times a parameter is added to its gradient.

    Raises
    ------
    GraphError
        If there is nothing to train.
    ContextError
        If a number is out of range.
    """

    def __init__(self, params: Iterable[Parameter], learning_rate: float, weight_decay: float = 0.0) -> None:
        self.params = tuple(params)
        if not self.params:
            raise GraphError(f"{type(self).__name__} has no parameters to train; pass net.trainable_params()")
        if learning_rate < 0 or weight_decay < 0:
            raise ContextError(
                f"{type(self).__name__}: learning_rate={learning_rate} and weight_decay={weight_decay} "
                "must be 0 or more"
            )
        self.weight_decay = weight_decay
        self.states: dict[str, Parameter] = {}
        self._scalar("learning_rate", learning_rate)
        self._keep(Parameter(initializer("zeros", (1,), np.int32), "global_step", requires_grad=False))

    def _keep(self, state: Parameter) -> None:
        self.states[state.name] = state

    def _scalar(self, name: str, value: float) -> None:
        self._keep(Parameter(initializer(value, ()), name, requires_grad=False))

    def _zeros_like(self, prefix: str) -> None:
        for param in self.params:
            zeros = initializer("zeros", param.shape, param.dtype)
            self._keep(Parameter(zeros, f"{prefix}.{param.name}", requires_grad=False))

    def update(self, build: GraphBuilder, grads: Mapping[str, str]) -> dict[str, str]:
        """Add the nodes of one step; gives parameter or state -> the value that replaces it."""
        names = {name: build.param(name, state.spec) for name, state in self.states.items()}
        out: dict[str, str] = {}
        with build.origin("global_step", None):
            out["global_step"] = build.add(AddScalar(1), names["global_step"])
            out |= self._shared(build)
        for param in self.params:
            if param.name in grads:
                with build.origin(param.name, grads[param.name]):
                    grad = self._decayed(build, param, grads[param.name])
                    out |= self._step(build, param.name, grad, out)
        return out

    def _decayed(self, build: GraphBuilder, param: Parameter, grad: str) -> str:
        if not self.weight_decay:
            return grad
        return build.add(Add(), grad, build.add(Scale(self.weight_decay), param.name))

    def _shared(self, build: GraphBuilder) -> dict[str, str]:
        """New values of states that all parameters share."""
        return {}

    def _step(self, build: GraphBuilder, name: str, grad: str, shared: Mapping[str, str]) -> dict[str, str]:
        """New values of one parameter and of its states."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({counted(len(self.params), 'parameter')})"


class _WithVelocity(Optimizer):
    """v = momentum * v + grad; param -= learning_rate * v, or Nesterov's look ahead."""

    prefix = "moments"

    def __init__(
        self,
        params: Iterable[Parameter],
        learning_rate: float,
        momentum: float,
        weight_decay: float,
        nesterov: bool,
    ) -> None:
        super().__init__(params, learning_rate, weight_decay)
        if momentum < 0:
            raise ContextError(f"{type(self).__name__}: momentum={momentum} must be 0 or more")
        self.nesterov = nesterov
        self._scalar("momentum", momentum)
        self._zeros_like(self.prefix)

    def _step(self, build: GraphBuilder, name: str, grad: str, shared: Mapping[str, str]) -> dict[str, str]:
        state = f"{self.prefix}.{name}"
        momentum = _like(build, "momentum", name)
        velocity = build.add(Add(), build.add(Mul(), state, momentum), grad)
        change = velocity
        if self.nesterov:
            change = build.add(Add(), grad, build.add(Mul(), velocity, momentum))
        step = build.add(Mul(), change, _like(build, "learning_rate", name))
        return {state: velocity, name: build.add(Sub(), name, step)}


class Momentum(_WithVelocity):
    """v = momentum * v + grad; param -= learning_rate * v."""

    def __init__(
        self,
        params: Iterable[Parameter],
        learning_rate: float,
        momentum: float,
        weight_decay: float = 0.0,
        loss_scale: float = 1.0,
        use_nesterov: bool = False,
    ) -> None:
        _refuse_loss_scale(loss_scale)
        super().__init__(params, learning_rate, momentum, weight_decay, use_nesterov)


class SGD(_WithVelocity):
    """Gradient descent, with momentum if it is above 0 (dampening is not supported)."""

    prefix = "accum"

    def __init__(
        self,
        params: Iterable[Parameter],
        learning_rate: float = 0.1,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        loss_scale: float = 1.0,
    ) -> None:
        _refuse_loss_scale(loss_scale)
        if dampening:
            raise ContextError(f"SGD: dampening={dampening} is not supported; use dampening=0")
        super().__init__(params, learning_rate, momentum, weight_decay, nesterov)


class Adam(Optimizer):
    """Adaptive moments; `beta1_power` and `beta2_power` hold the powers of the betas so far."""

    def __init__(
        self,
        params: Iterable[Parameter],
        learning_rate: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        loss_scale: float = 1.0,
    ) -> None:
        _refuse_loss_scale(loss_scale)
        super().__init__(params, learning_rate, weight_decay)
        if not (0 < beta1 < 1 and 0 < beta2 < 1):
            raise ContextError(f"Adam: beta1={beta1} and beta2={beta2} must lie between 0 and 1")
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self._scalar("beta1_power", 1.0)
        self._scalar("beta2_power", 1.0)
        self._zeros_like("moment1")
        self._zeros_like("moment2")

    def _shared(self, build: GraphBuilder) -> dict[str, str]:
        return {
            "beta1_power": build.add(Scale(self.beta1), "beta1_power"),
            "beta2_power": build.add(Scale(self.beta2), "beta2_power"),
        }

    def _rate(self, build: GraphBuilder, shared: Mapping[str, str]) -> str:
        """learning_rate * sqrt(1 - beta2 ** t) / (1 - beta1 ** t)."""
        one_minus = [
            build.add(AddScalar(1.0), build.add(Scale(-1.0), shared[name]))
            for name in ("beta1_power", "beta2_power")
        ]
        return build.add(
            Div(), build.add(Mul(), "learning_rate", build.add(Sqrt(), one_minus[1])), one_minus[0]
        )

    def _step(self, build: GraphBuilder, name: str, grad: str, shared: Mapping[str, str]) -> dict[str, str]:
        mean = _blend(build, f"moment1.{name}", grad, self.beta1)
        square = _blend(build, f"moment2.{name}", build.add(Square(), grad), self.beta2)
        root = build.add(AddScalar(self.eps), build.add(Sqrt(), square))
        step = build.add(Mul(), build.add(Div(), mean, root), _like(build, self._rate(build, shared), name))
        return {
            f"moment1.{name}": mean,
            f"moment2.{name}": square,
            name: build.add(Sub(), name, step),
        }


def _like(build: GraphBuilder, scalar: str, param: str) -> str:
    """A shared float32 scalar in the dtype of the parameter that it works on."""
    dtype = build.spec(param).dtype
    return scalar if build.spec(scalar).dtype == dtype else build.add(Cast(str(dtype)), scalar)


def _blend(build: GraphBuilder, state: str, value: str, beta: float) -> str:
    """Beta * state + (1 - beta) * value."""
    return build.add(Add(), build.add(Scale(beta), state), build.add(Scale(1 - beta), value))


def _refuse_loss_scale(loss_scale: float) -> None:
    if loss_scale != 1.0:
        raise ContextError(
            f"loss_scale={loss_scale} is not supported; gradients are computed unscaled, use 1.0"
        )
