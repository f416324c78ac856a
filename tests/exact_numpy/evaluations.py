"""Evaluations: evidence at given noise and exact, the aggregate posterior, active units, comparisons of samples."""

import functools
import itertools
import warnings

import jax
import numpy as np
from scipy import linalg, special, stats
from scipy.spatial.distance import cdist

from tests.exact_numpy import estimators
from tests.exact_numpy.divergences import normals
from tests.exact_numpy.numerics import log_mean
from tests.exact_numpy.table import double, row, single
from vaejax import evaluate
from vaejax.conjugate import linear_vae, ppca


def continuous(rng, shape, rows=None):
    samples, batch, size = shape
    x, noise = single(rng.normal(size=(rows or batch, size))), single(rng.normal(size=(samples, 1, size)))
    params = estimators.parameters(rng, size, size, False)
    return estimators.normal_model(size), params, x, noise, estimators.double_tree(params)


@row(few=())
def evidence(rng, shape):
    model, params, x, noise, p = continuous(rng, shape)
    likelihood, prior, posterior = estimators.normal_terms(p, double(x), double(noise))
    log_w = likelihood + prior - posterior
    options = {"num_samples": shape[0], "chunk_size": shape[0]}
    with estimators.fixed_noise(normal=noise), warnings.catch_warnings():
        warnings.simplefilter("ignore", evaluate.UntrustworthyEstimate)
        marginal = evaluate.log_marginal(model, params, jax.random.key(0), x, **options)
        elbo = evaluate.elbo(model, params, jax.random.key(0), x, **options)
    weight = np.exp(log_w - log_w.max(0))
    root = np.sqrt(len(log_w))
    yield "log_marginal", marginal.estimate, log_mean(log_w)
    yield "its standard error", marginal.standard_error, weight.std(0, ddof=1) / weight.mean(0) / root
    yield "effective sample size", marginal.effective_sample_size, weight.sum(0) ** 2 / (weight**2).sum(0)
    loc = double(x) @ p["e_weight"] + p["e_bias"]
    kl = normals(loc, np.exp(p["e_scale"]), 0.0, 1.0).sum(-1)
    yield "elbo", elbo.estimate, likelihood.mean(0) - kl
    yield "its error", elbo.standard_error, likelihood.std(0, ddof=1) / root
    yield "its KL", elbo.kl, kl


@row(few=())
def latents(rng, shape):
    """Of up to 5,000 examples."""
    rows = min(shape[0], 5000)
    model, params, x, _, p = continuous(rng, shape, rows)
    loc = double(x) @ p["e_weight"] + p["e_bias"]
    kl = normals(loc, np.exp(p["e_scale"]), 0.0, 1.0)
    by_dimension = evaluate.kl_per_dimension(model, params, x)
    yield "kl_per_dimension", by_dimension.values, kl
    yield "its mean", by_dimension.mean, kl.mean(0)
    yield "its error", by_dimension.standard_error, kl.std(0, ddof=1) / np.sqrt(rows)
    yield "active_units", evaluate.active_units(model, params, x).variance, loc.var(0, ddof=1)


@row(few=(), shapes=((5, 300, 2), (4, 130, 10), (3, 500, 50), (3, 37, 5)))
def aggregate(rng, shape):
    model, params, x, noise, p = continuous(rng, shape)
    with estimators.fixed_noise(normal=noise):
        value = evaluate.aggregate(model, params, jax.random.key(0), x, num_samples=shape[0])
    loc, scale = double(x) @ p["e_weight"] + p["e_bias"], np.exp(p["e_scale"])
    z = loc + scale * double(noise)
    parts = stats.norm.logpdf(z[:, :, None], loc, scale)  # [K, N, N', d]
    log_q = stats.norm.logpdf(double(noise)) - np.log(scale) + 0 * z
    joint, each = log_mean(parts.sum(-1), 2), log_mean(parts, 2)
    prior = stats.norm.logpdf(z)
    exact = {
        "mean_kl": log_q.sum(-1) - prior.sum(-1),
        "mutual_information": log_q.sum(-1) - joint,
        "marginal_kl": joint - prior.sum(-1),
        "total_correlation": joint - each.sum(-1),
        "dimension_kl": (each - prior).sum(-1),
    }
    for name, values in exact.items():
        yield name, getattr(value, name).mean, values.mean()


@row(few=(), shapes=((400, 6, 2), *estimators.SMALL))
def enumeration(rng, shape):
    _, batch, columns = shape
    size = min(columns, 8)
    x, params = single(rng.normal(size=(batch, columns))), estimators.parameters(rng, columns, size, True)
    p = estimators.double_tree(params)
    states = np.array(list(itertools.product([0.0, 1.0], repeat=size)))[:, None]
    prior = estimators.log_bernoulli(states, 0.3 * np.ones(size))
    joint = estimators.log_likelihood(p, states, double(x)) + prior
    yield (
        "exact_log_marginal",
        evaluate.exact_log_marginal(estimators.binary_model(size), params, x),
        special.logsumexp(joint, 0),
    )


@row(few=(), shapes=estimators.SMALL)
def two_samples(rng, shape):
    """With features that JAX computes."""
    size = shape[2]
    a, b = single(rng.normal(size=(300, size))), single(rng.normal(size=(200, size)) * 1.2 + 0.3)
    mixing = single(np.eye(size) + 0.2 * rng.normal(size=(size, size)))
    features = jax.jit(functools.partial(lambda m, x: x @ m, mixing))
    u, v = double(a) @ double(mixing), double(b) @ double(mixing)
    k = [np.exp(-cdist(s, t, "sqeuclidean") / (2 * size)) for s, t in ((u, u), (v, v), (u, v))]
    within = sum((m.sum() - len(m)) / (len(m) * (len(m) - 1)) for m in k[:2])
    value = evaluate.mmd(a, b, features=features, bandwidth=float(np.sqrt(size)))
    yield "mmd", value.value, within - 2 * k[2].mean()
    first, second = np.cov(u.T), np.cov(v.T)
    root = linalg.sqrtm(first @ second).real
    distance = ((u.mean(0) - v.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
    yield "frechet_distance", evaluate.frechet_distance(a, b, features=features).value, distance


@row(few=())
def linear_autoencoder(rng, shape):
    """The closed-form ELBO of a linear VAE with two latents at most."""
    rows, size = min(shape[0], 5000), shape[2]
    rank = 1 if size < 3 else 2
    x = single(rng.normal(size=(rows, size)))
    generative = ppca.Ppca(*map(single, (rng.normal(size=size), rng.normal(size=(size, rank)), -0.5)))
    encoder = {"weight": single(0.2 * rng.normal(size=(rank, size))), "log_scale": single(rng.normal(size=rank) - 1)}
    m, w, log_variance = double(*generative)
    loc, scale = (double(x) - m) @ double(encoder["weight"]).T, np.exp(double(encoder["log_scale"]))
    variance = np.exp(log_variance)
    fit = stats.norm.logpdf(double(x), m + loc @ w.T, np.sqrt(variance)).sum(-1)
    exact = fit - 0.5 * (scale**2 * w**2).sum() / variance - normals(loc, scale, 0.0, 1.0).sum(-1)
    yield "bound", jax.jit(linear_vae.bound)({"encoder": encoder, "decoder": generative}, x), exact
