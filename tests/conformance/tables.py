"""The registered parts, one row each: a new part joins every check of this folder by a row here.

Each row builds the part in the smallest setting in which it does its whole work.
"""

import functools

import jax
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
    OneHotCategorical,
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
    "OneHotCategorical": (lambda a: OneHotCategorical(a), (_LOC,)),
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


def discrete(categorical):
    """Four Bernoullis, or two groups of three categories, with linear networks."""
    event = (2, 3) if categorical else (4,)
    size = 6 if categorical else 4

    def family(logits):
        made = OneHotCategorical if categorical else Bernoulli
        return made(logits.reshape(*logits.shape[:-1], *event), event_ndims=len(event))

    def init(key, batch):
        keys = jax.random.split(key)
        return {"encoder": jax.random.normal(keys[0], (6, size)), "decoder": jax.random.normal(keys[1], (size, 6))}

    return vaejax.Model(
        init,
        lambda p, x: family(x.reshape(*x.shape[:-2], 6).astype(p["encoder"].dtype) @ p["encoder"]),
        lambda p: family(jnp.zeros(size, p["encoder"].dtype)),
        lambda p, z: Bernoulli(
            (z.reshape(*z.shape[:2], size) @ p["decoder"]).reshape(*z.shape[:2], 2, 3), event_ndims=2
        ),
    )


MODELS = {
    "vae": functools.partial(vaejax.models.vae, x_shape=(2, 3), latent_size=2, hidden_sizes=(5,)),
    "binary": functools.partial(discrete, False),
    "categories": functools.partial(discrete, True),
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

_MEANS_ONLY = _NO_MEAN | _ONLY_PATHWISE
for _name in [
    "enumerate_latents",
    "nvil",
    "muprop",
    "rebar",
    "relax",
    "arm",
    "disarm",
    "arsm",
    "measure_valued",
    "unordered_set",
]:
    REFUSED[_name] = _MEANS_ONLY
REFUSED |= {"vimco": REFUSED["doubly_reparameterized"], "score_function": _ONLY_PATHWISE, "concrete": _ONLY_PATHWISE}
REFUSED |= {"straight_through": set(), "gumbel_straight_through": set()}

ESTIMATORS = {row.name: row.constructor for row in vaejax.estimators.catalogue()}
PATHS = {"pathwise", "sticking_the_landing", "doubly_reparameterized", "piwae", "taylor_control_variate"}
# The model that each estimator is put through its paces with.
MODEL_OF = {name: "vae" if name in PATHS else "categories" if name == "arsm" else "binary" for name in ESTIMATORS}

EVALUATIONS = {
    "log_marginal": functools.partial(vaejax.evaluate.log_marginal, num_samples=7),
    "elbo": functools.partial(vaejax.evaluate.elbo, num_samples=7),
}
