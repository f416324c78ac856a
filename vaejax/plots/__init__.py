"""Plots; needs matplotlib (``pip install vaejax[plots]``).

Every function returns a `matplotlib.figure.Figure` made without pyplot: nothing is shown, nothing stays open.
``figure.savefig("name.pdf")`` writes it, and as the last line of a notebook's cell it draws itself. Figures are at most 6.5
inches wide, with text of 7 points or more at that width, in colours that stay apart for colour-blind readers.
"""

try:
    import matplotlib as _matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError("vaejax.plots needs matplotlib: pip install 'vaejax[plots]'") from error

from vaejax.plots.calibration import calibration
from vaejax.plots.em import fit_trace, half_steps
from vaejax.plots.evidence import evidence
from vaejax.plots.factors import loadings, scree
from vaejax.plots.fit import item_fit
from vaejax.plots.images import interpolation, prior_samples, reconstructions, sigma_strips
from vaejax.plots.latent import kl_per_latent, latent_scatter
from vaejax.plots.manifold import manifold
from vaejax.plots.mixture import mixture
from vaejax.plots.tables import item_curves, responses
from vaejax.plots.training import curves

__all__ = [
    "calibration",
    "curves",
    "evidence",
    "fit_trace",
    "half_steps",
    "interpolation",
    "item_curves",
    "item_fit",
    "kl_per_latent",
    "latent_scatter",
    "loadings",
    "manifold",
    "mixture",
    "prior_samples",
    "reconstructions",
    "responses",
    "scree",
    "sigma_strips",
]
