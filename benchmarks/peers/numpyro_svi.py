"""NumPyro's side: SVI with networks of ``jax.example_libraries.stax``, as in its own example of an autoencoder."""

from collections.abc import Callable
from typing import Any

import jax
import numpyro
import numpyro.distributions as dist
from jax.example_libraries import stax
from numpyro.infer import SVI, RenyiELBO, TraceMeanField_ELBO

from benchmarks import handwritten
from benchmarks.workloads import LEARNING_RATE, Workload


def _reshape(shape: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Any:
    """A stax layer that gives every example another shape."""
    return (
        lambda key, given: (shape(given), ()),
        lambda params, inputs, **kwargs: inputs.reshape(shape(inputs.shape)),
    )


def _encoder(work: Workload) -> Any:
    if work.conv:
        image = _reshape(lambda s: (*s, 1))
        hidden = [part for n in work.hidden for part in (stax.Conv(n, (3, 3), (2, 2), "SAME"), stax.Relu)]
        layers = [image, *hidden, stax.Flatten]
    else:
        layers = [part for n in work.hidden for part in (stax.Dense(n), stax.Tanh)]
    heads = stax.parallel(stax.Dense(work.latent), stax.serial(stax.Dense(work.latent), stax.Exp))
    return stax.serial(*layers, stax.FanOut(2), heads)


def _decoder(work: Workload) -> Any:
    if not work.conv:
        layers = [part for n in work.hidden[::-1] for part in (stax.Dense(n), stax.Tanh)]
        return stax.serial(*layers, stax.Dense(work.x_size))
    size, widths = handwritten.smallest(work), [*work.hidden[-2::-1], 1]
    start = _reshape(lambda s: (s[0], size, size, work.hidden[-1]))
    up = [part for n in widths for part in (stax.Relu, stax.ConvTranspose(n, (3, 3), (2, 2), "SAME"))]
    return stax.serial(stax.Dense(size * size * work.hidden[-1]), start, *up, _reshape(lambda s: s[:3]))


def svi(work: Workload) -> SVI:
    def model(x: jax.Array) -> None:
        decode = numpyro.module("decoder", _decoder(work), (work.batch, work.latent))
        with numpyro.plate("batch", work.batch):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([work.latent]).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(len(work.x_shape)), obs=x)

    def guide(x: jax.Array) -> None:
        encode = numpyro.module("encoder", _encoder(work), (work.batch, *work.x_shape))
        loc, scale = encode(x)
        with numpyro.plate("batch", work.batch):
            numpyro.sample("z", dist.Normal(loc, scale).to_event(1))

    loss = TraceMeanField_ELBO() if work.draws == 1 else RenyiELBO(alpha=0, num_particles=work.draws)
    return SVI(model, guide, numpyro.optim.Adam(LEARNING_RATE), loss)


def epoch(work: Workload, data: jax.Array) -> Callable[[], Any]:
    """One epoch of shuffled batches in one jitted scan."""
    made = svi(work)
    box = [made.init(jax.random.key(0), data[: work.batch]), jax.random.key(1)]

    @jax.jit
    def run(state: Any, key: jax.Array, data: jax.Array) -> Any:
        order = jax.random.permutation(key, data.shape[0]).reshape(work.steps, work.batch)
        return jax.lax.scan(lambda s, rows: made.update(s, data[rows]), state, order)

    def once() -> Any:
        box[1], key = jax.random.split(box[1])
        box[0], losses = run(box[0], key, data)
        return losses

    return once


def loop(work: Workload, x: jax.Array) -> Callable[[], Any]:
    """As many calls of the jitted ``svi.update``."""
    made = svi(work)
    box = [made.init(jax.random.key(0), x)]
    update = jax.jit(made.update)

    def run() -> Any:
        for _ in range(work.steps):
            box[0], loss = update(box[0], x)
        return loss

    return run
