"""Bayesian Gaussian mixtures by coordinate ascent: Dirichlet weights, normal-Wishart means and precisions, unused components emptied."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import digamma, gammaln

from vaejax import checks
from vaejax.conjugate import normal_wishart
from vaejax.conjugate.em import FitResult, best_of, iterate, marked
from vaejax.conjugate.gmm import Gmm, starts
from vaejax.conjugate.gmm.density import Whitener, complete, row_scores, whitener
from vaejax.conjugate.gmm.fit import finite_end
from vaejax.conjugate.gmm.moments import Moments, Rows, at_once, expect, in_chunks, over_starts
from vaejax.conjugate.gmm.structures import structure
from vaejax.conjugate.table import Table, centred, spread, table
from vaejax.dists import OneHotCategorical
from vaejax.numerics import broadcasts
from vaejax.types import Array, Key


class Prior(NamedTuple):
    """π ~ Dirichlet(α₀), Λ_k ~ Wishart(W₀, ν₀), μ_k ~ N(m₀, (β₀ Λ_k)⁻¹).

    Attributes:
        concentration: ``[]`` α₀ of each component; below 1 it empties those that are not needed.
        strength: ``[]`` β₀, in rows.
        mean: ``[d]`` m₀.
        degrees: ``[]`` ν₀, above d − 1.
        scatter: ``[d, d]`` W₀⁻¹.
    """

    concentration: Array
    strength: Array
    mean: Array
    degrees: Array
    scatter: Array


class BayesianGmm(NamedTuple):
    """The posterior q(π) ∏_k q(μ_k, Λ_k), of the prior's own family.

    Attributes:
        concentration: ``[K]`` α.
        strength: ``[K]`` β.
        mean: ``[K, d]`` m.
        degrees: ``[K]`` ν.
        scatter: ``[K, d, d]`` W⁻¹.
        prior: what it was fitted under.
    """

    concentration: Array
    strength: Array
    mean: Array
    degrees: Array
    scatter: Array
    prior: Prior


@broadcasts
def fit_cavi(
    key: Key,
    x: Any,
    num_components: int,
    *,
    concentration: float | None = None,
    strength: float = 1.0,
    mean: Any = None,
    degrees: float | None = None,
    scatter: Any = None,
    start: str | Gmm = "k-means++",
    num_starts: int = 10,
    max_steps: int = 500,
    tolerance: float = 1e-7,
) -> FitResult:
    """Raises the ELBO over q(z) and q(π, μ, Λ) in turn from several starts at once; it never falls, and no component can collapse.

    Args:
        key: typed key, of the starts.
        x: ``[n, d]``, or a `Batch` with weights.
        num_components: K, at most; those not needed end with next to no rows.
        concentration: α₀; 1/K if not given.
        strength: β₀.
        mean: ``[d]`` m₀; that of the data if not given.
        degrees: ν₀; d if not given.
        scatter: ``[d, d]`` W₀⁻¹, whose share of ν₀ is the prior's covariance; the data's covariance if not given.
        start: "k-means++", "random", or a `Gmm` whose responsibilities come first.
        num_starts: R, from the two named ones. A start can end where a component that is not needed keeps a few rows, above all with
            many components: then the ELBO's best of more starts is emptier.
        max_steps: at most.
        tolerance: relative gain of the ELBO below which it ends.

    Returns:
        `FitResult` with `BayesianGmm`; ``trace`` is the ELBO, a lower bound of log p(x), after each update of q(z).

    Raises:
        ValueError: NaN, missing entries, fewer than two rows, a prior out of range, an end without a finite ELBO.

    Source:
        Bishop 2006, section 10.2; Blei, Kucukelbir & McAuliffe 2017.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.concatenate([jax.random.normal(jax.random.key(i), (200, 2)) + 8 * i for i in range(2)])
        >>> found = fit_cavi(jax.random.key(2), x, 6, concentration=1e-3)
        >>> int((counts(found.params) > 1).sum())
        2
    """
    checks.key(key)
    for name, value in (("num_components", num_components), ("num_starts", num_starts), ("max_steps", max_steps)):
        checks.positive_int(value, name)
    checks.real(tolerance, "tolerance", minimum=0.0)
    rows = table(x, "a Bayesian Gaussian mixture", minimum=2)
    alpha = 1 / num_components if concentration is None else concentration
    prior = _prior(rows, alpha, strength, mean, degrees, scatter)
    centre, rows = centred(rows)
    prior = prior._replace(mean=prior.mean - centre)
    if isinstance(start, str):
        checks.one_of(start, "start", ("k-means++", "random"))
        if num_components > len(rows.x):
            raise ValueError(f"{num_components} components need as many rows, got {len(rows.x)}; use fewer")
        begin = starts.several(jax.random.split(key, num_starts), rows, num_components, structure("full"), start)
    else:
        begin = starts.given(start, rows, num_components, structure("full"))
        begin = begin._replace(mean=begin.mean - centre)
    found = _fit(begin, rows, prior, jnp.asarray(tolerance, rows.x.dtype), max_steps)
    finite_end(found, "a Bayesian Gaussian mixture")
    return marked(found._replace(params=_moved(found.params, centre)))


@broadcasts
def posterior(params: BayesianGmm, x: Any) -> OneHotCategorical:
    """q(z) ∝ exp E[log π_k + log N(x; μ_k, Λ_k⁻¹)], the responsibilities of rows ``[*batch, d]`` (Bishop 2006, eq. 10.46)."""
    return OneHotCategorical(jax.nn.log_softmax(_scores(params, x), axis=-1))


@broadcasts
def bound(params: BayesianGmm, q: OneHotCategorical, x: Any) -> Array:
    """Each row's part of the ELBO, E_q[log p(x, z | π, μ, Λ)] + H(q(z)), ``[*batch]`` nats; `elbo` subtracts KL(q ‖ prior) once."""
    return jnp.sum(jnp.where(q.probs > 0, q.probs * _scores(params, x), 0.0), -1) + q.entropy()


@broadcasts
def elbo(params: BayesianGmm, x: Any, q: OneHotCategorical | None = None) -> Array:
    """L = Σ_n `bound` − KL(q(π, μ, Λ) ‖ p(π, μ, Λ)) ≤ log p(x), of all data, nats; with the best q(z) if none is given."""
    batch = checks.batch(x, "x")
    rows = bound(params, posterior(params, batch) if q is None else q, batch)
    return jnp.sum(rows if batch.weight is None else batch.weight * rows) - kl_to_prior(params)


@broadcasts
def kl_to_prior(params: BayesianGmm) -> Array:
    """KL(q(π, μ, Λ) ‖ p(π, μ, Λ)), nats."""
    checks.params(params, BayesianGmm)
    alpha, prior = params.concentration, params.prior
    total, start = jnp.sum(alpha), jnp.full_like(alpha, prior.concentration)
    dirichlet = gammaln(total) - jnp.sum(gammaln(alpha)) - gammaln(jnp.sum(start)) + jnp.sum(gammaln(start))
    dirichlet = dirichlet + jnp.sum((alpha - start) * (digamma(alpha) - digamma(total)))
    return dirichlet + jnp.sum(normal_wishart.kl(params, params.prior))


@broadcasts
def log_prob(params: BayesianGmm, x: Any) -> Array:
    """log of the predictive density, a mixture of Student t's, ``[*batch]`` nats (Bishop 2006, eqs. 10.81 and 10.82)."""
    rows, size = _rows(params, x), params.mean.shape[-1]
    free = params.degrees + 1 - size
    spread = (1 + params.strength) / (params.strength * free)
    matrix, log_det = normal_wishart.whiten(params.scatter * spread[:, None, None])
    distance = -2 * row_scores(Whitener(matrix, params.mean, jnp.zeros_like(free)), rows)
    half = 0.5 * (free + size)
    constant = gammaln(half) - gammaln(0.5 * free) - 0.5 * size * jnp.log(math.pi * free) + log_det
    weight = jnp.log(params.concentration) - jnp.log(jnp.sum(params.concentration))
    return jax.nn.logsumexp(weight + constant - half * jnp.log1p(distance / free), axis=-1)


@broadcasts
def point(params: BayesianGmm) -> Gmm:
    """The mixture at the posterior means of π, μ and Λ: what serves as a `Model` (``gmm.as_model``) and in plots."""
    checks.params(params, BayesianGmm)
    weight = params.concentration / jnp.sum(params.concentration)
    return Gmm(weight, params.mean, params.scatter / params.degrees[:, None, None])


@broadcasts
def counts(params: BayesianGmm) -> Array:
    """``[K]`` how many rows each component has: next to none where it is not needed."""
    checks.params(params, BayesianGmm)
    return params.concentration - params.prior.concentration


@broadcasts
def em_step(params: BayesianGmm, x: Any) -> BayesianGmm:
    """One update of q(z), then one of q(π, μ, Λ)."""
    checks.params(params, BayesianGmm)
    return _em_step(params, table(x, "a Bayesian Gaussian mixture"))


@jax.jit
def _em_step(params: BayesianGmm, rows: Table) -> BayesianGmm:
    centre, rows = centred(rows)
    params = _moved(params, -centre)
    moments, _ = expect(_expected(params), in_chunks(rows.x, rows.weight, len(params.mean)), False)
    return _moved(_update(moments, params.prior), centre)


def _moved(params: BayesianGmm, by: Array) -> BayesianGmm:
    """With all that has a place there."""
    prior = params.prior._replace(mean=params.prior.mean + by)
    return params._replace(mean=params.mean + by, prior=prior)


@broadcasts
def _update(moments: Moments, prior: Prior) -> BayesianGmm:
    """q(π, μ, Λ) given q(z) (Bishop 2006, eqs. 10.58 and 10.60 to 10.63)."""
    total, centre, scatter = moments
    strength = prior.strength + total
    away = centre - prior.mean
    mean = prior.mean + (total / strength)[:, None] * away
    between = (prior.strength * total / strength)[:, None, None] * away[:, :, None] * away[:, None, :]
    return BayesianGmm(
        prior.concentration + total, strength, mean, prior.degrees + total, prior.scatter + scatter + between, prior
    )


def _expected(params: BayesianGmm) -> Whitener:
    """E log π_k + E log N(x; μ_k, Λ_k⁻¹) (Bishop 2006, eqs. 10.64 to 10.66)."""
    size = params.mean.shape[-1]
    matrix, _ = normal_wishart.whiten(params.scatter)
    log_weight = digamma(params.concentration) - digamma(jnp.sum(params.concentration))
    log_det = normal_wishart.expected_log_det(params.degrees, params.scatter)
    constant = log_weight + 0.5 * (log_det - size * math.log(2 * math.pi) - size / params.strength)
    return Whitener(matrix * jnp.sqrt(params.degrees)[:, None, None], params.mean, constant)


def _rows(params: BayesianGmm, x: Any) -> Array:
    checks.params(params, BayesianGmm)
    rows = complete(x)
    checks.event_shape(rows, params.mean.shape[-1:])
    return jnp.asarray(rows, params.mean.dtype)


def _scores(params: BayesianGmm, x: Any) -> Array:
    rows = _rows(params, x)
    return row_scores(_expected(params), rows)


def _prior(rows: Table, concentration: Any, strength: Any, mean: Any, degrees: Any, scatter: Any) -> Prior:
    size = rows.x.shape[1]
    checks.real(concentration, "concentration", minimum=0.0, open_minimum=True)
    checks.real(strength, "strength", minimum=0.0, open_minimum=True)
    degrees = size if degrees is None else degrees
    checks.real(degrees, "degrees", minimum=size - 1.0, open_minimum=True)
    centre, covariance = spread(rows.x, rows.weight)
    mean, wide = centre if mean is None else mean, covariance if scatter is None else scatter
    prior = Prior(*(jnp.asarray(value, rows.x.dtype) for value in (concentration, strength, mean, degrees, wide)))
    checks.event_shape(prior.mean, (size,), "mean")
    checks.event_shape(prior.scatter, (size, size), "scatter")
    known = scatter is None and checks.is_concrete(rows.x)
    constant = np.flatnonzero(np.ptp(rows.x, axis=0) == 0) if known else np.zeros(0, int)
    if len(constant):
        raise ValueError(
            f"column {constant[0]} is constant, so that the data's covariance is no prior's; give scatter=, or leave out what never varies"
        )
    starts.positive_definite(prior.scatter[None], "scatter", "give one that is, as where columns depend")
    return prior


@functools.partial(jax.jit, static_argnums=4)
def _fit(begin: Gmm, rows: Table, prior: Prior, tolerance: Array, max_steps: int) -> FitResult:
    count, components = begin.weight.shape
    group = min(count, at_once(len(rows.x), rows.x.shape[1], components))
    chunks = in_chunks(rows.x, rows.weight, components, group)

    def one(begin: Gmm) -> FitResult:
        first = _update(expect(whitener(begin), chunks, False)[0], prior)
        step = functools.partial(_step, chunks)
        return iterate(step, lambda params: step(params)[1], first, max_steps=max_steps, tolerance=tolerance)

    return best_of(over_starts(one, begin, group))


def _step(chunks: Rows, params: BayesianGmm) -> tuple[BayesianGmm, Array]:
    moments, evidence = expect(_expected(params), chunks, False)
    return _update(moments, params.prior), evidence - kl_to_prior(params)
