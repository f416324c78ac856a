"""Evaluation after training: how good the density is, and how far to trust the number."""

from vaejax.evaluate.importance import Elbo, LogMarginal, elbo, log_marginal
from vaejax.evaluate.summary import MeanEstimate, mean_estimate

__all__ = ["Elbo", "LogMarginal", "MeanEstimate", "elbo", "log_marginal", "mean_estimate"]
