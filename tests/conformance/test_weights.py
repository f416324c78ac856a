"""Weights count rows: weight 0 is a row that is absent, an integer weight a row that occurs as often.

Every function that takes a `Batch` is driven with the same rows in four forms. Where the numbers are
deterministic they agree; where they are random, a mean agrees within five standard errors.
"""

import functools
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.helpers import slow_unless
from vaejax import Batch, estimators, evaluate, objectives, train
from vaejax.conjugate import linear_vae
from vaejax.dists import likelihoods
from vaejax.estimators import baselines
from vaejax.report.measure import measure


def agree(one, other, *, rtol, atol):
    """Leaves of NamedTuples of arrays and numbers, leaf by leaf."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other)):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)


RNG = np.random.default_rng(0)
X = RNG.integers(0, 2, (6, 4)).astype(np.float32)
WEIGHT = np.array([1, 2, 3, 1, 2, 1])
MASK = np.ones((8, 4), bool)
MASK[7] = False  # a row without any observed entry, as padding has


def batch_with(extra, rows=X):
    """The rows and two more of weight 0 and of any content."""
    return Batch(np.concatenate([rows, extra]).astype(rows.dtype), mask=MASK, weight=np.append(WEIGHT, [0, 0]))


def forms(rows=X):
    """Two batches that differ in rows of weight 0 alone, the batch without these, and the rows repeated."""
    zeros, ones = np.zeros((2, 4)), np.ones((2, 4))
    full = np.ones(rows.shape, bool)
    removed = Batch(rows, mask=full, weight=WEIGHT)
    repeated = Batch(rows.repeat(WEIGHT, 0), mask=full.repeat(WEIGHT, 0))
    return batch_with(zeros, rows), batch_with(ones, rows), removed, repeated


VAE = vaejax.models.vae(x_shape=4, latent_size=2, hidden_sizes=(4,))
SBN = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=2)
KEY = jax.random.key(0)
PARAMS = jax.tree.map(lambda leaf: 1.5 * leaf, VAE.init(KEY, X))
SBN_PARAMS = SBN.init(KEY, X)


def start(likelihood):
    def of(batch):
        params = vaejax.models.vae(x_shape=4, latent_size=1, hidden_sizes=(2,), likelihood=likelihood).init(KEY, batch)
        return params["output_bias"], params["likelihood"]

    return of


def exact_estimate(batch):
    estimator = estimators.enumerate_latents(SBN, objectives.elbo)
    estimate, _ = estimator.estimate(SBN_PARAMS, estimator.init(SBN_PARAMS, KEY, batch), KEY, batch)
    return estimate.grads, {name: estimate.metrics[name] for name in ("objective", "log_likelihood", "kl")}


def free_bits(batch):
    """The KL, and so what free bits make of it, does not depend on the draws."""
    terms = vaejax.log_terms(VAE, PARAMS, KEY, batch)
    alone = terms._replace(log_likelihood=jnp.zeros_like(terms.log_likelihood))
    return objectives.elbo(alone, free_bits=0.4)[0]


def baseline_state(baseline):
    def of(batch):
        x = jnp.where(batch.mask, batch.x, 0)
        signals = jnp.stack([x.sum(1), 3 * x[:, 0]])
        state = baseline.init(KEY, x)
        weight = None if batch.weight is None else jnp.asarray(batch.weight)
        for _ in range(2):
            state = baseline.update(state, x, signals, weight=weight)
        return state

    return of


def exact_mean(batch):
    return evaluate.mean_estimate(evaluate.exact_log_marginal(SBN, SBN_PARAMS, batch), weight=batch.weight)[:2]


def kl(batch):
    found = evaluate.kl_per_dimension(VAE, PARAMS, batch)
    return found.mean, found.standard_error, found.total, evaluate.collapse(found, epsilon=0.5)


def samples(function):
    def of(batch):
        bare = Batch(jnp.where(batch.mask, batch.x, 0), weight=batch.weight)
        return function(bare, X[:5] * 0.5 + 0.1)[:2]

    return of


def mmd_numbers(a, b):
    found = evaluate.mmd(a, b, key=KEY, num_permutations=20)
    return (found.value, found.standard_error, found.bandwidth), found.num_permutations


DETERMINISTIC = {
    "start of bernoulli": start("bernoulli"),
    "start of normal": start("normal"),
    "start of σ(z)": start(likelihoods.normal("per_example")),
    "start of poisson": start("poisson"),
    "start of binomial": start(likelihoods.binomial(3)),
    "start of categorical": start(likelihoods.categorical(2)),
    "start of a belief network": lambda batch: SBN.init(KEY, batch),
    "start of a linear VAE": lambda batch: linear_vae.as_model(2).init(KEY, batch),
    "loss and metrics": exact_estimate,
    "free bits": free_bits,
    "moving average": baseline_state(baselines.moving_average()),
    "network": baseline_state(baselines.network((3,))),
    "normalized": baseline_state(baselines.normalized(baselines.added(baselines.moving_average()))),
    "exact_log_marginal": exact_mean,
    "kl_per_dimension, collapse": kl,
    "active_units": lambda batch: evaluate.active_units(VAE, PARAMS, batch),
    "frechet_distance": samples(lambda a, b: evaluate.frechet_distance(a, b)[:1]),
    "mmd": samples(mmd_numbers),
}


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_numbers_agree(name):
    function = DETERMINISTIC[name]
    first, second, removed, repeated = (function(batch) for batch in forms())
    agree(first, second, rtol=0, atol=0)
    agree(first, removed, rtol=1e-5, atol=1e-6)
    agree(first, repeated, rtol=1e-5, atol=1e-6)


def report_lines(batch):
    found = evaluate.evidence_report(
        VAE, PARAMS, KEY, batch, num_samples=200, num_draws=50, num_temperatures=4, num_chains=4, num_simulated=3,
        progress=False,
    )  # fmt: skip
    return [line.value for line in found.lines[:4]]


def gap_means(batch):
    gap = evaluate.inference_gap(VAE, PARAMS, KEY, batch, num_steps=60, num_samples=300, progress=False)
    return [gap.mean(name) for name in ("log_marginal", "amortised")]


def aggregate_means(batch):
    return evaluate.aggregate(VAE, PARAMS, KEY, batch, num_samples=200)[:4]


def measured(batch):
    found = measure(VAE, PARAMS, KEY, batch, samples=200, progress=False)
    return found.elbo, found.log_likelihood


def log_marginal(batch):
    return evaluate.log_marginal(VAE, PARAMS, KEY, batch, num_samples=200)


def usage(batch):
    return evaluate.latent_usage(VAE, PARAMS, KEY, batch, num_samples=100).mean


RANDOM = {
    "log_marginal": lambda batch: [evaluate.mean_estimate(log_marginal(batch))],
    "elbo": lambda batch: [evaluate.mean_estimate(evaluate.elbo(VAE, PARAMS, KEY, batch, num_samples=100))],
    "bounds": lambda batch: list(
        map(evaluate.mean_estimate, evaluate.bounds(VAE, PARAMS, KEY, batch, num_samples=200, num_draws=20))
    ),
    "ais": lambda batch: [
        evaluate.mean_estimate(evaluate.ais(VAE, PARAMS, KEY, batch, num_temperatures=4, num_chains=8, progress=False))
    ],
    "paired": lambda batch: [
        evaluate.paired(log_marginal(batch), evaluate.elbo(VAE, PARAMS, KEY, batch, num_samples=100))
    ],
    "inference_gap": gap_means,
    "evidence_report": report_lines,
    "aggregate": aggregate_means,
    "latent_usage": lambda batch: [usage(batch)],
    "measure": measured,
}


# Compiled in several seconds each.
LONG = ("evidence_report", "ais", "inference_gap", "bounds", "measure")


@pytest.mark.parametrize("name", slow_unless(lambda name: name not in LONG, RANDOM))
@pytest.mark.filterwarnings("ignore::vaejax.evaluate.UntrustworthyEstimate")
def test_random_means_agree(name):
    """The padding stands last, so that the other rows have the same noise without it."""
    first, second, removed, repeated = (RANDOM[name](batch) for batch in forms())
    agree(first, second, rtol=0, atol=0)
    # Searches of examples side by side share their noise, and exchanges are between all examples.
    if name not in ("latent_usage", "inference_gap"):
        for one, other in zip(first, removed):
            np.testing.assert_allclose(one[:2], other[:2], rtol=1e-4, atol=1e-5)
    for one, other in zip(first, repeated):
        error = np.hypot(one.monte_carlo_error, other.monte_carlo_error)
        assert one.num_examples == other.num_examples == WEIGHT.sum()
        assert error < 0.3
        assert abs(one.mean - other.mean) < 5 * error + 1e-6
        # Between examples: the same but for the noise of the estimates.
        assert one.standard_error == pytest.approx(other.standard_error, abs=5 * error)


GRADIENTS = {
    "pathwise": estimators.pathwise(VAE, functools.partial(objectives.elbo, free_bits=0.3)),
    "pathwise in chunks": estimators.pathwise(VAE, objectives.iwae, num_samples=4, chunk_size=2),
    "doubly_reparameterized": estimators.doubly_reparameterized(VAE, objectives.iwae, num_samples=2),
    "nvil": estimators.nvil(SBN, objectives.elbo, baseline=baselines.network((3,))),
    "vimco": estimators.vimco(SBN, objectives.iwae, num_samples=3),
    "rebar": estimators.rebar(SBN, objectives.elbo),
    "relax": estimators.relax(SBN, objectives.elbo, critic=(3,)),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_rows_of_weight_zero_change_no_gradient(name):
    """Neither the gradient nor what an estimator learns; and a common factor of the weights changes no gradient."""
    estimator = GRADIENTS[name]
    params = PARAMS if estimator.trainable is None else SBN_PARAMS
    first, second, *_ = (jax.tree.map(jnp.asarray, batch) for batch in forms())
    state = estimator.init(params, KEY, first)
    run = jax.jit(lambda batch: estimator.estimate(params, state, KEY, batch))
    one, other, doubled = run(first), run(second), run(first._replace(weight=2 * first.weight))
    agree((one[0].grads, one[1]), (other[0].grads, other[1]), rtol=0, atol=0)
    agree(doubled[0].grads, one[0].grads, rtol=1e-5, atol=1e-6)
    assert float(one[0].metrics["weight"]) == WEIGHT.sum()


@pytest.mark.slow
def test_the_gradient_of_weights_is_that_of_repeated_rows():
    """The mean over 400 keys, whose noise differs in shape."""
    estimator = GRADIENTS["pathwise"]
    first, *_, repeated = (jax.tree.map(jnp.asarray, batch) for batch in forms())

    def gradients(batch, key):
        keys = jax.random.split(key, 400)
        grads = jax.vmap(lambda k: estimator.estimate(PARAMS, (), k, batch)[0].grads["decoder"])(keys)
        flat = np.concatenate([np.asarray(leaf).reshape(400, -1) for leaf in jax.tree.leaves(grads)], 1)
        return flat.mean(0), flat.std(0, ddof=1) / 20

    (a, a_error), (b, b_error) = gradients(first, KEY), gradients(repeated, jax.random.key(1))
    error = np.hypot(a_error, b_error)
    assert np.linalg.norm(error) < 0.1 * np.linalg.norm(a)
    assert (np.abs(a - b) < 5 * error + 1e-6).all()


def test_history_means_are_those_over_rows():
    """Minibatches of unequal total weight, parameters that stay, exact objectives: the epoch's mean is Σ w f / Σ w."""
    estimator = estimators.enumerate_latents(SBN, objectives.elbo)
    data = Batch(X, weight=np.array([0.0, 0.0, 5.0, 1.0, 0.5, 2.0], np.float32))
    result = train.fit(
        KEY, SBN, data, estimator=estimator, optimizer=optax.sgd(0.0), num_epochs=2, batch_size=2, validation=data
    )
    estimate, _ = estimator.estimate(result.state.params, (), KEY, Batch(X))
    wanted = np.average(estimate.objective, weights=data.weight)
    np.testing.assert_allclose(result.history["objective"], wanted, rtol=1e-5)
    assert "weight" not in result.history


@pytest.mark.slow
def test_validation_rows_of_weight_zero_choose_nothing():
    """The same validation ELBO, best epoch and best parameters whatever stands in the rows of weight 0."""
    estimator = estimators.pathwise(VAE, objectives.elbo)
    options = {"estimator": estimator, "optimizer": optax.adam(0.05), "num_epochs": 3, "batch_size": 3}
    first, second, removed, _ = (train.fit(KEY, VAE, X, validation=batch, **options) for batch in forms())
    for name in ("validation_elbo", "validation_standard_error"):
        np.testing.assert_array_equal(first.history[name], second.history[name])
        np.testing.assert_allclose(first.history[name], removed.history[name], rtol=1e-5)
    assert first.best_epoch == second.best_epoch == removed.best_epoch
    agree(first.best_params, second.best_params, rtol=0, atol=0)


def test_classifier_test_with_weights():
    rng = np.random.default_rng(1)
    a, b, zeros = rng.normal(size=(40, 2)), rng.normal(size=(40, 2)) + 1.0, np.zeros(10)
    padded = Batch(np.concatenate([a, rng.normal(size=(10, 2))]), weight=np.append(np.ones(40), zeros))
    assert evaluate.classifier_two_sample_test(padded, b, KEY) == evaluate.classifier_two_sample_test(a, b, KEY)
    weight = rng.integers(1, 4, 40)
    one = evaluate.classifier_two_sample_test(Batch(a, weight=weight), b, KEY)
    other = evaluate.classifier_two_sample_test(a.repeat(weight, 0), b, KEY)
    assert one.num_examples == other.num_examples
    assert abs(one.accuracy - other.accuracy) < 5 * np.hypot(one.standard_error, other.standard_error)


def test_fractional_weights_are_those_of_a_finer_grid():
    """Weights that are multiples of 1/2 give the value of rows repeated twice as often."""
    rng = np.random.default_rng(2)
    values, weight = rng.normal(size=8), rng.integers(1, 5, 8)
    half, whole = evaluate.mean_estimate(values, weight=weight / 2), evaluate.mean_estimate(values.repeat(weight))
    assert half.mean == pytest.approx(whole.mean)
    assert half.num_examples == weight.sum() / 2
    n = weight.sum()
    ratio = np.sqrt(n * (n - 1) / (n / 2 * (n / 2 - 1))) * np.sqrt(n / 2 / n)
    assert half.standard_error == pytest.approx(whole.standard_error * ratio)


def test_weights_of_other_examples_are_refused():
    values = np.zeros(3)
    for weight, wanted in ((np.ones(2), "one number an example"), (np.zeros(3), "above 0"), (-np.ones(3), "negative")):
        with pytest.raises(ValueError, match=wanted):
            evaluate.mean_estimate(values, weight=weight)
    found = evaluate.LogMarginal(values, values, values, None, np.ones(3))
    with pytest.raises(ValueError, match="same weights"):
        evaluate.paired(found, found._replace(weight=np.array([1, 2, 1])))


def test_a_block_of_absent_rows_alone():
    """The first thousand examples, which are a block of an evaluation, are absent."""
    x = np.repeat(np.array([[np.nan], [1.0]], np.float32), 1000, 0) * np.ones(4, np.float32)
    batch = Batch(x, weight=np.repeat([0, 2], 1000))

    def contents(key, block):
        return {"x": block.x, "weight": block.weight}

    blocks = evaluate.in_blocks(contents, KEY, batch, block_size=500)
    assert list(blocks) == ["x"]
    assert (blocks["x"] == 1).all()
    options = {"num_samples": 8, "num_draws": 4, "progress": False}
    report = evaluate.evidence_report(SBN, SBN_PARAMS, KEY, batch, **options)
    assert [line.value.num_examples for line in report.lines] == [2000] * 4
    # Four latent configurations: eight draws sum up nearly all of them.
    assert report.lines[2].value.mean == pytest.approx(report.lines[3].value.mean, abs=0.1)


@pytest.mark.slow
def test_the_permutation_test_holds_a_bounded_number_of_units(monkeypatch):
    """The result does not depend on how many permutations of the 12,000 units are held at once."""
    a, weight = RNG.normal(size=(60, 2)), np.full(60, 100.0)
    sets = Batch(a, weight=weight), Batch(a[::-1] + 0.05, weight=weight)
    at_once = evaluate.mmd(*sets, bandwidth=1.0, key=KEY, num_permutations=40)
    monkeypatch.setattr("vaejax.evaluate.samples.mmd._ENTRIES", 2**16)
    tracemalloc.start()
    in_blocks = evaluate.mmd(*sets, bandwidth=1.0, key=KEY, num_permutations=40)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # All permutations at once are 3.9 MB of numbers, and are copied.
    assert peak < 3e6
    np.testing.assert_allclose(in_blocks, at_once, rtol=1e-9)


def test_mmd_of_weights_with_a_large_sum():
    """Without a permutation test, memory does not depend on the weights."""
    a, b = RNG.normal(size=(6, 2)), RNG.normal(size=(5, 2)) + 0.5
    w, v = np.full(6, 1e9), np.arange(1.0, 6.0) * 1e9
    value = evaluate.mmd(Batch(a, weight=w), Batch(b, weight=v), bandwidth=1.0).value

    def kernel(x, y):
        return np.exp(-((x[:, None] - y) ** 2).sum(-1) / 2)

    def within(x, u):
        return (u @ kernel(x, x) @ u - u.sum()) / (u.sum() ** 2 - u.sum())

    exact = within(a, w) + within(b, v) - 2 * w @ kernel(a, b) @ v / (w.sum() * v.sum())
    assert value == pytest.approx(exact, abs=1e-9)
    with pytest.raises(ValueError, match=r"at most 10,000,000 for a permutation test, got 2.1e\+10\. Leave out key="):
        evaluate.mmd(Batch(a, weight=w), Batch(b, weight=v), bandwidth=1.0, key=KEY)
