"""The evidence of data that the model itself has made, from below and from above."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaejax import checks, compilation
from vaejax.evaluate.blocks import in_blocks
from vaejax.evaluate.evidence.annealing import Settings, anneal, target, tuned
from vaejax.evaluate.evidence.chains import Annealed, annealed, by_example, fingerprint, opened, settings_of
from vaejax.evaluate.simulate import simulate
from vaejax.evaluate.stream import BLOCK
from vaejax.types import Array, Batch, Key, Model, Params


class Bidirectional(NamedTuple):
    """Bounds of the log-evidence of simulated data from both sides.

    Attributes:
        lower: forward chains: E estimate ≤ log p(x).
        upper: reverse chains from the exact posterior draw: E estimate ≥ log p(x).
        gap: ``[n]`` upper − lower: in the mean no smaller than what either is off by.
        batch: the simulated data.
    """

    lower: Annealed
    upper: Annealed
    gap: Array
    batch: Batch


def bdmc(
    model: Model,
    params: Params,
    key: Key,
    *,
    num_examples: int = 100,
    context: Any = None,
    num_temperatures: int = 1000,
    num_chains: int = 16,
    num_leapfrog: int = 10,
    start: str = "prior",
    schedule: Any = None,
    block_size: int = BLOCK,
    directory: Any = None,
    progress: bool | None = None,
) -> Bidirectional:
    """The log-evidence of data simulated from the model, from below and from above, by chains in both directions.

    Of simulated data the latents that made them are known: an exact draw from the posterior, from which reverse chains give an upper
    bound in the mean. The gap tells how far AIS with these settings is off, on data like these; for real data it is a diagnostic, not a
    bound. All reverse chains of an example begin at its one draw, so that they are dependent: trust the spread between the examples.

    Args:
        model: as in `ais`.
        params: its parameters.
        key: typed key.
        num_examples: how many to simulate.
        context: leaves leading with ``num_examples`` rows, for models that take one.
        num_temperatures: as in `ais`, as are all that follow.
        num_chains: C.
        num_leapfrog: steps of each transition.
        start: f_0.
        schedule: None is `sigmoid_schedule`.
        block_size: examples at a time.
        directory: keeps what is done.
        progress: a bar.

    Returns:
        `Bidirectional`.

    Source:
        Grosse, Ghahramani & Adams 2015, section 4; Wu et al. 2017, section 3.2.

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> params = model.init(jax.random.key(0), None)
        >>> both = bdmc(model, params, jax.random.key(1), num_examples=20, num_temperatures=50, num_chains=4)
        >>> abs(float(both.gap.mean())) < 0.1
        True
    """
    checks.key(key)
    settings, betas = settings_of(num_temperatures, num_chains, num_leapfrog, start, schedule)
    simulate_key, run_key = jax.random.split(key)
    latents, batch = simulate(model, params, simulate_key, checks.positive_int(num_examples, "num_examples"), context)
    opened(model, params, key, batch)

    # The latents travel with the examples as part of their context.
    def run(key: Key, block: Batch) -> dict[str, Any]:
        exact, context = block.context
        single = block._replace(context=context)
        below, above = _both_ways(model, settings, params, jax.random.split(key, len(block.x)), single, exact, betas)
        return {"lower": below[0], "lower_acceptance": below[1], "upper": above[0], "upper_acceptance": above[1]}

    kept = (params, betas, settings, fingerprint(model, params, batch))
    found = in_blocks(
        run, run_key, batch._replace(context=(latents, context)),
        block_size=block_size, directory=directory, settings=kept, progress=progress, description="annealing both ways",
    )  # fmt: skip
    lower = annealed(found["lower"], found["lower_acceptance"], num_temperatures)
    upper = annealed(found["upper"], found["upper_acceptance"], num_temperatures, sign=-1)
    return Bidirectional(lower, upper, upper.estimate - lower.estimate, batch)


@functools.partial(compilation.static_jit, num_static=2, compiler=jax.jit)
def _both_ways(
    model: Model, settings: Settings, params: Params, keys: Array, block: Batch, exact: Any, betas: Array
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """As `_forward`, and the same of chains from the exact posterior draws back to the start, their log-weights' signs as forwards."""

    def one(example: tuple[Key, Batch, Any]) -> Any:
        key, single, z = example
        path = target(model, params, single, settings.start)
        tune_key, draw_key, move_key, back_key = jax.random.split(key, 4)
        steps = tuned(path, tune_key, betas, settings.num_chains, settings.num_leapfrog)
        begin = path.draw(draw_key, settings.num_chains)
        forward = anneal(path, move_key, begin, betas, steps, settings.num_leapfrog)[:2]
        at_draw = jax.tree.map(lambda leaf, like: jnp.broadcast_to(leaf, like.shape).astype(like.dtype), z, begin)
        total, acceptance, _ = anneal(path, back_key, at_draw, betas[::-1], steps[::-1], settings.num_leapfrog)
        return forward, (-total, acceptance)

    return by_example(settings, one, (keys, block, exact), block.x[0].size)
