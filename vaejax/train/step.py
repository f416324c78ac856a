"""One update, bare and compiled."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vaejax import compilation
from vaejax.train.batches import from_outside
from vaejax.train.optimizers import effective_optimizer, extra_arguments
from vaejax.train.state import check_parts
from vaejax.types import Array, Estimator, Key, TrainState, as_batch

Metrics = dict[str, Array]


def step(
    estimator: Estimator, optimizer: optax.GradientTransformation, state: TrainState, batch: Any
) -> tuple[TrainState, Metrics]:
    """One update of the parameters: pure, not compiled, for use inside ``jit``, ``vmap`` and ``scan``.

    Args:
        estimator: gives the gradient.
        optimizer: the one that the state was made with.
        state: from `init`.
        batch: a `Batch` or an array ``[*batch, *event]``.

    Returns:
        The next state and the metrics, scalars.

    Raises:
        TypeError: what is no `TrainState`.
        ValueError: an empty batch.
    """
    if not isinstance(state, TrainState):
        raise TypeError(
            f"state must be a vaejax.TrainState from train.init, got {type(state).__name__}; a step returns (state, metrics): unpack both"
        )
    for leaf in jax.tree.leaves(batch):
        if jnp.shape(leaf)[:1] == (0,):
            raise ValueError(f"batch is empty: an array of shape {list(jnp.shape(leaf))}; a step needs an example")
    next_key, *keys = split_key(state.key)
    state, metrics = update(estimator, optimizer, state, keys, batch)
    return state._replace(key=next_key), metrics


def split_key(key: Key) -> Array:
    """Three keys: of the next state, of the estimate, of the model's ``refresh``."""
    return jax.random.split(key, 3)


def update(
    estimator: Estimator, optimizer: optax.GradientTransformation, state: TrainState, keys: Any, batch: Any
) -> tuple[TrainState, Metrics]:
    """`step` with the last two keys of `split_key` given; the state's own stays as it is."""
    estimate_key, refresh_key = keys
    estimate, estimator_state = estimator.estimate(state.params, state.estimator_state, estimate_key, batch, state.step)
    extra = extra_arguments(estimator, state, estimate_key, batch, estimate)
    updates, opt_state = effective_optimizer(estimator, optimizer).update(
        estimate.grads, state.opt_state, state.params, **extra
    )
    params = optax.apply_updates(state.params, updates)
    if estimator.refresh is not None:
        params = estimator.refresh(params, refresh_key, as_batch(batch))
    return TrainState(params, opt_state, estimator_state, state.key, state.step + 1), estimate.metrics


def make_train_step(
    estimator: Estimator, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """Compiles `step`: ``step(state, batch) -> (state, metrics)``.

    The state is donated: its buffers are reused, and the state passed in must not be used again (JAX then says "Array has been
    deleted", or "donated"): go on with the one that comes back. Shapes are checked here, and that the device's types can hold the
    numbers; `init` and `fit` check the other properties of the values.

    Examples:
        >>> import jax, optax, vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> estimator, optimizer = vaejax.estimators.pathwise(model, vaejax.objectives.elbo), optax.adam(1e-3)
        >>> x = jax.numpy.ones((5, 4))
        >>> state = vaejax.train.init(jax.random.key(0), model, estimator, optimizer, x)
        >>> train_step = make_train_step(estimator, optimizer)
        >>> for _ in range(3):
        ...     state, metrics = train_step(state, x)
        >>> sorted(metrics)
        ['kl', 'log_likelihood', 'objective']
    """
    check_parts(estimator, optimizer)
    return _step.program(estimator, optimizer)


_step = compilation.static_jit(step, num_static=2, prepare=from_outside, donate_argnums=0)
