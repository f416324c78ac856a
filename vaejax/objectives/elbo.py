"""The evidence lower bound, in both forms of Kingma & Welling, with the usual weights on its KL."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.numerics import weighted_mean
from vaejax.objectives.base import less_penalty, objective, scheduled
from vaejax.types import Array, LogTerms


def _is_elbo_of_weights(
    *, kl: str = "auto", beta: Any = 1.0, free_bits: float = 0.0, capacity: Any = None, **_: Any
) -> bool:
    plain = checks.is_concrete(beta, free_bits) and not callable(beta) and beta == 1.0 and not free_bits
    return plain and capacity is None and kl != "closed_form"


def _averages_draws(*, free_bits: float = 0.0, capacity: Any = None, **_: Any) -> bool:
    # The maximum of free bits and the distance to a capacity stand outside the mean over draws.
    return capacity is None and checks.is_concrete(free_bits) and not free_bits


@objective(of_log_weights=_is_elbo_of_weights, averages_draws=_averages_draws)
def elbo(
    terms: LogTerms,
    *,
    kl: str = "auto",
    beta: float | Callable[[Any], Any] = 1.0,
    free_bits: float = 0.0,
    free_bits_groups: int | Sequence[int] | None = None,
    free_bits_average: str = "minibatch",
    capacity: float | Callable[[Any], Any] | None = None,
    step: Any = 0,
) -> Array:
    """E_q[log p(x|z)] − β·KL(q(z|x) || p(z)), averaged over the K draws, in nats.

    With a capacity C the cost is β·|KL − C| instead: C, raised by a schedule, says how many nats z shall carry.

    Args:
        terms: log-terms ``[K, *batch]``.
        kl: ``"closed_form"`` takes the KL from ``terms.kl`` (form B), ``"monte_carlo"`` averages log q(z_k|x) − log p(z_k)
            (form A), ``"auto"`` takes form B where the terms have a closed form.
        beta: weight of the KL (β-VAE), or a schedule ``step -> weight``, such as Optax's, for annealing.
        free_bits: λ ≥ 0 nats for each latent dimension (or group) that cost nothing: its KL enters as max(λ, KL).
        free_bits_groups: None makes each dimension a group; an integer makes that many equal contiguous groups; a sequence names
            the group of each dimension.
        free_bits_average: ``"minibatch"`` takes the mean KL over the batch (weighted, where the terms carry weights) inside the max, as
            published, broadcast back;
            ``"per_example"`` takes each example's own.
        capacity: C ≥ 0 nats, or a schedule ``step -> C``; β is then the γ of the paper.
        step: the training step, for schedules.

    Returns:
        ``[*batch]``, larger is better; a lower bound of log p(x) where β = 1, λ = 0 and there is no capacity.

    Raises:
        ValueError: a negative β, λ or C, free bits and a capacity together, an unknown option, or a closed-form KL (or its parts)
            that the terms lack.

    Source:
        Kingma & Welling 2014, eqs. 6 (A) and 7 (B); Higgins et al. 2017 (β); Kingma et al. 2016, appendix C.8 (free bits);
        Burgess et al. 2018, eq. 8 (capacity).

    Examples:
        >>> import jax.numpy as jnp
        >>> terms = LogTerms(jnp.array([[-3.0]]), jnp.array([[-2.0]]), jnp.array([[-1.0]]), kl=jnp.array([0.5]))
        >>> float(elbo(terms)[0]), float(elbo(terms, kl="monte_carlo")[0]), float(elbo(terms, beta=2.0)[0])
        (-3.5, -4.0, -4.0)
    """
    checks.one_of(kl, "kl", ("auto", "closed_form", "monte_carlo"))
    weight = scheduled(beta, "beta", step, minimum=0.0)
    checks.real(free_bits, "free_bits", minimum=0.0)
    reconstruction = jnp.mean(terms.log_likelihood, axis=0)
    if not checks.is_concrete(free_bits) or free_bits != 0:
        if capacity is not None:
            raise ValueError("free_bits and capacity both say what the KL may cost; give one of them")
        cost = _with_free_bits(terms, kl, free_bits, free_bits_groups, free_bits_average)
    elif capacity is not None:
        cost = jnp.abs(divergence(terms, kl) - scheduled(capacity, "capacity", step, minimum=0.0))
    else:
        cost = divergence(terms, kl)
    return less_penalty(reconstruction - weight * cost, terms)


def divergence(terms: LogTerms, kl: str = "auto") -> Array:
    """KL(q(z|x) || p(z)) ``[*batch]``: the closed form where the terms carry it (and ``kl`` allows), else the mean over draws."""
    if kl == "monte_carlo" or (kl == "auto" and terms.kl is None):
        return jnp.mean(terms.log_posterior - terms.log_prior, axis=0)
    if terms.kl is None:
        raise ValueError(
            "kl='closed_form', but the terms have none: no closed form is known for this posterior and prior; use 'auto' or 'monte_carlo'"
        )
    return terms.kl if terms.kl.ndim < terms.log_prior.ndim else jnp.mean(terms.kl, axis=0)


def _with_free_bits(
    terms: LogTerms, kl: str, free_bits: float, groups: int | Sequence[int] | None, average: str
) -> Array:
    checks.one_of(average, "free_bits_average", ("minibatch", "per_example"))
    if kl == "monte_carlo" or terms.kl_parts is None:
        raise ValueError(
            "free bits need the closed-form KL of each latent dimension; use a posterior and prior that have one, and kl='auto'"
        )
    batch_ndims = terms.log_prior.ndim - 1
    per_draw = terms.kl is not None and terms.kl.ndim > batch_ndims
    parts = jnp.mean(terms.kl_parts, axis=0) if per_draw else terms.kl_parts
    parts = parts.reshape(*parts.shape[:batch_ndims], -1)
    grouped = parts @ _membership(parts.shape[-1], groups).astype(parts.dtype)
    if average == "minibatch":
        by_group = jax.vmap(lambda values: weighted_mean(values, terms.weight), in_axes=-1)
        mean = by_group(grouped)
        return jnp.broadcast_to(jnp.sum(jnp.maximum(mean, free_bits)), terms.log_prior.shape[1:])
    return jnp.sum(jnp.maximum(grouped, free_bits), axis=-1)


def _membership(size: int, groups: int | Sequence[int] | None) -> Array:
    """``[dimensions, groups]`` matrix of zeros and ones."""
    if groups is None:
        return jnp.eye(size)
    if isinstance(groups, int):
        if groups < 1 or size % groups:
            raise ValueError(
                f"free_bits_groups={groups} does not divide the {size} latent dimensions; give the group of each dimension instead"
            )
        ids = np.repeat(np.arange(groups), size // groups)
    else:
        ids = np.asarray(groups)
        if ids.shape != (size,) or not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(
                f"free_bits_groups must name the group of each of the {size} latent dimensions, got shape {list(ids.shape)}"
            )
        ids = np.unique(ids, return_inverse=True)[1]
    return jax.nn.one_hot(ids, ids.max() + 1)
