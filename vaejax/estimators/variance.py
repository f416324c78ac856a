"""The spread of a gradient estimator over its own randomness: mean, variance and signal-to-noise ratio."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaejax import checks, compilation
from vaejax.types import Array, Estimator, Key, Params, as_batch

_BLOCK = 64


class GradientVariance(NamedTuple):
    """What many gradient estimates at the same params and data look like.

    Attributes:
        mean: tree like the params: the mean gradient of the loss.
        variance: tree like the params: the variance of each entry, over draws.
        num_draws: how many estimates.
        norm: group -> norm of the mean gradient.
        total_variance: group -> trace of the covariance.
        standard_error: group -> standard error of the mean gradient as a vector, √(total variance / draws).
        signal_to_noise: group -> ‖E g‖ / √(total variance); the norm is that of the mean over draws, so a ratio below
            1/√draws is noise.
    """

    mean: Params
    variance: Params
    num_draws: int
    norm: dict[str, Array]
    total_variance: dict[str, Array]
    standard_error: dict[str, Array]
    signal_to_noise: dict[str, Array]


def variance(
    estimator: Estimator,
    params: Params,
    key: Key,
    batch: Any,
    *,
    num_draws: int = 1000,
    state: Any = None,
    step: Any = 0,
    groups: Callable[[str], str] | None = None,
    block_size: int = _BLOCK,
) -> GradientVariance:
    """Runs an estimator many times on the same batch, in one compiled program whose memory does not grow with the draws.

    Args:
        estimator: any.
        params: where to look.
        key: typed key; draw i uses a key of its own.
        batch: a `Batch` or an array ``[*batch, *event]``.
        num_draws: at least 2.
        state: the estimator's state, held fixed; None takes a fresh one from ``estimator.init``.
        step: the training step, for schedules.
        groups: name of a top-level entry of the params -> name of the group that it counts in (None leaves it out); None makes
            each entry a group ("encoder", "decoder", … for `vaejax.models.vae`).
        block_size: draws evaluated side by side.

    Returns:
        `GradientVariance`.

    Raises:
        ValueError: fewer than 2 draws.

    Source:
        Rainforth et al. 2018, section 3 (signal-to-noise ratio).

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> params = model.init(jax.random.key(0), None)
        >>> estimator = vaejax.estimators.pathwise(model, vaejax.objectives.elbo)
        >>> result = variance(estimator, params, jax.random.key(1), jax.numpy.ones((3, 4)), num_draws=10)
        >>> sorted(result.signal_to_noise)
        ['decoder', 'encoder', 'output_bias']
    """
    checks.key(key)
    if not isinstance(estimator, Estimator):
        raise TypeError(
            f"estimator must be an Estimator, got {type(estimator).__name__}; build one, e.g. estimators.pathwise(model, objective)"
        )
    if groups is not None and not callable(groups):
        raise TypeError(f"groups must be a function from a part's name to a group's, got {type(groups).__name__}")
    batch = as_batch(batch)
    if checks.positive_int(num_draws, "num_draws") < 2:
        raise ValueError("a variance needs at least 2 draws, got num_draws=1")
    checks.positive_int(block_size, "block_size")
    init_key, draw_key = jax.random.split(key)
    state = estimator.init(params, init_key, batch) if state is None else state
    block = min(block_size, num_draws)
    full, rest = divmod(num_draws, block)
    mean, squares = _moments(estimator, block, rest, full, params, state, draw_key, batch, step)
    spread = jax.tree.map(lambda s: s / (num_draws - 1), squares)
    grouped = members(params, groups)
    norm = {name: jnp.sqrt(_total(mean, paths, jnp.square)) for name, paths in grouped.items()}
    total = {name: _total(spread, paths, lambda v: v) for name, paths in grouped.items()}
    error = {name: jnp.sqrt(value / num_draws) for name, value in total.items()}
    ratio = {name: norm[name] / jnp.sqrt(total[name]) for name in grouped}
    return GradientVariance(mean, spread, num_draws, norm, total, error, ratio)


@functools.partial(compilation.static_jit, num_static=3, compiler=jax.jit)
def _moments(
    estimator: Estimator, block: int, rest: int, full: Any, params: Params, state: Any, key: Key, batch: Any, step: Any
) -> tuple[Params, Params]:
    """Mean and sum of squared deviations of the gradients, a block of draws at a time (Chan, Golub & LeVeque 1983, eq. 2.1).

    How many blocks is no part of the program: more draws are not compiled anew.
    """

    def gradients(first: Any, count: int) -> Params:
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(first + jnp.arange(count))
        return jax.vmap(lambda k: estimator.estimate(params, state, k, batch, step)[0].grads)(keys)

    def merge(running: tuple[Params, Params], first: Any, count: int) -> tuple[Params, Params]:
        grads = gradients(first, count)
        mean = jax.tree.map(lambda g: jnp.mean(g, 0), grads)
        squares = jax.tree.map(lambda g, m: jnp.sum((g - m[None]) ** 2, 0), grads, mean)
        share = count / (first + count)
        delta = jax.tree.map(jnp.subtract, mean, running[0])
        return (
            jax.tree.map(lambda m, d: m + share * d, running[0], delta),
            jax.tree.map(lambda a, b, d: a + b + d**2 * first * share, running[1], squares, delta),
        )

    zeros = jax.tree.map(jnp.zeros_like, params)
    total = jax.lax.fori_loop(0, full, lambda i, running: merge(running, i * block, block), (zeros, zeros))
    return merge(total, full * block, rest) if rest else total


def members(params: Params, groups: Callable[[str], str] | None) -> dict[str, list[str]]:
    """Group -> paths of its leaves."""
    members: dict[str, list[str]] = {}
    for path, _ in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path[:1], simple=True) if path else "params"
        group = name if groups is None else groups(name)
        if group is not None:
            members.setdefault(group, []).append(jax.tree_util.keystr(path))
    return members


def _total(tree: Params, paths: list[str], function: Callable[[Array], Array]) -> Array:
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    return jnp.asarray(sum(jnp.sum(function(leaves[path])) for path in paths))
