"""Expectation–maximisation as one compiled loop, with what it maximises at every step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.dists import kl_divergence
from vaejax.numerics import filled
from vaejax.types import Array, Key, Params, as_batch


class FitResult(NamedTuple):
    """What a fit found.

    Attributes:
        params: at the last step.
        trace: ``[T + 1]`` what is maximised (the log-likelihood of all data; with a penalty their sum; for CAVI the ELBO) before each
            step and after the last, nats; NaN beyond the steps made: ``trace[: num_steps + 1]``. It never falls, rounding apart, but
            where ``reseeded`` says that components began anew.
        num_steps: how many were made.
        converged: whether the last step gained less than the tolerance.
        reseeded: ``[T]`` how many components were found collapsed after each step and began anew; None where none can collapse.
        collapsed: ``[]`` how many collapsed in a step that was therefore not made, no more re-seeding being allowed: the fit ended there.
        starts: ``[R]`` what each start reached, the best of which ``params`` is; −∞ where a component collapsed or that is no number.
        start_steps: ``[R]`` how many steps each start made.
        start_reseeds: ``[R]`` how many components began anew in each; None where none can collapse.
    """

    params: Params
    trace: Array
    num_steps: Array
    converged: Array
    reseeded: Array | None = None
    collapsed: Array | None = None
    starts: Array | None = None
    start_steps: Array | None = None
    start_reseeds: Array | None = None

    def __repr__(self) -> str:
        """A line instead of all arrays."""
        arrays = all(isinstance(leaf, jax.Array | np.ndarray | np.generic) for leaf in jax.tree.leaves(self))
        if not arrays or self.trace is None or self.num_steps is None:
            # A tree of something else in its shape, such as in_axes.
            return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._asdict().items())})"
        fields: dict[str, Any] = getattr(self.params, "_asdict", dict)()
        shapes = {
            name: "×".join(map(str, np.shape(leaf))) or "1" for name, leaf in fields.items() if hasattr(leaf, "shape")
        }
        inside = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        what = f"FitResult of {type(self.params).__name__}({inside})"
        if not checks.is_concrete(self) or np.ndim(self.num_steps):
            return what
        steps, ended = int(self.num_steps), "converged" if self.converged else "not converged"
        starts = "" if self.starts is None or len(self.starts) == 1 else f", the best of {len(self.starts)} starts"
        return f"{what} after {steps} step{'s' * (steps != 1)}, {ended} at {float(self.objective):.6g} nats{starts}"

    @property
    def objective(self) -> Array:
        """What is maximised, at ``params``: the end of the trace, nats for all data."""
        if np.ndim(self.num_steps) == 0:
            return self.trace[self.num_steps]
        return jnp.take_along_axis(self.trace, self.num_steps[..., None], axis=-1)[..., 0]

    @property
    def restarted(self) -> int:
        """The step from which the trace of one fit rises without a break: after the last re-seed, 0 without any."""
        if np.ndim(self.num_steps):
            raise ValueError(f"restarted is that of one fit, got {np.shape(self.num_steps)} of them; take one first")
        steps = np.flatnonzero(np.asarray(self.reseeded)) if self.reseeded is not None else np.zeros(0, int)
        return int(steps[-1]) + 1 if len(steps) else 0


Mend = Callable[[Key, Params, Array], tuple[Params, Array, Array]]


def iterate(
    step: Callable[[Params], tuple[Params, Array]],
    objective: Callable[[Params], Array],
    params: Params,
    *,
    max_steps: int,
    tolerance: float | Array,
    key: Key | None = None,
    mend: Mend | None = None,
) -> FitResult:
    """Steps until one gains less than ``tolerance`` times the size of the objective, that is no longer finite, or ``max_steps`` are made.

    Args:
        step: params -> better ones, and the objective of those given, which the E-step knows.
        objective: params -> theirs.
        params: to begin with.
        max_steps: T.
        tolerance: relative; 0 stops where nothing is gained.
        key: of the re-seeding.
        mend: ``(key, params, how many were re-seeded before) -> (params, re-seeded now, collapsed and not re-seeded)``; where any is left
            collapsed the step is not made and the loop ends.
    """

    def more(state: Any) -> Array:
        last = state.trace[jnp.maximum(state.num_steps - 1, 0)]
        failed = (state.num_steps > 0) & ~jnp.isfinite(last)
        return (state.num_steps < max_steps) & ~state.converged & (state.collapsed == 0) & ~failed

    def advance(state: Any) -> FitResult:
        at = state.num_steps
        better, before = step(state.params)
        trace = state.trace.at[at].set(before)
        anew = (at == 0) | (state.reseeded[at - 1] > 0)
        earlier = jnp.where(anew, -jnp.inf, trace[at - 1])
        # Known one step late: the step just made is then more than was asked.
        converged = before - earlier <= tolerance * jnp.abs(before)
        if mend is None or key is None:
            return state._replace(params=better, trace=trace, num_steps=at + 1, converged=converged)
        better, reseeded, collapsed = mend(jax.random.fold_in(key, at), better, jnp.sum(state.reseeded))
        kept = jax.tree.map(lambda new, old: jnp.where(collapsed > 0, old, new), better, state.params)
        made = at + (collapsed == 0).astype(jnp.int32)
        now = jnp.where(collapsed > 0, 0, reseeded).astype(jnp.int32)
        converged = converged & (now == 0) & (collapsed == 0)
        return FitResult(kept, trace, made, converged, state.reseeded.at[at].set(now), collapsed.astype(jnp.int32))

    none = jnp.zeros((), jnp.int32)
    trace = jnp.zeros(max_steps + 1, jax.eval_shape(objective, params).dtype)
    begin = FitResult(params, trace, none, jnp.zeros((), bool), jnp.zeros(max_steps, jnp.int32), none)
    end = jax.lax.while_loop(more, advance, begin)
    last = objective(end.params)
    steps = jnp.arange(max_steps + 1)
    trace = jnp.where(steps < end.num_steps, end.trace, last)
    end = end._replace(trace=trace)
    return end if mend is not None else end._replace(reseeded=None, collapsed=None)


def marked(found: FitResult) -> FitResult:
    """Returns the result of a fit with NaN in the trace beyond its last step, and −∞ for starts that failed.

    Compiled programs give finite numbers there (`iterate`, `best_of`), so that `jax_debug_nans` and
    `jax_debug_infs` accept them.
    """
    beyond = jnp.arange(found.trace.shape[-1]) > found.num_steps[..., None]
    found = found._replace(trace=filled(found.trace, beyond, jnp.nan))
    if found.starts is None:
        return found
    has_failed = found.starts <= jnp.finfo(found.starts.dtype).min
    return found._replace(starts=filled(found.starts, has_failed, -jnp.inf))


def best_of(found: FitResult) -> FitResult:
    """The best of several fits along a leading axis, with what each did."""
    reached = jax.vmap(lambda one: one.objective)(found)
    failed = ~jnp.isfinite(reached)
    if found.collapsed is not None:
        failed = failed | (found.collapsed > 0)
    reached = jnp.where(failed, jnp.finfo(reached.dtype).min, reached)
    best = jax.tree.map(lambda leaf: leaf[jnp.argmax(reached)], found)
    reseeds = None if found.reseeded is None else jnp.sum(found.reseeded, -1)
    return best._replace(starts=reached, start_steps=found.num_steps, start_reseeds=reseeds)


class HalfSteps(NamedTuple):
    """ln p(x) = L(q) + KL(q ‖ p(z|x)) along EM, summed over all examples, nats.

    Attributes:
        bound: ``[2T + 1]`` L: before anything, then after each E-step and each M-step in turn. It never falls.
        kl: ``[2T + 1]`` KL(q ‖ p(z|x)): 0 after each E-step.
        log_likelihood: ``[2T + 1]`` ln p(x), which only M-steps move.
    """

    bound: Array
    kl: Array
    log_likelihood: Array


def half_steps(model: Any, params: Params, x: Any, *, num_steps: int, q: Any = None, **settings: Any) -> HalfSteps:
    """The two halves of each EM step, apart: the E-step makes KL 0, the M-step raises L. Each of the three is computed by itself.

    Args:
        model: a module of `vaejax.conjugate` (or anything else with its ``posterior``, ``bound``, ``log_prob`` and ``em_step``).
        params: to begin with.
        x: the data.
        num_steps: T.
        q: the posterior to begin with, as ``model.posterior`` gives it; that of ``params`` if not given.
        settings: passed to ``model.em_step``, such as ``covariance="tied"``.

    Source:
        Neal & Hinton 1998; Bishop 2006, section 9.4.

    Examples:
        >>> import jax
        >>> from vaejax.conjugate import ppca
        >>> x = jax.random.normal(jax.random.key(0), (100, 4))
        >>> found = half_steps(ppca, ppca.fit_ml(x, 1), x, num_steps=2)
        >>> found.bound.shape, bool(abs(found.bound + found.kl - found.log_likelihood).max() < 1e-3)
        ((5,), True)
    """
    checks.positive_int(num_steps, "num_steps")
    lacking = [name for name in ("posterior", "bound", "log_prob", "em_step") if not hasattr(model, name)]
    if lacking or hasattr(model, "kl_to_prior"):
        called = getattr(model, "__name__", type(model).__name__)
        why = (
            f"which has no {lacking[0]}"
            if lacking
            else "whose log_prob is no ln p(x) of its bound: use bayesian_gmm.elbo"
        )
        if called.endswith("mppca"):
            why += "; use half_steps(gmm, mppca.to_gmm(params), x, covariance=gmm.low_rank(q))"
        raise TypeError(f"half_steps wants a module such as gmm, ppca or factor_analysis, got {called}, {why}")
    weight = as_batch(x).weight

    def look(q: Any, params: Params) -> tuple[Array, ...]:
        kl = kl_divergence(q, model.posterior(params, x))
        rows = (model.bound(params, q, x), kl, model.log_prob(params, x))
        return tuple(jnp.sum(row if weight is None else weight * row) for row in rows)

    seen = [look(model.posterior(params, x) if q is None else q, params)]
    for _ in range(num_steps):
        q = model.posterior(params, x)
        seen.append(look(q, params))
        params = model.em_step(params, x, **settings)
        seen.append(look(q, params))
    return HalfSteps(*(jnp.stack(column) for column in zip(*seen)))
