"""Gaussian mixtures by EM: many starts in one compiled program, collapsed components begun anew."""

import functools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.conjugate.em import FitResult, best_of, iterate, marked
from vaejax.conjugate.gmm import starts
from vaejax.conjugate.gmm.density import Gmm, Whitener, structure_name, whitener
from vaejax.conjugate.gmm.moments import Moments, Rows, at_once, expect, in_chunks, over_starts
from vaejax.conjugate.gmm.structures import Structure, structure
from vaejax.conjugate.table import Table, centred, no_constant_column, no_dependent_column, spread, table
from vaejax.linalg import log_diagonal
from vaejax.numerics import broadcasts
from vaejax.types import Array, Key


class Prior(NamedTuple):
    """Pseudo-observations of each component: ``rows`` [] of them, with variances ``variance`` ``[d]`` about its mean."""

    rows: Array
    variance: Array


class Starved(UserWarning):
    """Components that collapsed on fewer rows than their covariance needs."""


@broadcasts
def fit_em(
    key: Key,
    x: Any,
    num_components: int,
    *,
    covariance: str | Structure = "full",
    start: str | Gmm = "k-means++",
    num_starts: int = 10,
    max_steps: int = 200,
    tolerance: float = 1e-6,
    prior_count: float = 0.0,
    prior_variance: Any = None,
    max_reseeds: int = 10,
) -> FitResult:
    """Maximum likelihood by EM from several starts at once, the best kept.

    The likelihood has no maximum: a component that shrinks on a row raises it without end. Where a step leaves a component without rows,
    or with a covariance that rounding cannot tell from a singular one (one of its own on d + 1 rows or fewer: nearly cannot tell), that
    component begins anew at a random row, up to ``max_reseeds`` times; a warning and ``FitResult.reseeded`` say so. ``prior_count`` > 0
    gives a maximum instead, and no component is taken for collapsed unless it loses all its rows or its covariance all its digits: EM then
    maximises the **penalised log-likelihood** Σ_n log p(x_n) − ½ c Σ_k (log|Σ_k| + tr Σ_k⁻¹ V), that of c pseudo-observations of
    covariance V about each mean (an inverse-Wishart prior's), which never falls either: Σ_k = (S_k + c V) / (N_k + c).

    Args:
        key: typed key, of starts and re-seeding.
        x: ``[n, d]``, or a `Batch` with weights; a row of weight 2 counts as two.
        num_components: K.
        covariance: "full", "tied" (one for all), "diag", "spherical", or "equal_shape" (λ_k D_k A D_kᵀ, mclust's VEV).
        start: "k-means++", "random" (rows), or the `Gmm` to begin with.
        num_starts: R, from the two named ones.
        max_steps: T, at most.
        tolerance: relative gain below which it ends; in float32 rounding hides gains below some 1e-7.
        prior_count: c, 0 for none.
        prior_variance: diagonal of V, a number or ``[d]``; the columns' variances / K^(2/d) if not given (Fraley & Raftery 2007).
        max_reseeds: 0 ends a fit before the step in which a component collapses.

    Returns:
        `FitResult` with `Gmm`; ``starts``, ``start_steps`` and ``start_reseeds`` tell what each reached, and how.

    Raises:
        ValueError: NaN, missing entries, fewer rows than components, constant or dependent columns, a start that is no mixture, an end
            without a finite log-likelihood.

    Warns:
        Starved: components collapsed.

    Source:
        Dempster, Laird & Rubin 1977; Bishop 2006, section 9.2; Celeux & Govaert 1995 for "equal_shape".

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.concatenate([jax.random.normal(jax.random.key(i), (200, 2)) + 8 * i for i in range(2)])
        >>> found = fit_em(jax.random.key(2), x, 2)
        >>> [round(float(w), 2) for w in found.params.weight]
        [0.5, 0.5]
    """
    checks.key(key)
    kind = structure(covariance)
    checks.real(prior_count, "prior_count", minimum=0.0)
    if prior_variance is not None and checks.is_concrete(prior_count) and prior_count == 0:
        raise ValueError(
            "prior_variance is of the pseudo-observations, of which prior_count=0 has none; give prior_count, such as 1"
        )
    rows = _opened(x, num_components, kind, penalised=prior_count > 0)
    for name, value in (("num_starts", num_starts), ("max_steps", max_steps)):
        checks.positive_int(value, name)
    checks.real(tolerance, "tolerance", minimum=0.0)
    centre, rows = centred(rows)
    prior = _prior(rows, num_components, prior_count, prior_variance)
    options = (kind, max_steps, int(checks.real(max_reseeds, "max_reseeds", minimum=0)), bool(prior_count > 0))
    least = jnp.asarray(tolerance, rows.x.dtype)
    if isinstance(start, str):
        checks.one_of(start, "start", ("k-means++", "random"))
        keys = jax.random.split(key, (num_starts, 2))
        begin = starts.several(keys[:, 0], rows, num_components, kind, start)
        found = _from_params(keys[:, 1], begin, rows, prior, least, options)
    else:
        begin = starts.given(start, rows, num_components, kind)
        begin = begin._replace(mean=begin.mean - centre)
        found = _from_params(key[None], begin, rows, prior, least, options)
    finite_end(found, "a Gaussian mixture")
    report(found, max_reseeds, LARGER_PRIOR if prior_count > 0 else A_PRIOR)
    return marked(found._replace(params=found.params._replace(mean=found.params.mean + centre)))


@broadcasts
def em_step(params: Gmm, x: Any, *, covariance: str | Structure | None = None) -> Gmm:
    """One E-step and one M-step; ``covariance`` where its shape does not say ("equal_shape")."""
    checks.params(params, Gmm)
    kind = structure(structure_name(params) if covariance is None else covariance)
    return _em_step(Gmm(*map(jnp.asarray, params)), table(x, "a Gaussian mixture"), kind)


@functools.partial(jax.jit, static_argnums=2)
@broadcasts
def _em_step(params: Gmm, rows: Table, kind: Structure) -> Gmm:
    centre, rows = centred(rows)
    params = params._replace(mean=params.mean - centre)
    moments, _ = expect(whitener(params), in_chunks(rows.x, rows.weight, len(params.weight)), kind.diagonal)
    better = maximise(moments, kind, None)
    return better._replace(mean=better.mean + centre)


@broadcasts
def maximise(moments: Moments, kind: Structure, prior: Prior | None) -> Gmm:
    """The M-step, of the penalised objective where there is a prior."""
    total, mean, scatter = moments
    weight = total / jnp.sum(total)
    if prior is not None:
        pseudo = prior.rows * (prior.variance if kind.diagonal else jnp.diag(prior.variance))
        total, scatter = total + prior.rows, scatter + pseudo
    safe = jnp.maximum(total, jnp.finfo(total.dtype).tiny)
    return Gmm(weight, mean, kind.maximise(safe, scatter))


@broadcasts
def penalty(white: Whitener, prior: Prior) -> Array:
    """−½ c Σ_k (log|Σ_k| + tr Σ_k⁻¹ V); a covariance that all share counts for each."""
    count, size = white.mean.shape
    if white.matrix.ndim == 3:
        half_log_det = -log_diagonal(white.matrix)
        trace = jnp.einsum("kij,kij,j->k", white.matrix, white.matrix, prior.variance)
    else:
        inverse = jnp.broadcast_to(white.matrix, (count, size))
        half_log_det, trace = -jnp.sum(jnp.log(inverse), -1), jnp.sum(prior.variance * inverse**2, -1)
    return -0.5 * prior.rows * count * jnp.mean(2 * half_log_det + trace)


@functools.partial(jax.jit, static_argnums=5)
def _from_params(keys: Key, params: Gmm, rows: Table, prior: Prior, tolerance: Array, options: tuple) -> FitResult:
    """EM from each of several `Gmm` at once; the best."""
    kind, max_steps, max_reseeds, penalised = options
    group = at_once(len(rows.x), rows.x.shape[1], params.weight.shape[1])
    chunks = in_chunks(rows.x, rows.weight, params.weight.shape[1], min(group, len(keys)))
    parts = starts.spare(rows.x, rows.weight, params.weight.shape[1], kind, penalised=penalised)

    def mend(key: Key, params: Gmm, before: Array) -> tuple[Gmm, Array, Array]:
        bad = starts.collapsed(params, parts)
        count = jnp.sum(bad)
        allowed = before + count <= max_reseeds
        fresh = starts.reseed(key, params, bad, parts)
        mended = jax.tree.map(lambda new, old: jnp.where(allowed & (count > 0), new, old), fresh, params)
        return mended, jnp.where(allowed, count, 0), jnp.where(allowed, 0, count)

    def one(key: Key, params: Gmm) -> FitResult:
        step, objective = _steps(chunks, kind, prior)
        return iterate(step, objective, params, max_steps=max_steps, tolerance=tolerance, key=key, mend=mend)

    found = over_starts(lambda start: one(*start), (keys, params), group)
    return best_of(found)


def _steps(chunks: Rows, kind: Structure, prior: Prior) -> tuple:
    def step(params: Gmm) -> tuple[Gmm, Array]:
        white = whitener(params)
        moments, evidence = expect(white, chunks, kind.diagonal)
        return maximise(moments, kind, prior), evidence + penalty(white, prior)

    def objective(params: Gmm) -> Array:
        white = whitener(params)
        return expect(white, chunks, kind.diagonal)[1] + penalty(white, prior)

    return step, objective


def _opened(x: Any, num_components: int, kind: Structure, *, penalised: bool) -> Table:
    checks.positive_int(num_components, "num_components")
    rows = table(x, f"a mixture of {num_components} Gaussians", minimum=max(2, num_components))
    if not penalised:
        name = f"a Gaussian mixture with {kind.name} covariances"
        if kind.dimensions is None:
            no_constant_column(rows.x, name)
        if kind.dimensions is not None or not kind.diagonal:
            no_dependent_column(rows.x, name, kind.dimensions)
    return rows


def _prior(rows: Table, num_components: int, count: float, variance: Any) -> Prior:
    size = rows.x.shape[1]
    if variance is None:
        found = jnp.diagonal(spread(rows.x, rows.weight)[1]) / num_components ** (2 / size)
        # A column that never varies has no scale of its own; rounding of its mean gives it a variance near 0.
        varies = jnp.ptp(rows.x, axis=0) > 0
        if count > 0 and checks.is_concrete(varies) and not varies.any():
            raise ValueError("all rows are equal, so that the columns have no scale; give prior_variance")
        # A mean over no columns would be 0/0, which `jax_debug_nans` reports.
        mean = jnp.sum(found, where=varies) / jnp.maximum(jnp.sum(varies), 1)
        found = jnp.where(varies, found, mean)
    else:
        if jnp.shape(variance) not in ((), (size,)):
            raise ValueError(f"prior_variance must be a number or [{size}], got shape {list(jnp.shape(variance))}")
        found = jnp.broadcast_to(jnp.asarray(variance, rows.x.dtype), (size,))
        checks.values(found, lambda v: v > 0, "prior_variance", "positive numbers")
    return Prior(jnp.asarray(count, rows.x.dtype), found)


# What to do about components that collapse.
FEWER = "use fewer components or a simpler covariance"
A_PRIOR = "the likelihood has no maximum there; use fewer components, a simpler covariance, or prior_count=1"
LARGER_PRIOR = "use fewer components, a simpler covariance, or a larger prior_count"


def finite_end(found: FitResult, model: str) -> None:
    """Raises where a fit ended without a finite objective."""
    if checks.is_concrete(found.params) and not np.isfinite(found.objective):
        raise ValueError(
            f"what {model} maximises is {float(found.objective):g} after {int(found.num_steps)} steps: squares overflow "
            f"{found.trace.dtype}, or rounding leaves a covariance without a Cholesky factor; scale the columns, leave out those that "
            "depend on others, or fit float64"
        )


def report(found: FitResult, max_reseeds: int, advice: str) -> None:
    """Warns of components that collapsed."""
    if found.collapsed is None or not checks.is_concrete(found.params):
        return
    collapsed, reseeded = int(found.collapsed), np.asarray(found.reseeded)
    if collapsed:
        step = int(found.num_steps) + 1
        what = f"collapsed at step {step} and the fit ended before it (max_reseeds={max_reseeds})"
        warnings.warn(f"{_components(collapsed)} {what}: {advice}", Starved, stacklevel=checks.outside())
    elif reseeded.sum():
        times, steps = int(reseeded.sum()), [str(step + 1) for step in np.flatnonzero(reseeded)[:5]]
        who = (
            "1 component collapsed and began anew"
            if times == 1
            else f"components collapsed and began anew {times} times"
        )
        when = f"at step{'s' * (len(steps) > 1)} {', '.join(steps)}"
        warnings.warn(f"{who}, {when}: {advice}", Starved, stacklevel=checks.outside())


def _components(count: int) -> str:
    return f"{count} component{'s' * (count != 1)}"
