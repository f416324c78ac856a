"""Objectives: functions of log-terms, per example, in nats."""

from vaejax.objectives.base import Objective, as_objective, objective
from vaejax.objectives.elbo import divergence, elbo

__all__ = ["Objective", "as_objective", "divergence", "elbo", "objective"]
