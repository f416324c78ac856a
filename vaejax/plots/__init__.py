"""Plots; needs matplotlib (``pip install vaejax[plots]``)."""

try:
    import matplotlib as _matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError("vaejax.plots needs matplotlib: pip install 'vaejax[plots]'") from error

from vaejax.plots.figures import curves, prior_samples, reconstructions

__all__ = ["curves", "prior_samples", "reconstructions"]
