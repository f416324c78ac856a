"""The registered parts, one row each: a new part joins every check of this folder by a row here.

Each row builds the part in the smallest setting in which it does its whole work.
"""

import functools

import jax.numpy as jnp
import numpy as np
import optax

import vaejax
from vaejax.dists import (
    Bernoulli,
    Binomial,
    Cauchy,
    Kumaraswamy,
    LogNormal,
    MultivariateNormal,
    Poisson,
    diagonal_normal,
    likelihoods,
)
from vaejax.objectives import ciwae, cubo, elbo, iwae, jackknife, miwae, renyi, tvo

# name -> (parameters -> distribution, parameters as arrays [4, 3], differentiable draws)
_LOC, _POSITIVE = np.linspace(-1.0, 1.0, 12).reshape(4, 3), np.linspace(0.5, 1.5, 12).reshape(4, 3)
DISTRIBUTIONS = {
    "diagonal_normal": (lambda a, b: diagonal_normal(a, b), (_LOC, _POSITIVE)),
    "MultivariateNormal": (lambda a, b: MultivariateNormal(a, b[..., None] * jnp.eye(3)), (_LOC, _POSITIVE)),
    "Bernoulli": (lambda a: Bernoulli(a), (_LOC,)),
    "Binomial": (lambda a: Binomial(5, a), (_LOC,)),
    "Poisson": (lambda a: Poisson(a), (_LOC,)),
    "Cauchy": (Cauchy, (_LOC, _POSITIVE)),
    "LogNormal": (LogNormal, (_LOC, _POSITIVE)),
    "Kumaraswamy": (Kumaraswamy, (_POSITIVE, _POSITIVE)),
}

LIKELIHOODS = {
    "bernoulli": likelihoods.bernoulli(),
    "bernoulli, fractional": likelihoods.bernoulli(fractional=True),
    "binomial": likelihoods.binomial(4),
    "poisson": likelihoods.poisson(),
    "categorical": likelihoods.categorical(3),
    "normal, fixed": likelihoods.normal(0.5),
    "normal, shared": likelihoods.normal("shared"),
    "normal, per dimension": likelihoods.normal("per_dimension"),
    "normal, per example": likelihoods.normal("per_example"),
}

MODELS = {
    "vae": functools.partial(vaejax.models.vae, x_shape=(2, 3), latent_size=2, hidden_sizes=(5,)),
}

OBJECTIVES = {
    "elbo": elbo,
    "elbo, monte carlo": functools.partial(elbo, kl="monte_carlo"),
    "elbo, closed form": functools.partial(elbo, kl="closed_form"),
    "elbo, beta": functools.partial(elbo, beta=4.0),
    "elbo, annealed": functools.partial(elbo, beta=optax.linear_schedule(0.0, 1.0, 10)),
    "elbo, free bits": functools.partial(elbo, free_bits=0.1),
    "elbo, free bits per example": functools.partial(elbo, free_bits=0.1, free_bits_average="per_example"),
    "elbo, capacity": functools.partial(elbo, capacity=optax.linear_schedule(0.0, 1.0, 10), beta=10.0),
    "iwae": iwae,
    "renyi": functools.partial(renyi, alpha=0.5),
    "renyi, annealed": functools.partial(renyi, alpha=optax.linear_schedule(1.0, 0.0, 10)),
    "renyi, largest": functools.partial(renyi, alpha=-jnp.inf),
    "cubo": cubo,
    "miwae": functools.partial(miwae, groups=2),
    "ciwae": functools.partial(ciwae, beta=0.5),
    "jackknife": jackknife,
    "jackknife, second order": functools.partial(jackknife, order=2),
    "tvo": tvo,
    "tvo, right": functools.partial(tvo, side="right"),
    "tvo, adaptive": functools.partial(tvo, partition="adaptive"),
    "a function of one's own": lambda terms: terms.log_likelihood.mean(0),
}

# estimator -> the objectives that it refuses, all others being allowed.
_FREE_BITS = {"elbo, free bits", "elbo, free bits per example"}
_ONLY_PATHWISE = {*_FREE_BITS, "elbo, closed form"}
_NO_MEAN = {name for name in OBJECTIVES if not name.startswith("elbo")} | {"elbo, capacity"}
REFUSED: dict[str, set[str]] = {
    "pathwise": set(),
    "piwae": set(),
    "sticking_the_landing": _NO_MEAN | _ONLY_PATHWISE,
    "taylor_control_variate": _NO_MEAN | _FREE_BITS,
    "doubly_reparameterized": _ONLY_PATHWISE
    | {"elbo, beta", "elbo, annealed", "elbo, capacity", "renyi, largest", "tvo, adaptive", "a function of one's own"},
}

ESTIMATORS = {row.name: row.constructor for row in vaejax.estimators.catalogue()}

EVALUATIONS = {
    "log_marginal": functools.partial(vaejax.evaluate.log_marginal, num_samples=7),
    "elbo": functools.partial(vaejax.evaluate.elbo, num_samples=7),
}
