"""Gradient estimators behind one interface, and what is known of their bias and variance."""

from vaejax.estimators import baselines, signals
from vaejax.estimators.arm import arm, arsm, disarm
from vaejax.estimators.catalogue import CatalogueRow, catalogue
from vaejax.estimators.certificate import Certificate, certify
from vaejax.estimators.doubly_reparameterized import doubly_reparameterized
from vaejax.estimators.measure_valued import measure_valued
from vaejax.estimators.muprop import muprop
from vaejax.estimators.pathwise import pathwise, sticking_the_landing
from vaejax.estimators.piwae import piwae
from vaejax.estimators.rebar import rebar, relax
from vaejax.estimators.relaxed import concrete, gumbel_straight_through, straight_through
from vaejax.estimators.score import nvil, score_function, vimco
from vaejax.estimators.taylor import taylor_control_variate
from vaejax.estimators.unordered import unordered_set
from vaejax.estimators.variance import GradientVariance, variance
from vaejax.estimators.weighted import enumerate_latents

__all__ = [
    "CatalogueRow",
    "Certificate",
    "GradientVariance",
    "arm",
    "arsm",
    "baselines",
    "catalogue",
    "certify",
    "concrete",
    "disarm",
    "doubly_reparameterized",
    "enumerate_latents",
    "gumbel_straight_through",
    "measure_valued",
    "muprop",
    "nvil",
    "pathwise",
    "piwae",
    "rebar",
    "relax",
    "score_function",
    "signals",
    "sticking_the_landing",
    "straight_through",
    "taylor_control_variate",
    "unordered_set",
    "variance",
    "vimco",
]
