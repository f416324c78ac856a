"""Arithmetic on log-weights, and objectives: values and derivatives along a direction."""

import functools

import jax
import numpy as np
from scipy import special

from tests.exact_numpy.table import double, row, single, slope
from vaejax import LogTerms, linalg, numerics, objectives

# [K, *batch] of pairs of draws need K² numbers.
PAIRS = ((100, 100, 8), (64, 100, 10), (50, 20, 50), (37, 13, 5))


def log_mean(log_weights, axis=0):
    return special.logsumexp(log_weights, axis) - np.log(log_weights.shape[axis])


def leave_one_out(log_weights):
    """log of the mean of the others, by leaving each out."""
    return np.stack([log_mean(np.delete(log_weights, k, 0)) for k in range(len(log_weights))])


def power_mean(log_weights, power):
    return log_weights.mean(0) if power == 0 else log_mean(power * log_weights) / power


def tempered(log_weights, beta):
    return (special.softmax(beta * log_weights, 0) * log_weights).sum(0)


def thermodynamic(log_weights, side, points=(0.0, 0.2, 0.6, 1.0)):
    chosen = points[:-1] if side == "left" else points[1:]
    return sum(width * tempered(log_weights, beta) for width, beta in zip(np.diff(points), chosen))


def jackknife(log_weights, order):
    count = len(log_weights)
    rest = [np.delete(log_weights, k, 0) for k in range(count)]
    once = np.mean([log_mean(r) for r in rest], 0)
    if order == 1:
        return count * log_mean(log_weights) - (count - 1) * once
    total = np.exp(log_weights - log_weights.max(0))
    pairs = total.sum(0) - total[:, None] - total[None]
    twice = np.log(pairs[np.triu_indices(count, 1)] / (count - 2)).mean(0) + log_weights.max(0)
    return 0.5 * count**2 * log_mean(log_weights) - (count - 1) ** 2 * once + 0.5 * (count - 2) ** 2 * twice


def grouped(log_weights, groups=None):
    """Means of log-means of the draws in groups."""
    count = len(log_weights)
    parts = log_weights.reshape(groups, count // groups, *log_weights.shape[1:])
    return np.mean([log_mean(part) for part in parts], 0)


def free_bits(likelihood, prior, posterior, kl, parts, average):
    limited = np.maximum(parts.mean(0), 0.1).sum() if average == "minibatch" else np.maximum(parts, 0.1).sum(-1)
    return likelihood.mean(0) - limited


def weighted(function):
    """A function of the three log-terms through the log-weights."""
    return lambda likelihood, prior, posterior, kl, parts: function(likelihood + prior - posterior)


def bounds(count):
    """Name -> (objective, NumPy function of the log-terms)."""
    elbo, partial = objectives.elbo, functools.partial
    points = np.array([0.0, 0.2, 0.6, 1.0])
    groups = next(n for n in (5, 2, 1) if count % n == 0)
    rows = {
        "elbo": (elbo, lambda l, p, q, kl, parts: l.mean(0) - kl),
        "elbo, monte carlo": (partial(elbo, kl="monte_carlo"), weighted(lambda w: w.mean(0))),
        "elbo, beta": (partial(elbo, beta=4.0), lambda l, p, q, kl, parts: l.mean(0) - 4 * kl),
        "elbo, capacity": (
            partial(elbo, capacity=5.0, beta=10.0),
            lambda l, p, q, kl, parts: l.mean(0) - 10 * np.abs(kl - 5),
        ),
        "elbo, free bits": (partial(elbo, free_bits=0.1), partial(free_bits, average="minibatch")),
        "elbo, free bits per example": (
            partial(elbo, free_bits=0.1, free_bits_average="per_example"),
            partial(free_bits, average="per_example"),
        ),
        "iwae": (objectives.iwae, weighted(log_mean)),
        "renyi 0.5": (partial(objectives.renyi, alpha=0.5), weighted(partial(power_mean, power=0.5))),
        "renyi 2": (partial(objectives.renyi, alpha=2.0), weighted(partial(power_mean, power=-1))),
        "renyi 1": (partial(objectives.renyi, alpha=1.0), weighted(partial(power_mean, power=0))),
        "cubo": (objectives.cubo, weighted(partial(power_mean, power=2))),
        "miwae": (partial(objectives.miwae, groups=groups), weighted(partial(grouped, groups=groups))),
        "ciwae": (partial(objectives.ciwae, beta=0.3), weighted(lambda w: 0.3 * w.mean(0) + 0.7 * log_mean(w))),
        "tvo": (partial(objectives.tvo, partition=points), weighted(partial(thermodynamic, side="left"))),
        "tvo, right": (
            partial(objectives.tvo, partition=points, side="right"),
            weighted(partial(thermodynamic, side="right")),
        ),
    }
    if count > 1000:
        return rows
    return rows | {
        "jackknife 1": (objectives.jackknife, weighted(functools.partial(jackknife, order=1))),
        "jackknife 2": (
            functools.partial(objectives.jackknife, order=2),
            weighted(functools.partial(jackknife, order=2)),
        ),
    }


def log_terms(rng, shape):
    likelihood, prior, posterior = (single(rng.normal(size=shape[:2]) - 3) for _ in range(3))
    parts = single(np.abs(rng.normal(0.2, 0.3, shape[1:])))
    return likelihood, prior, posterior, single(double(parts).sum(-1)), parts


@row()
def objective(rng, shape):
    terms = log_terms(rng, shape)
    for name, (function, exact) in bounds(shape[0]).items():
        value = jax.jit(lambda terms, function=function: function(LogTerms(*terms)))(terms)
        yield name, value, exact(*double(*terms))


@row(few=())
def derivative(rng, shape):
    terms = log_terms(rng, shape)
    tangents = tuple(single(rng.normal(size=term.shape)) for term in terms)
    for name, (function, exact) in bounds(shape[0]).items():

        def of(*terms, function=function):
            return function(LogTerms(*terms))

        tangent = jax.jit(lambda terms, tangents, of=of: jax.jvp(of, terms, tangents)[1])(terms, tangents)
        yield name, tangent, slope(exact, terms, tangents)


@row()
def log_weights(rng, shape):
    w = single(3 * rng.normal(size=shape[:2]) - 50)
    exact = double(w)
    yield "log_mean_exp", jax.jit(numerics.log_mean_exp)(w), log_mean(exact)
    for power in (-2.0, 1e-3, 0.5, 2.0):
        yield f"log_power_mean {power}", jax.jit(numerics.log_power_mean)(w, power), power_mean(exact, power)
        yield f"tempered_mean {power}", jax.jit(numerics.tempered_mean)(w, power), tempered(exact, power)
    if len(w) < 1000:
        yield "leave_one_out", jax.jit(numerics.leave_one_out_log_mean_exp)(w), leave_one_out(exact)

    def summary(w):
        cut = len(w) // 3
        parts = (numerics.weight_moments(part) for part in (w[:cut], w[cut:]))
        moments = numerics.merge_moments(*parts)
        functions = numerics.log_mean_weight, numerics.log_mean_standard_error, numerics.effective_sample_size
        return [function(moments) for function in functions]

    value = jax.jit(summary)(w)
    v = np.exp(exact - exact.max(0))
    yield "log_mean_weight", value[0], log_mean(exact)
    yield "standard error", value[1], v.std(0, ddof=1) / (v.mean(0) * np.sqrt(len(v)))
    yield "effective sample size", value[2], v.sum(0) ** 2 / (v**2).sum(0)


@row()
def triangular_factors(rng, shape):
    count, size = min(shape[0] * shape[1], 2000), shape[2]
    root = rng.normal(size=(count, size, size + 3)) / np.sqrt(size)
    matrix, vector = single(root @ np.swapaxes(root, 1, 2) + np.eye(size)), single(rng.normal(size=(count, size)))
    tril = np.linalg.cholesky(double(matrix))
    yield "cholesky", jax.jit(linalg.cholesky)(matrix), tril
    t = single(tril)
    inverse = np.linalg.inv(double(t))
    yield "inverse_tril", jax.jit(linalg.inverse_tril)(t), inverse
    yield "solve_tril", jax.jit(linalg.solve_tril)(t, vector), (inverse @ double(vector)[..., None])[..., 0]
    yield "shared factor", jax.jit(linalg.solve_tril)(t[0], vector), double(vector) @ inverse[0].T
    yield "log_diagonal", jax.jit(linalg.log_diagonal)(t), np.log(np.diagonal(double(t), axis1=1, axis2=2)).sum(-1)
    both = jax.jit(linalg.inverse_and_log_det)(matrix)
    yield "inverse", both[0], np.linalg.inv(double(matrix))
    yield "log-determinant", both[1], np.linalg.slogdet(double(matrix))[1]
