"""Relaxations, swaps, sets without replacement, and measures of counts and normals, at fixed noise.

The references use the formulas of the papers.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from scipy import special, stats

from tests.exact_numpy import estimators as references
from tests.exact_numpy.discrete_estimators import (
    SHAPES,
    TEMPERATURE,
    Case,
    binary_case,
    categorical_case,
    compared_binary,
    compared_categorical,
    discrete_model,
    fixed_draws,
    on_elbo,
    prior_logits,
)
from tests.exact_numpy.estimators import compared, double_tree, log_w, parameters
from tests.exact_numpy.numerics import log_mean
from tests.exact_numpy.table import double, row, single
from vaejax import dists, estimators, objectives
from vaejax.dists.backend import distrax

PRIOR_TEMPERATURE = 0.8


def concrete(case):
    """Evaluates densities of logits or of log states (Maddison et al. 2017, appendix C)."""

    def density(y, logits, t):
        if not case.is_categorical:
            return stats.logistic.logpdf(y, logits / t, 1 / t).sum(-1)
        n, exponent = case.event[-1], logits - t * y
        constant = math.log(math.factorial(n - 1)) + (n - 1) * math.log(t)
        return (constant + exponent.sum(-1) - n * special.logsumexp(exponent, -1)).sum(-1)

    def log_weights(p):
        y = (case.logits(p) + case.noise) / TEMPERATURE
        y = special.log_softmax(y, -1) if case.is_categorical else y
        log_q = density(y, case.logits(p), TEMPERATURE)
        log_prior = density(y, prior_logits(case.event), PRIOR_TEMPERATURE)
        return case.likelihood(p, case.soft(y, 1.0)) + log_prior - log_q

    def discrete(p):
        state = case.soft(case.logits(p) + case.noise, TEMPERATURE)
        return case.likelihood(p, state).mean(0) - case.kl(p)

    make = functools.partial(estimators.concrete, temperature=TEMPERATURE)
    relaxed = functools.partial(make, prior_temperature=PRIOR_TEMPERATURE)

    def elbo(p):
        return log_weights(p).mean(0)

    def iwae(p):
        return log_mean(log_weights(p))

    return {
        "concrete, elbo": (lambda m, k: relaxed(m, objectives.elbo, num_samples=k), elbo, elbo),
        "concrete, iwae": (lambda m, k: relaxed(m, objectives.iwae, num_samples=k), iwae, iwae),
        "concrete, discrete KL": (
            lambda m, k: make(m, objectives.elbo, num_samples=k, kl="discrete"),
            discrete,
            discrete,
        ),
    }


def straight_through(case):
    """Gives hard draws the derivative of soft values (Bengio et al. 2013; Jang et al. 2017)."""

    def softened(p):
        return case.soft(case.logits(p) + case.noise, TEMPERATURE)

    hard = case.hard(case.logits(case.p0) + case.noise)

    def of_mean(p):
        return case.z + case.mean(p) - case.mean(case.p0)

    def of_noise(p):
        return hard + softened(p) - softened(case.p0)

    def elbo(p, path):
        return case.likelihood(p, path(p)).mean(0) - case.kl(p)

    def iwae(p, path):
        return log_mean(log_w(case.terms(p, path(p))))

    gumbel = functools.partial(estimators.gumbel_straight_through, temperature=TEMPERATURE)
    return {
        f"{name}, {title}": (
            lambda m, k, make=make, objective=objective: make(m, objective, num_samples=k),
            functools.partial(function, path=path),
            functools.partial(function, path=path),
        )
        for name, make, path in (
            ("straight_through", estimators.straight_through, of_mean),
            ("gumbel_straight_through", gumbel, of_noise),
        )
        for title, objective, function in (
            ("elbo", objectives.elbo, elbo),
            ("iwae", objectives.iwae, iwae),
        )
    }


def arsm(case, exponential):
    """Evaluates f at the categories that win after each swap (Yin, Yue & Zhou 2019, theorem 1)."""
    n, logits = case.event[-1], case.logits(case.p0)
    shares = exponential / exponential.sum(-1, keepdims=True)
    table = np.empty((n, n, *case.z.shape[:2]))
    for c, j in np.ndindex(n, n):
        swapped = shares.copy()
        swapped[..., c], swapped[..., j] = shares[..., j], shares[..., c]
        table[c, j] = case.value(case.hard(-swapped * np.exp(-logits)))
    gaps = table - table.mean(0)
    signal = np.einsum("cjkb,kbgj->kbgc", gaps, 1 / n - shares)

    def function(p):
        return case.elbo(p) + case.sum_event(signal * case.logits(p)).mean(0)

    return {"arsm": (on_elbo(estimators.arsm), case.elbo, function)}


@row(few=(), shapes=SHAPES)
def relaxed_binary(rng, shape):
    """Compares relaxations of binary latents."""
    case, params, uniform = binary_case(rng, shape)
    rows = concrete(case) | straight_through(case)
    yield from compared_binary(rng, rows, case, params, uniform)


@row(few=(), shapes=SHAPES)
def relaxed_categorical(rng, shape):
    """Compares relaxations of categories, and swaps."""
    case, params, index = categorical_case(rng, shape)
    exponential = single(rng.exponential(size=case.noise.shape))
    rows = concrete(case) | straight_through(case) | arsm(case, double(exponential))
    draws = {"exponential": exponential}
    yield from compared_categorical(rng, rows, case, params, index, **draws)


def set_chances(p):
    """Computes P(S), P(S without s) and P(S without s and t) of K states without replacement.

    Integrates the product of 1 - v^(p/rest) over v (Kool et al. 2020, appendix B). The
    intervals of the quadrature halve towards both ends.
    """
    halves = 0.5 ** np.arange(1.0, 50)
    edges = np.concatenate([[0], halves[::-1], 1 - halves[1:], [1]])
    nodes, weights = np.polynomial.legendre.leggauss(12)
    width = np.diff(edges)[:, None] / 2
    v, weights = (edges[:-1, None] + width * (1 + nodes)).ravel(), (width * weights).ravel()
    rest = np.maximum(1 - p.sum(0), 1e-300)
    factors = -np.expm1(p[..., None] / rest[:, None] * np.log(v))
    logs = np.log(np.maximum(factors, 1e-300))
    whole = logs.sum(0)
    one = np.exp(whole - logs) @ weights
    two = np.stack([np.exp(whole - logs - row) @ weights for row in logs])
    np.einsum("iib->ib", two)[:] = one
    return np.exp(whole) @ weights, one, two


def unordered(case):
    """Weights a set and subtracts its baseline (Kool et al. 2020, eqs. 9 and 12-15)."""
    chance, values = np.exp(case.log_q(case.p0)), case.value(case.z)
    whole, one, two = set_chances(chance)
    weight = chance * one / whole
    baseline = (chance * two / one[:, None] * values).sum(1)

    def weighted(p):
        return (weight * log_w(case.terms(p, case.z))).sum(0)

    def function(p):
        return weighted(p) + (weight * (values - baseline) * case.log_q(p)).sum(0)

    return on_elbo(estimators.unordered_set), weighted, function


@row(few=(), shapes=((2, 6, 3), (8, 100, 8), (50, 20, 60), (5, 13, 9)))
def unordered_set(rng, shape):
    """Draws categories of one group by Gumbel-top-k, also all of them."""
    (samples, batch, size), event = shape, (1, shape[2])
    x, params = single(rng.normal(size=(batch, 4))), parameters(rng, 4, size, True)
    gumbel, p0 = single(rng.gumbel(size=(batch, samples, size))), double_tree(params)
    scores = double(x) @ p0["e_weight"] + p0["e_bias"] + gumbel[:, 0]
    z = np.eye(size)[np.argsort(-scores, -1)[:, :samples].T][:, :, None]
    rows = {"unordered_set": unordered(Case(event, p0, double(x), z, None))}
    with fixed_draws(gumbel=gumbel):
        yield from compared(rng, rows, discrete_model(event), params, x, {}, samples)


def entry_effects(value, z, above, below):
    """Computes f with one entry from above, minus f with that entry from below, per entry."""
    effects = np.zeros(z.shape)
    for i in range(z.shape[-1]):
        one, other = z.copy(), z.copy()
        one[..., i], other[..., i] = above[..., i], below[..., i]
        effects[..., i] = value(one) - value(other)
    return effects


@row(few=(), shapes=SHAPES)
def poisson(rng, shape):
    """Compares measures of counts: the rate times the difference between z + 1 and z."""
    samples, batch, size = shape
    x, params = single(rng.normal(size=(batch, size))), parameters(rng, size, size, True)
    z, p0 = rng.poisson(2.0, size=shape) * 1.0, double_tree(params)

    def layer(log_rate):
        return distrax.Independent(dists.Poisson(log_rate), 1)

    def log_rates(p):
        return x @ p["e_weight"] + p["e_bias"]

    def value(p, z):
        masses = (stats.poisson.logpmf(z, np.exp(r)).sum(-1) for r in (0.3, log_rates(p)))
        return log_w((references.log_likelihood(p, z, x), *masses))

    effects = entry_effects(functools.partial(value, p0), z, z + 1, z)

    def function(p):
        return (value(p, z) + (effects * np.exp(log_rates(p))).sum(-1)).mean(0)

    model = references.binary_model(size)._replace(
        posterior=lambda p, x: layer(x @ p["e_weight"] + p["e_bias"]),
        prior=lambda p: layer(0.3 * jnp.ones(size)),
    )
    rows = {
        "measure_valued": (
            on_elbo(estimators.measure_valued),
            lambda p: value(p, z).mean(0),
            function,
        )
    }
    with fixed_draws(poisson=z.astype(np.int32)):
        yield from compared(rng, rows, model, params, x, {}, samples)


@row(few=(), shapes=SHAPES)
def normal(rng, shape):
    """Compares measures of normals: Weibull pairs for means, Maxwell and normal for scales."""
    samples, batch, size = shape
    x, params = single(rng.normal(size=(batch, size))), parameters(rng, size, size, False)
    noise, uniform = single(rng.normal(size=shape)), single(rng.random(shape))
    exponential, gamma = single(rng.exponential(size=shape)), single(rng.gamma(1.5, size=shape))
    signs, p0 = single(rng.choice([-1.0, 1.0], shape)), double_tree(params)

    def scales(p):
        return x @ p["e_weight"] + p["e_bias"], np.exp(p["e_scale"])

    loc, scale = scales(p0)
    z = loc + scale * double(noise)

    def value(p, z):
        log_q = stats.norm.logpdf(z, *scales(p)).sum(-1)
        return log_w((references.log_likelihood(p, z, x), stats.norm.logpdf(z).sum(-1), log_q))

    fixed = functools.partial(value, p0)
    weibull, maxwell = np.sqrt(2 * double(exponential)), np.sqrt(2 * double(gamma)) * signs
    of_loc = entry_effects(fixed, z, loc + scale * weibull, loc - scale * weibull)
    of_scale = entry_effects(fixed, z, loc + scale * maxwell, loc + scale * maxwell * uniform)

    def function(p):
        new_loc, new_scale = scales(p)
        paths = of_loc / math.sqrt(2 * math.pi) * new_loc + of_scale * new_scale
        return (value(p, z) + (paths / scale).sum(-1)).mean(0)

    draws = {"exponential": exponential, "gamma": gamma, "rademacher": signs, "uniform": uniform}
    rows = {
        "measure_valued": (
            on_elbo(estimators.measure_valued),
            lambda p: value(p, z).mean(0),
            function,
        )
    }
    with fixed_draws(**draws):
        model = references.normal_model(size)
        yield from compared(rng, rows, model, params, x, {"normal": noise}, samples)
