"""Closed-form divergences KL(q || p) of single entries, each a sum of terms that are not negative.

Differences of entropies and logarithms are written as exp(u) − 1 − u and relatives of it, which vanish with the gap between q and p
instead of cancelling, so that float32 serves for scales from 1e-20 to 1e20 and for log-scales of ±120.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, erf, gammaln, i0e, i1e

from vaejax.dists import bernoulli, categorical
from vaejax.dists.gaussian import MultivariateNormal
from vaejax.dists.special import (
    HALF_LOG_2PI,
    as_float,
    exp_excess,
    log_ratio,
    log_sum_squares,
    quotient,
    relative_excess,
    stirling_remainder,
)
from vaejax.linalg import inverse_tril
from vaejax.types import Array


def _log_scale_ratio(q: Any, p: Any) -> Array:
    """log(scale of q / scale of p), from the logarithms where one of the two holds its own."""
    if not (hasattr(q, "log_scale") or hasattr(p, "log_scale")):
        return log_ratio(q.scale, p.scale)
    log_q, log_p = (d.log_scale if hasattr(d, "log_scale") else jnp.log(d.scale) for d in (q, p))
    return log_q - log_p


def _in_scales(difference: Array, d: Any) -> Array:
    """A difference in units of the scale of ``d``."""
    if not hasattr(d, "log_scale"):
        return quotient(difference, d.scale)
    # In two factors: a difference of 0 times ∞ would be NaN.
    half = jnp.exp(-0.5 * d.log_scale)
    return difference * half * half


def normal_normal(q: Any, p: Any) -> Array:
    """½ (m − n)² / t² + ½ (r² − 1 − log r²) with r = s / t; also of log-normals."""
    return 0.5 * (_in_scales(q.loc - p.loc, p) ** 2 + exp_excess(2 * _log_scale_ratio(q, p)))


def moments_normal(mean: float, variance: float, entropy: float) -> Any:
    """KL of a location–scale family to a normal, from the moments and the entropy of its member at 0 and 1."""

    def formula(q: Any, p: Any) -> Array:
        log_scales = _log_scale_ratio(q, p)
        shift = _in_scales(q.loc - p.loc, p)
        shift = shift + mean * jnp.exp(log_scales) if mean else shift
        return HALF_LOG_2PI - entropy - log_scales + 0.5 * (variance * jnp.exp(2 * log_scales) + shift**2)

    return formula


def uniform_normal(q: Any, p: Any) -> Array:
    """A uniform distribution has mean (a + b)/2, variance (b − a)²/12 and entropy log(b − a)."""
    width, shift = q.high - q.low, _in_scales(0.5 * q.low + 0.5 * q.high - p.loc, p)
    log_scale = p.log_scale if hasattr(p, "log_scale") else jnp.log(p.scale)
    return HALF_LOG_2PI + log_scale - jnp.log(width) + 0.5 * (_in_scales(width, p) ** 2 / 12 + shift**2)


def normal_laplace(q: Any, p: Any) -> Array:
    """The mean of |x − n| under the normal is that of a folded normal."""
    difference = q.loc - p.loc
    is_far = jnp.abs(difference) > 30 * q.scale
    shift = jnp.where(is_far, 30.0, _in_scales(jnp.where(is_far, 0, difference), q))
    near = math.sqrt(2 / math.pi) * jnp.exp(-0.5 * shift**2) * q.scale
    distance = near + jnp.where(is_far, jnp.abs(difference), difference * erf(shift / math.sqrt(2)))
    return math.log(2) - 0.5 - HALF_LOG_2PI - _log_scale_ratio(q, p) + quotient(distance, p.scale)


def laplace_laplace(q: Any, p: Any) -> Array:
    """(r − 1 − log r) + r (exp(−δ) − 1 + δ) with r = s / t and δ = |m − n| / s."""
    log_scales, distance = _log_scale_ratio(q, p), jnp.abs(q.loc - p.loc)
    is_far = distance > 50 * q.scale
    near = jnp.exp(log_scales) * exp_excess(-quotient(jnp.where(is_far, 0, distance), jnp.where(is_far, 1, q.scale)))
    return exp_excess(log_scales) + jnp.where(is_far, quotient(distance, p.scale) - jnp.exp(log_scales), near)


def gumbel_gumbel(q: Any, p: Any) -> Array:
    """exp(w) − 1 − w with w = (n − m) / t + log Γ(1 + r), and log Γ(r) + γ (r − 1), with r = s / t."""
    log_scales = _log_scale_ratio(q, p)
    log_gamma = gammaln(1 + jnp.exp(log_scales))
    moved = _in_scales(p.loc - q.loc, p) + log_gamma
    return exp_excess(moved) + (log_gamma - log_scales + jnp.euler_gamma * jnp.expm1(log_scales))


def uniform_uniform(q: Any, p: Any) -> Array:
    """log of the ratio of the widths; ∞ unless q lies inside p."""
    is_inside = (p.low <= q.low) & (q.high <= p.high)
    return jnp.where(is_inside, log_ratio(p.high - p.low, q.high - q.low), jnp.inf)


def cauchy_cauchy(q: Any, p: Any) -> Array:
    """log(1 + ((s − t)² + (m − n)²) / 4st), which is symmetric in q and p.

    Source:
        Chyzak & Nielsen 2019, "A closed-form formula for the Kullback–Leibler divergence between Cauchy distributions".
    """
    root = 2 * jnp.sqrt(q.scale) * jnp.sqrt(p.scale)
    gaps = quotient(q.scale - p.scale, root), quotient(q.loc - p.loc, root)
    is_near = sum(jnp.abs(gap) for gap in gaps) < 1e3
    near = jnp.log1p(sum(jnp.where(is_near, gap, 0) ** 2 for gap in gaps))
    return jnp.where(is_near, near, log_sum_squares(jnp.ones_like(root), *gaps))


def kumaraswamy_uniform(q: Any, p: Any) -> Array:
    """Minus the entropy, and the logarithm of the width; ∞ unless (0, 1) lies inside p."""
    is_inside = (p.low <= 0) & (p.high >= 1)
    return jnp.where(is_inside, -q.entropy() + jnp.log(p.high - p.low), jnp.inf)


def poisson_poisson(q: Any, p: Any) -> Array:
    """λ log(λ / μ) + μ − λ."""
    return _poisson(*jnp.broadcast_arrays(*as_float(q.log_rate, p.log_rate)))


@jax.custom_jvp
def _poisson(q: Array, p: Array) -> Array:
    return relative_excess(jnp.exp(q), jnp.exp(p), jnp.where(q == p, 0, p - q))


@_poisson.defjvp
def _poisson_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (q, p), (q_dot, p_dot) = primals, tangents
    # A rate of 0 has no slope, whose product with an infinite logarithm would be NaN.
    slope = jnp.exp(q) * jnp.where(jnp.isneginf(q) | (q == p), 0, q - p)
    return _poisson(q, p), slope * q_dot + (jnp.exp(p) - jnp.exp(q)) * p_dot


def binomial_binomial(q: Any, p: Any) -> Array:
    """n times the divergence of one trial; also of distrax's Bernoullis."""
    parts = bernoulli.divergence(*jnp.broadcast_arrays(*as_float(q.logits, p.logits)))
    return float(getattr(q, "total_count", 1)) * parts


def categorical_categorical(q: Any, p: Any) -> Array:
    """Σ q log(q / p) over the last axis of the logits."""
    return categorical.divergence(*jnp.broadcast_arrays(*as_float(q.logits, p.logits)))


def gamma_gamma(q: Any, p: Any) -> Array:
    """In the ratio of the means and the ratio of the concentrations: c (e^w − 1 − w) + E(c, a), w = log(a/b) − log(c/d)."""
    a, b, c, d = as_float(q.concentration, q.rate, p.concentration, p.rate)
    means = relative_excess(c, a * d / b, log_ratio(a, c) - log_ratio(b, d))
    return means + _concentration_excess(c, a)


def dirichlet(alpha: Array, beta: Array) -> Array:
    """KL(Dirichlet(α) || Dirichlet(β)) over the last axis: β₀ KL(β/β₀ || α/α₀) + Σ E(βᵢ, αᵢ) − E(β₀, α₀)."""
    alpha, beta = jnp.broadcast_arrays(*as_float(alpha, beta))
    sum_alpha, sum_beta = jnp.sum(alpha, -1, keepdims=True), jnp.sum(beta, -1, keepdims=True)
    log_shares = log_ratio(alpha, beta) - log_ratio(sum_alpha, sum_beta)
    shares = relative_excess(beta, sum_beta * (alpha / sum_alpha), log_shares)
    excess = _concentration_excess(sum_beta, sum_alpha)[..., 0]
    return jnp.sum(shares + _concentration_excess(beta, alpha), -1) - excess


def beta_beta(q: Any, p: Any) -> Array:
    """The Dirichlet distribution of two shares."""
    q_pair, p_pair = (jnp.stack(jnp.broadcast_arrays(*as_float(d.alpha, d.beta)), -1) for d in (q, p))
    return dirichlet(q_pair, p_pair)


def dirichlet_dirichlet(q: Any, p: Any) -> Array:
    """`dirichlet` of the concentrations."""
    return dirichlet(q.concentration, p.concentration)


def _concentration_excess(c: Array, a: Array) -> Array:
    """log Γ(c) − log Γ(a) − ψ(a)(c − a) − (c log(c/a) + a − c), by Stirling's formula for both."""
    remainder = stirling_remainder(c) - stirling_remainder(a) - _stirling_slope(a) * (c - a)
    return 0.5 * exp_excess(log_ratio(c, a)) + remainder


def _stirling_slope(a: Array) -> Array:
    """The derivative ψ(a) − log a + 1 / 2a of `stirling_remainder`."""
    is_large = a > 16
    inverse = 1 / jnp.where(is_large, a, 16)
    square = inverse * inverse
    small = jnp.where(is_large, 1, a)
    series = square * (-1 / 12 + square * (1 / 120 - square * (1 / 252 - square * (1 / 240 - square / 132))))
    return jnp.where(is_large, series, digamma(small) - jnp.log(small) + 0.5 / small)


def von_mises_von_mises(q: Any, p: Any) -> Array:
    """log(I₀(l) / I₀(k)) + (k − l cos Δ) I₁(k) / I₀(k), with the exponentials of both Bessel functions cancelled by hand."""
    k, other = q.concentration, p.concentration
    is_large = k > 50
    inverse = 1 / jnp.where(is_large, k, 50)
    small = jnp.where(is_large, 1, k)
    series = inverse * (1 / 2 + inverse * (1 / 8 + inverse * (1 / 8 + inverse * (25 / 128 + inverse * (13 / 32)))))
    complement = jnp.where(is_large, series, 1 - i1e(small) / i0e(small))
    turn = 2 * jnp.sin(0.5 * (q.loc - p.loc)) ** 2
    return jnp.log(i0e(other) / i0e(k)) + (other - k) * complement + other * turn * (1 - complement)


def multivariate(q: MultivariateNormal, p: MultivariateNormal) -> Array:
    """½ Σ (R² − 1 − log R²) over the diagonal of R = L_p⁻¹ L_q, ½ Σ R² below it, and ½ |L_p⁻¹ (m − n)|²."""
    inverse = inverse_tril(p.scale_tril)
    ratio = jnp.tril(inverse @ q.scale_tril, -1)
    shift = jnp.einsum("...ij,...j->...i", inverse, q.loc - p.loc)
    diagonals = [jnp.diagonal(d.scale_tril, axis1=-2, axis2=-1) for d in (q, p)]
    excess = exp_excess(2 * log_ratio(*diagonals))
    return 0.5 * (jnp.sum(ratio**2, (-2, -1)) + jnp.sum(shift**2, -1) + jnp.sum(excess, -1))
