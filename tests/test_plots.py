"""Figures hold what they should; looking at them is a person's work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from vaejax import plots
from vaejax.dists import likelihoods


@pytest.mark.parametrize("family", ["bernoulli", likelihoods.binomial(16), likelihoods.categorical(3), "normal"])
def test_images(family, key):
    model = vaejax.models.vae(x_shape=(4, 5), latent_size=2, hidden_sizes=(8,), likelihood=family)
    params = model.init(key, None)
    figure = plots.reconstructions(model, params, key, jnp.ones((7, 4, 5)))
    assert len(figure.axes) == 14
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), 1.0)
    for ancestral in (False, True):
        assert len(plots.prior_samples(model, params, key, num_rows=2, num_columns=3, ancestral=ancestral).axes) == 6


def test_flat_events_need_an_image_shape(key):
    model = vaejax.models.vae(x_shape=20, latent_size=2, hidden_sizes=(8,))
    params = model.init(key, None)
    with pytest.raises(ValueError, match=r"give image_shape=\(height, width\)"):
        plots.prior_samples(model, params, key)
    assert plots.prior_samples(model, params, key, image_shape=(4, 5)).axes[0].images[0].get_array().shape == (4, 5)


def test_curves(tmp_path):
    epochs = np.arange(1, 41)
    history = {"epoch": epochs, "objective": -100 / epochs, "kl": 1.0 * epochs}
    assert len(plots.curves(history).axes[0].lines) == 1
    history |= {"validation_elbo": -120 / epochs, "validation_standard_error": np.full(40, 2.0)}
    figure = plots.curves(history)
    assert [line.get_label() for line in figure.axes[0].lines] == ["training objective", "validation ELBO, ± 1 s.e."]
    figure.savefig(tmp_path / "curves.png")
    with pytest.raises(ValueError, match="no epochs"):
        plots.curves({"epoch": np.array([])})


def test_conditional_models(key):
    model = vaejax.models.vae(x_shape=(4, 5), latent_size=2, hidden_sizes=(8,), context_size=3)
    params, labels = model.init(key), jnp.array([0, 1, 2, 0, 1, 2])
    assert len(plots.prior_samples(model, params, key, num_rows=2, num_columns=3, context=labels).axes) == 6
    batch = vaejax.Batch(jnp.ones((6, 4, 5)), labels, jnp.ones((6, 4, 5), bool))
    assert len(plots.reconstructions(model, params, key, batch).axes) == 12


def test_curves_survive_a_broken_epoch():
    history = {"epoch": np.arange(1, 4), "objective": np.array([-3.0, np.nan, -1.0]), "kl": np.ones(3)}
    assert np.isfinite(plots.curves(history).axes[0].get_ylim()).all()


def test_missing_entries_show_as_the_model_sees_them(key):
    model = vaejax.models.vae(x_shape=(4, 5), latent_size=2, hidden_sizes=(8,), likelihood="normal")
    x = jnp.full((3, 4, 5), jnp.nan)
    figure = plots.reconstructions(
        model, model.init(key, None), jax.random.key(1), vaejax.Batch(x, mask=jnp.zeros(x.shape, bool))
    )
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), 0.0)
