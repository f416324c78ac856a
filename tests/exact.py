"""A model with one latent in which the mean of every importance-weighted objective is known, at any number of draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

import vaejax
from vaejax.dists import diagonal_normal

NOISE = 0.8
X = np.array([[1.3]])  # one example, one entry


def model():
    """z ~ N(prior_loc, prior_scale²), x ~ N(weight·z + bias, NOISE²), q(z) = N(loc, scale²); scales by their logarithms."""

    def vector(value, z):
        return jnp.broadcast_to(value, z.shape)

    return vaejax.Model(
        init=lambda key, batch: params("near"),
        posterior=lambda p, x: diagonal_normal(
            vector(p["encoder"]["loc"], x), log_scale=vector(p["encoder"]["log_scale"], x)
        ),
        prior=lambda p: diagonal_normal(
            jnp.reshape(p["prior"]["loc"], (1,)), log_scale=jnp.reshape(p["prior"]["log_scale"], (1,))
        ),
        likelihood=lambda p, z: diagonal_normal(p["decoder"]["weight"] * z + p["decoder"]["bias"], jnp.asarray(NOISE)),
    )


def params(where):
    """Near the exact posterior, at it, or far away; every scale is wide enough for the χ² bound to exist."""
    tree = {"decoder": {"weight": 1.2, "bias": 0.1}, "prior": {"loc": 0.2, "log_scale": -0.1}}
    loc, scale = exact_posterior(tree)
    loc, scale = {"exact": (loc, scale), "near": (loc + 0.15, 1.2 * scale), "far": (loc - 1.5, 1.6 * scale)}[where]
    return jax.tree.map(jnp.asarray, {**tree, "encoder": {"loc": loc, "log_scale": np.log(scale)}})


def exact_posterior(p):
    prior_variance = np.exp(2 * p["prior"]["log_scale"])
    weight, bias = p["decoder"]["weight"], p["decoder"]["bias"]
    variance = 1 / (1 / prior_variance + weight**2 / NOISE**2)
    return variance * (p["prior"]["loc"] / prior_variance + weight * (X.item() - bias) / NOISE**2), np.sqrt(variance)


def log_evidence(p):
    weight, bias, prior = p["decoder"]["weight"], p["decoder"]["bias"], p["prior"]
    scale = jnp.sqrt(weight**2 * jnp.exp(2 * prior["log_scale"]) + NOISE**2)
    return norm.logpdf(X.item(), weight * prior["loc"] + bias, scale)


def _log_weights(p):
    """log w on a grid of q's noise, and the probabilities of the grid (trapezoid rule: exact to rounding for Gaussians)."""
    noise = jnp.linspace(-10.0, 10.0, 801)
    mass = norm.pdf(noise)
    q, prior = p["encoder"], p["prior"]
    z = q["loc"] + jnp.exp(q["log_scale"]) * noise
    log_joint = norm.logpdf(X.item(), p["decoder"]["weight"] * z + p["decoder"]["bias"], NOISE)
    log_joint += norm.logpdf(z, prior["loc"], jnp.exp(prior["log_scale"]))
    return log_joint - norm.logpdf(z, q["loc"], jnp.exp(q["log_scale"])), mass / mass.sum()


def mean_log_weight(p):
    """The ELBO."""
    log_weights, mass = _log_weights(p)
    return jnp.sum(mass * log_weights)


@functools.partial(jax.jit, static_argnums=1)
def mean_log_sum(p, num_samples, power=1.0):
    """E log (1/K) Σ_k w_k^s, from E log Σ w = ∫ (e^−t − M(t)^K)/t dt with M(t) = E e^(−t w) and t = e^r."""
    log_weights, mass = _log_weights(p)
    log_powers = power * log_weights
    centre = jax.lax.stop_gradient(jnp.sum(mass * log_powers))
    r = jnp.linspace(-160.0, 100.0, 1301)
    transform = jax.lax.map(
        lambda u: jnp.sum(mass * jnp.exp(-jnp.exp(jnp.minimum(u + log_powers - centre, 60.0)))), r, batch_size=100
    )
    integrand = jnp.exp(-jnp.exp(jnp.minimum(r, 60.0))) - transform**num_samples
    return jnp.sum(integrand) * (r[1] - r[0]) + centre - jnp.log(num_samples)


def population_log_moment(p, power):
    """log E w^s."""
    log_weights, mass = _log_weights(p)
    return jax.scipy.special.logsumexp(power * log_weights, b=mass)


def _tvo(points):
    def value(p, num_samples, side):
        chosen = points[:-1] if side == "left" else points[1:]
        tempered = [
            mean_log_weight(p) if b == 0 else jax.grad(lambda s: mean_log_sum(p, num_samples, s))(float(b))
            for b in chosen
        ]
        return sum(width * term for width, term in zip(np.diff(points), tempered))

    return value


def _jackknife_2(p, k):
    weights = (0.5 * k**2, -((k - 1) ** 2), 0.5 * (k - 2) ** 2)
    return sum(c * mean_log_sum(p, k - i) for i, c in enumerate(weights))


POINTS = np.array([0.0, 0.2, 0.6, 1.0])
EXACT = {
    "elbo": lambda p, k: mean_log_weight(p),
    "iwae": mean_log_sum,
    "renyi 0.5": lambda p, k: mean_log_sum(p, k, 0.5) / 0.5,
    "renyi 2": lambda p, k: mean_log_sum(p, k, -1.0) / -1.0,
    "renyi -0.5": lambda p, k: mean_log_sum(p, k, 1.5) / 1.5,
    "cubo": lambda p, k: mean_log_sum(p, k, 2.0) / 2.0,
    "miwae": lambda p, k: mean_log_sum(p, k // 2),
    "ciwae": lambda p, k: 0.3 * mean_log_weight(p) + 0.7 * mean_log_sum(p, k),
    "jackknife 1": lambda p, k: k * mean_log_sum(p, k) - (k - 1) * mean_log_sum(p, k - 1),
    "jackknife 2": _jackknife_2,
    "tvo left": lambda p, k: _tvo(POINTS)(p, k, "left"),
    "tvo right": lambda p, k: _tvo(POINTS)(p, k, "right"),
}
OBJECTIVES = {
    "elbo": vaejax.objectives.elbo,
    "iwae": vaejax.objectives.iwae,
    "renyi 0.5": functools.partial(vaejax.objectives.renyi, alpha=0.5),
    "renyi 2": functools.partial(vaejax.objectives.renyi, alpha=2.0),
    "renyi -0.5": functools.partial(vaejax.objectives.renyi, alpha=-0.5),
    "cubo": vaejax.objectives.cubo,
    "miwae": functools.partial(vaejax.objectives.miwae, groups=2),
    "ciwae": functools.partial(vaejax.objectives.ciwae, beta=0.3),
    "jackknife 1": functools.partial(vaejax.objectives.jackknife, order=1),
    "jackknife 2": functools.partial(vaejax.objectives.jackknife, order=2),
    "tvo left": functools.partial(vaejax.objectives.tvo, partition=POINTS, side="left"),
    "tvo right": functools.partial(vaejax.objectives.tvo, partition=POINTS, side="right"),
}
