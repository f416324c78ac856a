"""Evaluation after training: how good the density is, and how far to trust the number."""

from vaejax.evaluate.ais import ais
from vaejax.evaluate.bdmc import Bidirectional, bdmc
from vaejax.evaluate.blocks import in_blocks
from vaejax.evaluate.chains import Annealed, sigmoid_schedule
from vaejax.evaluate.importance import Elbo, LogMarginal, UntrustworthyEstimate, elbo, log_marginal
from vaejax.evaluate.pareto import pareto_k, pareto_threshold
from vaejax.evaluate.simulate import simulate
from vaejax.evaluate.summary import MeanEstimate, mean_estimate

__all__ = [
    "Annealed",
    "Bidirectional",
    "Elbo",
    "LogMarginal",
    "MeanEstimate",
    "UntrustworthyEstimate",
    "ais",
    "bdmc",
    "elbo",
    "in_blocks",
    "log_marginal",
    "mean_estimate",
    "pareto_k",
    "pareto_threshold",
    "sigmoid_schedule",
    "simulate",
]
