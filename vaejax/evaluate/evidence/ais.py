"""The evidence by annealed importance sampling."""

import functools
from typing import Any

import jax

from vaejax import compilation
from vaejax.evaluate.blocks import in_blocks
from vaejax.evaluate.evidence.annealing import Settings, anneal, target, tuned
from vaejax.evaluate.evidence.chains import Annealed, annealed, by_example, fingerprint, opened, settings_of
from vaejax.evaluate.stream import BLOCK
from vaejax.types import Array, Batch, Key, Model, Params, as_batch


def ais(
    model: Model,
    params: Params,
    key: Key,
    batch: Any,
    *,
    num_temperatures: int = 1000,
    num_chains: int = 16,
    num_leapfrog: int = 10,
    start: str = "prior",
    schedule: Any = None,
    block_size: int = BLOCK,
    directory: Any = None,
    progress: bool | None = None,
) -> Annealed:
    """log p(x) by chains that go from the prior (or the encoder) to the posterior through T temperatures by HMC.

    log w = Σ_t (β_t − β_{t−1}) [log p(x, z_{t−1}) − log f_0(z_{t−1})]; E w = p(x) at any number of temperatures. Step sizes are tuned for
    each example and temperature to an acceptance of 0.65 by a pilot run of other chains, and then stay: a pilot
    of at least 350 transitions, as long as the run itself from T = 300 on.

    Args:
        model: continuous latents that can take any real value.
        params: its parameters.
        key: typed key.
        batch: a `Batch` or an array ``[*batch, *event]``.
        num_temperatures: T; one is importance sampling from the start.
        num_chains: C, for each example.
        num_leapfrog: steps of each transition.
        start: f_0: ``"prior"``, or ``"posterior"``: the encoder's q(z|x), which shortens the way where q is wide enough.
        schedule: ``[T + 1]`` rising from 0 to 1; None is `sigmoid_schedule`.
        block_size: examples done between two looks at the disk and the bar.
        directory: keeps what is done, so that the same call goes on there after an interruption (`in_blocks`).
        progress: a bar; None shows it on a terminal only.

    Returns:
        `Annealed`.

    Raises:
        TypeError: discrete latents.
        ValueError: bad counts, an unknown start, a schedule that does not rise from 0 to 1.

    Source:
        Neal 2001; Wu, Burda, Salakhutdinov & Grosse 2017 (16 chains, 10 leapfrog steps, 10,000 temperatures).

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> params = model.init(jax.random.key(0), None)
        >>> result = ais(model, params, jax.random.key(1), jax.numpy.ones((3, 4)), num_temperatures=10, num_chains=4)
        >>> result.estimate.shape, result.log_weights.shape
        ((3,), (4, 3))
    """
    settings, betas = settings_of(num_temperatures, num_chains, num_leapfrog, start, schedule)
    weight = as_batch(batch).weight
    batch, shape = opened(model, params, key, batch)

    def run(key: Key, block: Batch) -> dict[str, Any]:
        log_weights, acceptance = _forward(model, settings, params, jax.random.split(key, len(block.x)), block, betas)
        return {"log_weights": log_weights, "acceptance": acceptance}

    kept = (params, betas, settings, fingerprint(model, params, batch))
    found = in_blocks(
        run,
        key,
        batch,
        block_size=block_size,
        directory=directory,
        settings=kept,
        progress=progress,
        description="annealing",
    )
    log_weights = found["log_weights"].reshape(*shape, num_chains)
    return annealed(log_weights, found["acceptance"].reshape(shape), num_temperatures)._replace(weight=weight)


@functools.partial(compilation.static_jit, num_static=2, compiler=jax.jit)
def _forward(
    model: Model, settings: Settings, params: Params, keys: Array, block: Batch, betas: Array
) -> tuple[Array, Array]:
    """Log-weights ``[n, C]`` and acceptance ``[n]``."""

    def one(example: tuple[Key, Batch]) -> tuple[Array, Array]:
        key, single = example
        path = target(model, params, single, settings.start)
        tune_key, draw_key, move_key = jax.random.split(key, 3)
        steps = tuned(path, tune_key, betas, settings.num_chains, settings.num_leapfrog)
        begin = path.draw(draw_key, settings.num_chains)
        return anneal(path, move_key, begin, betas, steps, settings.num_leapfrog)[:2]

    return by_example(settings, one, (keys, block), block.x[0].size)
