"""Estimators of discrete latents with baselines or with other states, at fixed noise.

Binary latents have logits [batch, d] and draws [K, batch, d]. Categories have logits
[batch, groups, n] and one-hot draws [K, batch, groups, n]. The references use the formulas of
the papers. `p0` holds the fixed parameters of signals.
"""

import contextlib
import functools
import math
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

import vaejax
from tests.exact_numpy import estimators as references
from tests.exact_numpy.estimators import NOISE, compared, double_tree, log_w, parameters
from tests.exact_numpy.table import double, row, single
from vaejax import dists, estimators, objectives

TEMPERATURE, ETA, HIDDEN = 0.6, 0.7, 7
MEAN, VARIANCE = 1.5, 6.0
SHAPES = ((300, 30, 6), (37, 13, 5))


@contextlib.contextmanager
def fixed_draws(**noise):
    """Patches functions of `jax.random` to return fixed arrays for calls with their shape."""
    with contextlib.ExitStack() as stack:
        for name, numbers in noise.items():
            usual = getattr(jax.random, name)

            def draw(*arguments, numbers=numbers, usual=usual, **options):
                shapes = [a for a in (*arguments, *options.values()) if isinstance(a, tuple)]
                is_fixed = numbers.shape in shapes
                return jnp.asarray(numbers) if is_fixed else usual(*arguments, **options)

            stack.enter_context(mock.patch.object(jax.random, name, draw))
        yield


def prior_logits(event):
    return 0.3 * (np.ones(event) if len(event) == 1 else np.arange(event[-1]) * np.ones(event))


def discrete_model(event):
    def layer(logits):
        logits = logits.reshape(*logits.shape[: logits.ndim - 1], *event)
        if len(event) == 1:
            return dists.Bernoulli(logits)
        return dists.OneHotCategorical(logits, event_ndims=2)

    return vaejax.Model(
        lambda key, batch: {},
        lambda p, x: layer(x @ p["e_weight"] + p["e_bias"]),
        lambda p: layer(jnp.asarray(single(prior_logits(event)).reshape(-1))),
        lambda p, z: references.decoder(p, z.reshape(*z.shape[: z.ndim - len(event)], -1)),
    )


class Case(NamedTuple):
    """Contains data, draws and the noise of relaxations for a model with one discrete layer."""

    event: tuple
    p0: dict
    x: Any
    z: Any
    noise: Any

    @property
    def is_categorical(self):
        return len(self.event) == 2

    def sum_event(self, values):
        return values.sum(tuple(range(-len(self.event), 0)))

    def logits(self, p):
        return (self.x @ p["e_weight"] + p["e_bias"]).reshape(-1, *self.event)

    def slope_of_mass(self, logits):
        """Computes the derivative of `log_mass` in z."""
        return special.log_softmax(logits, -1) if self.is_categorical else logits

    def log_mass(self, z, logits):
        """Computes the log-probability of each latent, extended linearly to any z."""
        linear = z * self.slope_of_mass(logits)
        return linear.sum(-1) if self.is_categorical else linear - np.logaddexp(0, logits)

    def log_q(self, p):
        return self.log_mass(self.z, self.logits(p)).sum(-1)

    def likelihood(self, p, z):
        return references.log_likelihood(p, z.reshape(*z.shape[:2], -1), self.x)

    def terms(self, p, z):
        log_prior = self.log_mass(z, prior_logits(self.event)).sum(-1)
        return self.likelihood(p, z), log_prior, self.log_mass(z, self.logits(p)).sum(-1)

    def value(self, z):
        """Computes the log-weight at fixed parameters."""
        return log_w(self.terms(self.p0, z))

    def elbo(self, p):
        return log_w(self.terms(p, self.z)).mean(0)

    def mean(self, p):
        return self.soft(self.logits(p), 1.0)

    def soft(self, y, temperature):
        y = y / temperature
        return special.softmax(y, -1) if self.is_categorical else special.expit(y)

    def hard(self, y):
        return (y >= y.max(-1, keepdims=True) if self.is_categorical else y > 0) * 1.0

    def kl(self, p):
        mean, logits = self.mean(p), self.logits(p)
        return (self.log_mass(mean, logits) - self.log_mass(mean, prior_logits(self.event))).sum(-1)

    def conditional(self, p):
        """Computes relaxed draws given hard ones.

        Tucker et al. 2017, appendix C (binary); Grathwohl et al. 2018, appendix B (categories).
        """
        if self.is_categorical:
            exponential = np.exp(-self.noise)
            top = (self.z * exponential).sum(-1, keepdims=True)
            return -np.log(np.where(self.z > 0.5, top, exponential / self.mean(p) + top))
        v, failure = special.expit(self.noise), 1 - self.mean(p)
        u = np.where(self.z > 0.5, failure + (1 - failure) * v, failure * v)
        return self.logits(p) + special.logit(u)


def network_numbers(rng, inputs):
    sizes = {"dense_0": (inputs, HIDDEN), "out": (HIDDEN, 1)}
    return {
        name: {"kernel": single(rng.normal(size=size)), "bias": single(rng.normal(size=size[1:]))}
        for name, size in sizes.items()
    }


def network(numbers, x):
    first, last = (jax.tree.map(double, numbers[name]) for name in ("dense_0", "out"))
    hidden = np.tanh(x @ first["kernel"] + first["bias"])
    return (hidden @ last["kernel"] + last["bias"])[..., 0]


def on_elbo(make, change=lambda state: state, **options):
    """Returns a function that builds the estimator, with a changed initial state."""

    def build(model, samples):
        estimator = make(model, objectives.elbo, num_samples=samples, **options)
        return estimator._replace(init=lambda *arguments: change(estimator.init(*arguments)))

    return build


def nvil(case, numbers):
    """Subtracts a network and a mean, divides by max(1, deviation) (Mnih & Gregor 2014)."""
    log_prior = case.log_mass(case.z, prior_logits(case.event))
    log_ratio = log_prior - case.log_mass(case.z, case.logits(case.p0))
    local = case.likelihood(case.p0, case.z)[..., None] + log_ratio
    baseline = network(numbers, case.x)[:, None] + MEAN

    def function(p, signals):
        scores = case.log_mass(case.z, case.logits(p))
        left = (signals - baseline) / max(1.0, math.sqrt(VARIANCE))
        return case.elbo(p) + (left * scores).sum(-1).mean(0)

    def change(state):
        [((regression, average), variance)] = state.baselines
        inner = (regression._replace(params=numbers), average._replace(mean=jnp.float32(MEAN)))
        return state._replace(baselines=((inner, variance._replace(mean=jnp.float32(VARIANCE))),))

    regression, whole = estimators.baselines.network((HIDDEN,)), case.value(case.z)[..., None]
    make = functools.partial(on_elbo, estimators.nvil, change, baseline=regression)
    return {
        "nvil, local signals": (make(), case.elbo, lambda p: function(p, local)),
        "nvil, one signal": (make(rao_blackwell=False), case.elbo, lambda p: function(p, whole)),
    }


def muprop(case):
    """Subtracts a first-order expansion about the mean (Gu et al. 2016, eqs. 4-6)."""
    mean, p0 = case.mean(case.p0)[None], case.p0
    slopes = case.slope_of_mass(prior_logits(case.event)) - case.slope_of_mass(case.logits(p0))
    gap = (case.x - mean.reshape(1, len(case.x), -1) @ p0["weight"] - p0["bias"]) / NOISE**2
    derivative = (gap @ p0["weight"].T).reshape(mean.shape) + slopes
    left = case.value(case.z) - case.value(mean) - case.sum_event(derivative * (case.z - mean))

    def function(p):
        path = case.sum_event(derivative * case.mean(p))[0]
        return case.elbo(p) + (left * case.log_q(p)).mean(0) + path

    return {"muprop": (on_elbo(estimators.muprop), case.elbo, function)}


def relaxed_controls(case, numbers):
    """Subtracts the relaxed objective times η, plus a network for RELAX.

    Tucker et al. 2017, eq. 7; Grathwohl et al. 2018, eq. 8.
    """
    fixed = case.conditional(case.p0)
    start = case.slope_of_mass(case.logits(case.p0))
    inputs = np.broadcast_to(case.x, (*case.z.shape[:2], case.x.shape[-1]))

    def control(y, has_network):
        value = ETA * case.value(case.soft(y, TEMPERATURE))
        flat = y.reshape(*y.shape[:2], -1)
        return value + has_network * network(numbers, np.concatenate([flat, inputs], -1))

    def function(p, has_network):
        left = case.value(case.z) - control(fixed, has_network)
        moved = case.slope_of_mass(case.logits(p)) + fixed - start
        paths = control(moved, has_network) - control(case.conditional(p), has_network)
        return case.elbo(p) + (left * case.log_q(p) + paths).mean(0)

    def change(state):
        return state._replace(tuned=(state.tuned[0]._replace(critic=numbers),))

    options = {"eta": ETA, "temperature": TEMPERATURE}
    rebar = on_elbo(estimators.rebar, **options)
    relax = on_elbo(estimators.relax, change, critic=(HIDDEN,), **options)
    return {
        "rebar": (rebar, case.elbo, lambda p: function(p, False)),
        "relax": (relax, case.elbo, lambda p: function(p, True)),
    }


def measures(case):
    """Differentiates E f, linear in a latent's probabilities (Mohamed et al. 2020, table 1)."""
    effects = np.zeros(case.z.shape)
    for place in np.ndindex(*case.event):
        one, zero = case.z.copy(), case.z.copy()
        if case.is_categorical:
            one[..., place[0], :] = 0
        one[(..., *place)], zero[(..., *place)] = 1, 0
        effects[(..., *place)] = case.value(one) - (0 if case.is_categorical else case.value(zero))

    def function(p):
        return case.elbo(p) + case.sum_event(effects * case.mean(p)).mean(0)

    return {"measure_valued": (on_elbo(estimators.measure_valued), case.elbo, function)}


def binary_case(rng, shape):
    """Returns a case, its parameters in float32, and the uniform numbers of its draws."""
    _, batch, size = shape
    x, uniform = rng.normal(size=(batch, size)), single(rng.random(shape))
    params, noise = parameters(rng, size, size, True), single(rng.logistic(size=shape))
    case = Case((size,), double_tree(params), double(single(x)), None, noise)
    return case._replace(z=(uniform < case.mean(case.p0)) * 1.0), params, uniform


def categorical_case(rng, shape):
    """Returns a case of three groups of four categories, its parameters and their indices."""
    samples, batch, columns = shape
    x, index = rng.normal(size=(batch, columns)), rng.integers(4, size=(samples, batch, 3))
    params, noise = parameters(rng, columns, 12, True), single(rng.gumbel(size=(*index.shape, 4)))
    case = Case((3, 4), double_tree(params), double(single(x)), np.eye(4)[index], noise)
    return case, params, index


def compared_binary(rng, rows, case, params, uniform):
    with fixed_draws(logistic=case.noise):
        model, noise = discrete_model(case.event), {"uniform": uniform}
        yield from compared(rng, rows, model, params, single(case.x), noise, len(case.z))


def compared_categorical(rng, rows, case, params, index, **noise):
    with fixed_draws(categorical=index, gumbel=case.noise, **noise):
        model = discrete_model(case.event)
        yield from compared(rng, rows, model, params, single(case.x), {}, len(case.z))


def with_baselines(rng, case):
    """Returns the rows of estimators that subtract a baseline or evaluate other states."""
    columns, size = case.x.shape[-1], math.prod(case.event)
    rows = nvil(case, network_numbers(rng, columns)) | muprop(case) | measures(case)
    return rows | relaxed_controls(case, network_numbers(rng, columns + size))


@row(few=(), shapes=SHAPES)
def binary(rng, shape):
    case, params, uniform = binary_case(rng, shape)
    yield from compared_binary(rng, with_baselines(rng, case), case, params, uniform)


@row(few=(), shapes=SHAPES)
def categorical(rng, shape):
    case, params, index = categorical_case(rng, shape)
    yield from compared_categorical(rng, with_baselines(rng, case), case, params, index)
