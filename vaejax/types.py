"""The contracts of vaejax: the plain NamedTuples that its parts exchange.

Shapes are written ``[sample K, *batch, *event]``: K draws of the latents per example lead, the event axes (pixels, items,
latent dimensions) come last. Log densities and bounds are in nats.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import compilation

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
        weight: ``[*batch]``, a non-negative weight for each example's objective.
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
    """

    log_likelihood: Array
    log_prior: Array
    log_posterior: Array
    kl: Array | None = None
    kl_parts: Any = None
    penalty: Array | None = None
    latents: Any = None
    posterior: Any = None

    @property
    def log_weights(self) -> Array:
        """``[K, *batch]`` log p(x, z_k) − log q(z_k|x)."""
        return self.log_likelihood + self.log_prior - self.log_posterior


class Estimate(NamedTuple):
    """An estimator's answer on one batch.

    Attributes:
        objective: ``[*batch]``, nats.
        grads: gradient of the loss −(Σ_i weight_i · objective_i) / B with respect to the params.
        metrics: scalars, by name.
    """

    objective: Array
    grads: Params
    metrics: dict[str, Array]


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
    """Returns ``batch`` if it is a `Batch`, and ``Batch(batch)`` if it is an array.

    Raises:
        TypeError: for anything else (lists, data frames) and for arrays that do not hold real numbers.
        ValueError: for a mask that is not bool or not of x's shape.

    Examples:
        >>> import numpy as np
        >>> as_batch(np.zeros((3, 2))).x.shape
        (3, 2)
    """
    if not isinstance(batch, Batch):
        batch = Batch(batch)
    x = batch.x
    if not (hasattr(x, "shape") and hasattr(x, "dtype")):
        raise TypeError(
            f"a batch must be an array or vaejax.Batch(x, context=, mask=, weight=) of arrays, got {type(x).__name__}; convert lists with "
            "jax.numpy.asarray, data frames with .to_numpy()"
        )
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(
            "a numpy masked array would lose its mask; pass vaejax.Batch(x.data, mask=~numpy.ma.getmaskarray(x))"
        )
    if not (jnp.issubdtype(x.dtype, jnp.number) or x.dtype == jnp.bool_) or jnp.issubdtype(
        x.dtype, jnp.complexfloating
    ):
        raise TypeError(
            f"a batch must hold real numbers, integers or bools, got dtype {x.dtype}; convert it, e.g. x.astype('float32')"
        )
    for name in ("mask", "weight"):
        if (value := getattr(batch, name)) is not None and not hasattr(value, "dtype"):
            raise TypeError(
                f"batch.{name} must be an array, got {type(value).__name__}; convert it with jax.numpy.asarray"
            )
    if batch.mask is not None and (batch.mask.dtype != jnp.bool_ or batch.mask.shape != x.shape):
        raise ValueError(
            f"batch.mask must be bool and have the shape of x {list(x.shape)} (True where observed), got {batch.mask.dtype} of shape "
            f"{list(batch.mask.shape)}; use mask.astype(bool), jax.numpy.broadcast_to"
        )
    return batch


def observed(batch: Batch) -> Array:
    """``batch.x`` with its missing entries (where ``mask`` is False) replaced by 0.

    Whatever stands in a missing entry, NaN included, must not reach a network: a ``where`` around log p(NaN) still has a
    NaN gradient.
    """
    return batch.x if batch.mask is None else jnp.where(batch.mask, batch.x, jnp.zeros((), batch.x.dtype))


def broadcast_context(context: Any, z: Any) -> Any:
    """Repeats every ``[*batch, ...]`` leaf of ``context`` along the leading sample axis of ``z``, giving ``[K, *batch, ...]``.

    Examples:
        >>> import jax.numpy as jnp
        >>> broadcast_context(jnp.zeros((5, 3)), jnp.zeros((2, 5, 4))).shape
        (2, 5, 3)
    """
    num_samples = jax.tree.leaves(z)[0].shape[0]
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_samples, *jnp.shape(leaf))), context)


def call(function: Callable, *args: Any, context: Any = None, **optional: Any) -> Any:
    """Calls a model function with the optional inputs that are given *and* that it declares.

    ``context`` is passed by name where the function has such a parameter, else as the next positional argument where one
    more is required (a parameter with a default, as in ``lambda params, z, scale=0.1: …``, is the function's own business).
    ``optional`` (mask, key, …) is passed only by name. Inputs that are None, or not declared, are left out, so that
    ``lambda params: prior`` is a complete prior.
    """
    given = {name: value for name, value in {"context": context, **optional}.items() if value is not None}
    if not given:
        return function(*args)
    if "context" in given and not declares(function, "context"):
        given.pop("context")
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        spare = [p for p in inspect.signature(function).parameters.values() if p.kind in kinds][
            len(args) : len(args) + 1
        ]
        if spare and spare[0].default is inspect.Parameter.empty:
            args = (*args, context)
    return function(*args, **{name: value for name, value in given.items() if declares(function, name)})


def declares(function: Callable, name: str) -> bool:
    """Whether a function takes a keyword of this name."""
    parameters = inspect.signature(function).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def default_float() -> np.dtype:
    """float32, or float64 when x64 is on."""
    return jnp.zeros(()).dtype
