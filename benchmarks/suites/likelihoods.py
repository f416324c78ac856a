"""Epochs of autoencoders of counts, labels and real numbers: each likelihood family beside its textbook formula by hand."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.special import gammaln

import vaejax
from benchmarks import workloads
from benchmarks.harness import HAND, OURS, Row, interleaved
from benchmarks.options import Options
from benchmarks.suites.epoch import keep
from vaejax.dists import likelihoods

_SIZE, _HIDDEN, _LATENT, _BATCH, _STEPS = 2000, 128, 10, 128, 20
_TARGET = 1.05


class Case(NamedTuple):
    """A family, its data, and log p(x|z) of each entry by hand from the decoder's output."""

    family: Any
    data: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
    by_hand: Callable[[jax.Array, jax.Array], jax.Array]


def _normal(x: jax.Array, raw: jax.Array) -> jax.Array:
    scale = 1e-3 + jax.nn.softplus(raw[..., 1])
    return -0.5 * ((x - raw[..., 0]) / scale) ** 2 - jnp.log(scale) - 0.5 * jnp.log(2 * jnp.pi)


def _binomial(x: jax.Array, raw: jax.Array) -> jax.Array:
    coefficient = gammaln(256.0) - gammaln(x + 1) - gammaln(256.0 - x)
    return coefficient + x * raw - 255 * jax.nn.softplus(raw)


CASES = {
    "bernoulli": Case(
        likelihoods.bernoulli(),
        lambda rng, shape: rng.random(shape) < 0.3,
        lambda x, raw: x * raw - jax.nn.softplus(raw),
    ),
    "binomial(255)": Case(likelihoods.binomial(255), lambda rng, shape: rng.binomial(255, 0.3, shape), _binomial),
    "poisson": Case(
        likelihoods.poisson(),
        lambda rng, shape: rng.poisson(3.0, shape),
        lambda x, raw: x * raw - jnp.exp(raw) - gammaln(x + 1),
    ),
    "categorical(4)": Case(
        likelihoods.categorical(4),
        lambda rng, shape: rng.integers(0, 4, shape),
        lambda x, raw: jnp.sum(jax.nn.one_hot(x.astype(int), 4) * jax.nn.log_softmax(raw), -1),
    ),
    "normal(1.0)": Case(
        likelihoods.normal(1.0),
        lambda rng, shape: rng.normal(size=shape),
        lambda x, raw: -0.5 * (x - raw) ** 2 - 0.5 * jnp.log(2 * jnp.pi),
    ),
    "normal(per_example)": Case(likelihoods.normal("per_example"), lambda rng, shape: rng.normal(size=shape), _normal),
}


def run(options: Options) -> Iterator[Row]:
    size, steps = (64, 3) if options.quick else (_SIZE, _STEPS)
    for name, case in CASES.items():
        figures = interleaved(contestants(case, size, steps), options.repeats(25), scale=1e6 / steps)
        work = f"{name} {size}-{_HIDDEN}-{_LATENT}, batch {_BATCH}"
        yield Row(work, "µs a step of an epoch", figures, options.targets({HAND: _TARGET}))


def contestants(case: Case, size: int, steps: int) -> dict[str, Callable[[], Any]]:
    """An epoch of each, from the same parameters: the hand-written loss reads vaejax's tree."""
    data = jnp.asarray(case.data(np.random.default_rng(0), (_BATCH * steps, size)), jnp.float32)
    optimizer = optax.adam(workloads.LEARNING_RATE)
    model = vaejax.models.vae(x_shape=size, latent_size=_LATENT, hidden_sizes=(_HIDDEN,), likelihood=case.family)
    estimator = vaejax.estimators.pathwise(model, vaejax.objectives.elbo)
    state = vaejax.train.init(jax.random.key(1), model, estimator, optimizer, data)
    mine = vaejax.train.make_epoch(estimator, optimizer, batch_size=_BATCH)
    params = jax.tree.map(jnp.copy, state.params)
    theirs = by_hand(case, optimizer, steps)
    carry = params, optimizer.init(params), jax.random.key(2)
    return {OURS: keep(lambda s: mine(s, data), state), HAND: keep(lambda c: theirs(c, data), carry)}


def loss(case: Case, params: Any, key: jax.Array, x: jax.Array) -> jax.Array:
    """−ELBO with the closed-form KL, mean over the batch."""
    encoder, decoder = params["encoder"], params["decoder"]
    h = jnp.tanh(x @ encoder["dense_0"]["kernel"] + encoder["dense_0"]["bias"])
    loc, log_scale = jnp.split(h @ encoder["out"]["kernel"] + encoder["out"]["bias"], 2, axis=-1)
    z = loc + jnp.exp(log_scale) * jax.random.normal(key, loc.shape)
    kl = 0.5 * jnp.sum(loc**2 + jnp.exp(2 * log_scale) - 1 - 2 * log_scale, axis=-1)
    h = jnp.tanh(z @ decoder["dense_0"]["kernel"] + decoder["dense_0"]["bias"])
    raw = (h @ decoder["out"]["kernel"]).reshape(len(x), *params["output_bias"].shape) + params["output_bias"]
    return jnp.mean(kl - jnp.sum(case.by_hand(x, raw), -1))


def by_hand(case: Case, optimizer: optax.GradientTransformation, steps: int) -> Any:
    """A jitted, donating epoch over ``(params, opt_state, key)``."""

    def step(carry: Any, x: jax.Array) -> Any:
        params, opt_state, key = carry
        key, noise_key = jax.random.split(key)
        value, grads = jax.value_and_grad(loss, 1)(case, params, noise_key, x)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, key), value

    def epoch(carry: Any, data: jax.Array) -> Any:
        params, opt_state, key = carry
        key, shuffle_key = jax.random.split(key)
        order = jax.random.permutation(shuffle_key, data.shape[0]).reshape(steps, _BATCH)
        return jax.lax.scan(lambda c, rows: step(c, data[rows]), (params, opt_state, key), order)

    return jax.jit(epoch, donate_argnums=0)
