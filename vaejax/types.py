"""The contracts of vaejax: the plain NamedTuples that its parts exchange.

Shapes are written ``[sample K, *batch, *event]``: K draws of the latents per example lead, the event axes (pixels, items,
latent dimensions) come last. Log densities and bounds are in nats.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import arrays, compilation
from vaejax.calls import call as call
from vaejax.calls import declares as declares

# Here, because every part of the package that computes imports this module.
compilation.warn_of_miscompilation()

Array = jax.Array
Key = jax.Array
Params = Any


class Batch(NamedTuple):
    """Examples and what is known about them; a bare array stands for ``Batch(x)`` wherever a batch is wanted.

    Attributes:
        x: ``[*batch, *event]``, the data.
        context: labels or covariates, a pytree whose leaves lead with ``*batch``.
        mask: ``True`` where x is observed, of x's shape; missing entries drop out of log p(x|z).
        weight: ``[*batch]``, how many rows each example stands for, not negative. A weight of 2 equals a row that occurs twice, a
            weight of 0 a row that is absent. Every mean over examples divides by the sum of the weights.
    """

    x: Array
    context: Any = None
    mask: Array | None = None
    weight: Array | None = None


class Model(NamedTuple):
    """A latent-variable model p(x, z) with its posterior q(z|x), as pure functions of one params pytree.

    Attributes:
        init: ``(key, batch) -> params``.
        posterior: ``(params, x, context=None) -> `` distribution q(z|x).
        prior: ``(params, context=None) -> `` distribution p(z).
        likelihood: ``(params, z, context=None) -> `` distribution p(x|z); z comes with its leading sample axis.
        trainable: ``params -> `` tree of bools, or None for everything.
        refresh: ``(params, key, batch) -> params`` after each update, for running statistics and the like.
        check: ``batch -> None``, raises where concrete data are not such as the model describes (outside the likelihood's support).
    """

    init: Callable
    posterior: Callable
    prior: Callable
    likelihood: Callable
    trainable: Callable | None = None
    refresh: Callable | None = None
    check: Callable | None = None


class LogTerms(NamedTuple):
    """What one draw of the latents says about each example, in nats with event axes summed.

    Attributes:
        log_likelihood: ``[K, *batch]`` log p(x|z_k).
        log_prior: ``[K, *batch]`` log p(z_k).
        log_posterior: ``[K, *batch]`` log q(z_k|x).
        kl: ``[*batch]`` or ``[K, *batch]`` closed-form KL(q(z|x) || p(z)), where one exists and is wanted.
        kl_parts: the same with event axes kept (for free bits per dimension).
        penalty: ``[*batch]``, subtracted from the objective.
        latents: the draws z_k.
        posterior: the distribution q(z|x).
        weight: ``[*batch]``, the weights of the examples, for objectives with a mean over the batch inside.
    """

    log_likelihood: Array
    log_prior: Array
    log_posterior: Array
    kl: Array | None = None
    kl_parts: Any = None
    penalty: Array | None = None
    latents: Any = None
    posterior: Any = None
    weight: Array | None = None

    @property
    def log_weights(self) -> Array:
        """``[K, *batch]`` log p(x, z_k) − log q(z_k|x)."""
        return self.log_likelihood + self.log_prior - self.log_posterior


class Estimate(NamedTuple):
    """An estimator's answer on one batch.

    Attributes:
        objective: ``[*batch]``, nats.
        grads: gradient of the loss −(Σ_i weight_i · objective_i) / Σ_i weight_i with respect to the params; zero where all weights
            of the batch are 0.
        metrics: scalars, by name: means weighted as the loss is. For a batch with weights, ``weight`` is their sum, by which means
            over several batches are weighted.
        loss: the loss itself, which optimizers that read the value minimize. None: ``-metrics["objective"]``.
    """

    objective: Array
    grads: Params
    metrics: dict[str, Array]
    loss: Array | None = None


class Estimator(NamedTuple):
    """A gradient estimator as two pure functions, with the model's hooks carried along.

    Attributes:
        init: ``(params, key, batch) -> state``; refuses a model that the estimator cannot serve.
        estimate: ``(params, state, key, batch, step=0) -> (Estimate, state)``.
        trainable: the model's.
        refresh: the model's.
    """

    init: Callable
    estimate: Callable
    trainable: Callable | None = None
    refresh: Callable | None = None


class TrainState(NamedTuple):
    """Everything that training carries from one step to the next."""

    params: Params
    opt_state: Any
    estimator_state: Any
    key: Key
    step: Array


class EmptyState(NamedTuple):
    """The state of an estimator that needs none."""


def as_batch(batch: Any) -> Batch:
    """Returns a `Batch` of arrays: ``batch`` itself with its parts converted, or ``Batch(batch)``.

    Parts may be arrays of JAX and NumPy, masked arrays, frames and series of pandas and polars,
    tensors, and nested lists of numbers (`vaejax.arrays.convert`). Entries that their library marks as
    missing become False in the mask. A categorical series may be the context; it becomes codes. NaN in
    missing entries of a NumPy array becomes 0.

    Raises:
        TypeError: a part that is not an array of real numbers.
        ValueError: values that the device's types cannot hold; a mask that is not bool or not of the
            shape of x; missing entries in a mask, weight or context.

    Examples:
        >>> import numpy as np
        >>> as_batch(np.zeros((3, 2))).x.shape
        (3, 2)
        >>> as_batch(np.ma.masked_equal([[1.0, -9.0]], -9.0)).mask
        array([[ True, False]])
    """
    if not isinstance(batch, Batch):
        batch = Batch(batch)
    mask = None if batch.mask is None else arrays.complete(batch.mask, "batch.mask")
    x, present = arrays.convert(batch.x, "x", mask=mask)
    if mask is not None and (mask.dtype != jnp.bool_ or mask.shape != x.shape):
        raise ValueError(
            f"batch.mask must be bool and have the shape of x {list(x.shape)} (True where observed), got {mask.dtype} of shape "
            f"{list(mask.shape)}; use mask.astype(bool), jax.numpy.broadcast_to"
        )
    if present is not None:
        mask = present if mask is None else mask & present
    weight = None if batch.weight is None else arrays.complete(batch.weight, "batch.weight")
    if isinstance(x, np.ndarray) and mask is not None and not isinstance(mask, jax.core.Tracer):
        # Checks and moves to the device would raise for NaN under `jax_debug_nans`.
        x = np.where(mask, x, x.dtype.type(0)) if x.dtype.kind == "f" and np.isnan(x).any() else x
    return with_absent_filled(Batch(x, arrays.convert_context(batch.context), mask, weight))


def with_absent_filled(batch: Batch) -> Batch:
    """Gives examples of weight 0, which count as absent, the content of the first example that is present.

    What stands in them, NaN or values outside the likelihood's support included, then reaches no computation.
    """
    weight = batch.weight
    lead = () if weight is None else tuple(weight.shape)
    if weight is None or not lead or batch.x.shape[: len(lead)] != lead:
        return batch
    traced = isinstance(weight, jax.core.Tracer)
    library = jnp if traced else np
    present = library.asarray(weight).reshape(-1) > 0
    if not traced and (present.all() or not present.any()):
        return batch
    first = library.argmax(present)

    def filled(leaf: Any) -> Any:
        if jnp.shape(leaf)[: len(lead)] != lead:
            return leaf
        flat = leaf.reshape(-1, *leaf.shape[len(lead) :])
        rows = present.reshape(-1, *(1,) * (flat.ndim - 1))
        where = jnp.where if isinstance(leaf, jax.Array) or traced else np.where
        return where(rows, flat, flat[first][None]).reshape(leaf.shape)

    return jax.tree.map(filled, batch._replace(weight=None))._replace(weight=weight)


def on_device(tree: Any) -> Any:
    """Returns a pytree with its NumPy arrays on the default device; arrays of JAX stay as they are.

    `jax.numpy.asarray` would compute, and so raise for the NaN of missing entries under ``jax_debug_nans``.
    """
    return jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else jax.device_put(leaf), tree)


def observed(batch: Batch) -> Array:
    """``batch.x`` with its missing entries (where ``mask`` is False) replaced by 0.

    Whatever stands in a missing entry, NaN included, must not reach a network: a ``where`` around log p(NaN) still has a
    NaN gradient.
    """
    if batch.mask is None:
        return batch.x
    x = on_device(batch.x)
    return jnp.where(batch.mask, x, jnp.zeros((), x.dtype))


def flat_examples(batch: Batch, event_shape: tuple[int, ...]) -> tuple[Array, Array | None]:
    """Returns the observed data as ``[n, *event]`` and how much each entry counts, for statistics of the data.

    The latter is None where every entry counts once, the bool mask where some are missing, and for a batch with weights the weight of
    each entry, 0 where it is missing.

    Raises:
        ValueError: weights that are not one for each example.

    Examples:
        >>> import jax.numpy as jnp
        >>> flat_examples(Batch(jnp.ones((2, 3)), weight=jnp.array([2.0, 0.0])), (3,))[1].tolist()
        [[2.0, 2.0, 2.0], [0.0, 0.0, 0.0]]
    """
    x, mask, weight = observed(batch), batch.mask, batch.weight
    flat = x.reshape(-1, *event_shape)
    if weight is None:
        return flat, None if mask is None else mask.reshape(flat.shape)
    if weight.shape != x.shape[: x.ndim - len(event_shape)]:
        raise ValueError(
            f"batch.weight must have the batch shape of x, {list(x.shape[: x.ndim - len(event_shape)])}, got {list(weight.shape)}; "
            "give one weight for each example"
        )
    counts = weight.astype(default_float()).reshape(-1, *(1,) * len(event_shape))
    counts = jnp.broadcast_to(counts, flat.shape)
    counts = counts if mask is None else jnp.where(mask.reshape(flat.shape), counts, 0)
    return jnp.where(counts > 0, flat, jnp.zeros((), flat.dtype)), counts


def broadcast_context(context: Any, z: Any) -> Any:
    """Repeats every ``[*batch, ...]`` leaf of ``context`` along the leading sample axis of ``z``, giving ``[K, *batch, ...]``.

    Examples:
        >>> import jax.numpy as jnp
        >>> broadcast_context(jnp.zeros((5, 3)), jnp.zeros((2, 5, 4))).shape
        (2, 5, 3)
    """
    num_samples = jax.tree.leaves(z)[0].shape[0]
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_samples, *jnp.shape(leaf))), context)


def default_float() -> np.dtype:
    """float32, or float64 when x64 is on."""
    return jnp.zeros(()).dtype
