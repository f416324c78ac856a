"""The measure of a gradient's spread, and the signal-to-noise ratios of the literature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import tree_allclose
from vaejax import Model
from vaejax.dists import diagonal_normal, standard_normal
from vaejax.estimators import (
    doubly_reparameterized,
    pathwise,
    variance,
)
from vaejax.objectives import elbo, iwae


@pytest.mark.slow
def test_variance_is_that_of_the_draws(small, key):
    model, params, batch = small
    made = pathwise(model, elbo)
    measured = variance(
        made,
        params,
        key,
        batch,
        num_draws=37,
        block_size=10,
        groups=lambda name: name if name != "likelihood" else None,
    )
    draw_key = jax.random.split(key)[1]
    draws = jax.vmap(lambda i: made.estimate(params, None, jax.random.fold_in(draw_key, i), batch)[0].grads)(
        jnp.arange(37)
    )
    tree_allclose(measured.mean, jax.tree.map(lambda g: g.mean(0), draws), rtol=1e-4, atol=1e-6)
    tree_allclose(measured.variance, jax.tree.map(lambda g: g.var(0, ddof=1), draws), rtol=1e-3, atol=1e-7)
    total = sum(float(v.sum()) for v in jax.tree.leaves(measured.variance["encoder"]))
    assert measured.total_variance["encoder"] == pytest.approx(total, rel=1e-4)
    norm = np.sqrt(sum(float((m**2).sum()) for m in jax.tree.leaves(measured.mean["encoder"])))
    assert measured.signal_to_noise["encoder"] == pytest.approx(norm / np.sqrt(total), rel=1e-4)


def flat_target(size):
    """The posterior is N(0, I) whatever x: the encoder alone is learned."""
    return Model(
        init=lambda key, batch: {"encoder": {"loc": jnp.zeros(size), "log_scale": jnp.zeros(size)}},
        posterior=lambda p, x: diagonal_normal(
            jnp.broadcast_to(p["encoder"]["loc"], (*x.shape[:-1], size)), log_scale=p["encoder"]["log_scale"]
        ),
        prior=lambda p: standard_normal(size),
        likelihood=lambda p, z: diagonal_normal(jnp.zeros((*z.shape[:-1], 1)), jnp.ones(())),
    )


@pytest.mark.slow
def test_signal_to_noise_against_the_number_of_draws(key, x64):
    """Rainforth et al. 2018 and Tucker et al. 2019: K^−½ under plain IWAE, K^+½ under DReG; N(0, I₂) seen from N(0.3, 1.1²)."""
    model, x = flat_target(2), jnp.zeros((1, 1))
    params = {"encoder": {"loc": jnp.full(2, 0.3), "log_scale": jnp.full(2, np.log(1.1))}}
    counts = [1, 4, 16, 64, 256]
    for estimator, exponent in ((pathwise, -0.5), (doubly_reparameterized, 0.5)):
        ratios = []
        for count in counts:
            # The plain ratio at K = 256 is about 0.03: enough draws that the norm of the mean is signal.
            draws = 40_000 if estimator is pathwise else 4_000
            measured = variance(
                estimator(model, iwae, num_samples=count), params, key, x, num_draws=draws, block_size=1000
            )
            ratios.append(float(measured.signal_to_noise["encoder"]))
        fitted = np.polyfit(np.log(counts), np.log(ratios), 1)[0]
        print(estimator.__name__, "signal-to-noise exponent", round(fitted, 3), np.round(ratios, 3))
        assert abs(fitted - exponent) < 0.1
