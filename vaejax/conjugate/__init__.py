"""Models whose posterior and evidence are exact: what variational bounds and encoders can be held against."""

from vaejax.conjugate import bayesian_gmm, factor_analysis, gmm, linear_vae, mppca, ppca
from vaejax.conjugate.em import FitResult, HalfSteps, half_steps
from vaejax.conjugate.rotation import varimax

__all__ = [
    "FitResult",
    "HalfSteps",
    "bayesian_gmm",
    "factor_analysis",
    "gmm",
    "half_steps",
    "linear_vae",
    "mppca",
    "ppca",
    "varimax",
]
