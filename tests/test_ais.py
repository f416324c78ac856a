"""Annealed importance sampling on models whose evidence is known: agreement, bounds from both sides, no bias at any length."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.helpers import assert_mean, linear_gaussian
from vaejax import evaluate
from vaejax.dists import Bernoulli, Binomial, diagonal_normal, standard_normal
from vaejax.dists.backend import distrax
from vaejax.evaluate.evidence import annealing


def setting(latents, noise=2.0, scale=1.0, count=6):
    """A linear-Gaussian model whose encoder is the exact posterior, its scale times this; and data from it."""
    exact = linear_gaussian(size=2 * latents, latents=latents, noise=noise)
    tril = scale * exact.posterior_tril

    def posterior(params, x):
        loc = exact.posterior_mean(x)
        return vaejax.dists.MultivariateNormal(loc, jnp.broadcast_to(tril, (*loc.shape[:-1], latents, latents)))

    model = exact.model(exact=True)._replace(posterior=posterior)
    return exact, model, evaluate.simulate(model, {}, jax.random.key(1), count)[1].x


def assert_agrees(found, wanted, cap):
    """Each example within 5 standard errors, which in the mean are below the cap."""
    assert float(jnp.mean(found.standard_error)) < cap
    assert bool(jnp.all(jnp.abs(found.estimate - wanted) < 5 * found.standard_error + 1e-4 * jnp.abs(wanted)))


@pytest.mark.parametrize(
    ("latents", "noise", "num_temperatures"),
    [
        (2, 2.0, 500),
        pytest.param(10, 2.0, 2000, marks=pytest.mark.slow),
        pytest.param(50, 4.0, 5000, marks=pytest.mark.slow),
    ],
)
def test_annealing_agrees_with_the_exact_evidence(latents, noise, num_temperatures, key):
    exact, model, x = setting(latents, noise, count=4)
    found = evaluate.ais(model, {}, key, x, num_temperatures=num_temperatures)
    assert_agrees(found, exact.log_evidence(x), cap=0.15)
    np.testing.assert_allclose(found.acceptance, annealing.TARGET_ACCEPTANCE, atol=0.06)
    assert float(found.effective_sample_size.min()) > 8


@pytest.mark.parametrize(
    ("latents", "noise", "num_temperatures"), [(5, 2.0, 1000), pytest.param(50, 4.0, 5000, marks=pytest.mark.slow)]
)
def test_bounds_from_both_sides(latents, noise, num_temperatures, key):
    exact, model, _ = setting(latents, noise)
    both = evaluate.bdmc(model, {}, key, num_examples=8, num_temperatures=num_temperatures)
    truth = exact.log_evidence(both.batch.x)
    below, above, gap = (
        np.asarray(v, float) for v in (both.lower.estimate - truth, both.upper.estimate - truth, both.gap)
    )
    errors = [v.std(ddof=1) / 8**0.5 for v in (below, above, gap)]
    assert max(errors) < 0.1
    assert below.mean() <= 5 * errors[0]
    assert above.mean() >= -5 * errors[1]
    assert -5 * errors[2] < gap.mean() < 0.1
    np.testing.assert_allclose(gap, above - below, atol=1e-3)


@pytest.mark.slow
def test_a_short_way_has_a_gap(key):
    """Six temperatures are too few for ten latents, and both sides say so."""
    exact, model, _ = setting(10)
    both = evaluate.bdmc(model, {}, key, num_examples=12, num_temperatures=6)
    truth = exact.log_evidence(both.batch.x)
    assert float((both.lower.estimate - truth).mean()) < -0.5
    assert float((both.upper.estimate - truth).mean()) > 0.5
    assert float(both.gap.mean()) > 1


def chains(model, x, betas, latents, steps, key):
    path = annealing.target(model, {}, vaejax.Batch(x), "prior")
    run = jax.jit(lambda key, z: annealing.anneal(path, key, z, betas, steps, 5)[0])
    return path, run(key, latents(path) if callable(latents) else latents)


@pytest.mark.slow
def test_three_temperatures_have_no_bias_in_either_direction(key):
    """E ŵ = p(x) forwards, E 1/ŵ = 1/p(x) backwards from exact draws: whatever the steps, here poor ones."""
    exact, model, x = setting(2)
    betas, steps, count = jnp.array([0.0, 0.2, 0.5, 1.0]), jnp.array([0.9, 0.3]), 40_000
    draw_key, back_key, key = jax.random.split(key, 3)
    truth = exact.log_evidence(x[:1])[0]
    _, forward = chains(model, x[0], betas, lambda path: path.draw(draw_key, count), steps, key)
    assert_mean(jnp.exp(forward - truth), 1.0, cap=0.02)
    exact_draws = model.posterior({}, x[:1]).sample_and_log_prob(seed=draw_key, sample_shape=(count,))[0][:, 0]
    _, backward = chains(model, x[0], betas[::-1], exact_draws, steps[::-1], back_key)
    assert_mean(jnp.exp(backward + truth), 1.0, cap=0.02)


@pytest.mark.slow
def test_annealing_agrees_where_importance_sampling_is_flagged(key):
    """The encoder's scale is half the posterior's: what the prior's path never sees."""
    exact, model, x = setting(10, scale=0.5)
    with pytest.warns(evaluate.UntrustworthyEstimate):
        poor = evaluate.log_marginal(model, {}, key, x, num_samples=2000)
    assert float(jnp.mean(poor.pareto_k > evaluate.pareto_threshold(2000))) > 0.8
    assert float(jnp.mean(poor.estimate - exact.log_evidence(x))) < -0.3
    assert_agrees(evaluate.ais(model, {}, key, x, num_temperatures=2000), exact.log_evidence(x), cap=0.1)


@pytest.mark.slow
def test_from_the_encoder_the_way_is_short(key):
    exact, model, x = setting(10, scale=1.2)
    found = evaluate.ais(model, {}, key, x, num_temperatures=30, start="posterior")
    assert_agrees(found, exact.log_evidence(x), cap=0.1)
    from_prior = evaluate.ais(model, {}, key, x, num_temperatures=30)
    assert float(from_prior.standard_error.mean()) > 3 * float(found.standard_error.mean())


def test_one_temperature_is_importance_sampling_from_the_prior(key):
    exact, model, x = setting(2)
    found = evaluate.ais(model, {}, key, x[:1], num_temperatures=1, num_chains=20_000)
    assert_agrees(found, exact.log_evidence(x[:1]), cap=0.05)
    assert bool(jnp.isnan(found.acceptance).all())


def small():
    model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(6,))
    return model, model.init(jax.random.key(0), None)


@pytest.mark.slow
def test_masks_contexts_layers_and_further_axes(key):
    """The evidence of a chain of two layers with a prior that depends on the context, against importance sampling."""

    def posterior(params, x, context=None):
        first = diagonal_normal(0.2 * x[..., :2] + 0.1 * context["c"], 1.0)
        return vaejax.dists.Chain((lambda above: first, lambda above: diagonal_normal(0.5 * above[0], 1.1)))

    model = vaejax.Model(
        init=lambda key, batch: {},
        posterior=posterior,
        prior=lambda params, context=None: vaejax.dists.Chain(
            (lambda above: diagonal_normal(context["c"], 1.0), lambda above: diagonal_normal(0.5 * above[0], 1.0))
        ),
        likelihood=lambda params, z: diagonal_normal(jnp.concatenate([z[0], z[1]], -1), 1.5),
    )
    x = jax.random.normal(key, (3, 2, 4))
    mask = jnp.ones_like(x, bool).at[0, 0, 1].set(False)
    batch = vaejax.Batch(x.at[0, 0, 1].set(jnp.nan), {"c": 0.3 * jnp.ones((3, 2, 2))}, mask)
    found = evaluate.ais(model, {}, key, batch, num_temperatures=200, num_chains=8)
    assert found.estimate.shape == found.acceptance.shape == (3, 2)
    assert found.log_weights.shape == (8, 3, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", evaluate.UntrustworthyEstimate)
        wanted = evaluate.log_marginal(model, {}, key, batch, num_samples=4000)
    error = jnp.hypot(found.standard_error, wanted.standard_error)
    assert float(error.max()) < 0.15
    assert bool(jnp.all(jnp.abs(found.estimate - wanted.estimate) < 5 * error))


@pytest.mark.slow
def test_what_was_done_is_not_done_again(key, tmp_path):
    model, params = small()
    x = jax.random.bernoulli(key, 0.5, (5, 4)).astype(float)
    options = {"num_temperatures": 5, "num_chains": 3, "block_size": 2}
    whole = evaluate.ais(model, params, key, x, **options)
    first = evaluate.ais(model, params, key, x, directory=tmp_path / "kept", **options)
    files = sorted((tmp_path / "kept").glob("block-*.npz"))
    assert len(files) == 3
    stamps = [file.stat().st_mtime_ns for file in files]
    files[1].unlink()
    again = evaluate.ais(model, params, key, x, directory=tmp_path / "kept", **options)
    assert [file.stat().st_mtime_ns for file in (files[0], files[2])] == [stamps[0], stamps[2]]
    for other in (first, again):
        jax.tree.map(np.testing.assert_array_equal, whole, other)
    files[2].write_bytes(files[2].read_bytes()[:100])
    with pytest.raises(ValueError, match=r"block-00002.npz is damaged.*delete it"):
        evaluate.ais(model, params, key, x, directory=tmp_path / "kept", **options)
    other = model._replace(likelihood=lambda params, z: Bernoulli(2 * model.likelihood(params, z).logits))
    with pytest.raises(ValueError, match="holds another evaluation"):
        evaluate.ais(other, params, key, x, directory=tmp_path / "kept", **options)
    for changed in ({"num_temperatures": 6}, {"num_chains": 4}, {"start": "posterior"}):
        with pytest.raises(ValueError, match="holds another evaluation"):
            evaluate.ais(model, params, key, x, directory=tmp_path / "kept", **{**options, **changed})


def test_blocks(key, capfd, tmp_path):
    seen = []

    def run(key, block):
        seen.append(len(block.x))
        return {"sum": block.x.sum(1), "noise": jax.random.normal(key, (len(block.x),))}

    x = np.arange(10.0).reshape(5, 2)
    found = evaluate.in_blocks(run, key, x, block_size=2, progress=True)
    assert seen == [2, 2, 1]
    np.testing.assert_array_equal(found["sum"], x.sum(1))
    assert len(np.unique(found["noise"])) == 5
    assert "5/5" in capfd.readouterr().err
    evaluate.in_blocks(run, key, x, progress=False)
    assert capfd.readouterr().err == ""
    with pytest.raises(ValueError, match="directory= needs settings="):
        evaluate.in_blocks(run, key, x, directory=tmp_path)
    evaluate.in_blocks(run, key, x, directory=tmp_path, settings={"a": None, "b": 1})
    with pytest.raises(ValueError, match="holds another evaluation"):
        evaluate.in_blocks(run, key, x, directory=tmp_path, settings={"a": 1, "b": None})
    with pytest.raises(TypeError, match="settings must be arrays, numbers and strings"):
        evaluate.in_blocks(run, key, x, directory=tmp_path / "new", settings=[print])
    (tmp_path / "about.json").unlink()
    with pytest.raises(ValueError, match=r"holds blocks but no about\.json"):
        evaluate.in_blocks(run, key, x, directory=tmp_path, settings=[1])


@pytest.mark.slow
def test_float32_latents_beside_float64_temperatures(x64, key):
    model = vaejax.Model(
        init=lambda key, batch: {},
        posterior=lambda params, x: diagonal_normal(0.5 * x, jnp.float32(0.7)),
        prior=lambda params: diagonal_normal(jnp.zeros(2, jnp.float32), jnp.float32(1.0)),
        likelihood=lambda params, z: diagonal_normal(z, jnp.float32(1.0)),
    )
    x = jax.random.normal(key, (3, 2), jnp.float32)
    found = evaluate.ais(model, {}, key, x, num_temperatures=100)
    exact = diagonal_normal(jnp.zeros(2), 2**0.5).log_prob(x)
    assert_agrees(found, exact, cap=0.1)
    assert evaluate.bdmc(model, {}, key, num_examples=2, num_temperatures=3).gap.shape == (2,)


def test_simulated_pairs_are_those_of_the_model(key):
    """The mean of exact posteriors over simulated data is the prior."""
    exact, model, _ = setting(2)
    z, batch = evaluate.simulate(model, {}, key, 20_000)
    assert z.shape == (20_000, 2)
    assert_mean(z - exact.posterior_mean(batch.x), jnp.zeros(2), cap=0.02)
    assert_mean(exact.log_evidence(batch.x)[:, None], jnp.array([exact.log_evidence(batch.x[::-1]).mean()]), cap=0.1)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"num_temperatures": 0}, "num_temperatures"),
        ({"num_chains": 0}, "num_chains"),
        ({"num_leapfrog": 0}, "num_leapfrog"),
        ({"start": "encoder"}, "unknown start 'encoder'"),
        ({"num_temperatures": 2, "schedule": [0.0, 0.5, 0.9]}, "must rise from 0 to 1"),
        ({"num_temperatures": 2, "schedule": [0.0, 1.0]}, "num_temperatures . 1 = 3 numbers"),
        ({"block_size": 0}, "block_size"),
    ],
)
def test_bad_options_are_refused(options, wanted, key):
    model, params = small()
    with pytest.raises(ValueError, match=wanted):
        evaluate.ais(model, params, key, jnp.ones((2, 4)), **options)


def test_discrete_latents_are_refused(key):
    model = vaejax.Model(
        init=lambda key, batch: {},
        posterior=lambda params, x: Bernoulli(x),
        prior=lambda params: Bernoulli(jnp.zeros(4)),
        likelihood=lambda params, z: Bernoulli(z),
    )
    for call in (
        lambda: evaluate.ais(model, {}, key, jnp.ones((2, 4))),
        lambda: evaluate.bdmc(model, {}, key, num_examples=2),
    ):
        with pytest.raises(TypeError, match=r"by their gradient .*, got Bernoulli; use vaejax.evaluate.log_marginal"):
            call()


@pytest.mark.parametrize(
    "family", [lambda x: distrax.Independent(distrax.Beta(1 + x, 1 + x), 1), lambda x: Binomial(3, x)]
)
def test_latents_that_cannot_go_anywhere_are_refused(family, key):
    model = vaejax.Model(
        init=lambda key, batch: {},
        posterior=lambda params, x: family(x),
        prior=lambda params: family(jnp.ones(4)),
        likelihood=lambda params, z: Bernoulli(z),
    )
    with pytest.raises(TypeError, match=r"the whole real line, got (Beta|Binomial); use vaejax.evaluate.log_marginal"):
        evaluate.ais(model, {}, key, jnp.ones((2, 4)))


def test_a_prior_of_another_batch_is_refused(key):
    model, params = small()
    model = model._replace(prior=lambda params, context=None: diagonal_normal(jnp.zeros((3, 2)), 1.0))
    with pytest.raises(ValueError, match=r"p\(z\) has batch shape \[3\] where 5 draws are wanted"):
        evaluate.simulate(model, params, key, 5)
    model, params = small()
    with pytest.raises(ValueError, match="context must have 5 rows, one for each pair"):
        evaluate.simulate(model, params, key, 5, jnp.ones((4, 1)))
    assert standard_normal(2).event_shape == (2,)
