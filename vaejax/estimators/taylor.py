"""A control variate for pathwise gradients of the ELBO: the gradient of a second-order expansion about the posterior's mean."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaejax import checks
from vaejax.dists.backend import distrax
from vaejax.estimators.base import Terms, check_model, check_noise, check_reparameterized, evaluated, loss, refuse
from vaejax.estimators.roles import by_roles, sticking
from vaejax.objectives import Objective, as_objective
from vaejax.terms import log_terms
from vaejax.types import (
    Array,
    Batch,
    EmptyState,
    Estimate,
    Estimator,
    Key,
    LogTerms,
    Model,
    Params,
    as_batch,
)

# Products with the Hessian that are taken at once.
_HESSIAN_BLOCK = 16


def taylor_control_variate(
    model: Model,
    objective: Any,
    *,
    num_samples: int = 1,
    scale: str = "exact",
    noise: str = "independent",
    terms: Terms = log_terms,
) -> Estimator:
    """The pathwise gradient of the ELBO less the gradient of a quadratic whose mean is known.

    With f(z) the integrand of the ELBO, z = μ + σ ε and H = ∇²f(μ): the path's ∇f(z) is replaced by ∇f(z) − ∇f(μ) − H(z − μ), and
    the known mean of what was taken away, ∇f(μ) for μ and σ ⊙ diag H for σ, is put back. Unbiased; without variance where f is
    quadratic. The decoder's gradient is the plain one.

    Args:
        model: with a diagonal Gaussian posterior and independent examples.
        objective: an ELBO, or another mean over draws.
        num_samples: K, draws per example. One Hessian–vector product each.
        scale: ``"exact"`` takes diag H with one Hessian–vector product for each latent dimension; ``"none"`` corrects the
            mean's path alone.
        noise: as in `pathwise`.
        terms: as in `pathwise`; must report ``latents``.

    Raises:
        ValueError: an objective that is no mean over draws.
        TypeError: from ``init``, for a posterior that is no diagonal Gaussian.

    Source:
        Miller, Foti, D'Amour & Adams 2017, eqs. 8–13 and algorithm 1.

    Examples:
        >>> import vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> estimator = taylor_control_variate(model, vaejax.objectives.elbo, num_samples=2)
    """
    check_model(model)
    checked = as_objective(objective)
    checks.positive_int(num_samples, "num_samples")
    checks.one_of(scale, "scale", ("exact", "none"))
    check_noise(noise, num_samples, None)
    if not checked.averages_draws:
        refuse(
            "taylor_control_variate",
            checked,
            "its mean is known only for a mean over draws, such as the ELBO",
            "use doubly_reparameterized where it is a function of the log-weights, else pathwise",
        )

    def init(params: Params, key: Key, batch: Any) -> EmptyState:
        _diagonal(check_reparameterized(model, params, key, batch, noise))
        return EmptyState()

    def estimate(params: Params, state: Any, key: Key, batch: Any, step: Any = 0) -> tuple[Estimate, Any]:
        return _estimate(
            _Parts(model, checked, num_samples, scale, noise, terms), params, key, as_batch(batch), step
        ), state

    return Estimator(init, estimate, model.trainable, model.refresh)


class _Parts(NamedTuple):
    model: Model
    objective: Objective
    num_samples: int
    scale: str
    noise: str
    terms: Terms


def _estimate(parts: _Parts, params: Params, key: Key, batch: Batch, step: Any) -> Estimate:
    def loss_of(params: Params, z: Array) -> Any:
        drawn = _log_terms(parts, by_roles(parts.model, given=z), params, key, batch, len(z))
        return loss(parts.objective, drawn, batch.weight, step)

    (z, loc, scale), pull_draw = jax.vjp(functools.partial(_draw, parts, key=key, batch=batch), params)
    (value, (values, metrics)), (grads, through_z) = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)(
        params, z
    )
    # The gradient of one draw's integrand at the mean, and its Jacobian as a linear map: one linearisation serves every product.
    slope, curve = jax.linearize(lambda z: jax.grad(loss_of, argnums=1, has_aux=True)(params, z)[0], loc[None])
    linear = (slope + jax.vmap(lambda v: curve(v[None])[0])(z - loc[None])) / len(z)
    if parts.scale == "exact":
        towards_scale = _diagonal_of(curve, loc.shape, loc.dtype, batch_ndims=values.ndim) * scale
    else:
        towards_scale = jnp.sum(linear * (z - loc[None]) / scale[None], axis=0)
    encoder = pull_draw((through_z - linear, slope[0], towards_scale))[0]
    return Estimate(values, jax.tree.map(jnp.add, grads, encoder), metrics, value)


def _log_terms(parts: _Parts, model: Model, params: Params, key: Key, batch: Batch, num_samples: int) -> LogTerms:
    return evaluated(parts.terms, model, sticking(params), key, batch, num_samples)


def _draw(parts: _Parts, params: Params, *, key: Key, batch: Batch) -> tuple[Array, Array, Array]:
    """The draws with the mean and the standard deviation that made them."""
    drawn = _log_terms(parts, by_roles(parts.model, noise=parts.noise), params, key, batch, parts.num_samples)
    if drawn.latents is None or drawn.posterior is None:
        raise ValueError(
            "taylor_control_variate needs terms that report their latents and posterior, as vaejax.log_terms does"
        )
    normal = _diagonal(drawn.posterior.drawn)
    shape = drawn.latents.shape[1:]
    return drawn.latents, jnp.broadcast_to(normal.loc, shape), jnp.broadcast_to(normal.scale, shape)


def _diagonal(posterior: Any) -> Any:
    """The entrywise Normal of a diagonal Gaussian; raises for anything else."""
    if isinstance(posterior, distrax.Independent) and isinstance(posterior.distribution, distrax.Normal):
        return posterior.distribution
    raise TypeError(
        f"taylor_control_variate is for diagonal Gaussian posteriors (vaejax.dists.diagonal_normal), got {type(posterior).__name__}; "
        "use sticking_the_landing"
    )


def _diagonal_of(curve: Any, shape: tuple[int, ...], dtype: Any, *, batch_ndims: int) -> Array:
    """The diagonal of each example's Hessian, ``[*batch, *event]``: one product per latent dimension serves all examples."""
    event = shape[batch_ndims:]
    size = math.prod(event)

    def entry(j: Array) -> Array:
        direction = jnp.broadcast_to((jnp.arange(size) == j).reshape(event), (1, *shape))
        return curve(direction.astype(dtype))[0].reshape(*shape[:batch_ndims], size)[..., j]

    diagonal = jax.lax.map(entry, jnp.arange(size), batch_size=min(size, _HESSIAN_BLOCK))
    return jnp.moveaxis(diagonal, 0, -1).reshape(shape)
