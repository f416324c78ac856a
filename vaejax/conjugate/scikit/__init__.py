"""The models of this room as scikit-learn estimators: for pipelines, cross-validation and grid searches.

They compute in the precision of their data, float64 or float32, whatever ``jax_enable_x64`` says, and hold NumPy arrays.
"""

from vaejax.conjugate.scikit.linear import FactorAnalysis, ProbabilisticPCA
from vaejax.conjugate.scikit.mixture import GaussianMixture

__all__ = ["FactorAnalysis", "GaussianMixture", "ProbabilisticPCA"]
