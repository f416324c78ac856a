"""Is q(z|x) the posterior: where the latents that made simulated data rank among draws from q, and so their log p(x|z)."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks, compilation
from vaejax.dists import masked_log_prob
from vaejax.evaluate.encoding import alone, encode
from vaejax.evaluate.latent.ranks import LOG_LIKELIHOOD, Calibration, bins, rank_test
from vaejax.evaluate.randomness import generator
from vaejax.evaluate.simulate import check_context, simulate
from vaejax.evaluate.stream import budget, check_hashable
from vaejax.numerics import broadcasts
from vaejax.types import Array, Batch, Key, Model, Params, call

# Log-likelihoods that differ by so many units of rounding are taken for equal: a sum over hundreds of entries is off by some.
_ROUNDING = 16


def calibration(
    model: Model,
    params: Params,
    key: Key,
    *,
    num_simulations: int = 1000,
    num_draws: int = 99,
    context: Any = None,
    level: float = 0.01,
) -> Calibration:
    """Simulation-based calibration: is the encoder's q(z|x) the posterior of the model, over the data that the model makes?

    Of pairs z ~ p(z), x ~ p(x|z), each z is an exact draw from the posterior of its x. If q is that posterior, z is one more draw from q,
    and its rank among L of them is uniform on 0 … L: so for each z_d, and for log p(x|z), which couples all of them with x and sees what no
    single one can, an encoder that returns the prior among them. A chi-square test of uniformity for each quantity, corrected by Holm's
    method; ties, as between discrete latents, are broken at random.

    It is a statement about data that the model makes, in the mean over them: not about real data, which may be unlike them, and blind to
    errors that cancel between examples in every quantity. To test another posterior, ``model._replace(posterior=...)``.

    Args:
        model: the model; latents of any kind, in one array or a pytree.
        params: its parameters.
        key: typed key.
        num_simulations: pairs; each is worked on with a key of its own, and few at a time.
        num_draws: L, draws of q for each; L + 1 should have many divisors, for bins of equal size.
        context: leaves leading with ``num_simulations`` rows, for models that take one: draw them as they come in the data.
        level: the probability that an exact posterior fails in any quantity.

    Returns:
        `Calibration`; print it for a table.

    Raises:
        TypeError: a raw key; functions that cannot be hashed.
        ValueError: too few simulations, or an L + 1 without divisors, for bins of five expected ranks; a context of another length; latents
            or log-likelihoods that are NaN; a prior and a posterior whose latents differ in shape.

    Source:
        Talts et al. 2018, algorithm 1 and theorem 1; Yao et al. 2018, section 3.2; Modrák et al. 2023 (the log-likelihood as a quantity).

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> params = model.init(jax.random.key(0), None)
        >>> result = calibration(model, params, jax.random.key(1), num_simulations=200, num_draws=19)
        >>> result.names, result.ranks.shape, result.num_bins
        (('z_0', 'z_1', 'log p(x|z)'), (200, 3), 20)
    """
    checks.key(key)
    checks.positive_int(num_simulations, "num_simulations")
    checks.positive_int(num_draws, "num_draws")
    checks.real(level, "level", minimum=0.0, maximum=1.0, open_minimum=True)
    bins(num_simulations, num_draws)
    check_hashable(model)
    context = check_context(context, num_simulations, "each simulation")
    row = jax.tree.map(lambda leaf: leaf[0], context)
    latents, data = jax.eval_shape(lambda key, row: _pair(model, params, key, row), key, row)
    names = _names(latents)
    entries = max(1, *(math.prod(leaf.shape) for leaf in jax.tree.leaves((latents, data.x))))
    pair_key, tie_key = jax.random.split(key)
    keys = jax.random.split(pair_key, num_simulations)
    below, equal, undefined = (np.asarray(v) for v in _counts(model, num_draws, entries, params, keys, context))
    if undefined.any():
        first = int(np.argmax(undefined.any(0)))
        raise ValueError(
            f"{names[first]} is NaN in {int((undefined[:, first] > 0).sum())} of {num_simulations} simulations, so that nothing ranks; "
            "look at the params, and at the scales of posterior and likelihood"
        )
    ranks = below + generator(tie_key).integers(0, equal, endpoint=True)
    return rank_test(ranks, num_draws, names=names, level=level)


def _pair(model: Model, params: Params, key: Key, context: Any) -> tuple[Any, Batch]:
    """One simulated pair with its axis of examples."""
    return simulate(model, params, key, 1, alone(context))


def _names(latents: Any) -> tuple[str, ...]:
    """Of the entries of latents with an axis of examples, and the log-likelihood: the columns in their order."""
    names = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(latents):
        where, event = f"z{jax.tree_util.keystr(path)}", leaf.shape[1:]
        names += [where + ("_" + ",".join(map(str, index)) if event else "") for index in np.ndindex(*event)]
    return (*names, LOG_LIKELIHOOD)


@functools.partial(compilation.static_jit, num_static=3, compiler=jax.jit)
def _counts(
    model: Model, num_draws: int, entries: int, params: Params, keys: Array, context: Any
) -> tuple[Array, Array, Array]:
    """How many draws lie below the truth, are equal to it, or NaN, ``[n, Q]`` each; ``entries``: of the largest array of an example."""
    chunk = min(num_draws, max(1, budget() // entries))

    def one(example: tuple[Key, Any]) -> tuple[Array, Array, Array]:
        return _count(model, num_draws, chunk, params, *example)

    count = len(keys)
    block = max(1, min(count, budget() // (chunk * entries)))
    # The last block is filled up with the first pairs again: one that is shorter would be a second program to compile.
    padded = jnp.arange(-(-count // block) * block) % count
    found = jax.lax.map(one, jax.tree.map(lambda leaf: leaf[padded], (keys, context)), batch_size=block)
    return jax.tree.map(lambda leaf: leaf[:count], found)


def _count(
    model: Model, num_draws: int, chunk: int, params: Params, key: Key, context: Any
) -> tuple[Array, Array, Array]:
    """Those ``[Q]`` of one pair, of draws that are made ``chunk`` at a time."""
    pair_key, draw_key = jax.random.split(key)
    z, batch = _pair(model, params, pair_key, context)
    posterior = encode(model, params, batch)

    @broadcasts
    def count(index: Any, size: int) -> Array:
        drawn, _ = posterior.sample_and_log_prob(seed=jax.random.fold_in(draw_key, index), sample_shape=(size,))
        _check_latents(z, drawn)
        # The truth first among the draws, in one array: the same numbers in arrays of other shapes are rounded otherwise.
        both = jax.tree.map(lambda one, many: jnp.concatenate([one[None].astype(many.dtype), many]), z, drawn)
        likelihood = call(model.likelihood, params, both, context=batch.context)
        values = _quantities(both, masked_log_prob(likelihood, batch.x, None))
        truth, difference = values[0], values[1:] - values[0]
        near = jnp.abs(difference) <= _rounding(values)
        undefined = jnp.isnan(values[1:]) | jnp.isnan(truth)
        below = (values[1:] < truth) & ~near
        return jnp.stack([jnp.sum(below, 0), jnp.sum(near | (values[1:] == truth), 0), jnp.sum(undefined, 0)])

    full, rest = divmod(num_draws, chunk)
    total = jax.lax.fori_loop(1, full, lambda i, running: running + count(i, chunk), count(0, chunk))
    return tuple(total + count(full, rest) if rest else total)


def _quantities(z: Any, log_likelihood: Array) -> Array:
    """``[K, Q]``: every entry of the latents, and their log-likelihood."""
    columns = [*jax.tree.leaves(z), log_likelihood]
    return jnp.concatenate([column.reshape(len(log_likelihood), -1) for column in columns], axis=1)


def _rounding(values: Array) -> Array:
    """What may tell equal quantities apart: nothing in the latents, the rounding of a sum in the log-likelihood, which is the last."""
    allowed = _ROUNDING * jnp.finfo(values.dtype).eps * jnp.abs(values[:1, -1:])
    return jnp.concatenate([jnp.zeros_like(values[:1, :-1]), allowed], axis=1)


def _check_latents(prior: Any, posterior: Any) -> None:
    came, wanted = (
        jax.tree.map(lambda leaf: leaf.shape[2:], posterior),
        jax.tree.map(lambda leaf: leaf.shape[1:], prior),
    )
    if came != wanted:
        raise ValueError(
            f"q(z|x) draws latents of shape {came}, p(z) of shape {wanted}; calibration compares them one by one: return the same from both"
        )
