"""Figures of models whose evidence is exact hold the numbers that they should; looking at them is a person's work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from vaejax import plots
from vaejax.conjugate import FitResult, HalfSteps, factor_analysis, gmm, half_steps, ppca

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)) * [1.0, 2.0, 0.5] + np.array([[-4.0], [4.0]])[np.arange(60) % 2]
MEAN = np.array([[-4.0, -4.0, -4.0], [4.0, 4.0, 4.0]], np.float32)
FULL = np.array([[[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 3.0]], np.diag([1.0, 4.0, 2.0])], np.float32)
COVARIANCES = {"full": FULL, "tied": FULL[:1], "diag": np.diagonal(FULL, axis1=1, axis2=2), "spherical": [[2.0], [3.0]]}


def mixture_of(covariance, weight=(0.3, 0.7)):
    return gmm.Gmm(jnp.asarray(weight), jnp.asarray(MEAN), jnp.asarray(covariance, jnp.float32))


def labels_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def square(params, k, columns):
    """The dense covariance of a component, from what its shape means."""
    covariance = np.asarray(params.covariance)
    one = covariance[min(k, len(covariance) - 1)]
    dense = one if covariance.ndim == 3 else np.diag(np.broadcast_to(one, params.mean.shape[1]))
    return dense[np.ix_(columns, columns)]


@pytest.mark.parametrize("name", COVARIANCES)
def test_ellipses_are_the_marginals(name, tmp_path):
    params = mixture_of(COVARIANCES[name])
    figure = plots.mixture(params, X, columns=(2, 0), names=["a", "b", "c$"])
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == (r"c\$", "a")
    assert labels_of(axes) == ["0, 0.3", "1, 0.7"]
    turn = np.linspace(0, 2 * np.pi, 50)
    circle = np.stack([np.cos(turn), np.sin(turn)])
    for at, ellipse in enumerate(axes.patches):
        k, sd = divmod(at, 2)
        points = ellipse.get_patch_transform().transform(circle.T) - MEAN[k, [2, 0]]
        distance = np.einsum("ni,ij,nj->n", points, np.linalg.inv(square(params, k, [2, 0])), points)
        np.testing.assert_allclose(distance, (sd + 1) ** 2, rtol=1e-4)
    likeliest = np.argmax(gmm.posterior(params, jnp.asarray(X)).probs, -1)
    for k in range(2):
        np.testing.assert_allclose(axes.collections[k].get_offsets(), X[likeliest == k][:, [2, 0]], rtol=1e-6)
    figure.savefig(tmp_path / "mixture.png")


def test_many_components_are_numbered(tmp_path):
    count = 23
    mean = 5 * jax.random.normal(jax.random.key(0), (count, 2))
    params = gmm.Gmm(jnp.full(count, 1 / count), mean, jnp.ones((count, 1)))
    x, _ = gmm.sample(params, jax.random.key(1), 5100)
    figure = plots.mixture(params, x)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == [str(k) for k in range(count)]
    assert axes.get_legend() is None
    assert len(axes.patches) == 2 * count
    assert sum(len(c.get_offsets()) for c in axes.collections) == 5000
    assert axes.get_title(loc="left").startswith("5000 of 5100 examples, 23 components")
    figure.savefig(tmp_path / "mixture.png")


def test_one_column_is_a_histogram_with_densities(tmp_path):
    weight, mean, variance = np.array([0.25, 0.75]), np.array([[-2.0], [3.0]]), np.array([[1.0], [4.0]])
    params = gmm.Gmm(*(jnp.asarray(leaf) for leaf in (weight, mean, variance)))
    x, _ = gmm.sample(params, jax.random.key(0), 200)
    figure = plots.mixture(params, x)
    _, second, both = figure.axes[0].lines
    points = np.asarray(both.get_xdata())
    density = weight * np.exp(-0.5 * (points[:, None] - mean[:, 0]) ** 2 / variance[:, 0])
    density = density / np.sqrt(2 * np.pi * variance[:, 0])
    np.testing.assert_allclose(both.get_ydata(), density.sum(1), rtol=1e-5)
    np.testing.assert_allclose(second.get_ydata(), density[:, 1], rtol=1e-5)
    assert labels_of(figure.axes[0]) == ["0, 0.25", "1, 0.75", "all"]
    figure.savefig(tmp_path / "mixture.png")
    # A column of several, a component like a needle, more components than hues.
    marginal = plots.mixture(mixture_of(COVARIANCES["full"]), X, columns=(1,))
    assert marginal.axes[0].get_xlabel() == "x_1"
    needle = gmm.Gmm(jnp.full(12, 1 / 12), jnp.linspace(-3, 3, 12)[:, None], jnp.full((12, 1), 1.0).at[3].set(1e-6))
    figure = plots.mixture(needle, x)
    assert "axis cut: the density goes up to" in [text.get_text() for text in figure.axes[0].texts][-1]
    figure.savefig(tmp_path / "mixture.png")


def test_a_component_without_examples_and_one_component(tmp_path):
    far = gmm.Gmm(jnp.array([0.5, 0.5]), jnp.array([[0.0, 0.0], [500.0, 0.0]]), jnp.ones((2, 2)))
    x = jnp.asarray(X[:, :2])
    figure = plots.mixture(far, x)
    assert figure.axes[0].get_xlim()[1] < 30
    figure.savefig(tmp_path / "mixture.png")
    one = plots.mixture(gmm.Gmm(jnp.ones(1), jnp.zeros((1, 2)), jnp.ones((1, 1))), x)
    assert one.axes[0].get_legend() is None
    assert "one component" in one.axes[0].get_title(loc="left")


def test_bad_arguments_of_mixture():
    params = mixture_of(FULL)
    for columns in ((0, 3), (1, 1), (0, 1, 2), ()):
        with pytest.raises(ValueError, match="columns must be one or two different ones of 0 to 2"):
            plots.mixture(params, X, columns=columns)
    with pytest.raises(ValueError, match=r"x must be \[n, d\], got \[60, 3, 1\]"):
        plots.mixture(params, X[:, :, None])
    with pytest.raises(ValueError, match="columns holds 1 names"):
        plots.mixture(params, X, names=["a"])
    with pytest.raises(ValueError, match="complete rows"):
        plots.mixture(params, vaejax.Batch(X, mask=X > 0))


def fitted(trace, reseeded=None, converged=True):
    """A `FitResult` with a tail of NaN, as a loop leaves it."""
    full = jnp.asarray([*trace, jnp.nan, jnp.nan])
    begun = None if reseeded is None else jnp.asarray([*reseeded, 0, 0])
    return FitResult(None, full, jnp.asarray(len(trace) - 1), jnp.asarray(converged), begun)


@pytest.mark.wants_nan
def test_traces_end_where_the_steps_do(tmp_path):
    figure = plots.fit_trace(fitted([-90.0, -50.0, -49.0, -48.9]), what="ELBO")
    left, right = figure.axes
    np.testing.assert_array_equal(left.lines[0].get_ydata(), np.float32([-90.0, -50.0, -49.0, -48.9]))
    np.testing.assert_allclose(right.lines[0].get_ydata(), [40.0, 1.0, 0.1], rtol=1e-4)
    assert right.get_yscale() == "log"
    assert left.get_ylabel() == "ELBO, nats"
    assert left.get_title(loc="left") == "ELBO of all data\n3 steps, converged"
    figure.savefig(tmp_path / "trace.png")


@pytest.mark.wants_nan
def test_traces_break_where_components_began_anew(tmp_path):
    found = fitted([-9.0, -8.0, -8.5, -7.0, -7.5, -7.0, -7.0], [0, 1, 0, 2, 0, 0], converged=False)
    figure = plots.fit_trace(found)
    left, right = figure.axes
    parts = [line.get_xdata().tolist() for line in left.lines if line.get_linestyle() == "-"]
    assert parts == [[0, 1], [2, 3], [4, 5, 6]]
    assert sorted(line.get_xdata()[0] for line in left.lines if line.get_linestyle() == ":") == [1.5, 3.5]
    title = left.get_title(loc="left")
    assert "6 steps, not converged" in title
    assert "3 components began anew, steps 2, 4" in " ".join(title.split())
    assert "1 of 6 within rounding" in " ".join(right.get_title(loc="left").split())
    np.testing.assert_array_equal(np.isnan(right.lines[0].get_ydata()), [0, 1, 0, 1, 0, 1])
    figure.savefig(tmp_path / "trace.png")


@pytest.mark.wants_nan
def test_traces_of_real_fits_and_of_none(key, tmp_path):
    found = gmm.fit_em(key, jnp.asarray(X), 2, max_steps=3, num_starts=2, tolerance=0.0)
    plots.fit_trace(found).savefig(tmp_path / "trace.png")
    assert len(plots.fit_trace(fitted([-3.0])).axes) == 1
    ended = fitted([-3.0, -2.0], converged=False)._replace(collapsed=jnp.asarray(2))
    assert "1 step, ended as 2 collapsed" in plots.fit_trace(ended).axes[0].get_title(loc="left")
    several = found._replace(trace=jnp.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"one fit, got traces of shape \[2, 4\]"):
        plots.fit_trace(several)
    with pytest.raises(TypeError, match="returns, got Gmm"):
        plots.fit_trace(found.params)


def test_half_steps_stack_to_the_evidence(x64, tmp_path):
    start = ppca.Ppca(jnp.zeros(3), jnp.ones((3, 1)), jnp.asarray(2.0))
    found = half_steps(ppca, start, jnp.asarray(X), num_steps=3)
    figure = plots.half_steps(found)
    left, right = figure.axes
    below, above = left.containers
    tops = [bar.get_y() + bar.get_height() for bar in below]
    np.testing.assert_allclose(tops, found.bound, rtol=1e-12)
    np.testing.assert_allclose([bar.get_height() for bar in above], found.kl, atol=1e-9)
    np.testing.assert_array_equal(left.lines[0].get_ydata(), found.log_likelihood)
    assert below[1].get_facecolor() == below[3].get_facecolor() != below[2].get_facecolor()
    np.testing.assert_allclose(right.lines[0].get_ydata(), found.kl[2::2], rtol=1e-9)
    np.testing.assert_allclose(right.lines[1].get_ydata(), np.diff(found.log_likelihood[::2]), rtol=1e-9)
    figure.savefig(tmp_path / "halves.png")
    with pytest.raises(TypeError, match="half_steps returns, got tuple"):
        plots.half_steps(tuple(found))


def test_many_half_steps_are_counted_in_steps(tmp_path):
    evidence = -100 * np.exp(-np.arange(61) // 2 / 5.0)
    kl = np.where(np.arange(61) % 2 == 0, np.exp(-np.arange(61) / 4.0), 0.0)
    figure = plots.half_steps(HalfSteps(evidence - kl, kl, evidence))
    ticks = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert ticks[0] == "4"
    assert len(ticks) <= 8
    figure.savefig(tmp_path / "halves.png")


def test_scree_is_the_spectrum_of_the_covariance(x64, tmp_path):
    x = X @ RNG.normal(size=(3, 6)) + 0.3 * RNG.normal(size=(60, 6))
    values = np.sort(np.linalg.eigvalsh(np.cov(x.T, ddof=0)))[::-1]
    params = ppca.fit_ml(x, 2)
    figure = plots.scree(x, 2, params)
    left, right = figure.axes
    kept, discarded, model = left.lines
    np.testing.assert_allclose(kept.get_ydata(), values[:2], rtol=1e-9)
    np.testing.assert_allclose(discarded.get_ydata(), values[2:], rtol=1e-9)
    np.testing.assert_allclose(model.get_ydata(), values[:2], rtol=1e-9)
    ((start, noise), (end, _)) = left.collections[0].get_segments()[0]
    assert (start, end) == (2.5, 6.5)
    np.testing.assert_allclose(noise, params.variance, rtol=1e-9)
    np.testing.assert_allclose(right.lines[0].get_ydata()[1:], 100 * np.cumsum(values) / values.sum(), rtol=1e-9)
    figure.savefig(tmp_path / "scree.png")
    assert len(plots.scree(x, 2).axes[0].lines) == 2
    doubled = plots.scree(vaejax.Batch(x, weight=np.arange(60) % 2), 1).axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(doubled, np.linalg.eigvalsh(np.cov(x[1::2].T, ddof=0))[-1:], rtol=1e-9)


def test_loadings_are_correlations_and_shares(tmp_path):
    params = factor_analysis.FactorAnalysis(
        np.zeros(3), np.array([[2.0, 0.0], [1.0, -1.0], [0.0, 3.0]]), np.array([1.0, 0.5, 2.0])
    )
    figure = plots.loadings(params, columns=["a", "b$", "c"])
    left, right = figure.axes[:2]
    wanted = params.weight / np.sqrt([[5.0], [2.5], [11.0]])
    np.testing.assert_allclose(left.images[0].get_array(), wanted, rtol=1e-6)
    np.testing.assert_allclose(right.images[0].get_array()[:, 0], [4 / 5, 2 / 2.5, 9 / 11], rtol=1e-6)
    assert [text.get_text() for text in left.texts] == [f"{value:.2f}".replace("-", "−") for value in wanted.ravel()]
    assert [text.get_text() for text in left.get_yticklabels()] == ["a", r"b\$", "c"]
    figure.savefig(tmp_path / "loadings.png")
    shared = ppca.Ppca(np.zeros(3), params.weight[:, :1], np.array(1.0))
    values = plots.loadings(shared).axes[1].images[0].get_array()[:, 0]
    np.testing.assert_allclose(values, [4 / 5, 1 / 2, 0], rtol=1e-6)
    with pytest.raises(TypeError, match="Ppca or FactorAnalysis, got tuple"):
        plots.loadings((1, 2))
    with pytest.raises(ValueError, match="columns holds 1 names"):
        plots.loadings(params, columns=["a"])


def test_scree_of_columns_without_variance_and_of_few_rows(tmp_path):
    x = np.concatenate([X, np.ones((60, 1))], 1)
    figure = plots.scree(x, 1)
    assert "1 without variance not shown" in figure.axes[0].get_title(loc="left")
    figure.savefig(tmp_path / "scree.png")
    plots.scree(RNG.normal(size=(4, 9)), 2).savefig(tmp_path / "scree.png")
    for x, q, message in (
        (X, 3, "latent_size must be below the 3 columns"),
        (np.ones((5, 2)), 1, "no column of x varies"),
        (X[:, :, None], 1, "flatten images"),
        (vaejax.Batch(X, mask=X > 0), 1, "complete rows"),
    ):
        with pytest.raises(ValueError, match=message):
            plots.scree(x, q)
    with pytest.raises(ValueError, match=r"params.weight must be \[3, 1\]"):
        plots.scree(X, 1, ppca.fit_ml(X, 2))
