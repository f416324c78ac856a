"""What makes a function of log-terms an objective: its name, its direction, and whether the log-weights are all it reads."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from vaejax import checks
from vaejax.types import Array, LogTerms, call


class Objective(NamedTuple):
    """An objective with its metadata, as estimators see it.

    Attributes:
        function: ``(terms, *, step=0) -> [*batch]`` nats.
        name: its name.
        maximize: True for lower bounds and the like, False for upper bounds, which are minimised.
        of_log_weights: whether it is a function of ``terms.log_weights`` alone (where the terms carry no closed-form KL), with a
            continuous derivative: a maximum is not.
        averages_draws: whether its value at K draws is the mean of its values at each, so that chunks of draws can be summed in one pass.
    """

    function: Callable[..., Array]
    name: str
    maximize: bool
    of_log_weights: bool
    averages_draws: bool = False

    def __call__(self, terms: LogTerms, *, step: Any = 0) -> Array:
        """The objective's value per example."""
        return self.function(terms, step=step)


Flag = bool | Callable[..., bool]


def objective(
    *, maximize: Flag = True, of_log_weights: Flag = False, averages_draws: Flag = False
) -> Callable[[Callable], Callable]:
    """Decorates a function ``(terms, *, step=0, …) -> [*batch]`` as an objective.

    Each fact is a bool, or a function of the objective's keyword options that gives one.

    Args:
        maximize: its direction.
        of_log_weights: whether it reads the log-weights alone, and has a continuous derivative in them.
        averages_draws: whether its value at K draws is the mean of its values at each.
    """

    def decorate(function: Callable) -> Callable:
        function.objective_info = (function.__name__, maximize, of_log_weights, averages_draws)  # type: ignore[attr-defined]
        return function

    return decorate


def as_objective(function: Any) -> Objective:
    """Reads the metadata of an objective, through any `functools.partial`; adapts a plain function of terms.

    Raises:
        TypeError: for what cannot be called (the way out is named), such as the value of an objective instead of the function.

    Examples:
        >>> import functools
        >>> from vaejax.objectives import elbo
        >>> as_objective(functools.partial(elbo, beta=4.0))[1:]
        ('elbo', True, False, True)
        >>> as_objective(lambda terms: terms.log_weights.mean(0)).name
        '<lambda>'
    """
    if not callable(function):
        raise TypeError(
            f"objective must be a function of log-terms such as vaejax.objectives.elbo, got {type(function).__name__}; "
            "set its options with functools.partial"
        )
    inner: Any = function
    options: dict[str, Any] = {}
    while isinstance(inner, functools.partial):
        if inner.args:
            raise TypeError("an objective takes its options by keyword: functools.partial(objective, beta=0.5)")
        inner, options = inner.func, {**inner.keywords, **options}
    if isinstance(inner, Objective):
        return inner._replace(function=functools.partial(inner.function, **options)) if options else inner
    if isinstance(inner, type):
        raise TypeError(
            f"objective must be a function of log-terms such as vaejax.objectives.elbo, got the class {inner.__name__}"
        )
    info = getattr(inner, "objective_info", None)
    if info is None:
        return Objective(
            lambda terms, step=0: call(function, terms, step=step),
            getattr(inner, "__name__", type(inner).__name__),
            True,
            False,
        )
    name, *facts = info
    return Objective(
        functools.partial(call, function), name, *(fact(**options) if callable(fact) else fact for fact in facts)
    )


def scheduled(value: Any, name: str, step: Any, **bounds: Any) -> Any:
    """A number within ``bounds``, or what a schedule gives at this step."""
    return checks.real(value(step) if callable(value) else value, name, **bounds)


def less_penalty(value: Array, terms: LogTerms) -> Array:
    """An objective to maximise, less the penalty that the terms carry."""
    return value if terms.penalty is None else value - terms.penalty


def plus_penalty(value: Array, terms: LogTerms) -> Array:
    """An objective to minimise, plus the penalty that the terms carry."""
    return value if terms.penalty is None else value + terms.penalty
