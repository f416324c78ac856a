"""One annealed chain: from a distribution that can be drawn to the posterior, or back, by HMC along a geometric path.

The path is f_β(z) = f_0(z)^{1−β} p(x, z)^β. A chain visits temperatures in turn; at each it gains (β_t − β_{t−1}) δ(z), where
δ = log p(x, z) − log f_0(z), and then moves by a transition that leaves f_{β_t} alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaejax.estimators.roles import by_roles, together
from vaejax.evaluate.encoding import alone
from vaejax.evaluate.evidence import backend
from vaejax.terms import log_terms
from vaejax.types import Array, Batch, Key, Model, Params, call

# HMC's own rule of thumb (Neal 2011, section 4.4) is 0.65, also Wu et al.'s.
TARGET_ACCEPTANCE = 0.65
# Transitions of the pilot before it starts to record, and at least how many it makes in all: what its step size learns from.
_WARM_UP, _AT_LEAST = 50, 300
_RATE = 0.15
# Steps differ by up to a fifth from turn to turn, so that no chain runs along a closed orbit.
_JITTER = 0.2


class Settings(NamedTuple):
    """What a compiled program of chains depends on.

    Attributes:
        num_chains: side by side, for each example.
        num_leapfrog: steps of a transition.
        start: ``"prior"`` or ``"posterior"``: f_0.
    """

    num_chains: int
    num_leapfrog: int
    start: str


class Target(NamedTuple):
    """The two ends of the path for one example.

    Attributes:
        densities: latents of one chain -> (log f_0, δ).
        draw: (key, n) -> n draws from f_0.
        size: how many numbers a state has.
    """

    densities: Callable[[Any], tuple[Array, Array]]
    draw: Callable[[Key, int], Any]
    size: int


def target(model: Model, params: Params, example: Batch, start: str) -> Target:
    """The path of one example, without a batch axis."""
    example = alone(example)
    roles, key = together(params), jax.random.key(0)  # the key of draws that are given: never used

    def densities(z: Any) -> tuple[Array, Array]:
        given = jax.tree.map(lambda leaf: leaf[None, None], z)
        terms = log_terms(by_roles(model, given=given), roles, key, example, kl="none")
        base = terms.log_prior if start == "prior" else terms.log_posterior
        return base[0, 0], (terms.log_likelihood + terms.log_prior - base)[0, 0]

    shapes = jax.eval_shape(lambda: log_terms(model, params, key, example, kl="none").latents)

    def draw(key: Key, count: int) -> Any:
        if start == "posterior":
            terms = log_terms(model, params, key, example, num_samples=count, kl="none")
            return jax.tree.map(lambda z: z[:, 0], terms.latents)
        prior = call(model.prior, params, context=example.context, mask=example.mask)
        draws = prior.sample_and_log_prob(seed=key, sample_shape=(count,))[0]
        # A prior that knows no batch has no axis for the one example.
        return jax.tree.map(lambda z, like: z.reshape(count, *like.shape[2:]).astype(like.dtype), draws, shapes)

    return Target(densities, draw, sum(leaf.size for leaf in jax.tree.leaves(shapes)))


class Visit(NamedTuple):
    """Chains of one example after a turn.

    Attributes:
        latents: ``[C, *latent]``.
        gain: ``[C]`` δ before the transition.
        acceptance: ``[C]`` probabilities.
    """

    latents: Any
    gain: Array
    acceptance: Array


def transition(path: Target, key: Key, latents: Any, beta: Array, step_size: Array, num_leapfrog: int) -> Visit:
    """One HMC transition of every chain at one temperature."""
    library = backend.blackjax()
    kernel = library.hmc.build_kernel()
    # The chains' own precision; weights are summed in that of the temperatures.
    dtype = jax.tree.leaves(latents)[0].dtype
    beta, step_size = beta.astype(dtype), step_size.astype(dtype)

    def log_density(z: Any) -> Array:
        base, gain = path.densities(z)
        return base + beta * gain

    def with_gain(z: Any) -> tuple[Array, Array]:
        base, gain = path.densities(z)
        return base + beta * gain, gain

    def one(key: Key, z: Any) -> Visit:
        (value, gain), grad = jax.value_and_grad(with_gain, has_aux=True)(z)
        jitter_key, move_key = jax.random.split(key)
        step = step_size * jax.random.uniform(jitter_key, (), dtype, 1 - _JITTER, 1 + _JITTER)
        state = library.mcmc.hmc.HMCState(z, value, grad)
        moved, info = kernel(move_key, state, log_density, step, jnp.ones(path.size, dtype), num_leapfrog)
        return Visit(moved.position, gain, info.acceptance_rate)

    return jax.vmap(one)(jax.random.split(key, len(jax.tree.leaves(latents)[0])), latents)


def anneal(
    path: Target, key: Key, latents: Any, betas: Array, step_sizes: Array, num_leapfrog: int
) -> tuple[Array, Array, Any]:
    """Chains along ``betas [T + 1]``, which may rise or fall: Σ_t (β_t − β_{t−1}) δ(z_{t−1}) ``[C]``, acceptance ``[]``, last states.

    ``step_sizes [T − 1]`` are those of the temperatures between the ends, in the order of the visits.
    """

    def visit(running: tuple[Any, Array, Array], turn: tuple[Array, ...]) -> tuple[tuple[Any, Array, Array], None]:
        latents, total, accepted = running
        before, beta, step_size, index = turn
        here = transition(path, jax.random.fold_in(key, index), latents, beta, step_size, num_leapfrog)
        total = total + (beta - before) * here.gain.astype(total.dtype)
        return (here.latents, total, accepted + jnp.mean(here.acceptance).astype(total.dtype)), None

    turns = len(betas) - 2
    zeros = jnp.zeros(len(jax.tree.leaves(latents)[0]), betas.dtype)
    visits = (betas[:-2], betas[1:-1], step_sizes, jnp.arange(turns))
    (latents, total, accepted), _ = jax.lax.scan(visit, (latents, zeros, jnp.zeros((), betas.dtype)), visits)
    last = jax.vmap(path.densities)(latents)[1]
    return total + (betas[-1] - betas[-2]) * last.astype(total.dtype), accepted / max(turns, 1), latents


def tuned(path: Target, key: Key, betas: Array, num_chains: int, num_leapfrog: int) -> Array:
    """Step sizes ``[T − 1]`` whose acceptance is near 0.65, from a pilot run of other chains.

    The step follows the chains' mean acceptance by stochastic approximation as the temperature rises. Chains that were to use
    these step sizes while they learn them would leave no f_β alone: hence a run of its own.
    """
    turns = len(betas) - 2
    if not turns:
        return jnp.zeros(0, betas.dtype)
    repeats = -(-_AT_LEAST // turns)
    draw_key, key = jax.random.split(key)

    def move(running: tuple[Any, Array], beta: Array, key: Key) -> tuple[tuple[Any, Array], Array]:
        latents, log_step = running
        here = transition(path, key, latents, beta, jnp.exp(log_step), num_leapfrog)
        acceptance = jnp.mean(here.acceptance).astype(log_step.dtype)
        log_step = log_step + _RATE * (acceptance - TARGET_ACCEPTANCE) / TARGET_ACCEPTANCE
        return (here.latents, log_step), log_step

    def at_temperature(running: tuple[Any, Array], turn: tuple[Array, Array]) -> tuple[tuple[Any, Array], Array]:
        beta, index = turn
        keys = jax.random.split(jax.random.fold_in(key, index), repeats)
        running, steps = jax.lax.scan(lambda r, k: move(r, beta, k), running, keys)
        # The mean over the later half forgets where the step came from, and averages the noise of the acceptances.
        return running, jnp.exp(jnp.mean(steps[repeats // 2 :]))

    begin = jnp.asarray(-0.5 - 0.25 * jnp.log(path.size), betas.dtype)
    state = (path.draw(draw_key, num_chains), begin)
    warm_keys = jax.random.split(jax.random.fold_in(key, turns), _WARM_UP)
    state, _ = jax.lax.scan(lambda r, k: move(r, betas[1], k), state, warm_keys)
    _, steps = jax.lax.scan(at_temperature, state, (betas[1:-1], jnp.arange(turns)))
    return steps
