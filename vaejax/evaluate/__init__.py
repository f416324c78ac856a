"""Evaluation after training: how good the density is, and how far to trust the number."""

from vaejax.evaluate.blocks import in_blocks
from vaejax.evaluate.disentanglement.accuracy import beta_vae_score, factor_vae_score, sap
from vaejax.evaluate.disentanglement.factors import FactorScore, mig, modularity
from vaejax.evaluate.disentanglement.report import (
    SCORE_MEANINGS,
    Dci,
    DisentanglementReport,
    dci,
    disentanglement_report,
)
from vaejax.evaluate.evidence.ais import ais
from vaejax.evaluate.evidence.bdmc import Bidirectional, bdmc
from vaejax.evaluate.evidence.bounds import Bounds, Iwae, bounds
from vaejax.evaluate.evidence.chains import Annealed, sigmoid_schedule
from vaejax.evaluate.evidence.enumeration import exact_log_marginal
from vaejax.evaluate.evidence.families import Family
from vaejax.evaluate.evidence.importance import Elbo, LogMarginal, UntrustworthyEstimate, elbo, log_marginal
from vaejax.evaluate.evidence.inference_gap import InferenceGap, inference_gap
from vaejax.evaluate.evidence.lines import Evidence, EvidenceReport, Line
from vaejax.evaluate.evidence.pareto import pareto_k, pareto_threshold
from vaejax.evaluate.evidence.report import WU_2017, evidence_report
from vaejax.evaluate.latent.active_units import ActiveUnits, KlPerDimension, active_units, kl_per_dimension
from vaejax.evaluate.latent.aggregate import Aggregate, aggregate
from vaejax.evaluate.latent.calibration import calibration
from vaejax.evaluate.latent.ranks import Calibration, rank_test
from vaejax.evaluate.latent.report import Collapse, LatentReport, collapse, latent_report
from vaejax.evaluate.latent.usage import LatentUsage, latent_usage
from vaejax.evaluate.samples.frechet import FrechetDistance, frechet_distance
from vaejax.evaluate.samples.mmd import MMD, mmd
from vaejax.evaluate.samples.two_samples import ClassifierTest, classifier_two_sample_test
from vaejax.evaluate.simulate import simulate
from vaejax.evaluate.summary import MeanEstimate, mean_estimate, paired

__all__ = [
    "MMD",
    "SCORE_MEANINGS",
    "WU_2017",
    "ActiveUnits",
    "Aggregate",
    "Annealed",
    "Bidirectional",
    "Bounds",
    "Calibration",
    "ClassifierTest",
    "Collapse",
    "Dci",
    "DisentanglementReport",
    "Elbo",
    "Evidence",
    "EvidenceReport",
    "FactorScore",
    "Family",
    "FrechetDistance",
    "InferenceGap",
    "Iwae",
    "KlPerDimension",
    "LatentReport",
    "LatentUsage",
    "Line",
    "LogMarginal",
    "MeanEstimate",
    "UntrustworthyEstimate",
    "active_units",
    "aggregate",
    "ais",
    "bdmc",
    "beta_vae_score",
    "bounds",
    "calibration",
    "classifier_two_sample_test",
    "collapse",
    "dci",
    "disentanglement_report",
    "elbo",
    "evidence_report",
    "exact_log_marginal",
    "factor_vae_score",
    "frechet_distance",
    "in_blocks",
    "inference_gap",
    "kl_per_dimension",
    "latent_report",
    "latent_usage",
    "log_marginal",
    "mean_estimate",
    "mig",
    "mmd",
    "modularity",
    "paired",
    "pareto_k",
    "pareto_threshold",
    "rank_test",
    "sap",
    "sigmoid_schedule",
    "simulate",
]
