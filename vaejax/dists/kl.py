"""KL(q || p): in closed form where one is known, by Monte Carlo where a key is given, otherwise an error naming the pair."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.dists import divergences as formulas
from vaejax.dists.backend import distrax
from vaejax.dists.bernoulli import Binomial
from vaejax.dists.categorical import OneHotCategorical
from vaejax.dists.chain import layers
from vaejax.dists.gaussian import MultivariateNormal
from vaejax.dists.reparameterization import is_reparameterized
from vaejax.dists.split import SplitPosterior
from vaejax.dists.univariate import Cauchy, Kumaraswamy, LogNormal, Poisson
from vaejax.numerics import broadcasts
from vaejax.types import Array, Key

_ENTRYWISE: dict[tuple[type, type], Callable[[Any, Any], Array]] = {
    (distrax.Normal, distrax.Normal): formulas.normal_normal,
    (distrax.Laplace, distrax.Normal): formulas.moments_normal(0.0, 2.0, 1 + math.log(2)),
    (distrax.Logistic, distrax.Normal): formulas.moments_normal(0.0, math.pi**2 / 3, 2.0),
    (distrax.Gumbel, distrax.Normal): formulas.moments_normal(np.euler_gamma, math.pi**2 / 6, 1 + np.euler_gamma),
    (distrax.Uniform, distrax.Normal): formulas.uniform_normal,
    (distrax.Normal, distrax.Laplace): formulas.normal_laplace,
    (distrax.Laplace, distrax.Laplace): formulas.laplace_laplace,
    (distrax.Gumbel, distrax.Gumbel): formulas.gumbel_gumbel,
    (distrax.Uniform, distrax.Uniform): formulas.uniform_uniform,
    (LogNormal, LogNormal): formulas.normal_normal,
    (Cauchy, Cauchy): formulas.cauchy_cauchy,
    (Kumaraswamy, distrax.Uniform): formulas.kumaraswamy_uniform,
    (distrax.Gamma, distrax.Gamma): formulas.gamma_gamma,
    (distrax.Beta, distrax.Beta): formulas.beta_beta,
    (distrax.Dirichlet, distrax.Dirichlet): formulas.dirichlet_dirichlet,
    (distrax.VonMises, distrax.VonMises): formulas.von_mises_von_mises,
    (Poisson, Poisson): formulas.poisson_poisson,
    (distrax.Bernoulli, distrax.Bernoulli): formulas.binomial_binomial,
    (MultivariateNormal, MultivariateNormal): formulas.multivariate,
}


def _not_negative(divergence: Array) -> Array:
    """The divergence without the negative part that rounding may leave; its gradient is that of the formula."""
    return divergence - jax.lax.stop_gradient(jnp.minimum(divergence, 0))


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


@broadcasts
def _evaluated(formula: Callable[[Any, Any], Array], q: Any, p: Any) -> Array:
    return formula(q, p)


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
        parts = _evaluated(formulas.binomial_binomial, q, p)
        return jnp.sum(parts, tuple(range(-q.event_ndims, 0))), parts
    if isinstance(q, OneHotCategorical) and isinstance(p, OneHotCategorical):
        if q.event_shape != p.event_shape:
            return None
        parts = _evaluated(formulas.categorical_categorical, q, p)
        return jnp.sum(parts, tuple(range(1 - q.event_ndims, 0))), parts
    if isinstance(q, MultivariateNormal) != isinstance(p, MultivariateNormal):
        q, p = _as_full(q), _as_full(p)
    for (left, right), formula in _ENTRYWISE.items():
        if isinstance(q, left) and isinstance(p, right):
            return _not_negative(_evaluated(formula, q, p)), None
    if (
        isinstance(q, distrax.Categorical)
        and isinstance(p, distrax.Categorical)
        and q.logits.shape[-1] == p.logits.shape[-1]
    ):
        return _evaluated(formulas.categorical_categorical, q, p), None
    return _registered(q, p)


def _registered(q: Any, p: Any) -> tuple[Array, None] | None:
    """What the distribution itself, distrax or TFP knows."""
    if not hasattr(q, "kl_divergence"):
        return None
    try:
        return _not_negative(q.kl_divergence(p)), None
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
