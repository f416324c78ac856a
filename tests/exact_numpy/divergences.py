"""Closed-form KL divergences: every pair of docs/kl-pairs.md with a batch of parameters."""

import math
from functools import partial

import jax
import numpy as np
from scipy import special

from tests.exact_numpy.densities import factorized, log_softmax
from tests.exact_numpy.table import double, row, single
from vaejax import dists
from vaejax.dists.backend import distrax


def normals(m, s, n, t):
    return np.log(t / s) + (s**2 + (m - n) ** 2) / (2 * t**2) - 0.5


def to_normal(mean, variance, entropy, n, t):
    return -entropy + 0.5 * np.log(2 * np.pi * t**2) + (variance + (mean - n) ** 2) / (2 * t**2)


def normal_to_laplace(m, s, n, t):
    d = m - n
    folded = s * math.sqrt(2 / math.pi) * np.exp(-(d**2) / (2 * s**2)) + d * special.erf(d / (s * math.sqrt(2)))
    return -0.5 * np.log(2 * np.pi * np.e * s**2) + np.log(2 * t) + folded / t


def kumaraswamy_to_uniform(a, b):
    harmonic = special.digamma(b + 1) + np.euler_gamma
    return np.log(a * b) - (1 - 1 / b) - (1 - 1 / a) * harmonic


def full(m, s, n, t):
    inverse = np.linalg.inv(t)
    ratio, shift = inverse @ s, (inverse @ (m - n)[..., None])[..., 0]
    diagonals = (np.log(np.diagonal(x, axis1=-2, axis2=-1)).sum(-1) for x in (t, s))
    return 0.5 * ((ratio**2).sum((-1, -2)) + (shift**2).sum(-1) - m.shape[-1]) + next(diagonals) - next(diagonals)


def binomials(n, q, p):
    mean = special.expit(q)
    return n * (mean * (q - p) - np.logaddexp(0, q) + np.logaddexp(0, p))


def categories(q, p):
    log_q, log_p = log_softmax(q), log_softmax(p)
    return (np.exp(log_q) * (log_q - log_p)).sum(-1)


@row(few=((100, 100, 8),))
def entrywise(rng, shape):
    m, n = (single(rng.normal(size=shape)) for _ in range(2))
    s, t = (single(np.exp(0.3 * rng.normal(size=shape))) for _ in range(2))
    a, b, c, e = double(m, s, n, t)
    pi, gamma = np.pi, np.euler_gamma
    pairs = {
        "normal, normal": (distrax.Normal, distrax.Normal, normals(a, b, c, e)),
        "Laplace, normal": (distrax.Laplace, distrax.Normal, to_normal(a, 2 * b**2, 1 + np.log(2 * b), c, e)),
        "logistic, normal": (distrax.Logistic, distrax.Normal, to_normal(a, (pi * b) ** 2 / 3, np.log(b) + 2, c, e)),
        "Gumbel, normal": (
            distrax.Gumbel,
            distrax.Normal,
            to_normal(a + gamma * b, (pi * b) ** 2 / 6, np.log(b) + gamma + 1, c, e),
        ),
        "normal, Laplace": (distrax.Normal, distrax.Laplace, normal_to_laplace(a, b, c, e)),
        "log-normal": (dists.LogNormal, dists.LogNormal, normals(a, b, c, e)),
        "Cauchy": (dists.Cauchy, dists.Cauchy, np.log(((b + e) ** 2 + (a - c) ** 2) / (4 * b * e))),
    }
    for name, (q, p, exact) in pairs.items():
        kl = jax.jit(lambda m, s, n, t, q=q, p=p: dists.kl_divergence(factorized(q)(m, s), factorized(p)(n, t)))
        yield name, kl(m, s, n, t), exact.sum(-1)
    q, p = (
        factorized(dists.Kumaraswamy),
        distrax.Independent(distrax.Uniform(*np.float32([[0] * shape[2], [1] * shape[2]])), 1),
    )
    yield (
        "Kumaraswamy, uniform",
        jax.jit(lambda s, t: dists.kl_divergence(q(s, t), p))(s, t),
        kumaraswamy_to_uniform(b, e).sum(-1),
    )
    width = jax.jit(
        lambda m, s, n, t: dists.kl_divergence(factorized(distrax.Uniform)(m, m + s), factorized(distrax.Normal)(n, t))
    )
    yield "uniform, normal", width(m, s, n, t), to_normal(a + b / 2, b**2 / 12, np.log(b), c, e).sum(-1)
    rates = jax.jit(lambda m, n: dists.kl_divergence(factorized(dists.Poisson)(m), factorized(dists.Poisson)(n)))
    yield "Poisson", rates(m, n), (np.exp(a) * (a - c) - np.exp(a) + np.exp(c)).sum(-1)
    for trials in (1, 4):
        family = dists.Bernoulli if trials == 1 else partial(dists.Binomial, trials)
        kl = jax.jit(lambda m, n, f=family: dists.kl_divergence(f(m), f(n)))
        yield f"binomial({trials})", kl(m, n), binomials(trials, a, c).sum(-1)
    one_hot = jax.jit(lambda m, n: dists.kl_divergence(dists.OneHotCategorical(m), dists.OneHotCategorical(n)))
    yield "categories", one_hot(m, n), categories(a, c)


@row()
def full_covariances(rng, shape):
    """At most 500 draws of parameters: matrices are d times as large."""
    shape = (min(shape[0], 500), *shape[1:])
    m, n = (single(rng.normal(size=shape)) for _ in range(2))

    def tril():
        return single(
            np.tril(0.2 * rng.normal(size=(*shape, shape[-1])) / np.sqrt(shape[-1]), -1) + 1.2 * np.eye(shape[-1])
        )

    s, t = tril(), tril()
    normal = dists.MultivariateNormal
    kl = jax.jit(lambda m, s, n, t: dists.kl_divergence(normal(m, s), normal(n, t)))
    yield "full, full", kl(m, s, n, t), full(*double(m, s, n, t))
    standard = jax.jit(lambda m, s: dists.kl_divergence(normal(m, s), dists.standard_normal(m.shape[-1])))
    exact = full(*double(m, s), np.zeros(shape[-1]), np.eye(shape[-1]))
    yield "full, standard", standard(m, s), exact


@row(few=())
def by_sampling(rng, shape):
    """The mean of log q − log p over the draws of a key, which JAX alone gives too."""
    samples, batch, size = shape
    m, s = single(rng.normal(size=(batch, size))), single(np.exp(0.3 * rng.normal(size=(batch, size))))

    def estimate(key, m, s):
        return dists.kl_divergence(
            dists.diagonal_normal(m, s), dists.standard_normal(size), key=key, num_samples=samples
        )

    noise = double(jax.random.normal(jax.random.key(1), (samples, batch, size)))
    z = double(m) + double(s) * noise
    exact = (0.5 * z**2 - 0.5 * noise**2 - np.log(double(s))).sum(-1).mean(0)
    yield "normal, normal", jax.jit(estimate)(jax.random.key(1), m, s), exact
