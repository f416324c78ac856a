"""The pathwise (reparameterisation) gradient."""

from typing import Any

import jax
import jax.numpy as jnp

from vaejax import checks
from vaejax.dists import is_reparameterized
from vaejax.estimators.base import Terms, check_init, check_model, loss
from vaejax.objectives import as_objective
from vaejax.terms import log_terms
from vaejax.types import EmptyState, Estimate, Estimator, Key, Model, Params, as_batch, call


def pathwise(model: Model, objective: Any, *, num_samples: int = 1, terms: Terms = log_terms) -> Estimator:
    """Differentiates the objective through reparameterised draws z = g(ε; params, x): unbiased for the objective at K draws.

    Args:
        model: with a posterior whose draws are differentiable in its parameters.
        objective: a function of log-terms, such as `vaejax.objectives.elbo` (which, given bare, uses the closed-form KL where
            there is one); options by `functools.partial`.
        num_samples: K, draws per example.
        terms: ``(model, params, key, batch, *, num_samples) -> LogTerms``.

    Returns:
        An `Estimator` without state. Its ``init`` raises TypeError for a posterior that does not reparameterise.

    Source:
        Kingma & Welling 2014, section 2.3; Rezende, Mohamed & Wierstra 2014.

    Examples:
        >>> import jax, jax.numpy as jnp, vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> estimator = pathwise(model, vaejax.objectives.elbo)
        >>> params = model.init(jax.random.key(0), None)
        >>> x = jnp.ones((5, 4))
        >>> estimate, _ = estimator.estimate(params, estimator.init(params, jax.random.key(1), x), jax.random.key(2), x)
        >>> estimate.objective.shape
        (5,)
    """
    check_model(model)
    checked = as_objective(objective)
    checks.positive_int(num_samples, "num_samples")

    def init(params: Params, key: Key, batch: Any) -> EmptyState:
        posterior, latents = check_init(model, params, key, batch)
        discrete = not all(jnp.issubdtype(z.dtype, jnp.floating) for z in jax.tree.leaves(latents))
        if discrete or is_reparameterized(posterior) is False:
            raise TypeError(
                f"posterior is {type(posterior).__name__}, whose draws are not differentiable in its parameters, so pathwise gradients "
                "would be silently wrong; use a reparameterised posterior (vaejax.dists.diagonal_normal), or an estimator for discrete "
                "latents from vaejax.estimators.catalogue()"
            )
        return EmptyState()

    def estimate(params: Params, state: Any, key: Key, batch: Any, step: Any = 0) -> tuple[Estimate, Any]:
        batch = as_batch(batch)

        def objective_loss(params: Params) -> Any:
            drawn = call(terms, model, params, key, batch, num_samples=num_samples, training=True)
            return loss(checked, drawn, batch.weight, step)

        (_, (values, metrics)), grads = jax.value_and_grad(objective_loss, has_aux=True)(params)
        return Estimate(values, grads, metrics), state

    return Estimator(init, estimate, model.trainable, model.refresh)
