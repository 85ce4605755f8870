"""Optimizers by MindSpore's names: each adds, to a graph, the nodes that make the new values.

Their states are parameters like any other, named as MindSpore names them in a checkpoint:
`moments.<p>` (Momentum), `moment1.<p>` and `moment2.<p>` (Adam), `accum.<p>` and `stat.<p>` (SGD).
The arithmetic is MindSpore's as well: weight decay is added in the parameter's dtype, the update is
computed in float32 (float64 for float64 parameters), and 1 - beta is a difference of float32 numbers.

References
----------
Kingma and Ba, "Adam", 2014, algorithm 1 and the note on its order of computation.
MindSpore 2.10, mindspore/python/mindspore/nn/optim.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..display import Displayed, counted
from ..errors import ArgumentTypeError, ContextError, GraphError, Option
from .build import GraphBuilder
from .initializer import Initializer, initializer
from .operators import AtStep, BroadcastTo, Cast, Constant, Identity, Sqrt, Square
from .tensor import Parameter, Tensor, Traced, apply

__all__ = ["SGD", "Adam", "Momentum", "Optimizer"]

Array = NDArray[Any]
Rates = float | Sequence[float] | Tensor | Array

UNDECAYED = ("beta", "gamma")
"""Weight decay leaves out a parameter with one of these in its name, as in MindSpore."""


class Optimizer(Displayed, ABC):
    """Base of all optimizers.

    Parameters
    ----------
    params
        What to train, usually `net.trainable_params()`.
    learning_rate
        A number of 0 or more, or one for each step.
    weight_decay
        This times a parameter is added to its gradient, except where the parameter's name contains
        "beta" or "gamma".
    loss_scale
        Only 1.0 is supported.

    Raises
    ------
    GraphError
        If there is nothing to train, or two parameters have one name.
    ContextError
        If a number is out of range.
    ArgumentTypeError
        If an argument has the wrong type, such as groups of parameters.
    """

    initial: ClassVar[Mapping[str, str]] = {}
    """Prefix of the states that each parameter has -> their initial value."""

    def __init__(
        self,
        params: Iterable[Parameter],
        learning_rate: Rates,
        weight_decay: float = 0.0,
        loss_scale: float = 1.0,
    ) -> None:
        self.params = _parameters(type(self).__name__, params)
        self.weight_decay = self._number("weight_decay", weight_decay)
        if loss_scale != 1.0:
            raise ContextError(
                f"{type(self).__name__}: loss_scale={loss_scale} is not supported; gradients are computed "
                "unscaled, use 1.0"
            )
        self.states: dict[str, Parameter] = {}
        self._keep("learning_rate", self._rates(learning_rate))
        self._keep("global_step", initializer("zeros", (1,), np.int32))

    def _keep(self, name: str, value: Initializer | Array) -> None:
        self.states[name] = Parameter(value, name, requires_grad=False)

    def _keep_for_each_parameter(self) -> None:
        for prefix, value in self.initial.items():
            for param in self.params:
                self._keep(f"{prefix}.{param.name}", initializer(value, param.shape, param.dtype))

    def _number(self, argument: str, value: object) -> float:
        """A finite number of 0 or more."""
        if not isinstance(value, Real) or isinstance(value, bool):
            raise ArgumentTypeError(
                f"{type(self).__name__}: {argument}={value!r:.60} is not supported; give one number"
            )
        number = float(value)
        if not 0 <= number < math.inf:
            raise ContextError(f"{type(self).__name__}: {argument}={number} is out of range; give 0 or more")
        return number

    def _rates(self, rates: Rates) -> Initializer | Array:
        """One learning rate, of no dims, or one for each step."""
        if isinstance(rates, Tensor | np.ndarray):
            rates = np.asarray(rates).tolist()
        if isinstance(rates, Iterable) and not isinstance(rates, str):
            numbers = [self._number("learning_rate", rate) for rate in rates]
            if not numbers:
                raise ContextError(
                    f"{type(self).__name__}: learning_rate has no values; give one for each step"
                )
            return np.array(numbers, np.float32)
        return initializer(self._number("learning_rate", rates), ())

    def update(self, build: GraphBuilder, grads: Mapping[str, str]) -> dict[str, str]:
        """Add the nodes of one step.

        Parameters
        ----------
        grads
            Parameter -> the value that is its gradient; one that is not named has a gradient of zeros.

        Returns
        -------
        Parameter or state -> the value that replaces it.
        """
        states = {name: Traced(build, build.param(name, s.spec)) for name, s in self.states.items()}
        with build.origin("global_step", None):
            new, numbers = self._shared(states)
        for param in self.params:
            with build.origin(param.name, grads.get(param.name)):
                new |= self._updated(build, param, grads, states, numbers)
        with build.origin("global_step", None):
            # A state that nothing changes belongs to the net all the same: cards hold it and save it.
            new |= {name: apply(Identity(), state) for name, state in states.items() if name not in new}
        return {name: value.name for name, value in new.items()}

    def _shared(self, states: Mapping[str, Traced]) -> tuple[dict[str, Traced], dict[str, Traced]]:
        """New values of the states that all parameters share, and the numbers that a step needs."""
        step, rate = states["global_step"], states["learning_rate"]
        numbers = {"learning_rate": apply(AtStep(), rate, step) if rate.shape else rate}
        return {"global_step": step + 1}, numbers

    def _updated(
        self,
        build: GraphBuilder,
        param: Parameter,
        grads: Mapping[str, str],
        states: Mapping[str, Traced],
        numbers: Mapping[str, Traced],
    ) -> dict[str, Traced]:
        """New values of a parameter and of its states."""
        value = Traced(build, build.param(param.name, param.spec))
        grad = Traced(build, grads[param.name]) if param.name in grads else _zeros(build, param)
        if self.weight_decay and not any(part in param.name for part in UNDECAYED):
            grad = grad + value * self.weight_decay
        # In float16 the squares of small gradients and an eps of 1e-8 are 0.
        wide = np.promote_types(param.dtype, np.float32)
        own = {prefix: states[f"{prefix}.{param.name}"] for prefix in self.initial}
        step, changed = self._step(
            _as(wide, grad),
            {prefix: _as(wide, state) for prefix, state in own.items()},
            {name: _as(wide, number) for name, number in numbers.items()},
        )
        kept = {prefix: apply(Identity(), state) for prefix, state in own.items() if prefix not in changed}
        new = {f"{prefix}.{param.name}": state for prefix, state in (changed | kept).items()}
        new[param.name] = _as(wide, value) - step
        return {name: _as(param.dtype, narrow) for name, narrow in new.items()}

    @abstractmethod
    def _step(
        self, grad: Traced, own: Mapping[str, Traced], numbers: Mapping[str, Traced]
    ) -> tuple[Traced, dict[str, Traced]]:
        """What to subtract from a parameter, and the new values of those of its states that change."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({counted(len(self.params), 'parameter')})"


class _WithMomentum(Optimizer):
    """An optimizer with a velocity for each parameter."""

    def _shared(self, states: Mapping[str, Traced]) -> tuple[dict[str, Traced], dict[str, Traced]]:
        new, numbers = super()._shared(states)
        return new, numbers | {"momentum": states["momentum"]}


class Momentum(_WithMomentum):
    """v = momentum * v + grad; param -= learning_rate * v, or Nesterov's look ahead.

    MindSpore's CPU kernel ignores `use_nesterov`; this is the formula of its documentation.
    """

    initial: ClassVar[Mapping[str, str]] = {"moments": "zeros"}

    def __init__(
        self,
        params: Iterable[Parameter],
        learning_rate: Rates,
        momentum: float,
        weight_decay: float = 0.0,
        loss_scale: float = 1.0,
        use_nesterov: bool = False,
    ) -> None:
        super().__init__(params, learning_rate, weight_decay, loss_scale)
        self.nesterov = use_nesterov
        self._keep("momentum", initializer(self._number("momentum", momentum), ()))
        self._keep_for_each_parameter()

    def _step(
        self, grad: Traced, own: Mapping[str, Traced], numbers: Mapping[str, Traced]
    ) -> tuple[Traced, dict[str, Traced]]:
        momentum, rate = numbers["momentum"], numbers["learning_rate"]
        velocity = own["moments"] * momentum + grad
        change = grad + velocity * momentum if self.nesterov else velocity
        return change * rate, {"moments": velocity}


class SGD(_WithMomentum):
    """Gradient descent, with momentum if it is above 0.

    accum = momentum * accum + (1 - dampening) * grad, but grad in the first step, where `stat` is 1;
    `stat` is 0 from then on. Without momentum both stay as they are.
    """

    initial: ClassVar[Mapping[str, str]] = {"accum": "zeros", "stat": "ones"}

    def __init__(
        self,
        params: Iterable[Parameter],
        learning_rate: Rates = 0.1,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        loss_scale: float = 1.0,
    ) -> None:
        super().__init__(params, learning_rate, weight_decay, loss_scale)
        self.momentum = self._number("momentum", momentum)
        self.dampening = self._number("dampening", dampening)
        self.nesterov = nesterov
        if nesterov and (not momentum or dampening):
            raise ContextError(
                f"SGD: nesterov=True with momentum={momentum} and dampening={dampening}; it needs a momentum "
                "above 0 and no dampening"
            )
        self._keep("momentum", initializer(self.momentum, ()))
        self._keep_for_each_parameter()

    def _step(
        self, grad: Traced, own: Mapping[str, Traced], numbers: Mapping[str, Traced]
    ) -> tuple[Traced, dict[str, Traced]]:
        momentum, rate = numbers["momentum"], numbers["learning_rate"]
        if not self.momentum:
            return grad * rate, {}
        later = 1 - own["stat"]
        damped = grad * (1 - later * self.dampening) if self.dampening else grad
        velocity = own["accum"] * momentum * later + damped
        change = grad + velocity * momentum if self.nesterov else velocity
        return change * rate, {"accum": velocity, "stat": own["stat"] * 0}


class Adam(Optimizer):
    """Adaptive moments; `beta1_power` and `beta2_power` hold the powers of the betas so far.

    The arguments are MindSpore's: `use_locking` changes nothing here; `use_amsgrad`, `use_lazy` and
    `use_offload` are refused.
    """

    initial: ClassVar[Mapping[str, str]] = {"moment1": "zeros", "moment2": "zeros"}

    def __init__(
        self,
        params: Iterable[Parameter],
        learning_rate: Rates = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        use_locking: bool = False,
        use_nesterov: bool = False,
        weight_decay: float = 0.0,
        loss_scale: float = 1.0,
        use_amsgrad: bool = False,
        *,
        use_lazy: bool = False,
        use_offload: bool = False,
    ) -> None:
        super().__init__(params, learning_rate, weight_decay, loss_scale)
        for name, value in (("use_locking", use_locking), ("use_nesterov", use_nesterov)):
            if not isinstance(value, bool):
                raise ArgumentTypeError(f"Adam: {name}={value!r} is not True or False", Option(name, value))
        for name, value in (("amsgrad", use_amsgrad), ("lazy", use_lazy), ("offload", use_offload)):
            if value:
                raise ContextError(
                    f"Adam: use_{name}={value!r} is not supported; use False", Option(f"use_{name}", value)
                )
        numbers = [self._number(*pair) for pair in (("beta1", beta1), ("beta2", beta2), ("eps", eps))]
        self.beta1, self.beta2, self.eps = (float(np.float32(number)) for number in numbers)
        if not (0 < self.beta1 < 1 and 0 < self.beta2 < 1 and self.eps > 0):
            raise ContextError(
                f"Adam: beta1={beta1}, beta2={beta2}, eps={eps}; as float32, betas must be between 0 and 1, and "
                "eps above 0"
            )
        self.nesterov = use_nesterov
        self._keep("beta1_power", initializer("ones", ()))
        self._keep("beta2_power", initializer("ones", ()))
        self._keep_for_each_parameter()

    def _shared(self, states: Mapping[str, Traced]) -> tuple[dict[str, Traced], dict[str, Traced]]:
        new, numbers = super()._shared(states)
        power1, power2 = states["beta1_power"] * self.beta1, states["beta2_power"] * self.beta2
        rate = numbers["learning_rate"] * apply(Sqrt(), 1 - power2) / (1 - power1)
        return new | {"beta1_power": power1, "beta2_power": power2}, {"learning_rate": rate}

    def _step(
        self, grad: Traced, own: Mapping[str, Traced], numbers: Mapping[str, Traced]
    ) -> tuple[Traced, dict[str, Traced]]:
        rest1, rest2 = 1 - self.beta1, 1 - self.beta2
        mean = own["moment1"] + (grad - own["moment1"]) * rest1
        square = own["moment2"] + (apply(Square(), grad) - own["moment2"]) * rest2
        ahead = mean * self.beta1 + grad * rest1 if self.nesterov else mean
        step = ahead * numbers["learning_rate"] / (apply(Sqrt(), square) + self.eps)
        return step, {"moment1": mean, "moment2": square}


def _parameters(kind: str, params: Iterable[Parameter]) -> tuple[Parameter, ...]:
    """The parameters to train, each name once."""
    given = tuple(params)
    if not given:
        raise GraphError(f"{kind} has no parameters to train; pass net.trainable_params()")
    for param in given:
        if not isinstance(param, Parameter):
            what = "groups of parameters are not supported" if isinstance(param, dict) else f"{param!r:.60}"
            raise ArgumentTypeError(f"{kind} trains Parameters: {what}; pass net.trainable_params()")
    names = [param.name for param in given]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise GraphError(f"{kind}: two parameters are called {twice!r}; pass each parameter once")
    return given


def _zeros(build: GraphBuilder, param: Parameter) -> Traced:
    """The gradient of a parameter that the loss does not depend on."""
    zero = Traced(build, build.add(Constant(0.0, str(param.dtype))))
    return zero if not param.shape else apply(BroadcastTo(param.shape), zero)


def _as(dtype: np.dtype[Any], value: Traced) -> Traced:
    return value if value.dtype == dtype else apply(Cast(str(np.dtype(dtype))), value)
