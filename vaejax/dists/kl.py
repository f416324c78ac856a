"""KL(q || p): in closed form where one is known, by Monte Carlo where a key is given, otherwise an error naming the pair."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import erf

from vaejax import checks
from vaejax.dists.backend import distrax
from vaejax.dists.bernoulli import Binomial
from vaejax.dists.categorical import OneHotCategorical, log_probs
from vaejax.dists.chain import layers
from vaejax.dists.gaussian import MultivariateNormal
from vaejax.dists.reparameterization import is_reparameterized
from vaejax.dists.split import SplitPosterior
from vaejax.dists.univariate import Cauchy, Kumaraswamy, LogNormal, Poisson
from vaejax.linalg import inverse_tril, log_diagonal
from vaejax.numerics import broadcasts
from vaejax.types import Array, Key

_LOG_2PI = math.log(2 * math.pi)


@broadcasts
def _normal_normal(q: Any, p: Any) -> Array:
    # In ratios and log-ratios, so that scales from e^-15 to e^15 neither overflow nor cancel.
    log_ratio = jnp.log(q.scale) - jnp.log(p.scale)
    return 0.5 * ((q.loc - p.loc) / p.scale) ** 2 + 0.5 * (jnp.expm1(2 * log_ratio) - 2 * log_ratio)


def _moments_normal(q: Any, p: Any) -> Array:
    """Any q with a mean, a variance and an entropy against a normal: −H(q) + E_q[−log p]."""
    second_moment = (jnp.sqrt(q.variance()) / p.scale) ** 2 + ((q.mean() - p.loc) / p.scale) ** 2
    return -q.entropy() + 0.5 * (_LOG_2PI + second_moment) + jnp.log(p.scale)


def _normal_laplace(q: Any, p: Any) -> Array:
    # E|x − m| of a normal: the mean of a folded normal.
    shift = (q.loc - p.loc) / q.scale
    distance = q.scale * (math.sqrt(2 / math.pi) * jnp.exp(-0.5 * shift**2) + shift * erf(shift / math.sqrt(2)))
    return -q.entropy() + jnp.log(2 * p.scale) + distance / p.scale


def _cauchy_cauchy(q: Any, p: Any) -> Array:
    # Chyzak & Nielsen 2019: log (((s + t)² + (m − n)²) / 4st), written in the ratio r = s/t.
    ratio, shift = q.scale / p.scale, (q.loc - p.loc) / p.scale
    return jnp.log((1 + ratio) ** 2 + shift**2) - math.log(4.0) - jnp.log(q.scale) + jnp.log(p.scale)


def _kumaraswamy_uniform(q: Any, p: Any) -> Array:
    inside = (p.low <= 0) & (p.high >= 1)
    return jnp.where(inside, -q.entropy() + jnp.log(p.high - p.low), jnp.inf)


def _poisson_poisson(q: Any, p: Any) -> Array:
    log_ratio = q.log_rate - p.log_rate
    return jnp.exp(q.log_rate) * log_ratio - jnp.exp(p.log_rate) * jnp.expm1(log_ratio)


@broadcasts
def _binomial_entries(q: Any, p: Any) -> Array:
    if q.total_count != p.total_count:
        raise NotImplementedError("binomials with different numbers of trials")
    log_odds = q.probs * (q.logits - p.logits)
    return q.total_count * (log_odds - jax.nn.softplus(q.logits) + jax.nn.softplus(p.logits))


@broadcasts
def _mvn_mvn(q: MultivariateNormal, p: MultivariateNormal) -> Array:
    dim = q.loc.shape[-1]
    inverse = inverse_tril(p.scale_tril)
    ratio = inverse @ q.scale_tril
    shift = jnp.einsum("...ij,...j->...i", inverse, q.loc - p.loc)
    log_ratio = log_diagonal(p.scale_tril) - log_diagonal(q.scale_tril)
    return 0.5 * (jnp.sum(ratio**2, (-2, -1)) + jnp.sum(shift**2, -1) - dim) + log_ratio


_ENTRYWISE: dict[tuple[type, type], Callable[[Any, Any], Array]] = {
    (distrax.Normal, distrax.Normal): _normal_normal,
    (distrax.Laplace, distrax.Normal): _moments_normal,
    (distrax.Logistic, distrax.Normal): _moments_normal,
    (distrax.Gumbel, distrax.Normal): _moments_normal,
    (distrax.Uniform, distrax.Normal): _moments_normal,
    (distrax.Normal, distrax.Laplace): _normal_laplace,
    (LogNormal, LogNormal): _normal_normal,
    (Cauchy, Cauchy): _cauchy_cauchy,
    (Kumaraswamy, distrax.Uniform): _kumaraswamy_uniform,
    (Poisson, Poisson): _poisson_poisson,
    (MultivariateNormal, MultivariateNormal): _mvn_mvn,
}


def _as_full(d: Any) -> Any:
    """A diagonal Gaussian vector as a `MultivariateNormal`; anything else unchanged."""
    if (
        isinstance(d, distrax.Independent)
        and isinstance(d.distribution, distrax.Normal)
        and d.reinterpreted_batch_ndims == 1
    ):
        base = d.distribution
        return MultivariateNormal(
            base.loc, base.scale[..., None] * jnp.eye(base.scale.shape[-1], dtype=base.scale.dtype)
        )
    return d


def closed_form(q: Any, p: Any) -> tuple[Array, Array | None] | None:
    """The closed-form KL(q || p) ``[*batch]`` and its parts ``[*batch, *event]``, or None where no closed form is known.

    The parts are None where the event is not a product of independent entries.
    """
    if isinstance(q, SplitPosterior):
        return closed_form(q.drawn, p)
    if isinstance(q, distrax.Independent) and isinstance(p, distrax.Independent):
        if q.event_shape != p.event_shape:
            raise ValueError(
                f"KL between event shapes {q.event_shape} and {p.event_shape}; the latents of q and p must agree"
            )
        inner = None
        if q.reinterpreted_batch_ndims == p.reinterpreted_batch_ndims:
            inner = closed_form(q.distribution, p.distribution)
        if inner is None:
            return None
        return jnp.sum(inner[0], tuple(range(-q.reinterpreted_batch_ndims, 0))), inner[0]
    if isinstance(q, Binomial) and isinstance(p, Binomial):
        if q.event_shape != p.event_shape or q.total_count != p.total_count:
            return None
        parts = _binomial_entries(q, p)
        return jnp.sum(parts, tuple(range(-q.event_ndims, 0))), parts
    if isinstance(q, OneHotCategorical) and isinstance(p, OneHotCategorical):
        if q.event_shape != p.event_shape:
            return None
        log_q, log_p = (log_probs(d.logits) for d in (q, p))
        parts = jnp.sum(jnp.exp(log_q) * (log_q - log_p), -1)
        return jnp.sum(parts, tuple(range(1 - q.event_ndims, 0))), parts
    if isinstance(q, MultivariateNormal) != isinstance(p, MultivariateNormal):
        q, p = _as_full(q), _as_full(p)
    for (left, right), formula in _ENTRYWISE.items():
        if isinstance(q, left) and isinstance(p, right):
            return formula(q, p), None
    return _registered(q, p)


def _registered(q: Any, p: Any) -> tuple[Array, None] | None:
    """What the distribution itself, distrax or TFP knows."""
    if not hasattr(q, "kl_divergence"):
        return None
    try:
        return q.kl_divergence(p), None
    except NotImplementedError:
        return None


def kl_divergence(q: Any, p: Any, *, key: Key | None = None, num_samples: int | None = None) -> Array:
    """KL(q || p) = E_q[log q(z) − log p(z)], in nats.

    A closed form is used where one is known (docs/kl-pairs.md lists the pairs). Otherwise, given a key, the average of
    log q − log p over ``num_samples`` draws of q: unbiased, with an unbiased gradient: pathwise where q
    reparameterises, by the score function where it does not.

    Args:
        q: the distribution averaged over.
        p: the other one.
        key: typed key, for pairs without a closed form.
        num_samples: number of draws; giving it forces Monte Carlo, and needs a key.

    Returns:
        ``[*batch]`` nats.

    Raises:
        ValueError: no closed form and no key, naming the pair.

    Examples:
        >>> from vaejax.dists import diagonal_normal, standard_normal
        >>> import jax.numpy as jnp
        >>> kl_divergence(diagonal_normal(jnp.ones(2), jnp.ones(2)), standard_normal(2))
        Array(1., dtype=float32)
    """
    if num_samples is None:
        known = closed_form(q, p)
        if known is not None:
            return known[0]
    if key is None:
        pair = f"KL({_describe(q)} || {_describe(p)})"
        if num_samples is not None:
            raise ValueError(
                f"num_samples asks for a Monte Carlo estimate of {pair}: give key=jax.random.key(seed) too"
            )
        raise ValueError(
            f"no closed form is known for {pair}; give key=jax.random.key(seed) for a Monte Carlo estimate"
        )
    checks.key(key)
    count = checks.positive_int(1 if num_samples is None else num_samples, "num_samples")
    z, log_q = q.sample_and_log_prob(seed=key, sample_shape=(count,))
    if all(is_reparameterized(layer) is not False for layer, _ in layers(q, z)):
        return jnp.mean(log_q - p.log_prob(z), axis=0)
    # Draws of discrete families carry no gradient, and those of mixtures only a part of it: the score must carry all of it.
    z = jax.lax.stop_gradient(z)
    log_q = q.log_prob(z)
    difference = log_q - p.log_prob(z)
    score = log_q - jax.lax.stop_gradient(log_q)
    return jnp.mean(difference + jax.lax.stop_gradient(difference) * score, axis=0)


def _describe(d: Any) -> str:
    inner = getattr(d, "distribution", None)
    return type(d).__name__ if inner is None else f"{type(d).__name__}[{_describe(inner)}]"
