"""Objectives: functions of log-terms, per example, in nats."""

from vaejax.objectives.base import Objective, as_objective, objective
from vaejax.objectives.elbo import divergence, elbo
from vaejax.objectives.importance import ciwae, iwae, jackknife, miwae
from vaejax.objectives.renyi import cubo, renyi
from vaejax.objectives.tvo import log_uniform_partition, tvo

__all__ = [
    "Objective",
    "as_objective",
    "ciwae",
    "cubo",
    "divergence",
    "elbo",
    "iwae",
    "jackknife",
    "log_uniform_partition",
    "miwae",
    "objective",
    "renyi",
    "tvo",
]
