"""The fused likelihood of binary data against float64 references, and its derivatives of every order and direction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from tests.helpers import assert_mean
from vaejax.dists import Bernoulli, Binomial, bernoulli, logits_log_prob


def reference(x, logits, n=1):
    x, logits = np.asarray(x, np.float64), np.asarray(logits, np.float64)
    # Not x·l − n·softplus(l): that cancels, in float64 too, where a success is nearly certain.
    return -(x * np.logaddexp(0.0, -logits) + (n - x) * np.logaddexp(0.0, logits)).sum(-1)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 17, 30, 31, 64, 101, 784])
def test_agrees_with_float64_at_every_event_size(size):
    rng = np.random.default_rng(size)
    logits = (rng.normal(size=(20, size)) * 5).astype(np.float32)
    x = rng.integers(0, 2, (20, size)).astype(np.float32)
    np.testing.assert_allclose(logits_log_prob(x, logits), reference(x, logits), rtol=2e-6)


@pytest.mark.parametrize("logit", [0.0, 1e-3, 1.0, 15.0, 16.7, 20.0, 50.0, 88.0, 104.0, 1e3, 12345.678, 1e4])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("x", [0.0, 1.0])
def test_single_entries_are_exact_in_relative_terms(logit, sign, x):
    """A softplus far below float32's epsilon must survive the product of factors."""
    value = float(logits_log_prob(jnp.array([x]), jnp.array([sign * logit], jnp.float32)))
    exact = reference([x], np.array([sign * logit], np.float32))
    np.testing.assert_allclose(value, exact, rtol=1e-6, atol=1e-37)


@pytest.mark.wants_nan
def test_logarithm_of_one_and_more(key):
    """From the smallest normal number to the largest product of 16 factors, the seam at ½ included."""
    x = np.concatenate(
        [np.exp(np.random.default_rng(0).uniform(-87, 11.1, 200_000)), np.linspace(0.49, 0.51, 1000), [0.0]]
    )
    x = x.astype(np.float32)
    exact = np.log1p(x.astype(np.float64))
    np.testing.assert_allclose(bernoulli._log1p(jnp.asarray(x)), exact, rtol=3e-7, atol=1e-37)
    np.testing.assert_allclose(jax.jit(bernoulli._log1p)(x), exact, rtol=3e-7, atol=1e-37)
    assert np.isnan(bernoulli._log1p(jnp.float32(np.nan)))


@pytest.mark.parametrize("shape", [(3, 0), (0, 5), (0, 0), (2, 0, 4)])
def test_nothing_to_sum_over_and_nothing_to_sum(shape):
    for x in (jnp.zeros(shape), jnp.zeros(shape[1:])):
        found = logits_log_prob(x, jnp.zeros(shape))
        assert found.shape == shape[:-1]
        assert not found.any()
    assert jax.grad(lambda l: logits_log_prob(jnp.zeros(shape), l).sum())(jnp.zeros(shape)).shape == shape
    assert logits_log_prob(jnp.zeros(shape), jnp.zeros(shape), event_ndims=len(shape)).shape == ()


def test_extreme_images_have_finite_gradients():
    logits = jnp.array([[1e4, -1e4, 0.0, 1e-30] * 196])
    x = jnp.array([[1.0, 0.0, 1.0, 0.0] * 196])
    value, grad = jax.value_and_grad(lambda l: logits_log_prob(x, l).sum())(logits)
    np.testing.assert_allclose(value, reference(x, logits).sum(), rtol=1e-6)
    np.testing.assert_allclose(grad, np.asarray(x - scipy.special.expit(np.asarray(logits, np.float64))), atol=1e-7)


def test_float64(x64):
    rng = np.random.default_rng(0)
    logits, x = rng.normal(size=(4, 784)) * 10, rng.integers(0, 2, (4, 784)).astype(float)
    value = logits_log_prob(x, logits)
    assert value.dtype == jnp.float64
    np.testing.assert_allclose(value, reference(x, logits), rtol=1e-13)


def test_bfloat16_logits_are_summed_in_float32():
    logits = jnp.full((784,), 0.1, jnp.bfloat16)
    assert logits_log_prob(jnp.ones(784), logits).dtype == jnp.float32


@pytest.mark.parametrize("x_type", [jnp.bool_, jnp.uint8, jnp.int32, jnp.float32])
def test_any_type_of_data(x_type):
    x = jnp.array([1, 0, 1], x_type)
    logits = jnp.array([0.3, -1.0, 2.0])
    np.testing.assert_allclose(logits_log_prob(x, logits), reference(x, logits), rtol=1e-6)


def test_derivatives_of_all_kinds():
    """jvp, vjp, Hessian–vector products and the gradient of a gradient, in logits and in x."""
    logits = jnp.array([0.3, -1.0, 2.0, 0.0, -4.0])
    x = jnp.array([1.0, 0.0, 1.0, 0.5, 0.0])
    plain = lambda x, l: jnp.sum(x * l - jax.nn.softplus(l))  # noqa: E731
    for argument in (0, 1):
        np.testing.assert_allclose(
            jax.grad(logits_log_prob, argument)(x, logits), jax.grad(plain, argument)(x, logits), rtol=1e-6
        )
    tangents = (jnp.arange(5.0), jnp.ones(5))
    np.testing.assert_allclose(
        jax.jvp(logits_log_prob, (x, logits), tangents)[1], jax.jvp(plain, (x, logits), tangents)[1], rtol=1e-6
    )
    np.testing.assert_allclose(
        jax.hessian(logits_log_prob, (0, 1))(x, logits), jax.hessian(plain, (0, 1))(x, logits), atol=1e-6
    )
    hvp = jax.jvp(jax.grad(logits_log_prob, 1), (x, logits), tangents)[1]
    np.testing.assert_allclose(hvp, jax.jvp(jax.grad(plain, 1), (x, logits), tangents)[1], rtol=1e-6)
    third = jax.grad(lambda l: jax.grad(lambda m: jnp.sum(jax.grad(logits_log_prob, 1)(x, m) ** 2))(l).sum())(logits)
    expected = jax.grad(lambda l: jax.grad(lambda m: jnp.sum(jax.grad(plain, 1)(x, m) ** 2))(l).sum())(logits)
    np.testing.assert_allclose(third, expected, rtol=1e-5, atol=1e-6)


def test_sample_axis_broadcasts_and_maps():
    logits = jax.random.normal(jax.random.key(0), (3, 4, 2, 5))
    x = jax.random.bernoulli(jax.random.key(1), 0.5, (4, 2, 5))
    value = logits_log_prob(x, logits, event_ndims=2)
    assert value.shape == (3, 4)
    looped = jnp.stack(
        [jnp.stack([logits_log_prob(x[i], logits[k, i], event_ndims=2) for i in range(4)]) for k in range(3)]
    )
    np.testing.assert_allclose(value, looped, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(lambda l: logits_log_prob(x, l, event_ndims=2))(logits), value, rtol=1e-6)


def test_binomial_is_scipys():
    logits, counts = jnp.array([-2.0, 0.0, 3.0]), jnp.array([0, 9, 16], jnp.uint8)
    exact = scipy.stats.binom.logpmf(np.asarray(counts), 16, scipy.special.expit(np.asarray(logits, np.float64))).sum()
    np.testing.assert_allclose(Binomial(16, logits).log_prob(counts), exact, rtol=2e-6)


def test_masked_entries_contribute_nothing():
    logits, x, mask = jnp.array([1.0, -2.0, 0.5]), jnp.array([1.0, 0.0, 1.0]), jnp.array([True, False, True])
    kept = np.array([0, 2])
    for family in (Bernoulli(logits), Binomial(3, logits)):
        value, grad = jax.value_and_grad(
            lambda l, f=family: (Bernoulli(l) if f.total_count == 1 else Binomial(3, l)).masked_log_prob(x, mask)
        )(logits)
        small = Bernoulli(logits[kept]) if family.total_count == 1 else Binomial(3, logits[kept])
        np.testing.assert_allclose(value, small.log_prob(x[kept]), rtol=1e-6)
        assert grad[1] == 0


def test_narrow_logits_can_be_masked():
    value = Bernoulli(jnp.zeros(3, jnp.float16)).masked_log_prob(jnp.ones(3), jnp.array([True, False, True]))
    np.testing.assert_allclose(value, 2 * np.log(0.5), rtol=1e-6)


def test_moments_and_samples(key):
    p = Bernoulli(jnp.array([-1.0, 2.0]))
    assert_mean(p.sample(seed=key, sample_shape=20_000), p.mean(), cap=0.01)
    np.testing.assert_allclose(
        p.entropy(), scipy.stats.bernoulli(scipy.special.expit([-1.0, 2.0])).entropy().sum(), rtol=1e-6
    )
    n = Binomial(16, jnp.array([-1.0, 2.0]))
    draws = n.sample(seed=key, sample_shape=20_000)
    assert draws.dtype == jnp.float32
    assert_mean(draws, n.mean(), cap=0.05)
    np.testing.assert_allclose(draws.var(0), n.variance(), rtol=0.05)


def test_pytree_is_stable():
    """Equal tree definitions: no retracing, and safe as a scan carry."""
    a, b = Bernoulli(jnp.zeros(3)), Bernoulli(jnp.ones(3))
    assert jax.tree.structure(a) == jax.tree.structure(b)
    carried, _ = jax.lax.scan(lambda d, _: (Bernoulli(d.logits + 1), None), a, None, length=3)
    np.testing.assert_array_equal(carried.logits, 3.0)
