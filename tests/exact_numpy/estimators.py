"""Gradient estimators at given noise: the objective of each example and the gradient along directions.

The reference differentiates, by differences in float64, the function whose gradient an estimator
defines: draws, signals and stopped parameters are held fixed where the estimator holds them fixed.
"""

import contextlib
import functools
import itertools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

import vaejax
from tests.exact_numpy.divergences import normals
from tests.exact_numpy.numerics import log_mean
from tests.exact_numpy.table import along, double, row, single, slope
from vaejax import dists, estimators, objectives

NOISE = 0.5


@contextlib.contextmanager
def fixed_noise(**noise):
    """Lets the named functions of `vaejax.random` return given numbers of their shape while a program is traced."""
    with contextlib.ExitStack() as stack:
        for name, numbers in noise.items():
            usual = getattr(vaejax.random, name)

            def draw(key, shape=(), *rest, numbers=numbers, usual=usual):
                return numbers if tuple(shape) == numbers.shape else usual(key, shape, *rest)

            stack.enter_context(mock.patch.object(vaejax.random, name, draw))
        yield


def decoder(p, z):
    return dists.diagonal_normal(z @ p["weight"] + p["bias"], jnp.asarray(NOISE))


def normal_model(size):
    return vaejax.Model(
        lambda key, batch: {},
        lambda p, x: dists.diagonal_normal(x @ p["e_weight"] + p["e_bias"], log_scale=p["e_scale"] + 0 * x),
        lambda p: dists.standard_normal(size),
        decoder,
    )


def binary_model(size):
    return vaejax.Model(
        lambda key, batch: {},
        lambda p, x: dists.Bernoulli(x @ p["e_weight"] + p["e_bias"]),
        lambda p: dists.Bernoulli(0.3 * jnp.ones(size)),
        decoder,
    )


def parameters(rng, columns, size, binary):
    def matrix(*shape):
        return single(rng.normal(size=shape) / np.sqrt(shape[0]))

    tree = {"e_bias": single(0.3 * rng.normal(size=size)), "e_weight": matrix(columns, size)}
    scale = {} if binary else {"e_scale": single(0.2 * rng.normal(size=size) - 0.5)}
    return tree | scale | {"bias": single(rng.normal(size=columns)), "weight": matrix(size, columns)}


def with_encoder(p, q):
    """The encoder of q with the decoder of p."""
    return {name: (q if name.startswith("e_") else p)[name] for name in p}


def log_likelihood(p, z, x):
    return stats.norm.logpdf(x, z @ p["weight"] + p["bias"], NOISE).sum(-1)


def normal_terms(p, x, noise, stopped=None):
    """log p(x|z), log p(z), log q(z|x) at z of p and the density q of ``stopped``."""
    q = p if stopped is None else stopped
    z = x @ p["e_weight"] + p["e_bias"] + np.exp(p["e_scale"]) * noise
    log_q = stats.norm.logpdf(z, x @ q["e_weight"] + q["e_bias"], np.exp(q["e_scale"])).sum(-1)
    return log_likelihood(p, z, x), stats.norm.logpdf(z).sum(-1), log_q


def log_w(terms):
    return terms[0] + terms[1] - terms[2]


def exact_elbo(p, x):
    """In closed form: the model is linear."""
    loc, variance = x @ p["e_weight"] + p["e_bias"], np.exp(2 * p["e_scale"])
    spread = 0.5 * (variance[:, None] * p["weight"] ** 2).sum() / NOISE**2
    return log_likelihood(p, loc, x) - spread - normals(loc, np.exp(p["e_scale"]), 0.0, 1.0).sum(-1)


def reparameterized(p0, x, noise):
    """Name -> (estimator of a model, values, function whose gradient it is)."""
    weights = special.softmax(log_w(normal_terms(p0, x, noise)), 0)
    terms = functools.partial(normal_terms, x=x, noise=noise)

    def of_encoder(p):
        return with_encoder(p0, p)

    def of_decoder(p):
        return with_encoder(p, p0)

    def elbo(p):
        return log_w(terms(p)).mean(0)

    def iwae(p):
        return log_mean(log_w(terms(p)))

    def closed(p):
        loc = x @ p["e_weight"] + p["e_bias"]
        return terms(p)[0].mean(0) - normals(loc, np.exp(p["e_scale"]), 0.0, 1.0).sum(-1)

    def doubly(p):
        path = (weights**2 * log_w(terms(of_encoder(p), stopped=p0))).sum(0)
        return path + (weights * log_w(terms(of_decoder(p)))).sum(0)

    monte_carlo = functools.partial(objectives.elbo, kl="monte_carlo")
    make = estimators
    return {
        "pathwise, elbo": (lambda m, k: make.pathwise(m, objectives.elbo, num_samples=k), closed, closed),
        "pathwise, monte carlo": (lambda m, k: make.pathwise(m, monte_carlo, num_samples=k), elbo, elbo),
        "pathwise, iwae": (lambda m, k: make.pathwise(m, objectives.iwae, num_samples=k), iwae, iwae),
        "sticking_the_landing": (
            lambda m, k: make.sticking_the_landing(m, objectives.elbo, num_samples=k),
            elbo,
            lambda p: log_w(terms(p, stopped=with_encoder(p, p0))).mean(0),
        ),
        "doubly_reparameterized": (
            lambda m, k: make.doubly_reparameterized(m, objectives.iwae, num_samples=k),
            iwae,
            doubly,
        ),
        "piwae": (
            lambda m, k: make.piwae(m, encoder=monte_carlo, decoder=objectives.iwae, num_samples=k),
            None,
            lambda p: elbo(of_encoder(p)) + iwae(of_decoder(p)),
        ),
        "taylor_control_variate": (
            lambda m, k: make.taylor_control_variate(m, objectives.elbo, num_samples=k),
            None,
            lambda p: exact_elbo(of_encoder(p), x) + closed(of_decoder(p)),
        ),
    }


def compared(rng, rows, model, params, x, noise, samples):
    names = sorted(params)
    for name, (make, values, function) in rows.items():
        with fixed_noise(**noise):
            estimator, key = make(model, samples), jax.random.key(0)
            state = estimator.init(params, key, x)
            estimate = jax.jit(lambda p, x, e=estimator, s=state, k=key: e.estimate(p, s, k, x)[0])(params, x)
        if values is not None:
            yield f"{name}: values", estimate.objective, values(double_tree(params))
        for moved in names:
            directions = tuple(rng.normal(size=params[n].shape) * (n == moved) for n in names)

            def loss(*leaves, f=function):
                return -f(dict(zip(names, leaves))).mean()

            exact = slope(loss, tuple(params[n] for n in names), directions)
            yield f"{name}: {moved}", along([estimate.grads[n] for n in names], directions), exact


def double_tree(params):
    return {name: double(leaf) for name, leaf in params.items()}


# Derivatives of K log-weights among each other: K is bounded.
LONG, SMALL = (2000, 6, 2), ((100, 100, 8), (64, 100, 10), (50, 20, 50), (37, 13, 5))


@row(few=(), shapes=(LONG, *SMALL))
def path(rng, shape):
    samples, batch, size = shape
    x, noise = single(rng.normal(size=(batch, size))), single(rng.normal(size=shape))
    params = parameters(rng, size, size, False)
    rows = reparameterized(double_tree(params), double(x), double(noise))
    yield from compared(rng, rows, normal_model(size), params, x, {"normal": noise}, samples)


def log_bernoulli(z, logits):
    return (z * logits - np.logaddexp(0, logits)).sum(-1)


def discrete(p0, x, uniform):
    def logits(p):
        return x @ p["e_weight"] + p["e_bias"]

    def terms(p, z):
        return log_likelihood(p, z, x), log_bernoulli(z, 0.3 * np.ones(z.shape[-1])), log_bernoulli(z, logits(p))

    chance = special.expit(logits(p0))
    z = (uniform < chance) * 1.0
    fixed = log_w(terms(p0, z))
    count = len(z)
    others = (fixed.sum(0) - fixed) / (count - 1)
    replaced = np.where(np.eye(count, dtype=bool)[:, :, None], others[:, None], fixed[None])
    signal = log_mean(fixed) - log_mean(replaced, 1)
    behind = np.where(z > 0.5, chance * uniform, chance + (1 - chance) * uniform)
    other = (behind > special.expit(-logits(p0))) * 1.0
    there = log_w(terms(p0, other))
    arm = (there - fixed)[..., None] * (behind - 0.5)
    disarm = 0.5 * (fixed - there)[..., None] * (z - other) * special.expit(np.abs(logits(p0)))
    states = np.array(list(itertools.product([0.0, 1.0], repeat=z.shape[-1])))[:, None]

    def elbo(p):
        return log_w(terms(p, z)).mean(0)

    def scored(p, signals):
        return elbo(p) + (signals * log_bernoulli(z, logits(p))).mean(0)

    def through(p, cotangents):
        return elbo(p) + (cotangents * logits(p)).sum(-1).mean(0)

    def expected(p):
        every = terms(p, np.broadcast_to(states, (len(states), *x.shape[:1], z.shape[-1])))
        return (np.exp(every[2]) * log_w(every)).sum(0)

    make, loo = estimators, estimators.baselines.leave_one_out()

    def iwae(p):
        return log_mean(log_w(terms(p, z)))

    return {
        "score_function": (
            lambda m, k: make.score_function(m, objectives.elbo, num_samples=k),
            elbo,
            lambda p: scored(p, fixed),
        ),
        "score_function, leave one out": (
            lambda m, k: make.score_function(m, objectives.elbo, num_samples=k, baseline=loo),
            elbo,
            lambda p: scored(p, fixed - others),
        ),
        "vimco": (
            lambda m, k: make.vimco(m, objectives.iwae, num_samples=k),
            iwae,
            lambda p: iwae(p) + (signal * log_bernoulli(z, logits(p))).sum(0),
        ),
        "arm": (lambda m, k: make.arm(m, objectives.elbo, num_samples=k), elbo, lambda p: through(p, arm)),
        "disarm": (lambda m, k: make.disarm(m, objectives.elbo, num_samples=k), elbo, lambda p: through(p, disarm)),
        "enumerate_latents": (lambda m, k: make.enumerate_latents(m, objectives.elbo), expected, expected),
    }


@row(few=(), shapes=((400, 6, 2), *SMALL))
def score(rng, shape):
    """At most eight latents, of which all states are summed."""
    samples, batch, columns = shape
    size = min(columns, 8)
    x, uniform = single(rng.normal(size=(batch, columns))), single(rng.random((samples, batch, size)))
    params = parameters(rng, columns, size, True)
    rows = discrete(double_tree(params), double(x), double(uniform))
    yield from compared(rng, rows, binary_model(size), params, x, {"uniform": uniform}, samples)
