"""Figures of images hold what they should; looking at them is a person's work."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import ndtri

import vaejax
from vaejax import plots
from vaejax.dists import Bernoulli, diagonal_normal, likelihoods, standard_normal

FAMILIES = {
    "bernoulli": "bernoulli",
    "binomial": likelihoods.binomial(16),
    "categorical": likelihoods.categorical(3),
    "poisson": "poisson",
    "normal": "normal",
    "per_example": likelihoods.normal("per_example"),
}


def small(key, family="bernoulli", shape=(4, 5), latent=2, **options):
    model = vaejax.models.vae(x_shape=shape, latent_size=latent, hidden_sizes=(8,), likelihood=family, **options)
    return model, model.init(key, None)


def shown(figure, row, column, columns):
    return figure.axes[row * columns + column].images[0].get_array()


@pytest.fixture(autouse=True)
def nothing_stays_open():
    yield
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


@pytest.mark.parametrize("family", FAMILIES)
def test_images_of_every_family(family, key, tmp_path):
    model, params = small(key, FAMILIES[family])
    x = jnp.ones((7, 4, 5))
    figure = plots.reconstructions(model, params, key, x)
    assert len(figure.axes) == 14
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), 1.0)
    z = model.posterior(params, x).sample(seed=key)
    p = model.likelihood(params, z)
    expected = p.mode() if family == "categorical" else p.mean()
    np.testing.assert_allclose(shown(figure, 1, 3, 7), expected[3], rtol=1e-5, atol=1e-6)
    figure.savefig(tmp_path / "reconstructions.png")
    for ancestral in (False, True):
        samples = plots.prior_samples(model, params, key, num_rows=2, num_columns=3, ancestral=ancestral)
        assert len(samples.axes) == 6
        samples.savefig(tmp_path / "samples.pdf")
    plots.manifold(model, params, num=3).savefig(tmp_path / "manifold.png")
    plots.interpolation(model, params, x[:2], num=3).savefig(tmp_path / "interpolation.png")


def test_both_kinds_of_samples_share_z_and_scale(key):
    model, params = small(key, likelihoods.normal(1e-4))
    means, draws = (plots.prior_samples(model, params, key, num_rows=1, ancestral=a).axes for a in (False, True))
    gap = means[0].images[0].get_array() - draws[0].images[0].get_array()
    assert 0 < np.abs(gap).max() < 1e-3
    assert means[0].images[0].get_clim() == draws[0].images[0].get_clim()


@pytest.mark.parametrize(("family", "limits"), [("bernoulli", (0, 1)), ("binomial", (0, 16)), ("categorical", (0, 2))])
def test_families_with_ends_fix_the_scale(family, limits, key):
    model, params = small(key, FAMILIES[family])
    assert plots.reconstructions(model, params, key, jnp.ones((2, 4, 5))).axes[0].images[0].get_clim() == limits


def test_colour_images_are_clipped_and_bytes_scaled(key, tmp_path):
    model, params = small(key, "normal", (4, 5, 3))
    x = jnp.linspace(-0.2, 1.2, 60).reshape(1, 4, 5, 3)
    figure = plots.reconstructions(model, params, key, x)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), np.clip(x[0], 0, 1), rtol=1e-6)
    model, params = small(key, likelihoods.binomial(255), (4, 5, 3))
    levels = np.full((1, 4, 5, 3), 51, np.uint8)
    mask = np.ones(levels.shape, bool)
    mask[0, 0, 0, 1] = False
    figure = plots.reconstructions(model, params, key, vaejax.Batch(levels, mask=mask))
    image = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(image[1:], 0.2)
    assert image[0, 0].tolist() == pytest.approx([242 / 255, 182 / 255, 208 / 255])
    figure.savefig(tmp_path / "colours.png")


def test_flat_events_need_an_image_shape(key):
    model, params = small(key, shape=20)
    with pytest.raises(ValueError, match=r"give image_shape=\(height, width\).*item_fit"):
        plots.prior_samples(model, params, key)
    with pytest.raises(ValueError, match=r"image_shape \[4, 4\] has 16 entries, the examples of shape \[20\] have 20"):
        plots.prior_samples(model, params, key, image_shape=(4, 4))
    for shape in ((4, 5), (4, 5, 1)):
        assert plots.prior_samples(model, params, key, image_shape=shape).axes[0].images[0].get_array().shape == (4, 5)


def test_missing_pixels_are_masked_in_the_inputs_alone(key, tmp_path):
    model, params = small(key, "normal")
    mask = np.arange(60).reshape(3, 4, 5) % 4 > 0
    x = np.where(mask, 0.5, np.nan)
    figure = plots.reconstructions(model, params, key, vaejax.Batch(x, mask=mask))
    np.testing.assert_array_equal(np.ma.getmaskarray(shown(figure, 0, 1, 3)), ~mask[1])
    assert not np.ma.getmaskarray(shown(figure, 1, 1, 3)).any()
    assert any("pink: missing" in text.get_text() for text in figure.texts)
    figure.savefig(tmp_path / "missing.png")


def test_conditional_models(key):
    model, params = small(key, context_size=3)
    labels = jnp.array([0, 1, 2, 0, 1, 2])
    figure = plots.prior_samples(model, params, key, num_rows=2, num_columns=3, context=labels)
    z = standard_normal(2).sample(seed=jax.random.split(key)[0], sample_shape=(6,))
    np.testing.assert_allclose(
        shown(figure, 1, 2, 3), model.likelihood(params, z, labels).mean()[5], rtol=1e-5, atol=1e-6
    )
    batch = vaejax.Batch(jnp.ones((6, 4, 5)), labels, jnp.ones((6, 4, 5), bool))
    assert len(plots.reconstructions(model, params, key, batch).axes) == 12
    with pytest.raises(ValueError, match=r"context must have 50 rows, one for each image, got shape \[6\]"):
        plots.prior_samples(model, params, key, context=labels)
    mosaic = plots.manifold(model, params, num=1, context=labels[1:2]).axes[0].images[0].get_array()
    expected = model.likelihood(params, jnp.zeros((1, 2)), labels[1:2]).mean()[0]
    np.testing.assert_allclose(mosaic, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="context must have 1 rows, one for the whole figure"):
        plots.manifold(model, params, context=labels)


def test_a_prior_of_the_context_gives_one_draw_a_row(key):
    model = vaejax.Model(
        init=lambda key, batch: {},
        posterior=lambda params, x, context: diagonal_normal(context, jnp.full(context.shape, 0.1)),
        prior=lambda params, context: diagonal_normal(context, jnp.full(context.shape, 1e-6)),
        likelihood=lambda params, z: Bernoulli(jnp.broadcast_to(z[..., :1, None], (*z.shape[:-1], 4, 5)), 2),
    )
    context = jnp.linspace(-2.0, 2.0, 4)[:, None]
    figure = plots.prior_samples(model, {}, key, num_rows=1, num_columns=4, context=context)
    for j in range(4):
        np.testing.assert_allclose(shown(figure, 0, j, 4), jax.nn.sigmoid(context[j, 0]), rtol=1e-5)
    # Contexts of real numbers are interpolated with the latents.
    batch = vaejax.Batch(jnp.ones((2, 4, 5)), context[jnp.array([0, 3])])
    figure = plots.interpolation(model, {}, batch, num=3)
    np.testing.assert_allclose(shown(figure, 0, 2, 5), 0.5, rtol=1e-6)


@pytest.mark.parametrize("scale", ["shared", "per_dimension", "per_example", 0.3])
def test_strips_differ_by_sigma(scale, key, tmp_path):
    model, params = small(key, likelihoods.normal(scale))
    figure = plots.sigma_strips(model, params, key, num_rows=2, ks=(-1, 0, 2))
    z = standard_normal(2).sample(seed=key, sample_shape=(2,))
    p = model.likelihood(params, z)
    sigma = jnp.broadcast_to(p.stddev(), (2, 4, 5))
    for i in range(2):
        low, middle, high = (np.asarray(shown(figure, i, j, 3)) for j in range(3))
        np.testing.assert_allclose(middle, p.mean()[i], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(middle - low, sigma[i], rtol=1e-4)
        np.testing.assert_allclose(high - middle, 2 * sigma[i], rtol=1e-4)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["μ − σ", "μ", "μ + 2σ"]
    figure.savefig(tmp_path / "strips.png")


@pytest.mark.parametrize("family", ["bernoulli", "binomial", "categorical", "poisson"])
def test_strips_refuse_families_without_a_sigma(family, key):
    model, params = small(key, FAMILIES[family])
    with pytest.raises(ValueError, match=r"mean fixes its standard deviation.*prior_samples\(ancestral=True\)"):
        plots.sigma_strips(model, params, key)


def test_interpolation_runs_from_input_to_input(key):
    model, params = small(key, "normal")
    x = jax.random.normal(key, (4, 4, 5))
    figure = plots.interpolation(model, params, x, num=4)
    assert len(figure.axes) == 2 * 6
    means = model.posterior(params, x).mean()
    decoded = model.likelihood(params, means).mean()
    middle = model.likelihood(params, (2 * means[2] + means[3])[None] / 3).mean()[0]
    for column, expected in {0: x[2], 1: decoded[2], 2: middle, 4: decoded[3], 5: x[3]}.items():
        np.testing.assert_allclose(shown(figure, 1, column, 6), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="3 examples, an odd number"):
        plots.interpolation(model, params, x[:3])
    with pytest.raises(ValueError, match="num must be at least 2"):
        plots.interpolation(model, params, x, num=1)


def test_labels_of_an_interpolation_are_those_of_the_nearer_end(key):
    model, params = small(key, context_size=3)
    batch = vaejax.Batch(jnp.ones((2, 4, 5)), jnp.array([0, 2]))
    figure = plots.interpolation(model, params, batch, num=5)
    means = model.posterior(params, batch.x, batch.context).mean()
    for column, weight, label in ((2, 0.25, 0), (3, 0.5, 2)):
        z = (1 - weight) * means[:1] + weight * means[1:]
        expected = model.likelihood(params, z, jnp.array([label])).mean()[0]
        np.testing.assert_allclose(shown(figure, 0, column, 7), expected, rtol=1e-5, atol=1e-6)


def test_manifold_is_the_mean_at_the_quantiles(key, tmp_path):
    model, params = small(key, latent=3)
    figure = plots.manifold(model, params, num=3, dimensions=(2, 0))
    picture = figure.axes[0].images[0].get_array()
    assert picture.shape == (12, 15)
    quantiles = ndtri(jnp.array([1, 3, 5]) / 6)
    for row in range(3):
        for column in range(3):
            z = jnp.array([[quantiles[2 - row], 0.0, quantiles[column]]])
            tile = picture[4 * row : 4 * row + 4, 5 * column : 5 * column + 5]
            np.testing.assert_allclose(tile, model.likelihood(params, z).mean()[0], rtol=1e-4, atol=1e-6)
    assert "the other latents (1) at 0" in figure.axes[0].get_title(loc="left")
    figure.savefig(tmp_path / "manifold.png")


def test_manifold_dimensions(key):
    model, params = small(key, latent=1)
    with pytest.raises(ValueError, match=r"0 to 0, got \(0, 1\); a latent of one dimension takes dimensions=\(0,\)"):
        plots.manifold(model, params)
    assert plots.manifold(model, params, num=3, dimensions=(0,)).axes[0].images[0].get_array().shape == (4, 15)
    matrix = model._replace(prior=lambda params: diagonal_normal(jnp.zeros((2, 2)), jnp.ones((2, 2)), event_ndims=2))
    with pytest.raises(ValueError, match=r"moves through a latent vector, got latents of shape \[2, 2\]"):
        plots.manifold(matrix, params)


def test_bad_arguments_of_images(key):
    model, params = small(key)
    x = jnp.ones((3, 4, 5))
    with pytest.raises(TypeError, match="key must be a typed key"):
        plots.reconstructions(model, params, jax.random.PRNGKey(0), x)
    with pytest.raises(ValueError, match="61 examples, a page at most 60"):
        plots.reconstructions(model, params, key, jnp.ones((61, 4, 5)))
    with pytest.raises(ValueError, match="must hold only 0 and 1"):
        plots.reconstructions(model, params, key, 7 * x)
    with pytest.raises(ValueError, match=r"got shape \[4\]; add a leading axis"):
        plots.reconstructions(model._replace(check=None), params, key, jnp.ones(4))
    with pytest.raises(ValueError, match="unknown cmap 'virids'; did you mean 'viridis'"):
        plots.reconstructions(model, params, key, x, cmap="virids")
    with pytest.raises(ValueError, match="inches wide each; show fewer"):
        plots.prior_samples(model, params, key, num_rows=1, num_columns=60)
    normal, normal_params = small(key, "normal")
    with pytest.raises(ValueError, match="ks is empty"):
        plots.sigma_strips(normal, normal_params, key, ks=())


def test_twenty_examples_take_two_lines(key):
    model, params = small(key)
    figure = plots.reconstructions(model, params, key, jnp.ones((13, 4, 5)))
    assert len(figure.axes) == 26
    assert figure.get_figwidth() <= 6.5


def test_figures_draw_themselves_in_a_notebook(key):
    """Without pyplot, and so without IPython's own hook for figures."""
    model = vaejax.models.vae(x_shape=(4, 5), latent_size=2, hidden_sizes=(8,))
    for figure in (
        plots.prior_samples(model, model.init(key, None), key, num_rows=1, num_columns=2),
        plots.curves({"epoch": np.arange(3), "objective": np.arange(3.0)}),
    ):
        assert figure._repr_png_().startswith(b"\x89PNG")
