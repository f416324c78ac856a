"""Gaussians: safe as pytrees, where distrax's own diagonal one is not; and right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from tests.helpers import assert_mean
from vaejax.dists import MultivariateNormal, diagonal_normal, standard_normal


def test_equal_tree_definitions():
    a, b = (diagonal_normal(jnp.full((4, 3), v), log_scale=jnp.zeros((4, 3))) for v in (0.0, 1.0))
    assert jax.tree.structure(a) == jax.tree.structure(b)
    traces = []

    @jax.jit
    def f(d):
        traces.append(1)
        return d.log_prob(jnp.zeros((4, 3)))

    f(a), f(b)
    assert len(traces) == 1


@pytest.mark.parametrize(
    "make", [lambda s: diagonal_normal(jnp.zeros(3), s), lambda s: MultivariateNormal(jnp.zeros(3), jnp.diag(s))]
)
def test_stopping_its_leaves_stops_the_score(make):
    """The trap of distrax's MultivariateNormalDiag: there this gradient is not zero."""
    grad = jax.grad(lambda s: jax.tree.map(jax.lax.stop_gradient, make(s)).log_prob(jnp.ones(3)))(jnp.ones(3))
    np.testing.assert_array_equal(grad, 0.0)


def test_scan_carry():
    final, _ = jax.lax.scan(
        lambda q, _: (diagonal_normal(q.mean() + 1, q.stddev()), None), standard_normal(3), None, length=4
    )
    np.testing.assert_array_equal(final.mean(), 4.0)


def test_one_scale_only():
    with pytest.raises(TypeError, match="either scale or log_scale"):
        diagonal_normal(jnp.zeros(2))


def test_event_axes():
    q = diagonal_normal(jnp.zeros((5, 2, 3)), jnp.ones(()), event_ndims=2)
    assert (q.batch_shape, q.event_shape) == ((5,), (2, 3))
    assert standard_normal((2, 3)).event_shape == (2, 3)


def test_correlated_normal_is_scipys(key, x64):
    tril = jnp.array([[1.0, 0.0, 0.0], [0.5, 2.0, 0.0], [-0.3, 0.1, 0.4]])
    q = MultivariateNormal(jnp.array([1.0, -1.0, 0.0]), tril)
    exact = scipy.stats.multivariate_normal(np.asarray(q.loc), np.asarray(tril @ tril.T))
    z, log_q = q.sample_and_log_prob(seed=key, sample_shape=(20_000,))
    np.testing.assert_allclose(log_q, exact.logpdf(np.asarray(z)), rtol=1e-9)
    np.testing.assert_allclose(q.entropy(), exact.entropy(), rtol=1e-12)
    np.testing.assert_allclose(q.variance(), np.diag(exact.cov), rtol=1e-12)
    assert_mean(z, q.mean(), cap=0.02)
    outer = (z - q.loc)[:, :, None] * (z - q.loc)[:, None, :]
    assert_mean(outer, q.covariance(), cap=0.05)


def test_correlated_normal_refuses_a_wrong_factor():
    with pytest.raises(ValueError, match=r"scale_tril must be"):
        MultivariateNormal(jnp.zeros(3), jnp.eye(2))
