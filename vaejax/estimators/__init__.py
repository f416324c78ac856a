"""Gradient estimators behind one interface."""

from vaejax.estimators.catalogue import CatalogueRow, catalogue
from vaejax.estimators.doubly_reparameterized import doubly_reparameterized
from vaejax.estimators.pathwise import pathwise, sticking_the_landing
from vaejax.estimators.piwae import piwae
from vaejax.estimators.taylor import taylor_control_variate
from vaejax.estimators.variance import GradientVariance, variance

__all__ = [
    "CatalogueRow",
    "GradientVariance",
    "catalogue",
    "doubly_reparameterized",
    "pathwise",
    "piwae",
    "sticking_the_landing",
    "taylor_control_variate",
    "variance",
]
