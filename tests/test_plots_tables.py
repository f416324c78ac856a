"""Figures of tables hold what they should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from vaejax import plots
from vaejax.dists import Bernoulli, diagonal_normal, likelihoods, standard_normal

FAMILIES = {
    "bernoulli": "bernoulli",
    "binomial": likelihoods.binomial(4),
    "categorical": likelihoods.categorical(3),
    "poisson": "poisson",
    "normal": "normal",
}


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (30, 6)).astype(np.float32)
    mask = rng.random(x.shape) > 0.2
    return vaejax.Batch(np.where(mask, x, np.nan), mask=mask)


def vae(key, family="bernoulli", **options):
    model = vaejax.models.vae(x_shape=6, latent_size=2, hidden_sizes=(8,), likelihood=family, **options)
    return model, model.init(key, None)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family, key, table, tmp_path):
    model, params = vae(key, FAMILIES[family])
    for figure in (
        plots.item_fit(model, params, key, table, num_samples=50),
        plots.responses(model, params, key, table),
        plots.item_curves(model, params),
    ):
        figure.savefig(tmp_path / "figure.png")


def expected_scores(model, params, z):
    probs = model.likelihood(params, z).distribution.probs
    return (probs * jnp.arange(3)).sum(-1)


def test_labels_count_as_numbers(key):
    model, params = vae(key, likelihoods.categorical(3))
    curve = plots.item_curves(model, params).axes[2].lines[0]
    z = jnp.stack([curve.get_xdata(), jnp.zeros(61)], -1)
    np.testing.assert_allclose(curve.get_ydata(), expected_scores(model, params, z)[:, 2], rtol=1e-5)


def points(figure):
    container = figure.axes[0].containers[0]
    x, y = container.lines[0].get_data()
    bars = np.array([np.ptp(segment[:, 1]) / 2 for segment in container.lines[2][0].get_segments()])
    return x, y, bars


def test_item_fit_compares_observed_means_with_the_models(key, table):
    model, params = vae(key)
    figure = plots.item_fit(model, params, key, table, columns=list("abcdef"), num_samples=500)
    fitted, data, errors = points(figure)
    columns = [table.x[table.mask[:, j], j] for j in range(6)]
    np.testing.assert_allclose(data, [c.mean() for c in columns], rtol=1e-6)
    np.testing.assert_allclose(errors, [c.std(ddof=1) / np.sqrt(len(c)) for c in columns], rtol=1e-5)
    z = standard_normal(2).sample(seed=key, sample_shape=(500,))
    np.testing.assert_allclose(fitted, model.likelihood(params, z).mean().mean(0), rtol=1e-5)
    named = {text.get_text() for text in figure.axes[0].texts} & set("abcdef")
    worst = np.argsort(-np.abs(data - fitted) / errors)
    assert len(named) == 5
    assert "abcdef"[worst[0]] in named
    np.testing.assert_array_equal(*figure.axes[0].lines[0].get_data())


def test_item_fit_weights_and_empty_columns(key, table):
    model, params = vae(key)
    mask = table.mask.copy()
    mask[:, 3] = False
    weight = np.arange(30.0, dtype=np.float32)
    figure = plots.item_fit(model, params, key, table._replace(mask=mask, weight=weight), num_samples=50)
    _, data, _ = points(figure)
    kept = [0, 1, 2, 4, 5]
    expected = [np.average(table.x[mask[:, j], j], weights=weight[mask[:, j]]) for j in kept]
    np.testing.assert_allclose(data, expected, rtol=1e-6)
    assert "1 without data left out" in figure.axes[0].get_title(loc="left")
    with pytest.raises(ValueError, match="no column has an observed entry"):
        plots.item_fit(model._replace(check=None), params, key, table._replace(mask=np.zeros((30, 6), bool)))


def test_item_fit_averages_over_the_contexts_where_observed(key):
    model = vaejax.Model(
        init=lambda key, batch: {},
        posterior=lambda params, x, context: diagonal_normal(context, jnp.ones_like(context)),
        prior=lambda params, context: diagonal_normal(context, jnp.full(context.shape, 1e-5)),
        likelihood=lambda params, z: Bernoulli(jnp.broadcast_to(z, (*z.shape[:-1], 3))),
    )
    context = np.array([[-2.0], [0.0], [1.0]], np.float32)
    mask = np.array([[True, True, True], [True, False, True], [True, False, False]])
    fitted, _, _ = points(
        plots.item_fit(model, {}, key, vaejax.Batch(np.ones((3, 3), np.float32), context, mask), num_samples=7)
    )
    p = 1 / (1 + np.exp(-context[:, 0]))
    np.testing.assert_allclose(fitted, [p.mean(), p[0], p[:2].mean()], rtol=1e-3)


def test_responses_show_data_and_expectation_on_one_scale(key, table):
    model, params = vae(key)
    figure = plots.responses(model, params, key, table, columns=list("abcdef"), max_rows=10)
    left, right = figure.axes[0].images[0], figure.axes[1].images[0]
    np.testing.assert_array_equal(np.ma.getmaskarray(left.get_array()), ~table.mask[:10])
    np.testing.assert_array_equal(left.get_array().compressed(), table.x[:10][table.mask[:10]])
    x = jnp.where(table.mask[:10], table.x[:10], 0)
    expected = model.likelihood(params, model.posterior(params, x).mean()).mean()
    np.testing.assert_allclose(right.get_array(), expected, rtol=1e-5)
    assert left.get_clim() == right.get_clim() == (0, 1)
    assert [t.get_text() for t in figure.axes[1].get_xticklabels()] == list("abcdef")
    assert figure.axes[0].get_title(loc="left") == "data, first 10 of 30 rows"


def test_item_curves_follow_one_latent(key, tmp_path):
    model, params = vae(key)
    figure = plots.item_curves(model, params, columns=["$", *"bcdef"], dimension=1)
    grid = jnp.linspace(-3, 3, 61)
    expected = model.likelihood(params, jnp.stack([jnp.zeros(61), grid], -1)).mean()
    for j in range(6):
        np.testing.assert_allclose(figure.axes[j].lines[0].get_ydata(), expected[:, j], rtol=1e-5)
    figure.savefig(tmp_path / "curves.png")
    few = plots.item_curves(model, params, columns=list("abcdef"), dimension=1, max_columns=2)
    steepest = np.sort(np.argsort(-np.ptp(expected, axis=0))[:2])
    assert [axes.get_title() for axes in few.axes] == ["abcdef"[j] for j in steepest]


def test_conditional_tables(key, table):
    model, params = vae(key, context_size=2)
    labels = np.arange(30) % 2
    batch = table._replace(context=labels)
    plots.responses(model, params, key, batch)
    plots.item_fit(model, params, key, batch, num_samples=60)
    curve = plots.item_curves(model, params, context=jnp.array([1])).axes[0].lines[0]
    z = jnp.stack([jnp.linspace(-3, 3, 61), jnp.zeros(61)], -1)
    expected = model.likelihood(params, z, jnp.ones(61, int)).mean()[:, 0]
    np.testing.assert_allclose(curve.get_ydata(), expected, rtol=1e-5)


def test_bad_arguments(key, table):
    model, params = vae(key)
    with pytest.raises(ValueError, match="columns holds 2 names, the examples have 6 entries"):
        plots.responses(model, params, key, table, columns=["a", "b"])
    with pytest.raises(ValueError, match="dimension must be one of 0 to 1, got 2"):
        plots.item_curves(model, params, dimension=2)
    with pytest.raises(TypeError, match="key must be a typed key"):
        plots.item_fit(model, params, jax.random.PRNGKey(0), table)
    images = vaejax.models.vae(x_shape=(2, 3), latent_size=2, hidden_sizes=(8,))
    image_params = images.init(key, None)
    for figure in (plots.item_fit, plots.responses):
        with pytest.raises(ValueError, match=r"draws tables \[n, columns\], got shape \[4, 2, 3\]"):
            figure(images, image_params, key, jnp.ones((4, 2, 3)))
    with pytest.raises(ValueError, match=r"got examples of shape \[2, 3\]; for images use manifold"):
        plots.item_curves(images, image_params)


def test_a_likelihood_without_mean_and_draws_is_refused(key):
    class Meanless:
        batch_shape, event_shape = (), (6,)

    model = vaejax.Model(
        init=lambda key, batch: {},
        posterior=lambda params, x: standard_normal(2),
        prior=lambda params: standard_normal(2),
        likelihood=lambda params, z: Meanless(),
    )
    with pytest.raises(TypeError, match="must be able to draw x, got Meanless without sample"):
        plots.item_curves(model, {})
