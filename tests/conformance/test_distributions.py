"""Every distribution and likelihood through the same checks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conformance.tables import DISTRIBUTIONS, LIKELIHOODS
from tests.helpers import tree_allclose
from vaejax.dists import is_reparameterized, masked_log_prob

ROWS = list(DISTRIBUTIONS)


def build(name, dtype=jnp.float32):
    make, parameters = DISTRIBUTIONS[name]
    return make, tuple(jnp.asarray(p, dtype) for p in parameters)


@pytest.mark.parametrize("name", ROWS)
def test_tree_is_stable_and_compiles_once(name, key):
    make, parameters = build(name)
    a, b = make(*parameters), make(*(1.1 * p for p in parameters))
    assert jax.tree.structure(a) == jax.tree.structure(b)
    traces = []

    @jax.jit
    def f(d, z):
        traces.append(1)
        return d.log_prob(z)

    z = a.sample(seed=key)
    np.testing.assert_allclose(f(a, z), a.log_prob(z), rtol=1e-5, atol=1e-6)
    f(b, z)
    assert len(traces) == 1


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("sample_shape", [(), (5,), (2, 3)])
def test_shapes_and_sample_and_log_prob(name, sample_shape, key):
    make, parameters = build(name)
    d = make(*parameters)
    z, log_prob = d.sample_and_log_prob(seed=key, sample_shape=sample_shape)
    assert z.shape == (*sample_shape, *d.batch_shape, *d.event_shape)
    assert log_prob.shape == (*sample_shape, *d.batch_shape)
    assert (*d.batch_shape, *d.event_shape) == (4, 3)
    assert z.dtype == jnp.float32
    np.testing.assert_allclose(log_prob, d.log_prob(z), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ROWS)
def test_mapped_equals_looped(name, key):
    make, parameters = build(name)
    z = make(*parameters).sample(seed=key)
    mapped = jax.vmap(lambda *p: make(*p[:-1]).log_prob(p[-1]))(*parameters, z)
    looped = jnp.stack([make(*(p[i] for p in parameters)).log_prob(z[i]) for i in range(4)])
    np.testing.assert_allclose(mapped, looped, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ROWS)
def test_gradients_are_finite_and_draws_carry_them_as_recorded(name, key):
    make, parameters = build(name)
    z = make(*parameters).sample(seed=key)
    scores = jax.grad(lambda p: make(*p).log_prob(z).sum())(parameters)
    assert all(bool(jnp.isfinite(s).all()) for s in scores)
    if is_reparameterized(make(*parameters)):
        moved = jax.grad(lambda p: jnp.tanh(make(*p).sample(seed=key)).sum())(parameters)
        assert all(bool((m != 0).any()) and bool(jnp.isfinite(m).all()) for m in moved)


@pytest.mark.parametrize("name", ROWS)
def test_float64(name, key, x64):
    make, parameters = build(name, jnp.float64)
    d = make(*parameters)
    z, log_prob = d.sample_and_log_prob(seed=key, sample_shape=(2,))
    assert z.dtype == log_prob.dtype == jnp.float64


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("x_shape", [(1,), (3,), (2, 3), (2, 3, 2)])
def test_likelihoods(name, x_shape, key):
    """Shapes, masks, bias and finite gradients at any event shape."""
    family = LIKELIHOODS[name]
    params = family.init(x_shape)
    raw_shape = (*x_shape, family.outputs) if family.outputs > 1 else x_shape
    raw = jax.random.normal(key, (5, 4, *raw_shape))
    p = family.distribution(params, raw, len(x_shape))
    assert (p.batch_shape, p.event_shape) == ((5, 4), x_shape)
    x = p.sample(seed=key)[0]
    family.check(np.asarray(x), None)
    assert p.log_prob(x).shape == (5, 4)
    assert family.bias(x, None).shape == raw_shape
    everything, nothing = (masked_log_prob(p, x, jnp.full(x.shape, value)) for value in (True, False))
    np.testing.assert_allclose(everything, p.log_prob(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(nothing, 0.0)
    grads = jax.grad(lambda raw, params: family.distribution(params, raw, len(x_shape)).log_prob(x).sum(), (0, 1))(
        raw, params
    )
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihoods_compile_as_they_run(name, key):
    family = LIKELIHOODS[name]
    raw = jax.random.normal(key, (4, 3, family.outputs) if family.outputs > 1 else (4, 3))
    x = jnp.ones((4, 3))

    def f(raw):
        return family.distribution(family.init((3,)), raw, 1).log_prob(x)

    tree_allclose(jax.jit(f)(raw), f(raw))
    tree_allclose(jax.vmap(f)(raw[None])[0], f(raw))
