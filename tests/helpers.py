"""Measures and models that several tests share."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from vaejax.dists import MultivariateNormal, diagonal_normal, standard_normal


def assert_mean(draws, exact, *, cap, errors=5.0, rounding=1e-6):
    """|mean − exact| within ``errors`` standard errors, and the largest standard error at most ``cap``.

    Without the cap a noisy estimator would pass for nothing; the rounding term serves draws without variance.
    """
    draws = np.asarray(draws, np.float64)
    exact = np.asarray(exact, np.float64)
    standard_error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    assert standard_error.max() <= cap, f"standard error {standard_error.max():.3g} exceeds its cap {cap:.3g}"
    allowed = errors * standard_error + rounding * max(np.abs(exact).max(), 1.0)
    gap = np.abs(draws.mean(axis=0) - exact)
    assert (gap <= allowed).all(), f"off by {np.max(gap / (standard_error + 1e-300)):.2f} standard errors"


def assert_gradient(measured, exact, *, cap=0.05, errors=5.0):
    """Each entry of a measured mean gradient within standard errors of the exact one, each part's standard error below its cap.

    ``measured`` is what `vaejax.estimators.variance` returns; the cap is a share of the norm of the part's gradient.
    """
    for part, norm in measured.norm.items():
        assert measured.standard_error[part] <= cap * norm + 1e-9, (part, float(measured.standard_error[part] / norm))
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(exact))
    means, variances = (jax.tree.leaves(tree) for tree in (measured.mean, measured.variance))
    for (path, value), mean, variance in zip(jax.tree_util.tree_leaves_with_path(exact), means, variances):
        allowed = errors * np.sqrt(np.asarray(variance) / measured.num_draws) + 1e-6 * max(largest, 1.0)
        gap = np.abs(np.asarray(mean) - np.asarray(value))
        assert (gap <= allowed).all(), (
            f"{jax.tree_util.keystr(path)}: off by {np.max(gap / allowed) * errors:.1f} standard errors"
        )


def gradient(estimator, params, key, batch):
    """The estimate of a fresh state."""
    return estimator.estimate(params, estimator.init(params, key, batch), key, batch)[0]


class LinearGaussian(NamedTuple):
    """x = W z + b + σ ε with z ~ N(0, I): posterior, evidence and ELBO in closed form."""

    weight: jax.Array  # [d, l]
    bias: jax.Array  # [d]
    noise: float

    @property
    def posterior_tril(self):
        size = self.weight.shape[1]
        return jnp.linalg.cholesky(jnp.linalg.inv(jnp.eye(size) + self.weight.T @ self.weight / self.noise**2))

    def posterior_mean(self, x):
        covariance = self.posterior_tril @ self.posterior_tril.T
        return (x - self.bias) @ self.weight @ covariance / self.noise**2

    def log_evidence(self, x):
        covariance = self.weight @ self.weight.T + self.noise**2 * jnp.eye(len(self.bias))
        return jax.scipy.stats.multivariate_normal.logpdf(x, self.bias, covariance)

    def exact_elbo(self, x, loc, scale):
        """For q(z|x) = N(loc, diag(scale²))."""
        residual = jnp.sum((x - self.bias - loc @ self.weight.T) ** 2, -1) + jnp.sum(
            (scale**2) @ (self.weight**2).T, -1
        )
        log_likelihood = -0.5 * residual / self.noise**2 - 0.5 * x.shape[-1] * jnp.log(2 * jnp.pi * self.noise**2)
        kl = 0.5 * jnp.sum(loc**2 + scale**2 - 1 - 2 * jnp.log(scale), -1)
        return log_likelihood - kl

    def model(self, *, exact):
        """As a `Model`: with its exact posterior, or with the linear diagonal encoder of ``params``."""

        def posterior(params, x):
            if exact:
                mean = self.posterior_mean(x)
                return MultivariateNormal(mean, jnp.broadcast_to(self.posterior_tril, (*mean.shape, mean.shape[-1])))
            return diagonal_normal(
                x @ params["loc"],
                log_scale=jnp.broadcast_to(params["log_scale"], (*x.shape[:-1], self.weight.shape[1])),
            )

        return vaejax.Model(
            init=lambda key, batch: {
                "loc": 0.1 * jax.random.normal(key, self.weight.shape),
                "log_scale": jnp.zeros(self.weight.shape[1]),
            },
            posterior=posterior,
            prior=lambda params: standard_normal(self.weight.shape[1]),
            likelihood=lambda params, z: diagonal_normal(z @ self.weight.T + self.bias, jnp.asarray(self.noise)),
        )


def linear_gaussian(seed=0, size=5, latents=2, noise=0.7):
    keys = jax.random.split(jax.random.key(seed))
    return LinearGaussian(
        0.8 * jax.random.normal(keys[0], (size, latents)), 0.3 * jax.random.normal(keys[1], (size,)), noise
    )


def tree_allclose(a, b, *, rtol=1e-5, atol=1e-6):
    paths = jax.tree_util.tree_leaves_with_path(a)
    others = jax.tree.leaves(b)
    assert len(paths) == len(others)
    for (path, left), right in zip(paths, others):
        if jnp.issubdtype(left.dtype, jax.dtypes.prng_key):
            left, right = jax.random.key_data(left), jax.random.key_data(right)
        np.testing.assert_allclose(
            np.asarray(left), np.asarray(right), rtol=rtol, atol=atol, err_msg=jax.tree_util.keystr(path)
        )


def slow_unless(is_quick, cases):
    """Returns cases for `parametrize`, which are marked slow unless ``is_quick(*case)``."""
    rows = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*row, marks=() if is_quick(*row) else pytest.mark.slow) for row in rows]
