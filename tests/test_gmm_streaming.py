"""Mixtures of data in chunks: exact EM chunk by chunk is EM on all rows; stepwise EM comes near it in one pass."""

import jax
import numpy as np
import pytest

from vaejax.conjugate import gmm
from vaejax.conjugate.gmm.moments import Moments, merge

RNG = np.random.default_rng(0)
MEANS = np.array([[0.0, 0.0, 0.0], [6.0, 0.0, 1.0], [0.0, 7.0, -2.0]])
X = MEANS[RNG.integers(0, 3, 3001)] + RNG.normal(size=(3001, 3)) @ np.array(
    [[1.0, 0.3, 0.0], [0.0, 0.8, 0.2], [0.0, 0.0, 0.5]]
)


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_chunks_are_em_on_all_rows(x64, key, tmp_path, covariance):
    start = gmm.fit_em(key, X[:100], 3, covariance=covariance, num_starts=3).params
    whole = gmm.fit_em(key, X, 3, covariance=covariance, start=start, max_steps=8, tolerance=0.0)
    options = {"covariance": covariance, "chunk_size": 700, "start": start, "max_steps": 8, "tolerance": 0.0}
    mapped = np.memmap(tmp_path / "x", dtype=np.float64, mode="w+", shape=X.shape)
    mapped[:] = X
    seen = []
    for source in (mapped, lambda: iter(np.array_split(X, 9))):
        found = gmm.fit_chunked(key, source, 3, on_step=lambda params, value: seen.append(value), **options)
        steps = int(min(found.num_steps, whole.num_steps))
        np.testing.assert_allclose(found.trace[: steps + 1], whole.trace[: steps + 1], rtol=1e-10)
        np.testing.assert_allclose(found.params.mean, whole.params.mean, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(seen[:3], whole.trace[:3], rtol=1e-10)


@pytest.mark.slow
def test_it_converges_from_a_sample(key):
    found = gmm.fit_chunked(key, X.astype(np.float32), 3, chunk_size=1000, sample_size=500)
    assert bool(found.converged)
    np.testing.assert_allclose(found.objective, gmm.fit_em(key, X.astype(np.float32), 3).objective, rtol=1e-4)


def test_far_from_the_origin_in_float32(key):
    """Against the same float32 rows, moved back."""
    far = (X + 10_000).astype(np.float32)
    near = far.astype(np.float64) - 10_000
    start = gmm.fit_em(key, X[:100], 3, num_starts=3).params
    start = start._replace(mean=np.round(start.mean))
    options = {"chunk_size": 700, "max_steps": 6, "tolerance": 0.0}
    there = gmm.fit_chunked(key, far, 3, start=start._replace(mean=start.mean + 10_000), **options)
    with jax.enable_x64(True):
        here = gmm.fit_chunked(key, near, 3, start=jax.tree.map(np.float64, start), **options)
    trace = np.asarray(there.trace)[: int(there.num_steps) + 1]
    assert (np.diff(trace) > -1e-5 * np.abs(trace[1:])).all()
    np.testing.assert_allclose(there.objective, here.objective, rtol=1e-6)
    np.testing.assert_allclose(there.params.covariance, here.params.covariance, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(np.asarray(there.params.mean, np.float64) - 10_000, here.params.mean, atol=1.2e-3)


def test_stepwise_comes_near_in_one_pass(key):
    best = float(gmm.fit_em(key, X, 3).objective)
    start = gmm.fit_em(key, X[:40], 3, prior_count=2.0).params
    before = float(gmm.log_prob(start, X).sum())
    found = gmm.fit_stepwise(key, X, 3, batch_size=100, start=start)
    assert best - float(found.objective) < 0.1 * (best - before)
    assert len(found.trace) == int(found.num_steps) + 1 == 32
    assert not bool(found.converged)


def test_moments_of_two_sets_are_those_of_their_union():
    def moments(x, r):
        total, mean = r.sum(0), (r.T @ x) / r.sum(0)[:, None]
        away = x[:, None] - mean
        return Moments(total, mean, np.einsum("nk,nki,nkj->kij", r, away, away))

    r = RNG.random((50, 2))
    found = merge(moments(X[:20], r[:20]), moments(X[20:50], r[20:]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), found, moments(X[:50], r))


def test_bad_sources_are_refused(key):
    once = iter([X])
    with pytest.raises(ValueError, match="gives no rows"):
        gmm.fit_chunked(key, lambda: once, 2, max_steps=1)
    with pytest.raises(ValueError, match=r"arrays \[m, 3\], got shape \[5, 2\]"):
        gmm.fit_chunked(key, lambda: [X[:9], X[:5, :2]], 2)
    with pytest.raises(ValueError, match="got list"):
        gmm.fit_chunked(key, X.tolist(), 2)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        gmm.fit_stepwise(key, X, 2, batch_size=0)
    with pytest.raises(ValueError, match="NaN"):
        gmm.fit_stepwise(key, np.where(X > 6, np.nan, X), 2)
    with pytest.raises(ValueError, match=r"power must be finite, greater than 0.5"):
        gmm.fit_stepwise(key, X, 2, power=0.5)
    with pytest.raises(ValueError, match="sample_size must be at least 3 for 3 components to begin at its rows, got 2"):
        gmm.fit_chunked(key, X, 3, sample_size=2)
    with pytest.raises(ValueError, match="needs at least 3 rows, got 2"):
        gmm.fit_stepwise(key, X[:2], 3)
    with pytest.raises(ValueError, match="squares of the source overflow float32"):
        gmm.fit_chunked(key, (1e25 * X).astype(np.float32), 3)
