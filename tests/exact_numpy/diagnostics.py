"""Annealing, inference gaps, calibration, latent usage, factors, classifiers: exact values."""

import warnings
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats
from sklearn.base import BaseEstimator, ClassifierMixin

import vaejax
from tests.exact_numpy import estimators
from tests.exact_numpy.estimators import NOISE, double_tree, fixed_noise
from tests.exact_numpy.numerics import log_mean
from tests.exact_numpy.table import double, row, single
from vaejax import dists, evaluate

KEY = jax.random.key(0)
CHAINS = ((16, 6, 2), (4, 33, 8), (5, 7, 13))


def linear(rng, shape, orthogonal=True):
    """A model, parameters whose q(z|x) is the posterior if the decoder is orthogonal, and data."""
    _, rows, size = shape
    weight = np.linalg.qr(rng.normal(size=(size, size)))[0]
    weight = weight * rng.uniform(0.3, 1.2, size=(size, 1))
    weight = weight if orthogonal else weight + 0.2 * rng.normal(size=weight.shape)
    weight, bias = double(single(weight)), double(single(rng.normal(size=size)))
    variance = 1 / (1 + (weight**2).sum(1) / NOISE**2)
    encoder = weight.T * variance / NOISE**2
    p = {"bias": bias, "weight": weight, "e_weight": encoder}
    p |= {"e_bias": -bias @ encoder, "e_scale": 0.5 * np.log(variance)}
    x = single(rng.normal(size=(rows, size)) + bias)
    return estimators.normal_model(size), {name: single(leaf) for name, leaf in p.items()}, x


def changed_encoder(rng, params):
    """Parameters with another q(z|x)."""
    scales = {"e_weight": 0.02, "e_bias": 0.2, "e_scale": 0.2}
    return params | {n: single(rng.normal(params[n], scale)) for n, scale in scales.items()}


def log_evidence(params, x):
    p = double_tree(params)
    covariance = p["weight"].T @ p["weight"] + NOISE**2 * np.eye(len(p["bias"]))
    return stats.multivariate_normal.logpdf(double(x), p["bias"], covariance)


def weight_parts(result, log_w):
    """The estimate, its error and the effective sample size of log-weights ``[K, n]``."""
    weight = np.exp(log_w - log_w.max(0))
    yield "estimate", result.estimate, log_mean(log_w)
    error = weight.std(0, ddof=1) / weight.mean(0) / np.sqrt(len(log_w))
    yield "its error", result.standard_error, error
    size = weight.sum(0) ** 2 / (weight**2).sum(0)
    yield "effective sample size", result.effective_sample_size, size


@row(few=(), shapes=CHAINS)
def ais(rng, shape):
    """One temperature is importance sampling. The posterior as the start gives p(x) at any T."""
    chains, _, size = shape
    model, params, x = linear(rng, shape)
    options = {"num_chains": chains, "num_leapfrog": 3, "start": "posterior", "progress": False}
    for steps in (2, 7):
        value = evaluate.ais(model, params, KEY, x, num_temperatures=steps, **options)
        yield f"exact start, T={steps}", value.estimate, log_evidence(params, x)
        yield f"its effective size, T={steps}", value.effective_sample_size, np.full(len(x), chains)
    other, noise = changed_encoder(rng, params), single(rng.normal(size=(chains, 1, size)))
    p, options["num_temperatures"] = double_tree(other), 1
    exact = estimators.log_w(estimators.normal_terms(p, double(x), double(noise)))
    with fixed_noise(normal=noise):
        value = evaluate.ais(model, other, KEY, x, **options)
    yield "log-weights", value.log_weights, exact
    yield from weight_parts(value, exact)
    with fixed_noise(normal=noise[:, 0]):
        value = evaluate.ais(model, other, KEY, x, **options | {"start": "prior"})
    exact = estimators.log_likelihood(p, double(noise), double(x))
    yield "log-weights from the prior", value.log_weights, exact


@row(few=(), shapes=CHAINS)
def bdmc(rng, shape):
    chains, rows, size = shape
    model, params, _ = linear(rng, shape)
    options = {"num_examples": rows, "num_chains": chains, "start": "posterior", "progress": False}
    value = evaluate.bdmc(model, params, KEY, num_temperatures=3, num_leapfrog=3, **options)
    exact = log_evidence(params, value.batch.x)
    yield "lower", value.lower.estimate, exact
    yield "upper", value.upper.estimate, exact
    other, options["num_temperatures"] = changed_encoder(rng, params), 1
    z, noise = single(rng.normal(size=(rows, size))), single(rng.normal(size=(chains, 1, size)))
    with fixed_noise(normal=z), fixed_noise(normal=noise):
        value = evaluate.bdmc(model, other, KEY, **options)
    p, x, z = double_tree(other), double(value.batch.x), double(z)
    noises = double(noise), (z - x @ p["e_weight"] - p["e_bias"]) / np.exp(p["e_scale"])
    below, above = (estimators.log_w(estimators.normal_terms(p, x, each)) for each in noises)
    below = log_mean(below)
    yield "lower, T=1", value.lower.estimate, below
    yield "upper, T=1", value.upper.estimate, above
    yield "gap, T=1", value.gap, above - below


def pareto_fit(tail):
    """The fit of Zhang and Stephens 2009 with the prior of Vehtari et al. 2024, appendix C."""
    weight = np.exp(double(tail) - double(tail)[0])
    excess, values = (weight[:-1] - weight[-1])[::-1], []
    points = 30 + int(np.sqrt(count := len(excess)))
    index = np.arange(1, points + 1)
    for x in excess.T:
        quartile = x[int(count / 4 + 0.5) - 1]
        theta = 1 / x[-1] + (1 - np.sqrt(points / (index - 0.5))) / (3 * quartile)
        shape = -np.log1p(-theta[:, None] * x).mean(1)
        share = special.softmax(count * (np.log(theta / shape) + shape - 1))
        k = np.log1p(-(share @ theta) * x).mean()
        values.append((count * k + 10 * 0.5) / (count + 10))
    return np.array(values)


@row(few=(), shapes=((301, 6), (65, 100), (21, 37), (601, 3), (6, 5)))
def pareto(rng, shape):
    size, columns = shape
    log_w = rng.exponential(size=(5 * size, columns)) * rng.uniform(0.2, 1.2, columns)
    tail = single(np.sort(log_w, 0)[::-1][:size] - 50)
    yield "k", evaluate.pareto_k(tail), pareto_fit(tail)
    yield "short tail", np.isnan(evaluate.pareto_k(tail[:5])), np.ones(columns)
    limits = {1: np.concatenate([tail[:1] + 200, tail[1:]]), -1: tail[:1] + 0 * tail}
    values = [np.isinf(k) * np.sign(k) for k in map(evaluate.pareto_k, limits.values())]
    yield "one weight, equal weights", values, np.outer([1, -1], np.ones(columns))
    threshold = min(1 - 1 / np.log10(size), 0.7) if size > 10 else 0.0
    yield "threshold", evaluate.pareto_threshold(size), threshold


def matched_noise(rng, samples, size):
    """Noise with mean 0 and covariance I, so that quadratic functions have their exact mean."""
    noise = rng.normal(size=(samples, size))
    return single(np.linalg.qr(noise - noise.mean(0))[0] * np.sqrt(samples))[:, None]


@row(few=(), shapes=((64, 20, 2), (64, 13, 5)))
def inference_gap(rng, shape):
    """The search ends at the posterior. Chunks of 64 draws have the same noise."""
    for family in ("mean_field", "full_covariance"):
        model, params, x = linear(rng, shape, orthogonal=family == "mean_field")
        params, noise = changed_encoder(rng, params), matched_noise(rng, shape[0], shape[2])
        options = {"num_samples": 2 * shape[0], "num_draws": 7, "progress": False, "family": family}
        with fixed_noise(normal=noise), warnings.catch_warnings():
            warnings.simplefilter("ignore", evaluate.UntrustworthyEstimate)
            value = evaluate.inference_gap(model, params, KEY, x, **options)
        evidence = log_evidence(params, x)
        amortized = estimators.exact_elbo(double_tree(params), double(x))
        yield f"{family}: log_marginal", value.log_marginal, evidence
        yield f"{family}: optimised", value.optimised, evidence
        yield f"{family}: amortised", value.amortised, amortized
        yield f"{family}: approximation", value.approximation, 0 * evidence
        yield f"{family}: amortisation", value.amortisation, evidence - amortized


@row(few=(), shapes=((0, 6, 2), (0, 100, 8), (0, 33, 10), (0, 20, 50), (0, 3, 5), (0, 2, 4)))
def latent_usage(rng, shape):
    """Draws and the cycle of the exchange are the same in each of three rounds."""
    _, rows, size = shape
    model, params, x = linear(rng, shape)
    noise, cycle = single(rng.normal(size=(1, 1, size))), rng.permutation(rows)
    weight = rng.integers(1, 4, rows) if rows == 2 else None
    batch = vaejax.Batch(x, weight=None if weight is None else single(weight))
    order = mock.patch.object(jax.random, "permutation", return_value=jnp.asarray(cycle))
    with fixed_noise(normal=noise), order:
        value = evaluate.latent_usage(model, params, KEY, batch, num_samples=3)
    p, giver = double_tree(params), np.empty(rows, int)
    giver[cycle] = np.roll(cycle, 1)
    z = double(x) @ p["e_weight"] + p["e_bias"] + np.exp(p["e_scale"]) * double(noise)[0]
    weight = np.ones(rows) if weight is None else double(weight)
    other = np.where(np.eye(size, dtype=bool)[:, None], z[giver], z)
    fits = estimators.log_likelihood(p, np.stack([z, z[giver], *other]), double(x))
    falls = (fits[0] - fits[1:]) * weight[giver] / (weight.sum() - 1) * (rows - 1)
    yield "own", value.own, fits[0]
    yield "fall", value.fall, falls[0]
    yield "fall_per_dimension", value.fall_per_dimension, falls[1:].T
    yield "its error over equal rounds", value.standard_error, np.zeros(rows)
    means = [mean.mean for mean in (value.mean, *value.mean_per_dimension)]
    yield "means", means, falls @ weight / weight.sum()
    if rows > 2:
        without = (falls[0].sum() - falls[0] - falls[0][np.argsort(giver)]) / (rows - 2)
        error = without.std() * np.sqrt(rows - 1)
        yield "error between examples", value.mean.standard_error, error


@row(few=(), shapes=((300, 6, 99), (1000, 3, 19), (155, 5, 30)))
def calibration(rng, shape):
    """Prior and posterior means differ between simulations. The noise is the same."""
    rows, size, draws = shape
    context = {name: single(rng.normal(size=(rows, size))) for name in ("prior", "posterior")}
    p = {"weight": single(0.1 * rng.normal(size=(size, 7))), "bias": single(rng.normal(size=7))}
    model = vaejax.Model(
        lambda key, batch: {},
        lambda p, x, context: dists.diagonal_normal(context["posterior"], 1.2),
        lambda p, context: dists.diagonal_normal(context["prior"], 0.8),
        estimators.decoder,
    )
    shapes = ((1, 1, size), (1, 1, 1, 7), (draws, 1, size))
    z, x, q = (single(rng.normal(size=shape)) for shape in shapes)
    options = {"num_simulations": rows, "num_draws": draws, "context": context}
    with fixed_noise(normal=z), fixed_noise(normal=x), fixed_noise(normal=q):
        value = evaluate.calibration(model, p, KEY, **options)
    p, z = double_tree(p), double(context["prior"]) + 0.8 * double(z)[0]
    q = double(context["posterior"]) + 1.2 * double(q)
    x = z @ p["weight"] + p["bias"] + NOISE * double(x)[0, 0]
    below = np.less(*(estimators.log_likelihood(p, latents, x) for latents in (q, z)))
    yield "ranks", value.ranks, np.column_stack([(q < z).sum(0), below.sum(0)])


@row(few=(), shapes=((500, 6, 99), (1000, 8, 19), (155, 5, 30), (97, 3, 11)))
def rank_test(rng, shape):
    rows, quantities, draws = shape
    shape_parameters = rng.uniform(0.85, 1.2, size=(2, quantities))
    ranks = rng.binomial(draws, rng.beta(*shape_parameters, size=(rows, quantities)))
    divisors = [b for b in range(2, draws + 2) if (draws + 1) % b == 0 and 5 * b <= rows]
    bins = max((b for b in divisors if b <= 20), default=divisors[0])
    edges = np.arange(0, draws + 2, (draws + 1) // bins) - 0.5
    counts = np.stack([np.histogram(column, edges)[0] for column in ranks.T])
    p = stats.chi2.sf(((counts - rows / bins) ** 2).sum(1) * bins / rows, bins - 1)
    steps, value = np.minimum(p * (p >= p[:, None]).sum(1), 1), evaluate.rank_test(ranks, draws)
    yield "num_bins", value.num_bins, bins
    yield "p_values", value.p_values, p
    yield "adjusted_p_values", value.adjusted_p_values, (steps * (p <= p[:, None])).max(1)
    place = (ranks + 0.5) / (draws + 1)
    outer = (place - 0.5) ** 2 / (np.arange(draws + 1) / (draws + 1)).var()
    for name, values in {"mean_rank": place, "outer_rank": outer}.items():
        yield name, getattr(value, name), values.mean(0)
        yield f"{name}: its error", getattr(value, f"{name}_error"), stats.sem(values)


def information(a, b):
    """Mutual information of two columns of classes, nats."""
    joint = np.histogram2d(a, b, bins=(np.arange(a.max() + 2), np.arange(b.max() + 2)))[0] / len(a)
    return special.rel_entr(joint, joint.sum(1, keepdims=True) * joint.sum(0)).sum()


def information_scores(bins, factors):
    """The parts of the mutual information gap and of modularity, and I(z; v) ``[D, F]``."""
    table = np.array([[information(z, v) for v in factors.T] for z in bins.T])
    best = np.sort(np.vstack([table, 0 * table[:1]]), 0)[::-1]
    gaps = (best[0] - best[1]) / [information(v, v) for v in factors.T]
    largest = table.max(1) ** 2
    others = ((table**2).sum(1) - largest) / (table.shape[1] - 1)
    return gaps, 1 - others / largest, table


@row(few=(), shapes=((120, 4, 3), (90, 6, 2), (61, 1, 2)))
def factors(rng, shape):
    """MIG and modularity, with errors by recomputation without each example."""
    rows, size, count = shape
    labels = rng.integers(0, np.arange(count) + 2, size=(rows, count))
    codes = single(labels @ rng.normal(size=(count, size)) + rng.normal(size=(rows, size)))
    edges = np.linspace(codes.min(0), codes.max(0), 21)[1:-1]
    bins = np.stack([np.digitize(z, edge) for z, edge in zip(codes.T, edges.T)], 1)
    *exact, table = information_scores(bins, labels)
    others = ([np.delete(v, i, 0) for v in (bins, labels)] for i in range(rows))
    without = [information_scores(*pair) for pair in others]
    for number, function in enumerate((evaluate.mig, evaluate.modularity)):
        name, value = function.__name__, function(codes, labels)
        each = np.array([parts[number] for parts in without])
        yield name, value.value, exact[number].mean()
        yield f"{name}: parts", value.parts, exact[number]
        yield f"{name}: matrix", value.matrix, table
        yield f"{name}: error", value.standard_error, each.mean(1).std() * np.sqrt(rows - 1)
        yield f"{name}: errors", value.parts_standard_error, each.std(0) * np.sqrt(rows - 1)


class Positive(ClassifierMixin, BaseEstimator):
    """Classifies by the sign of the first feature, whatever it is trained on."""

    def fit(self, x, y, sample_weight=None):
        self.classes_ = np.unique(y)
        return self

    def predict(self, x):
        return (x[:, 0] > 0) * 1


@row(few=((60, 40),), shapes=((60, 40), (501, 203)))
def classifier(rng, shape):
    """With and without weights."""
    sets = [single(rng.normal(size=(n, 3)) + shift) for n, shift in zip(shape, (0.3, 0.0))]
    for name, most in {"weights": 4, "no weights": 2}.items():
        weights = [rng.integers(1, most, n) for n in shape]
        batches = [vaejax.Batch(x, weight=single(w)) for x, w in zip(sets, weights)]
        value = evaluate.classifier_two_sample_test(*batches, KEY, classifier=Positive())
        says = [np.repeat(x[:, 0] > 0, w) for x, w in zip(sets, weights)]
        shares, counts = np.array([v.mean() for v in says]), np.array([len(v) for v in says])
        yield f"{name}: recall", value.recall, [shares[0], 1 - shares[1]]
        exact, pooled = (shares[0] + 1 - shares[1]) / 2, np.concatenate(says).mean()
        yield f"{name}: accuracy", value.accuracy, exact
        drawn = (shares * counts + 2) / (counts + 4)
        error = np.sqrt(1.8 * (drawn * (1 - drawn) / (counts + 4)).sum()) / 2
        yield f"{name}: its error", value.standard_error, error
        null = np.sqrt(1.8 * pooled * (1 - pooled) * (1 / counts).sum()) / 2
        yield f"{name}: p", value.p_value, stats.norm.sf(exact, 0.5, null)
