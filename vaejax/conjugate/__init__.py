"""Models whose posterior and evidence are exact: what variational bounds and encoders can be held against."""

from vaejax.conjugate import ppca
from vaejax.conjugate.em import FitResult

__all__ = ["FitResult", "ppca"]
