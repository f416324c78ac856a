"""Partial importance weighting: one objective for the encoder, another for the decoder."""

from typing import Any

import jax
import jax.numpy as jnp

from vaejax import checks
from vaejax.estimators.base import (
    Terms,
    check_model,
    check_noise,
    check_reparameterized,
    evaluated,
    loss,
    trial_of_weights,
)
from vaejax.estimators.chunks import bare, in_chunks
from vaejax.estimators.roles import by_roles, encoder_decoder
from vaejax.objectives import Objective, as_objective
from vaejax.terms import log_terms
from vaejax.types import EmptyState, Estimate, Estimator, Key, LogTerms, Model, Params, as_batch


def piwae(
    model: Model,
    objective: Any = None,
    *,
    encoder: Any = None,
    decoder: Any = None,
    num_samples: int = 1,
    noise: str = "independent",
    chunk_size: int | None = None,
    terms: Terms = log_terms,
) -> Estimator:
    """Pathwise gradients of one objective for the params as the posterior uses them, of another as prior and likelihood do.

    The published choice on K = M·k draws is ``encoder=partial(miwae, groups=M)``, whose gradient has the better signal-to-noise
    ratio, and ``decoder=iwae``, the tighter bound.

    Args:
        model: with a posterior whose draws are differentiable in its parameters.
        objective: stands for whichever of the two is not given.
        encoder: objective of the posterior's params.
        decoder: objective of the prior's and the likelihood's params; its value is what is reported. Neither may read
            ``terms.posterior``, nor the latents where there are chunks.
        num_samples: K, draws per example, shared by both.
        noise: as in `pathwise`.
        chunk_size: as in `pathwise`.
        terms: as in `pathwise`.

    Raises:
        TypeError: neither an objective nor both of the others.

    Source:
        Rainforth et al. 2018, section 5 (PIWAE).

    Examples:
        >>> import functools, vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> from vaejax.objectives import iwae, miwae
        >>> estimator = piwae(model, encoder=functools.partial(miwae, groups=8), decoder=iwae, num_samples=64)
    """
    check_model(model)
    of_encoder, of_decoder = _of_parts(objective, encoder, decoder)
    checks.positive_int(num_samples, "num_samples")
    check_noise(noise, num_samples, chunk_size)
    for part in (of_encoder, of_decoder):
        trial_of_weights("piwae", part, num_samples)
    split = by_roles(model, noise=noise)

    def init(params: Params, key: Key, batch: Any) -> EmptyState:
        check_reparameterized(model, params, key, batch, noise)
        return EmptyState()

    def estimate(params: Params, state: Any, key: Key, batch: Any, step: Any = 0) -> tuple[Estimate, Any]:
        batch = as_batch(batch)

        def evaluate(of_encoder: Params, of_decoder: Params, key: Key, num_samples: int) -> LogTerms:
            roles = encoder_decoder(of_encoder, of_decoder)
            drawn = evaluated(terms, split, roles, key, batch, num_samples)
            return bare(drawn) if chunk_size else drawn._replace(posterior=None)

        def linear(key: Key, num_samples: int) -> Any:
            drawn, pull = jax.vjp(lambda e, d: evaluate(e, d, key, num_samples), params, params)
            return drawn, lambda of_e, of_d: jax.tree.map(jnp.add, pull(of_e)[0], pull(of_d)[1])

        drawn, pull = in_chunks(linear, key, num_samples, chunk_size)
        value, (values, metrics) = loss(of_decoder, drawn, batch.weight, step)
        towards_encoder, towards_decoder = (
            jax.grad(lambda d, o=o: loss(o, d, batch.weight, step)[0])(drawn) for o in (of_encoder, of_decoder)
        )
        return Estimate(values, pull(towards_encoder, towards_decoder), metrics, value), state

    return Estimator(init, estimate, model.trainable, model.refresh)


def _of_parts(objective: Any, encoder: Any, decoder: Any) -> tuple[Objective, Objective]:
    """The objective of each part; ``objective`` stands for the one that is missing."""
    names = {"encoder": encoder, "decoder": decoder}
    missing = [name for name, given in names.items() if given is None]
    if objective is None and missing:
        raise TypeError(
            f"piwae needs an objective for each part, and {' and '.join(missing)} has none; give encoder= and decoder=, "
            "or a second argument (an objective such as vaejax.objectives.iwae) that stands for the other"
        )
    if objective is not None and not missing:
        raise TypeError(
            "piwae has an objective for each part, so the second argument would count for nothing; leave it out"
        )
    of_encoder, of_decoder = (as_objective(objective if given is None else given) for given in names.values())
    return of_encoder, of_decoder
