"""Streaming moments, summaries, and evidence on a model small enough to enumerate."""

import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from vaejax import evaluate, numerics
from vaejax.dists import Bernoulli, diagonal_normal, standard_normal


def test_merged_moments_equal_the_moments_of_all():
    log_weights = jnp.asarray(np.random.default_rng(0).normal(size=(100, 3)) * 30, jnp.float32)
    whole = numerics.weight_moments(log_weights)
    merged = numerics.weight_moments(log_weights[:7])
    for start, stop in ((7, 8), (8, 60), (60, 100)):
        merged = numerics.merge_moments(merged, numerics.weight_moments(log_weights[start:stop]))
    for f in (numerics.log_mean_weight, numerics.log_mean_standard_error, numerics.effective_sample_size):
        np.testing.assert_allclose(f(merged), f(whole), rtol=1e-5)


def test_moments_against_their_definitions(x64):
    log_weights = np.random.default_rng(0).normal(size=(50,)) * 2 - 1000
    moments, weights = numerics.weight_moments(jnp.asarray(log_weights)), np.exp(log_weights + 1000)
    np.testing.assert_allclose(numerics.log_mean_weight(moments), np.log(weights.mean()) - 1000, rtol=1e-12)
    np.testing.assert_allclose(
        numerics.log_mean_standard_error(moments), weights.std(ddof=1) / weights.mean() / np.sqrt(50), rtol=1e-10
    )
    np.testing.assert_allclose(
        numerics.effective_sample_size(moments), weights.sum() ** 2 / (weights**2).sum(), rtol=1e-10
    )


@pytest.mark.parametrize("shift", [-1e4, 0.0, 1e4])
def test_moments_are_stable_in_float32(shift):
    log_weights = jnp.array([shift + 900.0, shift - 900.0, shift + 900.0])
    moments = numerics.merge_moments(numerics.weight_moments(log_weights[:1]), numerics.weight_moments(log_weights[1:]))
    np.testing.assert_allclose(numerics.log_mean_weight(moments), shift + 900 + np.log(2 / 3), rtol=1e-6)
    np.testing.assert_allclose(numerics.effective_sample_size(moments), 2.0, rtol=1e-5)


def test_zero_weights_count():
    log_weights = jnp.array([-jnp.inf, -jnp.inf, 0.0, 0.0])
    for split in (1, 2, 3):
        moments = numerics.merge_moments(
            numerics.weight_moments(log_weights[:split]), numerics.weight_moments(log_weights[split:])
        )
        np.testing.assert_allclose(numerics.log_mean_weight(moments), np.log(0.5), rtol=1e-6)
    assert numerics.log_mean_weight(numerics.weight_moments(log_weights[:2])) == -np.inf


def discrete_model():
    """Three binary latents, so that p(x) is a sum over eight states."""
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)), jnp.float32)
    prior_logits = jnp.array([0.3, -0.5, 0.1])
    return (
        weight,
        prior_logits,
        vaejax.Model(
            init=lambda key, batch: {},
            posterior=lambda params, x: Bernoulli(0.5 * x @ weight.T),
            prior=lambda params: Bernoulli(prior_logits),
            likelihood=lambda params, z: Bernoulli(z @ weight),
        ),
    )


def test_log_marginal_against_enumeration(key):
    weight, prior_logits, model = discrete_model()
    x = jnp.asarray(np.random.default_rng(1).integers(0, 2, (6, 5)), jnp.float32)
    states = jnp.array(list(itertools.product([0.0, 1.0], repeat=3)))
    exact = jax.nn.logsumexp(
        Bernoulli(states @ weight).log_prob(x[:, None]) + Bernoulli(prior_logits).log_prob(states), axis=1
    )
    result = evaluate.log_marginal(model, {}, key, x, num_samples=20_000)
    assert bool((jnp.abs(result.estimate - exact) < 5 * result.standard_error).all())
    assert float(result.standard_error.max()) < 0.02
    assert bool((result.effective_sample_size > 1000).all())


def small_model():
    model = vaejax.models.vae(x_shape=(6,), latent_size=2, hidden_sizes=(8,))
    return model, model.init(jax.random.key(1), None)


@pytest.mark.parametrize(("memory", "wanted"), [(None, 2**26), (80e9, 2**26), (2**32, 2**24), (100, 1)])
def test_chunks_on_accelerators_fit_their_memory(monkeypatch, memory, wanted):
    """A quarter of it at the most, with sixteen floats of the networks for each entry."""
    from vaejax.evaluate import stream

    class Device:
        def memory_stats(self):
            return None if memory is None else {"bytes_limit": int(memory)}

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert stream.budget() == wanted


def test_an_example_does_not_depend_on_its_company(key, binary_batch):
    """Chunks of samples aside, the number for an example is the same in any block of examples."""
    model, params = small_model()
    keys = jax.random.split(key, 12)
    together = evaluate.log_marginal(model, params, key, binary_batch, num_samples=20)
    from vaejax.evaluate import stream

    budget = stream._BUDGET
    stream._BUDGET = {"cpu": 1}
    try:
        stream.compiled.clear_cache()
        alone = evaluate.log_marginal(model, params, key, binary_batch, num_samples=20, chunk_size=20)
    finally:
        stream._BUDGET = budget
        stream.compiled.clear_cache()
    assert keys.shape == (12,)
    np.testing.assert_allclose(together.estimate, alone.estimate, rtol=1e-5)


def test_a_progress_bar_changes_no_number(key, monkeypatch, capsys):
    from vaejax.evaluate import stream

    monkeypatch.setattr(stream, "BLOCK", 5)
    model, params = small_model()
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (12, 6)), jnp.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", evaluate.UntrustworthyEstimate)
        plain = evaluate.log_marginal(model, params, key, x, num_samples=30)
        assert "example" not in capsys.readouterr().err
        shown = evaluate.log_marginal(model, params, key, x, num_samples=30, progress=True)
    assert "12/12" in capsys.readouterr().err
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), plain, shown)


def test_memory_does_not_grow_with_the_samples(key):
    """The compiled program's temporaries are the same within 5 % for 500 and 50,000 samples: the buffer of weights is small beside them."""
    from vaejax.evaluate import stream
    from vaejax.evaluate.evidence import importance

    model = vaejax.models.vae(x_shape=784, latent_size=2, hidden_sizes=(8,))
    params, batch = model.init(key, None), vaejax.Batch(jnp.zeros((100, 784)))

    def temporaries(num_samples):
        lowered = stream.compiled.program(importance.WEIGHTS, model, num_samples, None).lower(params, key, batch)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporaries(50_000) <= 1.05 * temporaries(500)


def test_memory_does_not_grow_with_the_examples(key):
    from vaejax.evaluate import stream
    from vaejax.evaluate.evidence import importance

    model = vaejax.models.vae(x_shape=784, latent_size=2, hidden_sizes=(8,))
    params = model.init(key, None)

    def temporaries(examples):
        x = vaejax.Batch(jnp.zeros((examples, 784)))
        return (
            stream.compiled.program(importance.WEIGHTS, model, 1000, None)
            .lower(params, key, x)
            .compile()
            .memory_analysis()
            .temp_size_in_bytes
        )

    # What grows is the answer and a copy of the data, a few kB an example; not the samples, 3 MB an example.
    assert temporaries(2000) - temporaries(1000) < 1000 * 784 * 4 * 3


def test_masked_evidence_is_that_of_the_observed_entries(key):
    """A model with independent entries: dropping entries from x and masking them is the same."""
    model = vaejax.Model(
        init=lambda key, batch: {},
        posterior=lambda params, x: diagonal_normal(jnp.zeros((*x.shape[:-1], 2)), jnp.ones(2)),
        prior=lambda params: standard_normal(2),
        likelihood=lambda params, z: Bernoulli(jnp.repeat(z[..., :1], 6, -1)),
    )
    narrow = model._replace(likelihood=lambda params, z: Bernoulli(jnp.repeat(z[..., :1], 4, -1)))
    x = jnp.ones((3, 6))
    mask = jnp.array([[True] * 4 + [False] * 2] * 3)
    masked = evaluate.log_marginal(model, {}, key, vaejax.Batch(x, mask=mask), num_samples=50, chunk_size=10)
    dropped = evaluate.log_marginal(narrow, {}, key, x[:, :4], num_samples=50, chunk_size=10)
    np.testing.assert_allclose(masked.estimate, dropped.estimate, rtol=1e-5)


def test_a_single_event_without_batch_axes(key):
    model = vaejax.Model(
        init=lambda key, batch: {},
        posterior=lambda params, x: diagonal_normal(0.1 * x, jnp.ones(6)),
        prior=lambda params: standard_normal(6),
        likelihood=lambda params, z: diagonal_normal(z, jnp.asarray(1.0)),
    )
    result = evaluate.log_marginal(model, {}, key, jnp.ones(6), num_samples=2000)
    exact = diagonal_normal(jnp.zeros(6), jnp.full(6, np.sqrt(2.0))).log_prob(jnp.ones(6))
    assert result.estimate.shape == ()
    assert abs(result.estimate - exact) < 5 * result.standard_error < 1.0


@pytest.mark.filterwarnings("ignore::vaejax.evaluate.UntrustworthyEstimate")
def test_compiles_once_and_runs_inside_jit(key, binary_batch):
    model, params = small_model()
    traces = []
    watched = model._replace(posterior=lambda p, x: (traces.append(1), model.posterior(p, x))[1])
    for k in jax.random.split(key, 3):
        evaluate.log_marginal(watched, params, k, binary_batch, num_samples=30)
    first = len(traces)
    evaluate.log_marginal(watched, params, key, binary_batch, num_samples=30)
    assert len(traces) == first
    inside = jax.jit(lambda p, k: evaluate.log_marginal(model, p, k, binary_batch, num_samples=30).estimate)(
        params, key
    )
    np.testing.assert_allclose(
        inside, evaluate.log_marginal(model, params, key, binary_batch, num_samples=30).estimate, rtol=1e-5
    )


def test_the_two_errors_of_a_mean():
    summary = evaluate.mean_estimate(np.array([1.0, 2.0, 3.0, 6.0]), np.array([0.1, 0.2, 0.1, 0.2]))
    assert summary.mean == 3.0
    np.testing.assert_allclose(summary.standard_error, np.std([1, 2, 3, 6], ddof=1) / 2)
    np.testing.assert_allclose(summary.monte_carlo_error, np.sqrt(0.01 + 0.04 + 0.01 + 0.04) / 4)
    assert "between 4 examples; Monte Carlo ±" in str(summary)
    whole = evaluate.LogMarginal(np.array([1.0, 3.0]), np.array([0.1, 0.1]), np.array([5.0, 5.0]))
    assert evaluate.mean_estimate(whole) == evaluate.mean_estimate(whole.estimate, whole.standard_error)
    for shapes in (((3,), (2,)), ((4, 3), (4, 3)), ((0,), (0,))):
        with pytest.raises(ValueError, match="one number an example"):
            evaluate.mean_estimate(*map(np.zeros, shapes))
