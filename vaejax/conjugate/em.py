"""Expectation–maximisation as one compiled loop, with its log-likelihood at every step."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vaejax.types import Array, Params


class FitResult(NamedTuple):
    """What a fit found.

    Attributes:
        params: at the last step.
        trace: ``[T + 1]`` log-likelihood of all data before each step and after the last, nats; NaN beyond the steps made.
        num_steps: how many were made.
        converged: whether the last step gained less than the tolerance.
    """

    params: Params
    trace: Array
    num_steps: Array
    converged: Array

    @property
    def log_likelihood(self) -> Array:
        """Of all data at the last step, nats."""
        return self.trace[self.num_steps]


def iterate(
    step: Callable[[Params], tuple[Params, Array]],
    log_likelihood: Callable[[Params], Array],
    params: Params,
    *,
    max_steps: int,
    tolerance: float | Array,
) -> FitResult:
    """Steps until one gains less than ``tolerance`` times the size of the log-likelihood, or ``max_steps`` are made.

    Args:
        step: params -> better ones, and the log-likelihood of those given, which the E-step knows.
        log_likelihood: params -> theirs.
        params: to begin with.
        max_steps: T.
        tolerance: relative; 0 stops where nothing is gained.
    """

    def more(state: FitResult) -> Array:
        return (state.num_steps < max_steps) & ~state.converged

    def advance(state: FitResult) -> FitResult:
        better, before = step(state.params)
        trace = state.trace.at[state.num_steps].set(before)
        earlier = jnp.where(state.num_steps > 0, trace[state.num_steps - 1], -jnp.inf)
        gained = before - earlier
        # Known one step late: the step just made is then more than was asked.
        converged = gained <= tolerance * jnp.abs(before)
        return FitResult(better, trace, state.num_steps + 1, converged)

    trace = jnp.full(max_steps + 1, jnp.nan, jax.eval_shape(log_likelihood, params).dtype)
    begin = FitResult(params, trace, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    end = jax.lax.while_loop(more, advance, begin)
    return end._replace(trace=end.trace.at[end.num_steps].set(log_likelihood(end.params)))
