"""Distributions: Gaussians, likelihood families, reparameterisation and KL divergences."""

from vaejax.dists import likelihoods
from vaejax.dists.bernoulli import Bernoulli, Binomial, logits_log_prob
from vaejax.dists.categorical import OneHotCategorical
from vaejax.dists.chain import Chain
from vaejax.dists.gaussian import MultivariateNormal, diagonal_normal, standard_normal
from vaejax.dists.kl import closed_form, kl_divergence
from vaejax.dists.likelihoods import Likelihood
from vaejax.dists.masking import masked_log_prob
from vaejax.dists.noise import uniform_noise
from vaejax.dists.reparameterization import from_noise, has_fixed_support, is_reparameterized, reparameterized_at
from vaejax.dists.split import SplitPosterior
from vaejax.dists.univariate import Cauchy, Kumaraswamy, LogNormal, Poisson

__all__ = [
    "Bernoulli",
    "Binomial",
    "Cauchy",
    "Chain",
    "Kumaraswamy",
    "Likelihood",
    "LogNormal",
    "MultivariateNormal",
    "OneHotCategorical",
    "Poisson",
    "SplitPosterior",
    "closed_form",
    "diagonal_normal",
    "from_noise",
    "has_fixed_support",
    "is_reparameterized",
    "kl_divergence",
    "likelihoods",
    "logits_log_prob",
    "masked_log_prob",
    "reparameterized_at",
    "standard_normal",
    "uniform_noise",
]
