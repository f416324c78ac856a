"""The inference gap where both its parts are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.helpers import linear_gaussian
from tests.test_evaluate import discrete_model
from vaejax import evaluate
from vaejax.dists import Chain, diagonal_normal
from vaejax.evaluate.evidence import families

SIZE, LATENTS = 8, 3
EXACT = linear_gaussian(size=SIZE, latents=LATENTS, noise=1.0)


def poor_model():
    """An encoder that gives every example the same, too wide q."""

    def posterior(params, x):
        shape = (*x.shape[:-1], LATENTS)
        return diagonal_normal(jnp.zeros(shape), jnp.full(shape, 0.7))

    return EXACT.model(exact=True)._replace(posterior=posterior)


MODEL = poor_model()
X = evaluate.simulate(MODEL, {}, jax.random.key(1), 6)[1].x
SHORT = {"num_steps": 5, "num_samples": 20, "num_draws": 2}


def best_mean_field():
    """The diagonal q nearest to N(μ, Λ⁻¹) has its mean, and scales Λ_dd^(−1/2)."""
    precision = jnp.linalg.inv(EXACT.posterior_tril @ EXACT.posterior_tril.T)
    scale = jnp.broadcast_to(1 / jnp.sqrt(jnp.diag(precision)), (len(X), LATENTS))
    return EXACT.exact_elbo(X, EXACT.posterior_mean(X), scale)


def assert_near(found, wanted, error, cap):
    assert float(jnp.max(error)) < cap
    np.testing.assert_array_less(np.abs(found - wanted), 5 * np.asarray(error) + 2e-3)


@pytest.mark.slow
def test_both_parts_of_the_gap_agree_with_the_closed_form(key):
    gap = evaluate.inference_gap(MODEL, {}, key, X, num_steps=600)
    truth, best = EXACT.log_evidence(X), best_mean_field()
    own = EXACT.exact_elbo(X, jnp.zeros((len(X), LATENTS)), jnp.full((len(X), LATENTS), 0.7))
    error = gap.standard_error
    assert_near(gap.amortised, own, error["amortised"], cap=0.3)
    assert_near(gap.optimised, best, error["optimised"], cap=0.05)
    assert_near(gap.log_marginal, truth, error["log_marginal"], cap=0.1)
    assert_near(gap.approximation, truth - best, error["approximation"], cap=0.1)
    assert_near(gap.amortisation, best - own, error["amortisation"], cap=0.3)
    assert float((truth - best).min()) > 0.1
    np.testing.assert_allclose(
        gap.approximation + gap.amortisation, gap.log_marginal - gap.amortised, rtol=1e-4, atol=1e-4
    )
    # The search has ended.
    assert abs(gap.trace[-1] - gap.trace[-2]) < 0.02
    assert gap.steps[-1] == 600
    assert "amortisation" in str(gap)


def test_the_family_that_holds_the_posterior_leaves_no_approximation_gap(key):
    truth = EXACT.log_evidence(X)
    exact = vaejax.evaluate.Annealed(truth, jnp.zeros(len(X)), *([jnp.zeros(len(X))] * 3))
    gap = evaluate.inference_gap(MODEL, {}, key, X, family="full_covariance", evidence=exact, num_steps=600)
    np.testing.assert_array_equal(gap.log_marginal, truth)
    assert gap.source == "given"
    assert bool((gap.pareto_k < 0.7).all())
    assert_near(gap.approximation, 0.0, gap.standard_error["approximation"], cap=0.05)
    # Evidence that is too low gives way to the better bound, and the note says so.
    low = evaluate.inference_gap(
        MODEL, {}, key, X, family="full_covariance", evidence=exact._replace(estimate=truth - 1), num_steps=600
    )
    assert low.source == "importance sampling from q*"
    np.testing.assert_allclose(low.log_marginal, truth, atol=0.05)
    assert "log p(x) is importance sampling from q*" in str(low)


def test_searching_again_compiles_nothing(key):
    from vaejax.evaluate.evidence import inference_gap as module

    evaluate.inference_gap(MODEL, {}, key, X, **SHORT)
    before = module._optimise._cache_size(), module.compiled._cache_size()
    evaluate.inference_gap(MODEL, {}, jax.random.key(7), X + 1.0, **SHORT)
    assert before == (module._optimise._cache_size(), module.compiled._cache_size())


@pytest.mark.slow
def test_contexts_and_masks_stay_with_their_examples(key):
    """Missing entries drop out of every bound; labels reach the decoder."""
    model = vaejax.models.vae(x_shape=4, latent_size=2, hidden_sizes=(4,), context_size=3, encode_mask=True)
    x = jnp.array([[0.0, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 1]])
    mask = jnp.ones(x.shape, bool).at[:, 0].set(False)
    batch = vaejax.Batch(x, context=jnp.array([0, 1, 2]), mask=mask)
    params = model.init(key, batch)
    gap = evaluate.inference_gap(model, params, key, batch, **SHORT)
    changed = batch._replace(x=x.at[:, 0].set(1 - x[:, 0]))
    np.testing.assert_array_equal(gap.optimised, evaluate.inference_gap(model, params, key, changed, **SHORT).optimised)
    seen = evaluate.inference_gap(model, params, key, batch._replace(mask=None), **SHORT)
    assert float(jnp.mean(gap.optimised - seen.optimised)) > 0.3
    # The numbers that q is built from travel as a part of the context; what functions declare beside it stays.
    own = families.at_own(model, families.mean_field())
    assert vaejax.types.declares(own.likelihood, "context")
    assert vaejax.types.declares(own.likelihood, "mask") == vaejax.types.declares(model.likelihood, "mask")
    assert vaejax.types.declares(own.likelihood, "key") == vaejax.types.declares(model.likelihood, "key")


@pytest.mark.slow
def test_a_family_of_ones_own(key):
    """A chain of two layers, whose numbers are a tuple."""
    model = EXACT.model(exact=True)._replace(
        posterior=lambda params, x: Chain((lambda _: diagonal_normal(x[..., :2], jnp.ones(2)),)),
        prior=lambda params: Chain((lambda _: vaejax.dists.standard_normal(2),)),
        likelihood=lambda params, z: diagonal_normal(z[0] @ EXACT.weight[:, :2].T + EXACT.bias, 1.0),
    )
    family = evaluate.Family(
        begin=lambda q: (jnp.zeros((*q.conditionals[0](()).batch_shape, 2)),),
        build=lambda own: Chain((lambda _: diagonal_normal(own[0], 0.4 * jnp.ones(2)),)),
    )
    gap = evaluate.inference_gap(model, {}, key, X, family=family, num_steps=300, num_samples=200)
    assert float(gap.amortisation.min()) > 0
    with pytest.raises(ValueError, match="latents in one array"):
        evaluate.inference_gap(model, {}, key, X, **SHORT)


def test_what_is_done_is_kept(tmp_path, key):
    options = {**SHORT, "directory": tmp_path / "gap", "block_size": 2}
    first = evaluate.inference_gap(MODEL, {}, key, X, **options)
    files = sorted((tmp_path / "gap").glob("block-*.npz"))
    assert len(files) == 3
    with np.load(files[1]) as kept:
        changed = dict(kept)
    np.savez(files[1], **{**changed, "optimised": changed["optimised"] - 7})
    again = evaluate.inference_gap(MODEL, {}, key, X, **options)
    np.testing.assert_array_equal(again.optimised, first.optimised - 7 * jnp.array([0, 0, 1, 1, 0, 0]))
    # A family of one's own is known again by what it computes.
    for scale in (0.4, 0.5):
        family = evaluate.Family(lambda q: q.mean(), lambda loc, s=scale: diagonal_normal(loc, s * jnp.ones(LATENTS)))
        if scale == 0.4:
            evaluate.inference_gap(MODEL, {}, key, X, **{**options, "directory": tmp_path / "own"}, family=family)
    with pytest.raises(ValueError, match="another evaluation"):
        evaluate.inference_gap(MODEL, {}, key, X, **{**options, "directory": tmp_path / "own"}, family=family)
    with pytest.raises(ValueError, match="another evaluation"):
        evaluate.inference_gap(MODEL, {}, key, X, **{**options, "num_draws": 3})


def test_refusals(key):
    with pytest.raises(ValueError, match="did you mean 'mean_field'"):
        evaluate.inference_gap(MODEL, {}, key, X, family="meanfield", **SHORT)
    with pytest.raises(TypeError, match="for continuous latents only"):
        evaluate.inference_gap(discrete_model()[2], {}, key, jnp.ones((2, 5)), **SHORT)
    evidence = evaluate.Iwae(jnp.zeros(2), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"same 6 examples, got shape \[2\]"):
        evaluate.inference_gap(MODEL, {}, key, X, evidence=evidence, **SHORT)
    with pytest.raises(TypeError, match=r"give arrays as vaejax\.evaluate\.Evidence"):
        evaluate.inference_gap(MODEL, {}, key, X, evidence=np.zeros(6), **SHORT)
    with pytest.raises(ValueError, match="0 batch axes"):
        evaluate.inference_gap(MODEL, {}, key, X[0], **SHORT)
    with pytest.raises(ValueError, match="num_steps"):
        evaluate.inference_gap(MODEL, {}, key, X, num_steps=0)
