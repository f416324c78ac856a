"""Calibration by ranks where the posterior is known, and what exchanging latents costs where that is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.helpers import linear_gaussian
from vaejax import evaluate, plots
from vaejax.dists import Bernoulli, Chain, MultivariateNormal, diagonal_normal, standard_normal
from vaejax.evaluate import stream
from vaejax.evaluate.latent import ranks

EXACT = linear_gaussian(noise=1.5)
KINDS = {
    "exact": (1.0, 1.0, 0.0),
    "half": (1.0, 0.5, 0.0),
    "prior": (0.0, 1.0, 0.0),
    "wide": (1.0, 1.6, 0.0),
    "shifted": (1.0, 1.0, 0.5),
}


def posterior(params, x):
    """The exact posterior (share 1) or the prior (share 0), scaled and shifted."""
    share, scale, shift = params["q"]
    tril = share * scale * EXACT.posterior_tril + (1 - share) * jnp.eye(2)
    loc = share * EXACT.posterior_mean(x) + shift
    return MultivariateNormal(loc, jnp.broadcast_to(tril, (*loc.shape, 2)))


MODEL = EXACT.model(exact=True)._replace(posterior=posterior)


def kind(name):
    return {"q": jnp.array(KINDS[name])}


@pytest.fixture(scope="module")
def results():
    return {name: evaluate.calibration(MODEL, kind(name), jax.random.key(5)) for name in KINDS}


def test_the_exact_posterior_passes(results):
    found = results["exact"]
    assert found.passed
    assert found.names == ("z_0", "z_1", "log p(x|z)")
    assert set(found.verdicts) == {"calibrated"}
    assert found.ranks.shape == (1000, 3)
    assert (found.ranks.min(), found.ranks.max()) == (0, 99)
    assert (abs(found.mean_rank - 0.5) < 4 * found.mean_rank_error).all()
    assert (abs(found.outer_rank - 1) < 4 * found.outer_rank_error).all()
    assert "all 3 quantities pass at level 0.01 (Holm); 1000 simulations, 99 draws, 20 bins" in str(found)


def test_half_the_scale_is_overconfident(results):
    found = results["half"]
    assert found.failed.all()
    assert found.adjusted_p_values.max() < 1e-30
    assert all(verdict.startswith("∪ overconfident") for verdict in found.verdicts[:2])
    assert (found.outer_rank[:2] > 1.5).all()


def test_the_prior_as_posterior_is_seen_by_the_log_likelihood_alone(results):
    found = results["prior"]
    np.testing.assert_array_equal(found.failed, [False, False, True])
    assert found.adjusted_p_values[:2].min() > 0.05
    assert found.adjusted_p_values[2] < 1e-30
    assert found.verdicts[2] == "shifted: draws of q explain x worse than the z that made it"
    assert "1 of 3 quantities fail" in str(found)


def test_other_failures_have_their_words(results):
    assert all(verdict.startswith("∩ underconfident") for verdict in results["wide"].verdicts[:2])
    assert all(verdict == "shifted: q lies too high" for verdict in results["shifted"].verdicts[:2])


def test_a_correct_test_seldom_fails():
    """Of all quantities together at most the level, and not far below it where they are independent; by Monte Carlo."""
    rng, repeats = np.random.default_rng(0), 1000
    failed = np.mean(
        [not ranks.rank_test(rng.integers(0, 20, (200, 4)), 19, level=0.05).passed for _ in range(repeats)]
    )
    assert abs(failed - 0.05) < 5 * np.sqrt(0.05 * 0.95 / repeats)


def test_holm_against_its_definition():
    np.testing.assert_allclose(ranks._holm(np.array([0.01, 0.04, 0.03, 0.5])), [0.04, 0.09, 0.09, 0.5])
    np.testing.assert_allclose(ranks._holm(np.array([0.9, 0.8])), [1.0, 1.0])


def test_p_values_are_those_of_the_counts():
    column = np.repeat(np.arange(10), [9, 11, 10, 10, 10, 10, 10, 10, 14, 6])
    found = ranks.rank_test(np.stack([column, np.repeat(np.arange(10), 10)], 1), 9, names=("left", "right"))
    # χ² = (1 + 1 + 16 + 16)/10 at 9 degrees of freedom.
    np.testing.assert_allclose(found.p_values, [0.9463, 1.0], atol=1e-4)
    np.testing.assert_allclose(found.mean_rank[1], 0.5)
    np.testing.assert_allclose(found.outer_rank[1], 1.0)
    assert found.num_bins == 10


def test_bins_divide_the_ranks():
    assert [ranks.bins(1000, 99), ranks.bins(60, 99), ranks.bins(1000, 100), ranks.bins(1000, 19)] == [20, 10, 101, 20]
    for count, draws in ((9, 99), (100, 100)):
        with pytest.raises(ValueError, match=r"cannot be tested.*take num_draws=99 and at least 100 simulations"):
            ranks.bins(count, draws)


def test_ranks_all_alike_are_shifted():
    found = ranks.rank_test(np.full((100, 1), 99), 99)
    assert found.verdicts == ("shifted: q lies too low",)


@pytest.mark.parametrize(
    ("wrong", "error", "wanted"),
    [
        (np.zeros(100, int), TypeError, r"integers \[n, Q\], got int64 of shape \[100\]"),
        (np.zeros((100, 2)), TypeError, "got float64"),
        (np.full((100, 1), 20), ValueError, "integers from 0 to num_draws = 19"),
        (np.full((100, 1), -1), ValueError, "integers from 0 to num_draws = 19"),
    ],
)
def test_bad_ranks_are_refused(wrong, error, wanted):
    with pytest.raises(error, match=wanted):
        ranks.rank_test(wrong, 19)
    with pytest.raises(ValueError, match="names holds 1 names for 2 columns"):
        ranks.rank_test(np.zeros((100, 2), int), 19, names=["z"])


def discrete():
    """Two bits, a vector of one and a scalar, each with a pixel of its own; the posterior is exact times ``params``.

    log p(z = 1|x)/p(z = 0|x) is the prior's logit + 4x − 2, as p(x = 1|z) has logit ±2.
    """

    def posterior(params, x, context):
        logits = params * (4 * x - 2 + jnp.stack([context, -context], -1))
        return Chain([lambda _: Bernoulli(logits[..., :1]), lambda _: Bernoulli(logits[..., 1], 0)])

    return vaejax.Model(
        init=lambda key, batch: 1.0,
        posterior=posterior,
        prior=lambda params, context: Chain(
            [lambda _: Bernoulli(context[..., None]), lambda _: Bernoulli(-context, 0)]
        ),
        likelihood=lambda params, z, context: Bernoulli(4 * jnp.stack([z[0][..., 0], z[1]], -1) - 2),
    )


def test_discrete_latents_in_a_tuple_with_contexts(key):
    model, context = discrete(), jax.random.normal(key, (1000,))
    for factor in (1.0, 0.3):
        found = evaluate.calibration(model, factor, key, num_draws=49, context=context)
        assert found.names == ("z[0]_0", "z[1]", "log p(x|z)")
        assert found.passed == (factor == 1.0)
    with pytest.raises(ValueError, match="context must have 1000 rows, one for each simulation"):
        evaluate.calibration(model, 1.0, key, context=context[:10])


def test_ties_of_large_sums_are_ties(key):
    """A decoder of 784 pixels that ignores z: the prior is the exact posterior, and every draw explains x as well as the truth."""
    model = vaejax.models.vae(x_shape=784, latent_size=2, hidden_sizes=(16,))
    params = model.init(key, None)
    kernel = params["decoder"]["dense_0"]["kernel"]
    for scale in (0.0, 1e-6):
        params["decoder"]["dense_0"]["kernel"] = scale * kernel
        model = model._replace(
            posterior=lambda params, x: diagonal_normal(jnp.zeros((len(x), 2)), jnp.ones((len(x), 2)))
        )
        assert evaluate.calibration(model, params, key, num_simulations=200, num_draws=19).passed


def test_few_at_a_time_and_in_float64(monkeypatch, x64, key):
    """Eight draws of three pairs at once, which divide neither 99 nor 200."""
    monkeypatch.setattr(stream, "_BUDGET", {"cpu": 3 * 40})
    found = evaluate.calibration(MODEL._replace(init=None), kind("exact"), key, num_simulations=200)
    assert found.passed
    assert (found.ranks.min(), found.ranks.max()) == (0, 99)


@pytest.mark.wants_nan
def test_calibration_refuses(key):
    model = MODEL
    with pytest.raises(TypeError, match="typed key"):
        evaluate.calibration(model, {}, jax.random.PRNGKey(0))
    with pytest.raises(ValueError, match="level must be finite, greater than 0, at most 1"):
        evaluate.calibration(model, {}, key, level=0.0, num_simulations=100)
    with pytest.raises(ValueError, match="cannot be tested"):
        evaluate.calibration(model, {}, key, num_simulations=5)
    with pytest.raises(ValueError, match="z_0 is NaN in 1000 of 1000 simulations"):
        evaluate.calibration(model, {"q": jnp.array([1.0, 1.0, jnp.nan])}, key)
    one = model._replace(
        posterior=lambda p, x: diagonal_normal(jnp.zeros((*x.shape[:-1], 1)), 1.0),
        likelihood=lambda p, z: diagonal_normal(jnp.ones(3) * z.sum(-1, keepdims=True), 1.0),
    )
    with pytest.raises(ValueError, match=r"q\(z\|x\) draws latents of shape \(1,\), p\(z\) of shape \(2,\)"):
        evaluate.calibration(one, {}, key, num_simulations=100)


def test_figure(results, tmp_path):
    figure = plots.calibration(results["prior"])
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title.splitlines()[-1] for title in titles] == ["calibrated", "calibrated", "shifted"]
    counts = figure.axes[0].patches[-1].get_data().values
    np.testing.assert_array_equal(counts, np.bincount(results["prior"].ranks[:, 0] // 5, minlength=20))
    figure.savefig(tmp_path / "calibration.png")
    many = ranks.rank_test(np.random.default_rng(0).integers(0, 20, (200, 9)), 19, names=["log p(x|z)", *"abcdefgh"])
    for panels, shown in ((4, 4), (20, 9)):
        figure = plots.calibration(many, max_panels=panels)
        assert len(figure.axes) == shown
        assert figure.axes[0].get_title(loc="left").startswith("log p(x|z)")
        assert figure.get_figwidth() <= 6.5
        figure.savefig(tmp_path / "many.pdf")
    with pytest.raises(TypeError, match=r"what vaejax\.evaluate\.calibration returns, got ndarray"):
        plots.calibration(many.ranks)


def test_exchange_costs_the_divergences_between_joint_and_product(key):
    """For the exact posterior and its own data E fall = ‖W‖²/σ², and ‖W_d‖²/σ² for one dimension: differences of two residuals."""
    exact = EXACT
    _, batch = evaluate.simulate(MODEL, {}, key, 3000)
    found = evaluate.latent_usage(MODEL, kind("exact"), key, batch, num_samples=5)
    wanted = jnp.sum(exact.weight**2, 0) / exact.noise**2
    for mean, value in zip((found.mean, *found.mean_per_dimension), (wanted.sum(), *wanted)):
        assert mean.standard_error < 0.04 * value
        assert mean.monte_carlo_error < mean.standard_error
        assert abs(mean.mean - value) < 5 * mean.standard_error
    assert found.fall.shape == found.own.shape == found.standard_error.shape == (3000,)
    assert found.fall_per_dimension.shape == (3000, 2)
    np.testing.assert_allclose(found.fall, found.own - found.swapped, atol=1e-4)
    assert "z_1 alone" in str(found)
    # A posterior that does not depend on x is as collapsed as a decoder that does not depend on z.
    mean = evaluate.latent_usage(MODEL, kind("prior"), key, batch, num_samples=5).mean
    assert abs(mean.mean) < 5 * mean.monte_carlo_error
    assert mean.monte_carlo_error < 0.1
    loc, tril = exact.posterior_mean(batch.x), exact.posterior_tril
    own = diagonal_normal(loc @ exact.weight.T + exact.bias, exact.noise).log_prob(batch.x)
    own -= 0.5 * jnp.sum((exact.weight @ tril) ** 2) / exact.noise**2
    assert abs(float((found.own - own).mean())) < 5 * float((found.own - own).std()) / 3000**0.5


def test_the_error_between_examples_is_that_of_other_examples(key):
    """Each example counts as scored and as giver: the spread of 100 data sets, which the falls alone would put at half."""
    found = []
    for i in range(100):
        data_key, use_key = jax.random.split(jax.random.fold_in(key, i))
        batch = evaluate.simulate(MODEL, {}, data_key, 30)[1]
        found.append(
            evaluate.latent_usage(MODEL, kind("exact"), use_key, batch, num_samples=5, per_dimension=False).mean
        )
    spread = np.std([mean.mean for mean in found], ddof=1)
    assert 0.75 < np.sqrt(np.mean([mean.standard_error**2 for mean in found])) / spread < 1.4


def test_a_collapsed_model_has_no_fall(key):
    x = jax.random.normal(key, (50, 5))
    ignored = MODEL._replace(likelihood=lambda p, z: diagonal_normal(jnp.zeros((*z.shape[:-1], 5)), 1.0))
    found = evaluate.latent_usage(ignored, kind("exact"), key, x)
    np.testing.assert_array_equal(found.fall, 0.0)
    np.testing.assert_array_equal(found.fall_per_dimension, 0.0)


def identity(scale=1e-5):
    """z is x less the context, and back; the fall is half the squared distance of two examples."""
    return vaejax.Model(
        init=lambda key, batch: {},
        posterior=lambda params, x, context: diagonal_normal(x - context, scale),
        prior=lambda params, context: standard_normal(2),
        likelihood=lambda params, z, context: diagonal_normal(z + context, 1.0),
    )


def test_nobody_keeps_their_own(key):
    """Neighbours are at a distance of 1 in either dimension: a fall below 1 in a single round would be an example's own latents."""
    x = jnp.arange(40.0)[:, None] * jnp.ones(2)
    found = evaluate.latent_usage(identity(), {}, key, vaejax.Batch(x, jnp.zeros((40, 2))), num_samples=1)
    assert float(found.fall.min()) > 0.99
    np.testing.assert_allclose(found.fall_per_dimension, found.fall[:, None] / 2 * jnp.ones(2), rtol=1e-3)
    assert bool(jnp.isnan(found.standard_error).all())
    assert np.isnan(found.mean.monte_carlo_error)


@pytest.mark.wants_nan
def test_mask_and_context_stay_with_the_example_that_is_scored(key):
    x = jnp.array([[1.0, jnp.nan], [2.0, 5.0]])
    mask, context = jnp.isfinite(x), jnp.array([[0.5, 1.0], [-1.0, 2.0]])
    found = evaluate.latent_usage(identity(), {}, key, vaejax.Batch(x, context, mask, jnp.ones(2)), num_samples=3)
    # z = (0.5, −1) and (3, 3); the first is scored on its first entry alone.
    np.testing.assert_allclose(found.fall, [0.5 * 2.5**2, 0.5 * (2.5**2 + 4**2)], rtol=1e-3)
    np.testing.assert_allclose(found.fall_per_dimension, [[3.125, 0.0], [3.125, 8.0]], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.own, jnp.array([-0.5, -1.0]) * np.log(2 * np.pi), rtol=1e-3)
    assert np.isnan(found.mean.standard_error)


def test_latents_of_any_kind_are_exchanged(key):
    _, batch = evaluate.simulate(discrete(), 1.0, key, 400, jnp.zeros(400))
    found = evaluate.latent_usage(discrete(), 1.0, key, batch)
    assert found.fall_per_dimension is None
    assert found.mean.standard_error < 0.15
    # Each pixel has logit ±2: exchanged bits differ half of the time, and cost 2 tanh(1) nats each in the mean.
    assert abs(found.mean.mean - 2 * np.tanh(1.0)) < 5 * found.mean.standard_error


@pytest.mark.wants_nan
def test_usage_refuses(key):
    model, context = identity(), jnp.zeros((1, 2))
    with pytest.raises(ValueError, match="got 1 example; give at least 2"):
        evaluate.latent_usage(model, {}, key, vaejax.Batch(jnp.ones((1, 2)), context))
    with pytest.raises(TypeError, match="typed key"):
        evaluate.latent_usage(model, {}, jax.random.PRNGKey(0), jnp.ones((3, 2)))
    with pytest.raises(ValueError, match=r"examples along one axis, the model sees \[3, 4\]"):
        evaluate.latent_usage(MODEL, kind("prior"), key, jnp.ones((3, 4, 5)))
    with pytest.raises(ValueError, match="NaN or infinite"):
        evaluate.latent_usage(MODEL, kind("prior"), key, jnp.full((3, 5), jnp.nan))
    with pytest.raises(ValueError, match="num_samples must be at least 1"):
        evaluate.latent_usage(MODEL, kind("prior"), key, jnp.ones((3, 5)), num_samples=0)
