"""The beginning of training: parameters, optimiser and estimator state in fresh buffers."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from vaejax import checks
from vaejax.train.optimizers import as_transformation, effective_optimizer
from vaejax.types import Array, Estimator, Key, Model, TrainState


def init(
    key: Key, model: Model, estimator: Estimator, optimizer: optax.GradientTransformation, batch: Any
) -> TrainState:
    """Initialises a model for training.

    Every array of the state is a copy of its own, so that donating the state to a train step never eats an array of the
    caller's. Values in ``batch`` (NaN, the likelihood's support) are checked here, outside ``jit``.

    Args:
        key: typed key.
        model: the model.
        estimator: built from the same model.
        optimizer: an Optax gradient transformation or `optax.MultiSteps`; frozen leaves (``model.trainable``) get no update.
        batch: examples; the more of the training data, the better the output bias.

    Raises:
        TypeError: a raw key, no optimiser, a posterior that the estimator cannot serve.
        ValueError: empty data, NaN or infinity, shapes that do not fit.

    Examples:
        >>> import jax, optax, vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> estimator = vaejax.estimators.pathwise(model, vaejax.objectives.elbo)
        >>> state = init(jax.random.key(0), model, estimator, optax.adam(1e-3), jax.numpy.ones((5, 4)))
        >>> int(state.step)
        0
    """
    checks.key(key)
    batch = checks.batch(batch, "batch", model)
    check_parts(estimator, optimizer)
    params_key, estimator_key, next_key = jax.random.split(key, 3)
    params = jax.tree.map(_fresh, model.init(params_key, batch))
    estimator_state = estimator.init(params, estimator_key, batch)
    opt_state = effective_optimizer(estimator, optimizer).init(params)
    opt_state, estimator_state = jax.tree.map(_fresh, (opt_state, estimator_state))
    return TrainState(params, opt_state, estimator_state, next_key, jnp.zeros((), jnp.int32))


def _fresh(leaf: Any) -> Array:
    """A copy, of fixed type: a weakly typed scalar would change type in the first update, and retrace every step."""
    if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
        return jnp.copy(leaf)
    return jnp.array(leaf, dtype=jnp.result_type(leaf), copy=True)


def check_parts(estimator: Any, optimizer: Any) -> None:
    """Raises unless these are an `Estimator` and an Optax optimiser."""
    if not isinstance(estimator, Estimator):
        raise TypeError(
            f"estimator must be a vaejax.Estimator such as estimators.pathwise(model, objective), got {type(estimator).__name__}"
        )
    as_transformation(optimizer)
