"""Training curves, KL per latent and the latent scatter hold what they should."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from vaejax import plots
from vaejax.dists import Bernoulli, MultivariateNormal, diagonal_normal, standard_normal


def labels_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def notes_of(axes):
    return [text.get_text() for text in axes.texts]


def test_curves(tmp_path):
    epochs = np.arange(1, 41)
    history = {"epoch": epochs, "objective": -100 / epochs, "kl": 1.0 * epochs, "log_likelihood": -9.0 / epochs}
    assert len(plots.curves(history).axes[0].lines) == 1
    mean = np.where(epochs == 30, -1.0, -120 / epochs)
    history |= {"validation_elbo": mean, "validation_standard_error": np.full(40, 0.25)}
    figure = plots.curves(history, objective="IWAE, K = 5")
    upper, kl, log_likelihood = figure.axes
    best = "best on validation: epoch 30, −1 ± 0.25"
    assert labels_of(upper) == ["IWAE, K = 5 (mean over the epoch)", "validation ELBO ± 1 standard error", best]
    np.testing.assert_array_equal(kl.lines[0].get_ydata(), history["kl"])
    np.testing.assert_array_equal(log_likelihood.lines[0].get_ydata(), history["log_likelihood"])
    assert notes_of(upper) == ["axis cut: epochs 1–2 go\ndown to −120.2"]
    assert not notes_of(kl)
    assert upper.get_ylim()[0] > -60
    figure.savefig(tmp_path / "curves.png")
    with pytest.raises(ValueError, match="no epochs"):
        plots.curves({"epoch": np.array([])})


def test_curves_of_a_falling_objective_are_cut_above():
    axes = plots.curves({"epoch": np.arange(1, 41), "objective": 100 / np.arange(1, 41)}).axes
    assert len(axes) == 1
    assert notes_of(axes[0]) == ["axis cut: epochs 1–2 go\nup to 100"]


@pytest.mark.parametrize("columns", [(), ("kl",), ("kl", "validation_elbo", "validation_standard_error")])
def test_curves_of_one_epoch(columns, tmp_path):
    figure = plots.curves({name: np.array([2.0]) for name in ("objective", *columns)} | {"epoch": np.array([7])})
    assert figure.axes[0].lines[0].get_marker() == "o"
    assert figure.axes[0].get_xticks().tolist() == [7]
    figure.savefig(tmp_path / "curves.png")


def test_curves_survive_broken_epochs(tmp_path):
    broken = np.array([-3.0, np.nan, -1.0])
    history = {"epoch": np.arange(1, 4), "objective": broken, "kl": np.full(3, np.nan), "validation_elbo": broken}
    figure = plots.curves(history | {"log_likelihood": np.array([-np.inf, 1.0, 2.0])})
    assert np.isfinite(figure.axes[0].get_ylim()).all()
    assert "epoch 3, −1" in labels_of(figure.axes[0])[-1]
    figure.savefig(tmp_path / "curves.png")


def mixed(key, posterior=None, prior=None, latent=3):
    """A bare model whose latents carry different amounts."""
    return vaejax.Model(
        init=lambda key, batch: {},
        posterior=posterior
        or (lambda params, x: diagonal_normal(x[:, :latent] * jnp.arange(latent), jnp.full((len(x), latent), 1.0))),
        prior=prior or (lambda params: standard_normal(latent)),
        likelihood=lambda params, z: Bernoulli(jnp.broadcast_to(z[..., :1], (*z.shape[:-1], 5))),
    )


def test_bars_are_the_mean_parts_of_the_kl(key, tmp_path):
    model, x = mixed(key), jax.random.normal(key, (20, 5))
    figure = plots.kl_per_latent(model, {}, x)
    parts = vaejax.log_terms(model, {}, key, x).kl_parts.mean(0)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    np.testing.assert_allclose(heights, np.sort(parts)[::-1], rtol=1e-5, atol=1e-7)
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["$z_{2}$", "$z_{1}$", "$z_{0}$"]
    assert figure.axes[0].get_title(loc="left").startswith("2 of 3 latents active (mean KL > 0.01 nats)")
    figure.savefig(tmp_path / "kl.png")
    weight = jnp.arange(20.0)
    weighted = plots.kl_per_latent(model, {}, vaejax.Batch(x, weight=weight), names=["$a", "b", "c"])
    expected = np.average(vaejax.log_terms(model, {}, key, x).kl_parts[:, 2], weights=weight)
    assert weighted.axes[0].patches[0].get_height() == pytest.approx(expected, rel=1e-5)
    weighted.savefig(tmp_path / "kl.png")
    with pytest.raises(ValueError, match="names holds 2 names, the latent has 3 dimensions"):
        plots.kl_per_latent(model, {}, x, names=["a", "b"])


def test_many_latents_are_ranked_without_names(key, tmp_path):
    figure = plots.kl_per_latent(mixed(key, latent=100), {}, jax.random.normal(key, (4, 100)))
    assert figure.get_figwidth() <= 6.5
    assert "rank, of 100" in figure.axes[0].get_xlabel()
    figure.savefig(tmp_path / "kl.png")


def test_kl_per_latent_refuses_dependent_dimensions(key):
    full = mixed(key, lambda params, x: MultivariateNormal(x[:, :3], jnp.eye(3)))
    with pytest.raises(ValueError, match=r"KL\(MultivariateNormal ‖ Normal\).*diagonal_normal.*kl_divergence"):
        plots.kl_per_latent(full, {}, jnp.ones((4, 5)))
    laplace = mixed(key, prior=lambda params: distrax.Independent(distrax.Logistic(jnp.zeros(3), jnp.ones(3)), 1))
    with pytest.raises(ValueError, match=r"KL\(Normal ‖ Logistic\) has no closed form"):
        plots.kl_per_latent(laplace, {}, jnp.ones((4, 5)))


def test_points_are_the_posterior_means(key, tmp_path):
    model, x = mixed(key), jax.random.normal(key, (20, 5))
    labels = np.arange(20) % 3
    figure = plots.latent_scatter(model, {}, x, labels=labels, label_names=["a", "b", "c"])
    axes = figure.axes[0]
    means = np.asarray(model.posterior({}, x).mean())
    for k in range(3):
        np.testing.assert_allclose(axes.collections[k].get_offsets(), means[labels == k][:, [1, 2]], rtol=1e-6)
    assert labels_of(axes) == ["a", "b", "c"]
    kl = vaejax.log_terms(model, {}, key, x).kl_parts.mean(0)
    assert axes.get_xlabel() == f"E[$z_{{1}}$|x] (mean KL {kl[1]:.2f} nats)"
    assert sorted(patch.width for patch in axes.patches) == [2, 4]
    figure.savefig(tmp_path / "scatter.png")
    chosen = plots.latent_scatter(model, {}, x, dimensions=(2, 0)).axes[0].collections[0]
    np.testing.assert_allclose(chosen.get_offsets(), means[:, [2, 0]], rtol=1e-6, atol=1e-7)
    thinned = plots.latent_scatter(model, {}, x, labels=labels, max_points=10)
    assert sum(len(c.get_offsets()) for c in thinned.axes[0].collections) == 10
    assert "10 of 20 examples" in thinned.axes[0].get_title(loc="left")


def test_scatter_of_one_dimension_is_a_strip(key, tmp_path):
    model, x = (
        mixed(key, latent=1, prior=lambda params: diagonal_normal(jnp.ones(1), 2 * jnp.ones(1))),
        jnp.ones((6, 5)),
    )
    figure = plots.latent_scatter(model, {}, x, labels=np.array(list("ababab")))
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "b"]
    np.testing.assert_array_equal(np.round(axes.collections[1].get_offsets()[:, 1]), 1)
    assert sorted(line.get_xdata()[0] for line in axes.lines) == [-3, -1, 3, 5]
    figure.savefig(tmp_path / "strip.png")
    plots.latent_scatter(model, {}, x).savefig(tmp_path / "strip.png")


def test_numbers_with_many_values_go_on_a_colour_scale(key, tmp_path):
    model, x = mixed(key), jax.random.normal(key, (20, 5))
    figure = plots.latent_scatter(model, {}, x, labels=np.linspace(0, 1, 20))
    assert len(figure.axes) == 2
    np.testing.assert_allclose(figure.axes[0].collections[0].get_array(), np.linspace(0, 1, 20))
    figure.savefig(tmp_path / "scatter.png")
    assert len(plots.latent_scatter(model, {}, x, labels=np.arange(20) % 10).axes[0].collections) == 10


def test_posteriors_without_a_mean_take_a_key(key):
    class Meanless:
        def __init__(self, inner):
            self.inner = inner

        def sample_and_log_prob(self, *, seed, sample_shape=()):
            return self.inner.sample_and_log_prob(seed=seed, sample_shape=sample_shape)

        def log_prob(self, z):
            return self.inner.log_prob(z)

    model = mixed(key, lambda params, x: Meanless(diagonal_normal(x[:, :3], jnp.full((len(x), 3), 1e-3))))
    x = jax.random.normal(key, (6, 5))
    with pytest.raises(ValueError, match=r"Meanless knows no mean; give key=jax.random.key\(seed\)"):
        plots.latent_scatter(model, {}, x)
    figure = plots.latent_scatter(model, {}, x, key=key, dimensions=(0, 1))
    np.testing.assert_allclose(figure.axes[0].collections[0].get_offsets(), x[:, :2], atol=1e-3)
    assert figure.axes[0].get_xlabel() == "E[$z_{0}$|x]"


def test_bad_arguments_of_the_scatter(key):
    model, x = mixed(key), jnp.ones((20, 5))
    with pytest.raises(ValueError, match=r"labels must be \[20\], one for each example, got shape \[3\]"):
        plots.latent_scatter(model, {}, x, labels=np.arange(3))
    with pytest.raises(ValueError, match="label_names holds 1 names for 2 classes"):
        plots.latent_scatter(model, {}, x, labels=np.arange(20) % 2, label_names=["a"])
    with pytest.raises(ValueError, match="labels hold 20 classes, more than the 10"):
        plots.latent_scatter(model, {}, x, labels=np.array([f"c{i}" for i in range(20)]))
    for dimensions in ((0, 3), (1, 1), (0, 1, 2), ()):
        with pytest.raises(ValueError, match="dimensions must be one or two different ones of 0 to 2"):
            plots.latent_scatter(model, {}, x, dimensions=dimensions)
    layered = mixed(key, lambda params, x: distrax.Joint((standard_normal(3), standard_normal(2))))
    with pytest.raises(ValueError, match="needs latents in one array, got tuple of 2"):
        plots.latent_scatter(layered, {}, x)
