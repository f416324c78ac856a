"""Many draws in chunks are the whole; what is held is one chunk; narrow params stay narrow."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.helpers import slow_unless, tree_allclose
from vaejax.dists import SplitPosterior
from vaejax.estimators import (
    doubly_reparameterized,
    pathwise,
    piwae,
    sticking_the_landing,
    taylor_control_variate,
)
from vaejax.objectives import ciwae, cubo, elbo, iwae, jackknife, miwae, renyi, tvo


def plain_terms(model, params, key, batch, *, num_samples, kl="auto"):
    """Terms that draw from the key they are given (no training mode), so that two ways of drawing can be compared."""
    return vaejax.log_terms(model, params, key, batch, num_samples=num_samples, kl=kl)


class ChunkNoise(SplitPosterior):
    """A posterior that draws everything at once with the noise of the chunks: ``fold_in(key, chunk)``."""

    def __init__(self, inner, chunk_size):
        super().__init__(inner, inner)
        self.chunk_size = chunk_size

    def sample_and_log_prob(self, *, seed, sample_shape):
        starts = range(0, sample_shape[0], self.chunk_size)
        sizes = [min(self.chunk_size, sample_shape[0] - start) for start in starts]
        draws = [self.drawn.sample(seed=jax.random.fold_in(seed, i), sample_shape=(n,)) for i, n in enumerate(sizes)]
        z = jnp.concatenate(draws)
        return z, self.scored.log_prob(z)


def materialised(model, chunk_size):
    @functools.wraps(model.posterior)
    def posterior(*args, **options):
        return ChunkNoise(model.posterior(*args, **options), chunk_size)

    return model._replace(posterior=posterior)


CHUNKED = {
    "pathwise elbo": functools.partial(pathwise, objective=elbo),
    "pathwise elbo, free bits": functools.partial(pathwise, objective=functools.partial(elbo, free_bits=0.1)),
    "pathwise elbo, capacity": functools.partial(pathwise, objective=functools.partial(elbo, capacity=2.0)),
    **{
        f"{e.__name__} {name}": functools.partial(e, objective=o)
        for e in (pathwise, doubly_reparameterized)
        for name, o in {
            "iwae": iwae,
            "renyi": functools.partial(renyi, alpha=0.5),
            "cubo": cubo,
            "miwae": functools.partial(miwae, groups=2),
            "ciwae": functools.partial(ciwae, beta=0.5),
            "jackknife": jackknife,
            "tvo": tvo,
        }.items()
    },
    "stl": functools.partial(sticking_the_landing, objective=elbo),
    "dreg elbo": functools.partial(doubly_reparameterized, objective=elbo),
    "piwae": functools.partial(piwae, encoder=functools.partial(miwae, groups=2), decoder=iwae),
}


# With a remainder; without one, once for each kind of pull.
EVEN = ("pathwise elbo", "pathwise iwae", "doubly_reparameterized iwae", "piwae")
RUNS = [(name, 10, 4) for name in CHUNKED] + [(name, 12, 4) for name in EVEN]


@pytest.mark.parametrize(
    ("name", "num_samples", "chunk_size"),
    slow_unless(lambda name, num_samples, _: name in EVEN and num_samples == 10, RUNS),
)
def test_chunks_are_the_whole(name, num_samples, chunk_size, small, key):
    """One materialised set of the same draws: objective, gradients and metrics, also with a remainder."""
    model, params, batch = small
    whole = CHUNKED[name](materialised(model, chunk_size), num_samples=num_samples, terms=plain_terms)
    parts = CHUNKED[name](model, num_samples=num_samples, chunk_size=chunk_size, terms=plain_terms)
    a, b = (jax.jit(e.estimate)(params, e.init(params, key, batch), key, batch)[0] for e in (whole, parts))
    tree_allclose(b, a, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("maker", [pathwise, doubly_reparameterized, piwae])
def test_more_draws_than_a_chunk_holds_are_not_held(maker, small, key):
    """No intermediate of the gradient has more entries than the log-terms of all draws (the second derivatives: a few times that)."""
    model, params, batch = small
    made = maker(model, iwae, num_samples=1024, chunk_size=8)
    text = str(jax.make_jaxpr(lambda p: made.estimate(p, vaejax.types.EmptyState(), key, batch)[0])(params))
    shapes = {tuple(int(n) for n in found.split(",")) for found in re.findall(r"f32\[([\d,]+)\]", text)}
    assert (1024, 5) in shapes
    held = {shape for shape in shapes if np.prod(shape) > 1024 * 5}
    assert all(shape[0] <= 32 and shape[1:] in ((1024,), (1024, 1), (1024, 5)) for shape in held), held


@pytest.mark.slow
def test_penalties_and_dropout_in_chunks_with_a_remainder(small, key, x64):
    """What has no sample axis counts by the draws behind it."""
    model, params, batch = small

    def penalised(model, params, key, batch, *, num_samples, kl="auto"):
        drawn = plain_terms(model, params, key, batch, num_samples=num_samples, kl=kl)
        return drawn._replace(penalty=10 * jnp.mean(drawn.latents**2, (0, -1)))

    for maker in (pathwise, doubly_reparameterized, piwae):
        whole = maker(materialised(model, 4), iwae, num_samples=10, terms=penalised)
        parts = maker(model, iwae, num_samples=10, chunk_size=4, terms=penalised)
        a, b = (jax.jit(e.estimate)(params, None, key, batch)[0] for e in (whole, parts))
        tree_allclose(b, a, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.slow
def test_narrow_params_stay_narrow_under_x64(dtype, small, key, x64):
    model, params, batch = small
    params, batch = jax.tree.map(lambda a: a.astype(dtype) if a.dtype == jnp.float32 else a, (params, batch))
    for made in (
        pathwise(model, iwae, num_samples=10, chunk_size=4),
        pathwise(model, elbo, num_samples=4, noise="sobol"),
        doubly_reparameterized(model, iwae, num_samples=10, chunk_size=4),
        piwae(model, iwae, num_samples=10, chunk_size=4),
        taylor_control_variate(model, elbo, num_samples=2),
    ):
        grads = jax.jit(made.estimate)(params, None, key, batch)[0].grads
        assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype(dtype)}
