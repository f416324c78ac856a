"""The door of the conjugate models: which columns depend on each other, as far as the floats of the data tell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from vaejax.conjugate import gmm
from vaejax.conjugate.table import no_dependent_column

X = np.random.default_rng(0).normal(size=(1000, 4))
FAR = X + np.array([0.0, 10.0, 1e3, 1e5])


def door(x, dtype, dimensions=None):
    with jax.enable_x64(dtype == np.float64):
        no_dependent_column(jnp.asarray(x.astype(dtype)), "this model", dimensions)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("x", [X, FAR, 1e-6 * FAR], ids=["near", "far", "small"])
def test_combinations_of_columns_are_refused(x, dtype):
    rounded = x.astype(dtype)
    for other in (x[:, 0], 3.1 * x[:, 0] + 2, x.sum(1), rounded @ np.array([0.3, -2, 1, 0.01], dtype)):
        with pytest.raises(ValueError, match="5 columns span 4 dimensions only as far as") as told:
            door(np.c_[x, other], dtype)
        assert ("float64 tells them apart" in str(told.value)) == (dtype == np.float32)
        door(np.c_[x, other], dtype, dimensions=4)
    door(x, dtype)


def test_rows_too_few_and_columns_that_never_vary_are_refused():
    with pytest.raises(ValueError, match="4 columns span 2 dimensions"):
        door(X[:3], np.float32)
    with pytest.raises(ValueError, match="5 columns span 4 dimensions"):
        door(np.c_[X, np.full(1000, 0.1)], np.float32)


def test_a_column_that_is_coarse_alone_hides_no_other():
    """Far off, its rounding is a hundredth of its spread; that of the two that come near each other is not."""
    x = np.c_[X[:, 0], X[:, 0] + 2e-3 * X[:, 1], X[:, 2] + 1e5]
    door(x, np.float32)
    with pytest.raises(ValueError, match="3 columns span 2 dimensions"):
        door(x + 1e5, np.float32)


def test_groups_far_apart_of_nearly_dependent_columns(key):
    """Float32 bears their own covariances, which are right; that of all rows it does not, and that is what it warns of."""
    x = np.c_[X[:400, 0], X[:400, 0] + 0.01 * X[:400, 1]] + np.repeat([0.0, 100.0], 200)[:, None]
    x = x.astype(np.float32)
    with pytest.warns(UserWarning, match="float32 bears no covariance of all rows.*enable float64"):
        found = gmm.fit_em(key, x, 2, num_starts=1)
    groups = x.astype(np.float64).reshape(2, 200, 2)
    exact = sum(multivariate_normal.logpdf(g, g.mean(0), np.cov(g.T, ddof=0)).sum() + 200 * np.log(0.5) for g in groups)
    np.testing.assert_allclose(found.objective, exact, rtol=1e-4)
