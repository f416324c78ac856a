"""Factors of small matrices against LAPACK's, with derivatives against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from vaejax import linalg

RNG = np.random.default_rng(0)


def positive(*shape):
    root = RNG.normal(size=shape)
    return root @ root.swapaxes(-1, -2) + 0.1 * np.eye(shape[-1])


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (3, 2, 4, 4), (40, 40)])
def test_factors_are_lapacks(x64, shape):
    matrix = positive(*shape)
    tril = linalg.cholesky(matrix)
    np.testing.assert_allclose(tril, np.linalg.cholesky(matrix), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        linalg.inverse_tril(tril), np.linalg.inv(np.linalg.cholesky(matrix)), rtol=1e-9, atol=1e-10
    )
    inverse, log_det = linalg.inverse_and_log_det(matrix)
    np.testing.assert_allclose(inverse, np.linalg.inv(matrix), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(matrix)[1], rtol=1e-12)


def test_derivatives(x64):
    matrix = jnp.asarray(positive(2, 4, 4))
    check_grads(lambda a: linalg.cholesky(0.5 * (a + a.swapaxes(-1, -2))), (matrix,), order=2, modes=["fwd", "rev"])
    check_grads(lambda a: linalg.inverse_tril(jnp.tril(a)), (linalg.cholesky(matrix),), order=2, modes=["fwd", "rev"])


def test_compiled_and_mapped_are_the_same():
    matrix = jnp.asarray(positive(6, 3, 3), jnp.float32)
    mapped = jax.jit(jax.vmap(linalg.cholesky))(matrix)
    np.testing.assert_allclose(mapped, linalg.cholesky(matrix), rtol=1e-5, atol=1e-6)


@pytest.mark.wants_nan
def test_not_positive_definite_is_nan():
    assert np.isnan(linalg.cholesky(jnp.array([[1.0, 2.0], [2.0, 1.0]]))).any()
    assert not np.isfinite(linalg.cholesky(jnp.array([[0.0]]))).all()
