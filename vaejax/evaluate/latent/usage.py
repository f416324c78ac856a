"""Does the decoder use the latents: what its log-likelihood falls by when examples exchange them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks, compilation
from vaejax.dists import masked_log_prob
from vaejax.evaluate.encoding import alone, encode, opened
from vaejax.evaluate.latent.active_units import present
from vaejax.evaluate.stream import budget, check_hashable
from vaejax.evaluate.summary import MeanEstimate, check_weight, whole
from vaejax.numerics import filled, weighted_mean
from vaejax.terms import batch_shape
from vaejax.types import Array, Batch, Key, Model, Params, call, declares, observed


class LatentUsage(NamedTuple):
    """What each example's log p(x|z) falls by when its latents are another example's.

    Attributes:
        own: ``[n]`` E log p(x_i|z), z ~ q(z|x_i), nats.
        swapped: ``[n]`` the same with z ~ q(z|x_j), j another example at random.
        fall: ``[n]`` own − swapped: about 0 for an example whose latents the decoder does not use.
        standard_error: ``[n]`` Monte Carlo standard error of each fall, over draws and exchanges; NaN for one sample.
        mean: the mean fall, weighted by the weights of the batch. Its error between examples counts each both as scored and as giving its
            latents (NaN for two examples, of which there is one exchange only).
        fall_per_dimension: ``[n, d]`` where only z_d is another example's; None for latents that are not one vector, or unless wanted.
        mean_per_dimension: ``[d]`` mean falls, in the order of the dimensions; or None.
    """

    own: Array
    swapped: Array
    fall: Array
    standard_error: Array
    mean: MeanEstimate
    fall_per_dimension: Array | None = None
    mean_per_dimension: tuple[MeanEstimate, ...] | None = None

    def __str__(self) -> str:
        lines = [f"log p(x|z) falls by {self.mean} nats when examples exchange their latents"]
        if self.mean_per_dimension is not None:
            order = np.argsort([-m.mean for m in self.mean_per_dimension], kind="stable")
            lines += [f"  z_{d} alone: {self.mean_per_dimension[d]}" for d in order[:10]]
            lines += [f"  and {len(order) - 10} dimensions that matter less"] if len(order) > 10 else []
        return "\n".join(lines)


def latent_usage(
    model: Model, params: Params, key: Key, batch: Any, *, num_samples: int = 10, per_dimension: bool = True
) -> LatentUsage:
    """What log p(x|z) falls by when examples exchange their latents: E log p(x_i|z_i) − E log p(x_i|z_j), z_i ~ q(z|x_i), j ≠ i.

    In each of S rounds every example is encoded, and scored with its own latents and with those of another one (a random cycle through
    all examples: none keeps its own); where the latents are one vector also with z_d alone exchanged, for each d. Mask and context stay
    with the example that is scored. A collapsed model, whose decoder ignores z or whose q(z|x) is the same for every x, has no fall. For
    With weights w, W their sum, an example gives its latents as often as its weight says: the
    fall of x_i is Σ_{j≠i} w_j/(W − 1) times its fall with the latents of x_j. (The other
    occurrences of x_i itself are the rest: they have no fall in the mean.) The entries of examples
    of weight 0 are NaN. For the exact posterior and data from the model the mean is
    KL(p(x,z) ‖ p(x)p(z)) + KL(p(x)p(z) ‖ p(x,z)): the mutual information and more.

    Costs S (d + 3) passes per example, 3 S without the dimensions; what is held at once does not grow with S.

    Args:
        model: the model, its latents in one array or a pytree.
        params: its parameters.
        key: typed key.
        batch: a `Batch` or an array ``[n, *event]`` of at least two examples (of positive weight).
        num_samples: S.
        per_dimension: exchange single dimensions too, where the latents are one vector.

    Returns:
        `LatentUsage`, in nats.

    Raises:
        TypeError, ValueError: a raw key; fewer than two examples; data that are none of the model's, or with further batch axes.

    Source:
        Palomar & Verdú 2008 (lautum information: the second of the two divergences); Arvesen 1969 (the error between examples).

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> params = model.init(jax.random.key(0), None)
        >>> usage = latent_usage(model, params, jax.random.key(1), jax.numpy.eye(4))
        >>> usage.fall.shape, usage.fall_per_dimension.shape
        ((4,), (4, 2))
    """
    checks.key(key)
    checks.positive_int(num_samples, "num_samples")
    check_hashable(model)
    batch = opened(model, batch, "latent_usage")
    every = len(batch.x)
    shape = batch_shape(model, params, key, batch)
    if shape != (every,):
        raise ValueError(
            f"latent_usage needs examples along one axis, the model sees {list(shape)}; flatten them into [n, *event]"
        )
    weight = check_weight(batch.weight, every)
    rows = np.arange(every) if weight is None else np.flatnonzero(weight)
    if len(rows) < 2:
        raise ValueError("latent_usage exchanges latents between examples, got 1 example; give at least 2")
    if weight is not None and weight.sum() <= 1:
        raise ValueError(
            f"batch.weight must have a sum above 1, got {weight.sum():g}. Scale weights so that they count rows"
        )
    weight = None if weight is None else weight[rows]
    total, by_round = _falls(model, num_samples, per_dimension, params, key, present(batch))
    error = jnp.sqrt(total.squares[:, 0] / (num_samples * max(num_samples - 1, 1)))
    error = filled(error, num_samples == 1, jnp.nan)
    falls, given, rounds = (np.asarray(v, np.float64) for v in (total.falls, total.given, by_round))
    means = _means(falls, given, rounds, weight)
    if weight is not None:
        total, error = jax.tree.map(lambda leaf: _spread_out(leaf, rows, every), (total, error))
    fall = total.falls[:, 0]
    result = LatentUsage(total.own, total.own - fall, fall, error, means[0])
    if len(means) == 1:
        return result
    return result._replace(fall_per_dimension=total.falls[:, 1:], mean_per_dimension=means[1:])


def _spread_out(values: Array, rows: np.ndarray, count: int) -> np.ndarray:
    """The values of some rows among ``count``, the others NaN."""
    every = np.full((count, *values.shape[1:]), np.nan, values.dtype)
    every[rows] = values
    return every


class _Rounds(NamedTuple):
    """Means over rounds.

    Attributes:
        own: ``[n]``.
        falls: ``[n, V]``: all latents exchanged, then each dimension alone.
        given: ``[n, V]`` the falls of whichever example had this one's latents.
        squares: ``[n, V]`` of the falls about their means, summed.
    """

    own: Array
    falls: Array
    given: Array
    squares: Array


def _means(
    falls: np.ndarray, given: np.ndarray, rounds: np.ndarray, weight: np.ndarray | None
) -> tuple[MeanEstimate, ...]:
    """The means of the columns of ``[n, V]``, with the jackknife error of a U-statistic of pairs and that of S rounds ``[S, V]``."""
    weight, num_samples = np.ones(len(falls)) if weight is None else weight, len(rounds)
    count, influence = whole(weight.sum()), falls + given
    squares = weight @ (influence - weight @ influence / count) ** 2
    mean = weight @ falls / count
    between = np.sqrt(squares * (count - 1) / count) / (count - 2) if count > 2 else np.full(squares.shape, np.nan)
    sampling = rounds.std(0, ddof=1) / np.sqrt(num_samples) if num_samples > 1 else np.full(squares.shape, np.nan)
    return tuple(MeanEstimate(float(m), float(b), float(s), count) for m, b, s in zip(mean, between, sampling))


@functools.partial(compilation.static_jit, num_static=3, compiler=jax.jit)
def _falls(
    model: Model, num_samples: int, per_dimension: bool, params: Params, key: Key, batch: Batch
) -> tuple[_Rounds, Array]:
    """The rounds together, and the mean falls of each ``[S, V]``."""

    def add(so_far: _Rounds, index: Array) -> tuple[_Rounds, Array]:
        new = _round(model, per_dimension, params, jax.random.fold_in(key, index), batch)
        own, falls, given = (a + (b - a) / (index + 1) for a, b in zip(so_far[:3], new[:3]))
        squares = so_far.squares + (new.falls - so_far.falls) * (new.falls - falls)
        by_column = jax.vmap(lambda values: weighted_mean(values, batch.weight), in_axes=1)
        return _Rounds(own, falls, given, squares), by_column(new.falls)

    shapes = jax.eval_shape(lambda key: _round(model, per_dimension, params, key, batch), key)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add, zeros, jnp.arange(num_samples))


def _round(model: Model, per_dimension: bool, params: Params, key: Key, batch: Batch) -> _Rounds:
    """One draw of each example's latents, exchanged along one cycle through the examples."""
    count = len(batch.x)
    entries = max(1, batch.x.size // count)
    draw_key, cycle_key = jax.random.split(key)

    def draw(example: tuple[Key, Batch]) -> Any:
        posterior = encode(model, params, alone(example[1]))
        z, _ = posterior.sample_and_log_prob(seed=example[0], sample_shape=(1,))
        return jax.tree.map(lambda leaf: leaf[0, 0], z)

    z = jax.lax.map(
        draw, (jax.random.split(draw_key, count), batch), batch_size=max(1, min(count, budget() // entries))
    )
    cycle = jax.random.permutation(cycle_key, count)
    giver = jnp.zeros_like(cycle).at[cycle].set(jnp.roll(cycle, 1))
    others = jax.tree.map(lambda leaf: leaf[giver], z)
    singly = per_dimension and hasattr(z, "shape") and z.ndim == 2

    def score(example: tuple[Any, Any, Batch]) -> Array:
        return _scores(model, params, _exchanged(*example[:2], singly), example[2])

    size = entries * (2 + (z.shape[1] if singly else 0))
    scores = jax.lax.map(score, (z, others, batch), batch_size=max(1, min(count, budget() // size)))
    falls = scores[:, :1] - scores[:, 1:]
    received, given = falls, falls
    if batch.weight is not None:
        # The cycle visits each giver as often; their weights say how often they should.
        weight = batch.weight.astype(falls.dtype)[:, None]
        factor = weight * (count - 1) / (jnp.sum(weight) - 1)
        received, given = factor[giver] * falls, factor * falls
    return _Rounds(scores[:, 0], received, jnp.zeros_like(falls).at[giver].set(given), jnp.zeros_like(falls))


def _exchanged(own: Any, other: Any, singly: bool) -> Any:
    """An example's own latents, another's, and where wanted its own with each dimension the other's: ``[V + 1, *latent]``."""
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), own, other)
    return jnp.concatenate([both, jnp.where(jnp.eye(len(own), dtype=bool), other, own)]) if singly else both


def _scores(model: Model, params: Params, z: Any, single: Batch) -> Array:
    """log p(x|z) ``[V + 1]`` of one example."""
    batch = alone(single)
    z = jax.tree.map(lambda leaf: leaf[:, None], z)
    likelihood = call(model.likelihood, params, z, context=batch.context, mask=batch.mask)
    mask = None if declares(model.likelihood, "mask") else batch.mask
    return masked_log_prob(likelihood, observed(batch), mask)[:, 0]
