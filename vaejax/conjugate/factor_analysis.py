"""Factor analysis: x = W z + μ + ε, z ~ N(0, I_q), ε ~ N(0, diag ψ): as probabilistic PCA, each column with a noise of its own."""

import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.conjugate import criteria, linear_gaussian
from vaejax.conjugate.em import FitResult, best_of, marked
from vaejax.conjugate.linear_gaussian import Noise, Parts
from vaejax.conjugate.table import Table, no_constant_column, table
from vaejax.dists import MultivariateNormal
from vaejax.numerics import broadcasts
from vaejax.types import Array, Key, Model


class FactorAnalysis(NamedTuple):
    """The parameters of factor analysis.

    Attributes:
        mean: ``[d]`` μ.
        weight: ``[d, q]`` W, the loadings; its columns matter up to a rotation.
        noise: ``[d]`` ψ, the uniquenesses, positive.
    """

    mean: Array
    weight: Array
    noise: Array


# The least share of noise that R's factanal allows.
WHOLE = 0.005


class Heywood(UserWarning):
    """Factors that explain a column whole: its uniqueness goes to 0.

    Attributes:
        columns: which.
    """

    def __init__(self, message: str, columns: Iterable[int] = ()):
        super().__init__(message)
        self.columns = tuple(map(int, columns))


class Undetermined(UserWarning):
    """Factors with more free numbers than the covariance that they explain."""


@broadcasts
def fit_em(
    key: Key,
    x: Any,
    latent_size: int,
    *,
    max_steps: int = 10_000,
    tolerance: float = 1e-9,
    min_noise: float | None = None,
    num_starts: int = 1,
) -> FitResult:
    """Maximum likelihood by EM, missing entries left out: exact under data missing at random.

    A uniqueness may go to 0 (a Heywood case), where the likelihood has no maximum inside: it is kept at or above ``min_noise`` times the
    column's variance, which keeps each M-step a maximum and the log-likelihood rising. EM goes there ever slower, as 1/t, so that a
    warning names the columns that end with less than 0.005 of their variance on such a path; a maximum at a little noise is neared as
    1/√t at most. ``converged`` says that the last step gained little, not that a uniqueness has arrived: where one is small and falls,
    lower the tolerance. W is turned to its principal axes at the end.

    Args:
        key: typed key, of the start.
        x: ``[n, d]``, or a `Batch` with a mask where entries are missing, or weights.
        latent_size: q, below d.
        max_steps: at most; EM is slow here, and a step without holes costs O(d² q) whatever the number of rows.
        tolerance: relative gain of the log-likelihood below which it ends; in float32 rounding hides gains below some 1e-7.
        min_noise: share of each column's variance; ε^¾ of the floats' precision ε if not given.
        num_starts: R, one after another, the best kept; with three factors or more the likelihood often has several maxima.

    Returns:
        `FitResult` with `FactorAnalysis`. `vaejax.conjugate.varimax` turns its loadings for reading.

    Raises:
        ValueError: NaN where nothing says that it is missing; a constant column; a column or a row without any entry.

    Warns:
        Heywood: a uniqueness on its way to 0.
        Undetermined: more factors than the covariance can tell (`max_factors`).

    Source:
        Rubin & Thayer 1982; Bishop 2006, section 12.2.4.

    Examples:
        >>> import jax
        >>> z, noise = jax.random.normal(jax.random.key(0), (500, 1)), jax.random.normal(jax.random.key(1), (500, 3))
        >>> found = fit_em(jax.random.key(2), z + noise * jax.numpy.array([0.5, 1.0, 2.0]), 1)
        >>> bool((jax.numpy.diff(found.params.noise) > 0).all())
        True
    """
    checks.key(key)
    checks.positive_int(max_steps, "max_steps")
    checks.real(tolerance, "tolerance", minimum=0.0)
    rows = _opened(x, latent_size)
    most = max_factors(rows.x.shape[1])
    if latent_size > most:
        warnings.warn(
            f"{latent_size} factor{'s' * (latent_size > 1)} and a uniqueness for each of {rows.x.shape[1]} columns are more free numbers "
            "than the covariance that they explain has, so that many loadings fit alike; take "
            + (f"at most {most}" if most else "more columns, or probabilistic PCA"),
            Undetermined,
            stacklevel=checks.outside(),
        )
    share = float(jnp.finfo(rows.x.dtype).eps) ** 0.75 if min_noise is None else min_noise
    checks.real(share, "min_noise", minimum=0.0, maximum=1.0, open_minimum=True)
    keys = [key, *(jax.random.fold_in(key, start) for start in range(1, checks.positive_int(num_starts, "num_starts")))]
    starts = [linear_gaussian.start(own, rows, latent_size) for own in keys]
    begin = starts[0]
    least = share * begin.noise
    noise = Noise(jnp.asarray(False), least)
    fits = [linear_gaussian.fit(one, rows, noise, max_steps, jnp.asarray(tolerance, rows.x.dtype)) for one in starts]
    found = best_of(jax.tree.map(lambda *leaves: jnp.stack(leaves), *fits)) if num_starts > 1 else fits[0]
    found = linear_gaussian.checked(found, "factor analysis")
    _report(found, linear_gaussian.em_step(found.params, rows, noise).noise, begin.noise, least)
    return marked(found._replace(params=FactorAnalysis(*found.params)))


def max_factors(num_columns: int) -> int:
    """The most factors whose loadings and uniquenesses have no more free numbers than the covariance of d columns: (d − q)² ≥ d + q.

    Source:
        Lawley & Maxwell 1971, section 2.3; Ledermann 1937.

    Examples:
        >>> [max_factors(d) for d in (2, 3, 5, 6)]
        [0, 1, 2, 3]
    """
    return max((q for q in range(num_columns) if (num_columns - q) ** 2 >= num_columns + q), default=0)


@broadcasts
def em_step(params: FactorAnalysis, x: Any) -> FactorAnalysis:
    """One E-step and one M-step."""
    checks.params(params, FactorAnalysis)
    rows = _opened(x, params.weight.shape[1])
    noise = Noise(jnp.asarray(False), jnp.zeros_like(params.noise))
    return FactorAnalysis(*linear_gaussian.em_step(_parts(params), rows, noise))


@broadcasts
def log_prob(params: FactorAnalysis, x: Any) -> Array:
    """log N(x; μ, W Wᵀ + diag ψ) of the observed entries of each row, ``[*batch]`` nats.

    Args:
        params: the parameters.
        x: ``[*batch, d]``, or a `Batch` with a mask.
    """
    return linear_gaussian.log_prob(_parts(params), x)


@broadcasts
def posterior(params: FactorAnalysis, x: Any) -> MultivariateNormal:
    """p(z|x) = N(M⁻¹ Wᵀ Ψ⁻¹ (x − μ), M⁻¹), M = I + Wᵀ Ψ⁻¹ W: the factor scores (Bishop 2006, eq. 12.66)."""
    return linear_gaussian.posterior(_parts(params), x)


@broadcasts
def bound(params: FactorAnalysis, q: MultivariateNormal, x: Any) -> Array:
    """L(q) = E_q log p(x, z) + H(q) for any Gaussian q(z), ``[*batch]`` nats: log p(x) − KL(q ‖ p(z|x))."""
    return linear_gaussian.bound(_parts(params), q, x)


@broadcasts
def sample(params: FactorAnalysis, key: Key, num_samples: int) -> tuple[Array, Array]:
    """Draws x ``[n, d]`` and their factors z ``[n, q]``."""
    return linear_gaussian.sample(_parts(params), key, num_samples)


def num_parameters(params: FactorAnalysis) -> int:
    """How many numbers a model of this shape leaves free: 2 d + d q − q (q − 1) / 2."""
    checks.params(params, FactorAnalysis)
    return linear_gaussian.num_loadings(*params.weight.shape) + len(params.noise)


@broadcasts
def aic(params: FactorAnalysis, x: Any) -> Array:
    """Akaike's criterion 2 p − 2 log p(x), of all data: smaller is better."""
    return criteria.aic(log_prob(params, x), x, num_parameters(params))


@broadcasts
def bic(params: FactorAnalysis, x: Any) -> Array:
    """Schwarz's criterion p log n − 2 log p(x), of all data: smaller is better."""
    return criteria.bic(log_prob(params, x), x, num_parameters(params))


def as_model(params: FactorAnalysis) -> Model:
    """The same as a `Model` with its exact posterior, whose ``init`` returns ``params``."""
    return linear_gaussian.as_model(params, _parts)


def _parts(params: FactorAnalysis) -> Parts:
    checks.params(params, FactorAnalysis)
    return Parts(*map(jnp.asarray, params))


def _opened(x: Any, latent_size: int) -> Table:
    checks.positive_int(latent_size, "latent_size")
    rows = table(x, "factor analysis", missing=True)
    if latent_size >= rows.x.shape[1]:
        raise ValueError(
            f"latent_size must be below the {rows.x.shape[1]} columns of x, got {latent_size}; take fewer latents"
        )
    no_constant_column(rows.x, "factor analysis", rows.mask)
    return rows


def _report(found: FitResult, later: Array, variance: Array, least: Array) -> None:
    """Warns of columns whose noise is next to nothing and on its way to 0, or has come to its least."""
    if not checks.is_concrete(found.params):
        return
    now, share = np.asarray(found.params.noise), np.asarray(found.params.noise / variance)
    # Near 0 a step lowers ψ by a ψ² (ψ − o), o where the likelihood has its maximum: after t steps by a share of 1/t for o < 0, of 1/(2t)
    # for o = 0, of less for o > 0.
    falling = (share < WHOLE) & (int(found.num_steps) * (1 - np.asarray(later) / now) > 0.5)
    columns = np.flatnonzero(falling | (now <= 1.001 * np.asarray(least)))
    if len(columns):
        message = (
            f"the factors explain column{'s' * (len(columns) > 1)} {', '.join(map(str, columns[:5]))} whole (Heywood case): "
            f"{'their uniquenesses go' if len(columns) > 1 else 'its uniqueness goes'} to 0, where the likelihood has no maximum inside; "
            f"take {'fewer factors, ' if found.params.weight.shape[1] > 1 else ''}more rows, or probabilistic PCA"
        )
        warnings.warn(Heywood(message, columns), stacklevel=checks.outside())
