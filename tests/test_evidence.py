"""The evidence from every side in one call: bounds in order draw by draw, enumeration exact, notes that say what the numbers say."""

import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.helpers import assert_mean
from tests.test_ais import setting
from tests.test_evaluate import discrete_model
from vaejax import evaluate
from vaejax.dists import Bernoulli
from vaejax.evaluate.evidence import lines

FEW = {"num_samples": 100, "num_draws": 10, "num_temperatures": 4, "num_chains": 4, "num_leapfrog": 3}


@pytest.fixture(scope="module")
def of_gaussian():
    """Three latents, an encoder a little too wide; the truth beside the report."""
    exact, model, x = setting(3, scale=1.3, count=20)
    return exact.log_evidence(x), evaluate.evidence_report(model, {}, jax.random.key(0), x, **FEW), (model, x)


@pytest.mark.slow
def test_bounds_stand_in_order_draw_by_draw(of_gaussian):
    _, _, (model, x) = of_gaussian
    found = evaluate.bounds(model, {}, jax.random.key(3), x, num_samples=60, num_draws=6)
    assert bool(jnp.all(found.iwae.estimate <= found.importance.estimate + 1e-4))
    assert float(jnp.mean(found.elbo.estimate)) < float(jnp.mean(found.iwae.estimate))
    # The same stream of draws as the functions of their own.
    alone = evaluate.log_marginal(model, {}, jax.random.key(3), x, num_samples=60, chunk_size=6)
    np.testing.assert_allclose(found.importance.estimate, alone.estimate, rtol=1e-5)
    np.testing.assert_allclose(found.importance.pareto_k, alone.pareto_k, rtol=1e-4)


def test_iwae_is_the_mean_over_groups_and_its_error_is_theirs(key):
    """L_K of one draw is the ELBO of all draws; the standard error is the spread of the groups."""
    _, model, x = setting(2, scale=1.5, count=3)
    found = evaluate.bounds(model, {}, key, x, num_samples=400, num_draws=1)
    terms = [
        vaejax.log_terms(model, {}, jax.random.fold_in(jax.random.split(key, 3)[0], i), x[:1]).log_weights[0, 0]
        for i in range(400)
    ]
    draws = np.asarray(terms, np.float64)
    np.testing.assert_allclose(found.iwae.estimate[0], draws.mean(), rtol=1e-5)
    np.testing.assert_allclose(found.iwae.standard_error[0], draws.std(ddof=1) / 20, rtol=1e-3)


def test_samples_must_fill_the_groups(key):
    _, model, x = setting(2, count=3)
    with pytest.raises(ValueError, match="multiple of num_draws=50; take num_samples=100"):
        evaluate.bounds(model, {}, key, x, num_samples=120)
    with pytest.raises(ValueError, match="take num_samples=50"):
        evaluate.bounds(model, {}, key, x, num_samples=20)


def test_the_report_of_a_gaussian_model(of_gaussian):
    truth, report, _ = of_gaussian
    assert [line.name for line in report.lines] == ["ELBO", "IWAE_10", "IS_100", "AIS_4", "gap, simulated"]
    elbo, iwae, importance, annealed, gap = (line.value.mean for line in report.lines)
    assert elbo < iwae < importance
    assert_mean(report.columns["importance"] - np.asarray(truth), 0.0, cap=0.05)
    assert annealed < float(truth.mean()) + 5 * report.lines[3].value.monte_carlo_error
    assert gap > 0
    assert report.columns["gap"].shape == report.columns["ais_acceptance"].shape == (20,)
    assert "to quote" in str(report)
    assert all(line.seconds >= 0 for line in report.lines)


def test_a_short_way_needs_more_temperatures(of_gaussian):
    _, report, _ = of_gaussian
    assert any("AIS needs more temperatures" in note for note in report.notes)
    assert report.best == "IS_100"
    assert any("off by no more there" in note for note in report.notes)


@pytest.mark.slow
def test_a_poor_encoder_is_told_from_a_poor_way(key):
    """Ten latents, the encoder's scale a third of the posterior's: AIS is the better bound, and the report quotes it."""
    exact, model, x = setting(10, scale=1 / 3, count=20)
    report = evaluate.evidence_report(model, {}, key, x, num_samples=500, num_temperatures=1000, num_simulated=10)
    assert any("importance sampling is too low" in note for note in report.notes)
    assert any("not to be trusted for" in note for note in report.notes)
    assert report.best == "AIS_1000"
    assert_mean(report.columns["ais"] - np.asarray(exact.log_evidence(x)), 0.0, cap=0.05)


def enumerated(model_parts, x):
    weight, prior_logits, _ = model_parts
    states = jnp.array(list(itertools.product([0.0, 1.0], repeat=3)))
    return jax.nn.logsumexp(
        Bernoulli(states @ weight).log_prob(x[:, None]) + Bernoulli(prior_logits).log_prob(states), axis=1
    )


def test_discrete_latents_are_summed_over(key):
    parts = discrete_model()
    x = jnp.asarray(np.random.default_rng(1).integers(0, 2, (6, 5)), jnp.float32)
    exact = evaluate.exact_log_marginal(parts[2], {}, x)
    np.testing.assert_allclose(exact, enumerated(parts, x), rtol=1e-5)
    np.testing.assert_allclose(evaluate.exact_log_marginal(parts[2], {}, x[0]), exact[0], rtol=1e-5)
    report = evaluate.evidence_report(parts[2], {}, key, x, num_samples=1000)
    assert report.best == "exact"
    assert report.lines[-1].kind == "exact"
    np.testing.assert_allclose(report.columns["exact"], exact, rtol=1e-6)
    assert any("states are summed over" in note for note in report.notes)


@pytest.mark.slow
def test_layers_and_masks_are_summed_over():
    """Two layers against importance sampling with many draws; a masked entry is as if it were not there."""
    model = vaejax.models.sigmoid_belief_network(x_shape=5, layer_sizes=(3, 2))
    params = model.init(jax.random.key(0))
    x = jnp.asarray(np.random.default_rng(2).integers(0, 2, (4, 5)), jnp.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampled = evaluate.log_marginal(model, params, jax.random.key(1), x, num_samples=20_000)
    exact = evaluate.exact_log_marginal(model, params, x)
    assert bool(jnp.all(jnp.abs(sampled.estimate - exact) < 5 * sampled.standard_error))
    assert float(sampled.standard_error.max()) < 0.05
    mask = jnp.ones(x.shape, bool).at[:, 2].set(False)
    both = [jnp.where(mask, x, v) for v in (0.0, 1.0)]
    hidden = evaluate.exact_log_marginal(model, params, vaejax.Batch(x, mask=mask))
    np.testing.assert_allclose(
        hidden, jnp.logaddexp(*(evaluate.exact_log_marginal(model, params, v) for v in both)), rtol=1e-5
    )


def test_too_many_states_are_left_to_importance_sampling(key):
    model = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=(13,))
    params, x = model.init(jax.random.key(0)), jnp.ones((3, 4))
    with pytest.raises(ValueError, match=r"8.19e\+03 states, more than max_states=4096"):
        evaluate.exact_log_marginal(model, params, x)
    report = evaluate.evidence_report(model, params, key, x, num_samples=50)
    assert [line.name for line in report.lines] == ["ELBO", "IWAE_50", "IS_50"]
    assert any("importance sampling stands alone" in note for note in report.notes)
    with pytest.raises(TypeError, match="have others too"):
        evaluate.exact_log_marginal(setting(2)[1], {}, jnp.ones((3, 4)))


def test_a_report_goes_on_where_it_stopped(tmp_path, of_gaussian):
    _, _, (model, x) = of_gaussian
    options = {**FEW, "directory": tmp_path / "evidence", "num_simulated": 5}
    first = evaluate.evidence_report(model, {}, jax.random.key(5), x, **options)
    again = evaluate.evidence_report(model, {}, jax.random.key(5), x, **options)
    for name, column in first.columns.items():
        np.testing.assert_array_equal(column, again.columns[name])
    assert [line.seconds for line in first.lines] == [line.seconds for line in again.lines]
    assert min(line.seconds for line in first.lines) > 0
    with pytest.raises(ValueError, match="another evaluation"):
        evaluate.evidence_report(model, {}, jax.random.key(6), x, **options)


def test_what_notes_say_of_few_examples(key):
    """Of one example nothing can be told from noise, and the report does not pretend."""
    one = evaluate.MeanEstimate(10.0, float("nan"), float("nan"), 1)
    assert "simulate more" in lines.two_sided(one, vaejax.Batch(jnp.ones((1, 3))))[0]
    columns = {
        "ais": np.array([-1.0]),
        "ais_error": np.zeros(1),
        "importance": np.array([-2.0]),
        "importance_error": np.zeros(1),
    }
    assert "cannot be compared" in lines.compared(columns)[0]
    named = [evaluate.Line(name, one, "lower bound", "", 0.0) for name in ("ELBO", "IWAE_5", "IS_5", "AIS_5")]
    assert lines.best(named, columns) == "AIS_5"
    assert lines.best(named, {**columns, "ais": columns["importance"]}) == "IS_5"
    # A rounding is no difference, however sure.
    exact = evaluate.Evidence(np.array([-14.0, -15.0]), np.zeros(2))
    assert not lines.exceeds(evaluate.Evidence(exact.estimate + 1e-6, np.zeros(2)), exact)
    assert lines.exceeds(evaluate.Evidence(exact.estimate + 1e-3, np.zeros(2)), exact)


@pytest.mark.slow
def test_contexts_travel_to_the_simulated_data(key):
    model = vaejax.models.vae(x_shape=4, latent_size=2, hidden_sizes=(4,), context_size=3)
    batch = vaejax.Batch(jnp.ones((4, 4)), context=jnp.array([0, 1, 2, 0]))
    report = evaluate.evidence_report(model, model.init(key, batch), key, batch, num_simulated=6, **FEW)
    assert report.columns["gap"].shape == (6,)


@pytest.mark.wants_nan
def test_refusals(key):
    _, model, x = setting(2)
    with pytest.raises(ValueError, match=r"needs a batch \[n, \*event\], got 0 batch axes"):
        evaluate.evidence_report(model, {}, key, x[0], **FEW)
    with pytest.raises(TypeError, match="typed key"):
        evaluate.evidence_report(model, {}, jnp.zeros(2, jnp.uint32), x, **FEW)
    with pytest.raises(ValueError, match="start"):
        evaluate.evidence_report(model, {}, key, x, **FEW, start="encoder")
    broken = model._replace(
        likelihood=lambda params, z: vaejax.dists.diagonal_normal(jnp.full((*z.shape[:-1], 4), jnp.nan), 1.0)
    )
    with pytest.raises(ValueError, match="the model gives NaN for 6 of 6 values of the log-weights"):
        evaluate.evidence_report(broken, {}, key, x, **FEW)
    with pytest.raises(ValueError, match="num_simulated must be at least 1"):
        evaluate.evidence_report(model, {}, key, x, num_simulated=0, **FEW)
    with pytest.raises(ValueError, match="num_temperatures"):
        evaluate.evidence_report(model, {}, key, x, num_temperatures=0)
