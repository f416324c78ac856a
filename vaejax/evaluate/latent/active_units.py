"""Which latent dimensions carry something: KL(q(z|x) ‖ p(z)) dimension by dimension, and active units."""

import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np

from vaejax import checks, compilation
from vaejax.dists import closed_form
from vaejax.dists.factors import factors
from vaejax.estimators.base import check_weight
from vaejax.evaluate.encoding import alone, encode, posterior_mean, refuse_nan
from vaejax.evaluate.stream import budget, check_hashable
from vaejax.evaluate.summary import MeanEstimate, mean_estimate, moments
from vaejax.terms import batch_shape
from vaejax.types import Array, Batch, Key, Model, Params, call, on_device

# Examples encoded side by side, at most: a network's hidden layers may be far larger than what it reads.
_AT_ONCE = 1024


class KlPerDimension(NamedTuple):
    """KL(q(z_d|x) ‖ p(z_d)) in nats, D the entries of z (for one-hot latents their groups).

    Attributes:
        values: ``[n, D]`` of each example, in closed form.
        mean: ``[D]`` over the examples, weighted by the weights of the batch.
        standard_error: ``[D]`` of the mean, between examples (as in `MeanEstimate`); NaN for one.
        weight: ``[n]`` the weights of the batch; None without.
    """

    values: np.ndarray
    mean: np.ndarray
    standard_error: np.ndarray
    weight: np.ndarray | None = None

    @property
    def total(self) -> MeanEstimate:
        """The mean over examples of KL(q(z|x) ‖ p(z)), all dimensions together."""
        with np.errstate(invalid="ignore"):  # an infinite KL has an undefined spread
            return mean_estimate(self.values.sum(1), np.zeros(len(self.values)), weight=self.weight)


class ActiveUnits(NamedTuple):
    """What each latent dimension carries, by two definitions, each ``[D]``.

    Attributes:
        variance: Var_x(E[z_d|x]), between examples, which count as often as their weights say (as are all of these).
        variance_standard_error: how it would move with other examples.
        by_variance: whether it is above its threshold, as a bool.
        kl: mean over examples of KL(q(z_d|x) ‖ p(z_d)), nats; None where there is no closed form for single dimensions, as are the others.
        kl_standard_error: of that mean, between examples.
        by_kl: whether it is above its threshold.
    """

    variance: np.ndarray
    variance_standard_error: np.ndarray
    by_variance: np.ndarray
    kl: np.ndarray | None
    kl_standard_error: np.ndarray | None
    by_kl: np.ndarray | None

    @property
    def num_by_variance(self) -> int:
        """How many are active by the variance of their posterior means."""
        return int(self.by_variance.sum())

    @property
    def num_by_kl(self) -> int | None:
        """How many are active by their mean KL."""
        return None if self.by_kl is None else int(self.by_kl.sum())


def kl_per_dimension(model: Model, params: Params, batch: Any) -> KlPerDimension:
    """KL(q(z_d|x) ‖ p(z_d)) of every example and latent dimension, in closed form.

    Args:
        model: its posterior and prior have independent dimensions; either may depend on a context.
        params: its parameters.
        batch: a `Batch` or an array ``[*batch, *event]``; its batch axes are one axis of examples here.

    Returns:
        `KlPerDimension`.

    Raises:
        ValueError: no closed form for single dimensions; NaN in the data or from the encoder.

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> found = kl_per_dimension(model, model.init(jax.random.key(0), None), jax.numpy.eye(4))
        >>> found.values.shape, found.mean.shape
        ((4, 2), (2,))
    """
    examples = opened_examples(model, params, batch, "kl_per_dimension")
    found = known_kl(model, params, examples)
    if found is None:
        kind = type(encode(model, params, examples)).__name__
        raise ValueError(
            f"KL({kind} ‖ prior) has no closed form for single latent dimensions; it needs independent ones, such as "
            "vaejax.dists.diagonal_normal gives; for the whole latent use vaejax.kl_divergence or vaejax.evaluate.aggregate"
        )
    return found


def active_units(
    model: Model,
    params: Params,
    batch: Any,
    *,
    variance_threshold: float = 0.01,
    kl_threshold: float = 0.01,
    key: Key | None = None,
) -> ActiveUnits:
    """Which latent dimensions are active: Var_x(E[z_d|x]) > threshold, and mean KL(q(z_d|x) ‖ p(z_d)) > threshold.

    The first asks whether the posterior mean moves with x, the second whether the posterior differs from the prior. For one-hot latents a
    dimension is a group, its variance the sum over the categories.

    Args:
        model: its latents are one array.
        params: its parameters.
        batch: a `Batch` or an array ``[*batch, *event]`` of at least two examples; some thousand are plenty.
        variance_threshold: of the variance of the posterior means, in the latents' own unit.
        kl_threshold: of the mean KL, nats.
        key: typed key, for posteriors that know no mean: 256 draws stand for it, which adds Var(z|x)/256 to the variance.

    Returns:
        `ActiveUnits`.

    Raises:
        ValueError: fewer than two examples, negative thresholds, latents in more than one array, no mean and no key, NaN.

    Source:
        Burda, Grosse & Salakhutdinov 2016 (the variance, and its threshold 0.01).

    Examples:
        >>> import jax, vaejax
        >>> from vaejax.dists import diagonal_normal, standard_normal
        >>> model = vaejax.Model(
        ...     init=lambda key, batch: {},
        ...     posterior=lambda params, x: diagonal_normal(x * jax.numpy.array([0.9, 0.0]), jax.numpy.array([0.4, 1.0])),
        ...     prior=lambda params: standard_normal(2),
        ...     likelihood=lambda params, z: diagonal_normal(z, 1.0),
        ... )
        >>> found = active_units(model, {}, jax.random.normal(jax.random.key(0), (100, 2)))
        >>> found.by_variance.tolist(), found.by_kl.tolist()
        ([True, False], [True, False])
    """
    checks.real(variance_threshold, "variance_threshold", minimum=0.0)
    checks.real(kl_threshold, "kl_threshold", minimum=0.0)
    if key is not None:
        checks.key(key)
    examples = present(opened_examples(model, params, batch, "active_units", at_least=2))
    keys = None if key is None else jax.random.split(key, len(examples.x))
    means = np.asarray(_means(model, params, keys, examples), np.float64)
    refuse_nan(means, "E[z|x]")
    squares = ((means - moments(means, examples.weight).mean) ** 2).reshape(*means.shape[:2], -1).sum(2)
    spread = moments(squares, examples.weight)
    if spread.total < 2:
        raise ValueError(
            f"active_units needs weights that sum to at least 2, got a sum of {spread.total:g}; a weight says "
            "how many rows an example stands for: scale them so that they sum to the number of examples"
        )
    variance = spread.mean * spread.total / (spread.total - 1)
    kl = known_kl(model, params, examples)
    return ActiveUnits(
        variance,
        spread.standard_error,
        variance > variance_threshold,
        None if kl is None else kl.mean,
        None if kl is None else kl.standard_error,
        None if kl is None else kl.mean > kl_threshold,
    )


def kl_parts(posterior: Any, prior: Any) -> Array | None:
    """KL(q(z_d|x) ‖ p(z_d)) ``[*batch, D]``, or None where the dimensions are not independent or have no closed form."""
    known = closed_form(posterior, prior)
    if known is None:
        return None
    total, parts = known
    size = math.prod(getattr(posterior, "event_shape", (0,)))
    one_hot = factors(posterior)
    if one_hot is not None and one_hot.categorical:
        size //= one_hot.logits.shape[-1]
    if parts is None and size == 1:
        parts = total
    # Independent blocks of dependent entries have a part for each block.
    if parts is None or parts.size != total.size * size:
        return None
    return parts.reshape(*total.shape, size)


def opened_examples(model: Model, params: Params, batch: Any, what: str, *, at_least: int = 1) -> Batch:
    """The batch on the device with one axis of examples, checked as data of the model.

    Raises:
        TypeError, ValueError: from `checks.batch` and `log_terms`; traced values, weights that are not one for each example, too few
            examples (with weights, their sum).
    """
    if not checks.is_concrete(params, batch):
        raise TypeError(f"{what} compiles what it does itself and gives NumPy arrays; call it outside jit and vmap")
    check_hashable(model)
    examples = on_device(checks.batch(batch, "batch", model))
    shape = batch_shape(model, params, jax.random.key(0), examples)
    if math.prod(shape) < at_least or not shape:
        raise ValueError(
            f"{what} compares examples and needs at least {at_least}, got batch shape {list(shape)} of q(z|x) for x of shape "
            f"{list(examples.x.shape)}; give more, along a leading axis"
        )
    if examples.weight is not None:
        check_weight(examples.weight, shape)
        weight = np.asarray(examples.weight, np.float64)
        if max(weight.sum(), (weight > 0).sum()) < at_least:
            raise ValueError(f"{what} compares examples and needs at least {at_least} of positive weight; give more")
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[len(shape) :]), examples)


def present(examples: Batch) -> Batch:
    """The examples of positive weight."""
    if examples.weight is None:
        return examples
    rows = np.flatnonzero(np.asarray(examples.weight) > 0)
    return jax.tree.map(lambda leaf: leaf[rows], examples)


def by_single(function: Any, examples: Any, batch: Batch) -> Any:
    """``function`` of each of ``examples``, several side by side."""
    entries = max(1, batch.x.size // len(batch.x))
    return jax.lax.map(function, examples, batch_size=max(1, min(_AT_ONCE, len(batch.x), budget() // entries)))


def known_kl(model: Model, params: Params, examples: Batch) -> KlPerDimension | None:
    """`kl_per_dimension` of opened examples; None without a closed form."""
    parts = _parts(model, params, examples)
    if parts is None:
        return None
    values = np.asarray(parts, np.float64)
    weight = None if examples.weight is None else np.asarray(examples.weight, np.float64)
    refuse_nan(values if weight is None else values[weight > 0], "KL(q(z_d|x) ‖ p(z_d))")
    # An infinite KL has an undefined spread.
    with np.errstate(invalid="ignore"):
        over_examples = moments(values, weight)
    return KlPerDimension(values, over_examples.mean, over_examples.standard_error, weight)


@functools.partial(compilation.static_jit, num_static=1, compiler=jax.jit)
def _parts(model: Model, params: Params, examples: Batch) -> Array | None:
    def one(example: Batch) -> Array | None:
        single = alone(example)
        prior = call(model.prior, params, context=single.context, mask=single.mask)
        parts = kl_parts(encode(model, params, single), prior)
        return None if parts is None else parts[0]

    known = jax.eval_shape(one, jax.tree.map(lambda leaf: leaf[0], examples)) is not None
    return by_single(one, examples, examples) if known else None


@functools.partial(compilation.static_jit, num_static=1, compiler=jax.jit)
def _means(model: Model, params: Params, keys: Array | None, examples: Batch) -> Array:
    """E[z|x] ``[n, D]``, or ``[n, D, categories]`` for one-hot latents."""

    def one(item: tuple[Array | None, Batch]) -> Array:
        key, example = item
        posterior = encode(model, params, alone(example))
        known = factors(posterior)
        if known is None:
            return posterior_mean(posterior, key)[0].reshape(-1)
        return known.probs[0].reshape(-1, known.probs.shape[-1]) if known.categorical else known.probs[0].reshape(-1)

    return by_single(one, (keys, examples), examples)
