"""Options of the compiler change speed, and nothing else."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from vaejax import compilation
from vaejax.compilation import vectors


@pytest.fixture(params=[False, True])
def wide(request, monkeypatch):
    """With and without, whatever processor this is: one without such vectors takes the option and has no use for it."""
    monkeypatch.setattr(vectors, "_has_wide_vectors", lambda: request.param)
    return request.param


def test_values_transformations_and_traces(wide):
    traces = []

    def function(x, y=1.0):
        traces.append(x)
        return jnp.sum(jnp.sin(x) * y)

    compiled, x = compilation.jit(function), jnp.arange(8.0)
    for _ in range(3):
        np.testing.assert_allclose(compiled(x, y=2.0), 2 * jnp.sum(jnp.sin(x)), rtol=1e-6)
    assert len(traces) == 1
    assert compiled._cache_size() == 1
    np.testing.assert_allclose(jax.grad(compiled)(x), jnp.cos(x), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.vmap(compiled))(x[None]), [jnp.sum(jnp.sin(x))], rtol=1e-6)
    assert "sine" in compiled.lower(x).as_text()
    compiled.clear_cache()
    compiled(x, y=2.0)
    assert compiled._cache_size() == 1


def test_the_processor_is_asked_about_within_a_trace_too(monkeypatch):
    """The first program that a process compiles may hold a compiled function."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(vectors, "_has_wide_vectors", functools.cache(vectors._has_wide_vectors.__wrapped__))
    inner = compilation.jit(lambda x: 2 * x)
    assert float(jax.jit(lambda x: inner(x) + 1)(3.0)) == 7.0
    assert jax.jit(jax.vmap(inner))(jnp.arange(2.0)).tolist() == [0.0, 2.0]
    assert jax.make_jaxpr(inner)(1.0)


def test_what_wraps_a_compiled_function_has_its_own_methods(wide):
    def double(x):
        assert x.ndim == 0
        return 2 * x

    mapped = jax.jit(jax.vmap(compilation.jit(double)))
    assert "2xf32" in mapped.lower(jnp.ones(2)).as_text()
    assert compilation.jit(double).__name__ == "double"


def test_errors_of_the_function_come_through(wide):
    def refuses(x):
        raise ValueError("x must be positive")

    with pytest.raises(ValueError, match="must be positive"):
        compilation.jit(refuses)(1.0)


def test_a_compiled_epoch_within_another_program(key, wide):
    """The learning rate is traced, the state is not."""
    model = vaejax.models.vae(x_shape=4, latent_size=2, hidden_sizes=(3,))
    estimator = vaejax.estimators.pathwise(model, vaejax.objectives.elbo)
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (6, 4)), jnp.float32)
    state = vaejax.train.init(key, model, estimator, optax.sgd(1e-3), x)

    def after(rate):
        epoch = vaejax.train.make_epoch(estimator, optax.sgd(rate), batch_size=3)
        return epoch(jax.tree.map(jnp.copy, state), x)[1]["objective"][-1]

    np.testing.assert_allclose(jax.jit(after)(0.1), after(0.1), rtol=1e-5)


def test_a_width_given_by_the_user_is_left_alone(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_prefer_vector_width=256")
    assert not vectors._has_wide_vectors.__wrapped__()


def test_it_has_what_jit_has(wide):
    """Methods, ahead-of-time stages, options of one's own, and errors of one's own raised once."""

    class Scaled(NamedTuple):
        scale: float

        @compilation.jit
        def times(self, x):
            return self.scale * x

    assert float(Scaled(3.0).times(2.0)) == 6.0
    compiled = compilation.jit(lambda x: 2 * x, compiler_options={"xla_cpu_enable_fast_math": False})
    assert float(compiled(2.0)) == 4.0
    assert compiled.eval_shape(jnp.ones(3)).shape == (3,)
    assert compiled.trace(1.0).jaxpr
    assert float(compilation.jit(functools.partial(jnp.multiply, 2.0))(3.0)) == 6.0
    calls = []

    def broken(x):
        calls.append(x)
        raise ValueError("a top-level matter")

    with pytest.raises(ValueError, match="a top-level matter"):
        compilation.jit(broken)(1.0)
    assert len(calls) == 1
