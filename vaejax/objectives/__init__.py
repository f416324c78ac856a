"""Objectives: functions of log-terms, per example, in nats."""

from vaejax.objectives.base import Objective, as_objective, objective
from vaejax.objectives.elbo import elbo

__all__ = ["Objective", "as_objective", "elbo", "objective"]
