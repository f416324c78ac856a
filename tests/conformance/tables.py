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
from vaejax.objectives import elbo

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
}

ESTIMATORS = {row.name: row.constructor for row in vaejax.estimators.catalogue()}

EVALUATIONS = {
    "log_marginal": functools.partial(vaejax.evaluate.log_marginal, num_samples=7),
    "elbo": functools.partial(vaejax.evaluate.elbo, num_samples=7),
}
