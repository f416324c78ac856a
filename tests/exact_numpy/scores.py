"""Bounds from several chunks, scores of codes, summaries and reports, whose values are exact."""

import contextlib
import warnings
from types import SimpleNamespace
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize, special, stats

import vaejax
from tests.exact_numpy import diagnostics, estimators
from tests.exact_numpy.diagnostics import KEY, changed_encoder, linear, pareto_fit
from tests.exact_numpy.divergences import normals
from tests.exact_numpy.estimators import NOISE, double_tree, fixed_noise
from tests.exact_numpy.numerics import log_mean
from tests.exact_numpy.table import double, row, single
from vaejax import evaluate
from vaejax.evaluate.disentanglement import accuracy


@row(shapes=((20000, 6, 2), (64, 100, 10)))
def simulate(rng, shape):
    """Latents and data at fixed noise."""
    model, params, x = linear(rng, shape)
    z, noise = (single(rng.normal(size=s)) for s in (x.shape, (1, 1, *x.shape)))
    with fixed_noise(normal=z), fixed_noise(normal=noise):
        latents, batch = evaluate.simulate(model, params, KEY, len(x))
    p = double_tree(params)
    yield "latents", latents, double(z)
    yield "data", batch.x, double(z) @ p["weight"] + p["bias"] + NOISE * double(noise)[0, 0]


@contextlib.contextmanager
def noise_of_chunks(noise):
    """Lets chunk i of a stream of draws have the noise ``noise[i]``."""

    def fold_in(key, index):
        return jax.random.wrap_key_data(jnp.stack([jnp.uint32(index), jnp.uint32(0)]))

    def normal(key, shape=(), *rest):
        if tuple(shape) != noise.shape[1:]:
            return jnp.zeros(shape)
        return jnp.asarray(noise)[jax.random.key_data(key)[0]]

    with mock.patch.multiple(vaejax.random, fold_in=fold_in, normal=normal):
        yield


@row(few=(), shapes=((400, 6, 2), (100, 100, 8), (50, 20, 50), (37, 13, 5)))
def bounds(rng, shape):
    """Five groups of draws with different noise."""
    draws, _, size = shape
    model, params, x = linear(rng, shape)
    params, noise = changed_encoder(rng, params), single(rng.normal(size=(5, draws, 1, size)))
    with noise_of_chunks(noise), warnings.catch_warnings():
        warnings.simplefilter("ignore", evaluate.UntrustworthyEstimate)
        options = {"num_samples": 5 * draws, "num_draws": draws}
        value = evaluate.bounds(model, params, KEY, x, **options)
    p, every = double_tree(params), double(noise).reshape(-1, 1, size)
    likelihood, prior, posterior = estimators.normal_terms(p, double(x), every)
    log_w = likelihood + prior - posterior
    groups = log_mean(log_w.reshape(5, draws, -1), 1)
    loc = double(x) @ p["e_weight"] + p["e_bias"]
    fit = likelihood.mean(0) - estimators.log_likelihood(p, loc, double(x))
    spread = 0.5 * (np.exp(2 * p["e_scale"])[:, None] * p["weight"] ** 2).sum() / NOISE**2
    yield "elbo", value.elbo.estimate, estimators.exact_elbo(p, double(x)) + fit + spread
    error = likelihood.std(0, ddof=1) / np.sqrt(5 * draws)
    yield "elbo: its error", value.elbo.standard_error, error
    yield "iwae", value.iwae.estimate, groups.mean(0)
    yield "iwae: its error", value.iwae.standard_error, groups.std(0, ddof=1) / np.sqrt(5)
    for name, *pair in diagnostics.weight_parts(value.importance, log_w):
        yield f"importance: {name}", *pair
    tail = np.ceil(min(draws, 3 * np.sqrt(5 * draws))).astype(int) + 1
    yield "k", value.importance.pareto_k, pareto_fit(np.sort(log_w, 0)[::-1][:tail])


@row(few=(), shapes=((512, 5, 3), (640, 4, 2)))
def disentanglement(rng, shape):
    """Scores of a perfect code, of one without information, and of DCI at its importances."""
    rows, size, count = shape
    grid = np.indices((4,) * count).reshape(count, -1).T
    labels, place = np.resize(grid, (rows, count)), rng.permutation(size)[:count]
    perfect, none = np.full((2, rows, size), 0.3)
    perfect[:, place], none[:, 1] = 0.5 - 3 * labels, rng.normal(size=rows)
    exact = np.eye(size)[:, place]
    matrices = {"factor_vae_score": exact, "beta_vae_score": np.eye(count)}
    for name, matrix in matrices.items():
        value = getattr(evaluate, name)(perfect, labels, KEY, num_votes=60)
        yield name, value.value, 1.0
        yield f"{name}: matrix", value.matrix, matrix
    value = evaluate.factor_vae_score(none, labels, KEY, num_votes=60)
    yield "factor_vae_score: one dimension", value.value, 1 / count
    value = evaluate.dci(perfect, labels, KEY, num_trees=5)
    yield "dci: importance", value.importance, exact
    yield "dci: informativeness", value.informativeness.value, 1.0
    noisy = perfect + rng.normal(size=perfect.shape)
    value = evaluate.dci(noisy, labels, KEY, num_trees=5)
    share = value.importance
    yield "dci: sums", share.sum(0), np.ones(count)
    parts = 1 - stats.entropy(share, base=count, axis=1)
    yield "disentanglement: parts", value.disentanglement.parts, parts
    yield "disentanglement", value.disentanglement.value, parts @ share.sum(1) / count
    parts = 1 - stats.entropy(share, base=size)
    yield "completeness: parts", value.completeness.parts, parts
    yield "completeness", value.completeness.value, parts.mean()


def logistic(x, y, new):
    """Classes of new numbers by logistic regression of one standardized feature."""
    scaled, count = (x - x.mean()) / x.std(), y.max() + 1

    def loss(parameters):
        slopes, biases = parameters.reshape(2, -1)
        logits = scaled[:, None] * slopes + biases
        fit = (special.logsumexp(logits, 1) - logits[np.arange(len(y)), y]).sum()
        return 100 * fit + 0.5 * (slopes**2).sum()

    solution = optimize.minimize(loss, np.zeros(2 * count), options={"gtol": 1e-6})
    slopes, biases = solution.x.reshape(2, -1)
    return ((new - x.mean())[:, None] / x.std() * slopes + biases).argmax(1)


@row(few=(), shapes=((120, 4, 2), (93, 1, 2)))
def sap(rng, shape):
    """Three classes, split as the first axis of a fixed permutation says."""
    rows, size, count = shape
    labels, order = rng.integers(0, 3, size=(rows, count)), rng.permutation(rows)
    codes = labels @ rng.normal(size=(count, size)) + rng.normal(size=(rows, size))
    split = SimpleNamespace(permutation=lambda count: order)
    with mock.patch.object(accuracy, "generator", return_value=split):
        value = evaluate.sap(codes, labels, KEY)
    test, train = np.split(order, [round(0.25 * rows)])
    right = np.array([
        [logistic(z[train], v[train], z[test]) == v[test] for v in labels.T] for z in codes.T
    ])  # fmt: skip
    yield "matrix", value.matrix, right.mean(2)
    if size == 1:
        commonest = [np.bincount(v[train]).argmax() == v[test] for v in labels.T]
        right = np.concatenate([right, [commonest]])
    first, second = (np.argsort(-right.mean(2), 0, kind="stable")[i] for i in (0, 1))
    gaps = right[first, range(count)] * 1.0 - right[second, range(count)]
    yield "value", value.value, gaps.mean()
    error = gaps.mean(0).std(ddof=1) / np.sqrt(len(test))
    yield "standard error", value.standard_error, error


@row(shapes=((3, 101, 4), (5, 37, 9)))
def summaries(rng, shape):
    """Means with integer weights equal those of repeated rows."""
    _, rows, size = shape
    values, errors = rng.normal(size=(2, rows)), rng.random(rows)
    weight = rng.integers(0, 4, rows)
    difference = np.repeat(values[0] - values[1], weight)
    mean = evaluate.mean_estimate(values[0], errors, weight=weight)
    yield "mean_estimate", mean.mean, np.repeat(values[0], weight).mean()
    yield "its error", mean.standard_error, stats.sem(np.repeat(values[0], weight))
    noise = np.sqrt((weight**2 * errors**2).sum()) / weight.sum()
    yield "its Monte Carlo error", mean.monte_carlo_error, noise
    pair = evaluate.paired(*values, weight=weight)
    yield "paired", pair.mean, difference.mean()
    yield "paired: its error", pair.standard_error, stats.sem(difference)
    kl = rng.exponential(size=(rows, size)) * np.logspace(-4, 1, size)
    value, below = evaluate.collapse(kl, weight=weight), np.repeat(kl, weight, 0) < 0.01
    yield "collapse: share", value.share, below.mean(0)
    yield "collapse: its error", value.standard_error, below.std(0) / np.sqrt(weight.sum())
    yield "collapse", value.collapsed, below.mean(0) >= 0.99
    sigmoid = special.expit(4 * np.linspace(-1, 1, rows + 1))
    sigmoid = (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])
    yield "sigmoid_schedule", evaluate.sigmoid_schedule(rows), sigmoid
    x = single(rng.normal(size=(rows, size)))
    options = {"block_size": 10, "progress": False}
    sums = evaluate.in_blocks(lambda key, block: {"sum": block.x.sum(1)}, KEY, x, **options)
    yield "in_blocks", sums["sum"], double(x).sum(1)


@row(few=(), shapes=((50, 12, 3),))
def reports(rng, shape):
    """Of the exact posterior: matched noise gives the ELBO its exact value."""
    samples, rows, size = shape
    model, params, x = linear(rng, shape)
    options = {"num_samples": 2 * samples, "num_draws": samples, "num_temperatures": 3}
    options |= {"num_chains": 2, "num_leapfrog": 2, "start": "posterior", "progress": False}
    with fixed_noise(normal=diagnostics.matched_noise(rng, samples, size)):
        value = evaluate.evidence_report(model, params, KEY, x, **options)
    evidence = diagnostics.log_evidence(params, x)
    for name in ("elbo", "iwae", "importance", "ais"):
        yield name, value.columns[name], evidence
    yield "gap", value.columns["gap"], np.zeros(rows)
    means = [line.value.mean for line in value.lines]
    yield "lines", means, [*[evidence.mean()] * 4, 0.0]
    p, value = double_tree(params), evaluate.latent_report(model, params, KEY, x)
    loc = double(x) @ p["e_weight"] + p["e_bias"]
    kl = normals(loc, np.exp(p["e_scale"]), 0.0, 1.0)
    yield "kl", value.kl.values, kl
    yield "active units", value.active.variance, loc.var(0, ddof=1)
    yield "collapse", value.collapse.share, (kl < 0.01).mean(0)
    labels = np.resize(np.indices((4, 4, 4)).reshape(3, -1).T, (512, 3))
    value = evaluate.disentanglement_report(1.0 * labels, labels, KEY, num_votes=60, num_trees=5)
    names = [name for name in evaluate.SCORE_MEANINGS if name != "sap"]
    yield "scores", [getattr(value, name).value for name in names], np.ones(len(names))
    chance = {"informativeness": 1 / 4, "beta_vae": 1 / 3, "factor_vae": 1 / 3}
    exact = [chance.get(name, 0.0) for name in names]
    yield "chance", [value.chance[name] for name in names], exact
