"""From a model, a batch and a key to log-terms: the one place where the latents are drawn and the densities meet."""

from typing import Any

import jax

from vaejax import checks, random
from vaejax.dists import closed_form, masked_log_prob
from vaejax.dists.chain import layers
from vaejax.types import Array, Key, LogTerms, Model, Params, as_batch, call, declares, observed


def log_terms(
    model: Model,
    params: Params,
    key: Key,
    batch: Any,
    *,
    num_samples: int = 1,
    kl: str = "auto",
    training: bool = False,
) -> LogTerms:
    """Draws z_k ~ q(z|x), k = 1…K, and evaluates log p(x|z_k), log p(z_k) and log q(z_k|x).

    The draws are reparameterised where the posterior's family allows, so gradients flow through z; every density is
    differentiated in the params too.

    Args:
        model: any `Model`; plain lambdas returning distrax distributions will do.
        params: its parameters.
        key: typed key, used once.
        batch: a `Batch` or an array ``[*batch, *event]``.
        num_samples: K.
        kl: ``"auto"`` adds the closed-form KL(q || p) where one is known, ``"closed_form"`` demands it, ``"none"`` leaves it out.
        training: pass ``key=`` to the model functions that declare it (dropout).

    Returns:
        `LogTerms` with leading sample axis K, in nats.

    Raises:
        TypeError: a raw key, a batch that is no array.
        ValueError: K < 1, an unknown ``kl``, no closed form where one is demanded, terms that are not ``[K, *batch]``,
            a prior or likelihood whose event shape is not that of the latents or of x.

    Source:
        Kingma & Welling 2014, eqs. 4–7.

    Examples:
        >>> import jax, vaejax
        >>> from vaejax.dists import diagonal_normal, standard_normal
        >>> model = vaejax.Model(
        ...     init=lambda key, batch: {"w": 0.5},
        ...     posterior=lambda params, x: diagonal_normal(params["w"] * x, 1.0),
        ...     prior=lambda params: standard_normal(3),
        ...     likelihood=lambda params, z: diagonal_normal(z, 1.0),
        ... )
        >>> terms = log_terms(model, {"w": 0.5}, jax.random.key(0), jax.numpy.ones((5, 3)), num_samples=2)
        >>> terms.log_weights.shape, terms.kl.shape
        ((2, 5), (5,))
    """
    checks.key(key)
    checks.positive_int(num_samples, "num_samples")
    checks.one_of(kl, "kl", ("auto", "closed_form", "none"))
    batch = as_batch(batch)
    # Folded in one by one: the keys that nobody declares are never made.
    sample_key, encoder_key, prior_key, decoder_key = (
        [random.fold_in(key, i) for i in range(4)] if training else (key, None, None, None)
    )
    extra = {"context": batch.context, "mask": batch.mask}
    posterior = call(model.posterior, params, observed(batch), key=encoder_key, **extra)
    _check_kind(posterior, "posterior", "sample_and_log_prob")
    z, log_posterior = posterior.sample_and_log_prob(seed=sample_key, sample_shape=(num_samples,))
    _check_posterior(num_samples, log_posterior, batch.x)
    prior = call(model.prior, params, key=prior_key, **extra)
    _check_kind(prior, "prior", "log_prob")
    _check_prior(prior, z)
    log_prior = prior.log_prob(z)
    likelihood = call(model.likelihood, params, z, key=decoder_key, **extra)
    _check_kind(likelihood, "likelihood", "log_prob")
    # A likelihood function that takes the mask has used it.
    mask = None if declares(model.likelihood, "mask") else batch.mask
    log_likelihood = masked_log_prob(likelihood, observed(batch), mask)
    _check_others(log_posterior, {"p(x|z)": log_likelihood, "p(z)": log_prior})
    checks.same_event(likelihood, batch.x, "the likelihood p(x|z)", "x", log_posterior.ndim - 1)
    total, parts = _closed_form_kl(posterior, prior, kl, log_posterior.shape[1:])
    return LogTerms(log_likelihood, log_prior, log_posterior, total, parts, None, z, posterior, batch.weight)


def batch_shape(model: Model, params: Params, key: Key, batch: Any) -> tuple[int, ...]:
    """``[*batch]`` as the model sees it, without computing anything.

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.vae(x_shape=4, latent_size=2, hidden_sizes=(8,))
        >>> batch_shape(model, model.init(jax.random.key(0), None), jax.random.key(1), jax.numpy.ones((5, 4)))
        (5,)
    """

    # Only the array: a posterior need not be a pytree.
    def log_posterior(*arguments: Any) -> Array:
        return log_terms(model, *arguments).log_posterior

    return jax.eval_shape(log_posterior, params, key, batch).shape[1:]


def _closed_form_kl(
    posterior: Any, prior: Any, kl: str, batch_shape: tuple[int, ...]
) -> tuple[Array | None, Array | None]:
    known = None if kl == "none" else closed_form(posterior, prior)
    if known is None:
        if kl == "closed_form":
            raise ValueError(
                f"no closed-form KL is known for {type(posterior).__name__} and {type(prior).__name__}; use kl='auto'"
            )
        return None, None
    if known[0].shape != batch_shape:
        raise ValueError(f"the closed-form KL has shape {list(known[0].shape)}, wanted [*batch] = {list(batch_shape)}")
    return known


def _check_kind(distribution: Any, name: str, method: str) -> None:
    if not hasattr(distribution, method):
        raise TypeError(
            f"model.{name} returned {type(distribution).__name__}, wanted a distribution with {method}; return e.g. "
            "vaejax.dists.diagonal_normal(loc, scale)"
        )


def _check_prior(prior: Any, z: Any) -> None:
    """Raises for a prior, or a layer of it, of another event shape than the latents."""
    if not hasattr(prior, "conditionals"):
        checks.same_event(prior, z, "the prior p(z)", "the latents")
        return
    for index, (layer, value) in enumerate(layers(prior, z)):
        checks.same_event(layer, value, f"layer {index} of the prior p(z)", "its latents")


def _check_posterior(num_samples: int, log_posterior: Array, x: Array) -> None:
    shape = log_posterior.shape
    if len(shape) < 1 or shape[0] != num_samples or x.shape[: len(shape) - 1] != shape[1:]:
        raise ValueError(
            f"log q(z|x) has shape {list(shape)}, wanted [K, *batch] with K={num_samples} and the leading axes of x {list(x.shape)}; "
            "sum the event axes, e.g. with distrax.Independent"
        )


def _check_others(log_posterior: Array, others: dict[str, Array]) -> None:
    for name, term in others.items():
        if term.shape != log_posterior.shape:
            raise ValueError(
                f"log {name} has shape {list(term.shape)}, wanted [K, *batch] = {list(log_posterior.shape)} as log q(z|x); sum the event "
                "axes, e.g. with distrax.Independent, and check that the likelihood keeps the leading axes of z"
            )
