"""Gaussian mixtures: EM from many starts, exact densities and responsibilities."""

from vaejax.conjugate.gmm.density import Gmm, aic, as_model, bic, bound, log_prob, num_parameters, posterior, sample
from vaejax.conjugate.gmm.fit import Starved, em_step, fit_em
from vaejax.conjugate.gmm.streaming import fit_chunked, fit_stepwise
from vaejax.conjugate.gmm.structures import STRUCTURES, low_rank

__all__ = [
    "STRUCTURES",
    "Gmm",
    "Starved",
    "aic",
    "as_model",
    "bic",
    "bound",
    "em_step",
    "fit_chunked",
    "fit_em",
    "fit_stepwise",
    "log_prob",
    "low_rank",
    "num_parameters",
    "posterior",
    "sample",
]
