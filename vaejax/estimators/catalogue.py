"""The table of gradient estimators."""

from collections.abc import Callable
from typing import NamedTuple

from vaejax.estimators.doubly_reparameterized import doubly_reparameterized
from vaejax.estimators.pathwise import pathwise, sticking_the_landing
from vaejax.estimators.piwae import piwae
from vaejax.estimators.taylor import taylor_control_variate


class CatalogueRow(NamedTuple):
    """One estimator: what it is, what it serves, what it promises.

    Attributes:
        name: its name.
        constructor: ``(model, objective, *, num_samples, …) -> Estimator``.
        latents: the posteriors it serves.
        unbiased: whether its mean is the gradient of the objective.
        needs_many_samples: whether it needs K > 1.
        source: paper and equation.
    """

    name: str
    constructor: Callable
    latents: str
    unbiased: str
    needs_many_samples: bool
    source: str


_ROWS = (
    CatalogueRow(
        "pathwise",
        pathwise,
        "reparameterised",
        "yes",
        False,
        "Kingma & Welling 2014, eq. 7; Rezende et al. 2014, eq. 13",
    ),
    CatalogueRow(
        "sticking_the_landing",
        sticking_the_landing,
        "reparameterised",
        "yes (ELBO only)",
        False,
        "Roeder et al. 2017, algorithm 2",
    ),
    CatalogueRow(
        "doubly_reparameterized",
        doubly_reparameterized,
        "reparameterised",
        "yes (smooth objectives of the log-weights)",
        False,
        "Tucker et al. 2019, eqs. 6-8; Bauer & Mnih 2021, eqs. 8 and 11",
    ),
    CatalogueRow(
        "piwae",
        piwae,
        "reparameterised",
        "yes (for each part's own objective)",
        False,
        "Rainforth et al. 2018, section 5",
    ),
    CatalogueRow(
        "taylor_control_variate",
        taylor_control_variate,
        "diagonal Gaussian",
        "yes (means over draws)",
        False,
        "Miller et al. 2017, eqs. 8-13",
    ),
)


def catalogue() -> tuple[CatalogueRow, ...]:
    """All estimators, one row each.

    Examples:
        >>> [row.name for row in catalogue()]
        ['pathwise', 'sticking_the_landing', 'doubly_reparameterized', 'piwae', 'taylor_control_variate']
    """
    return _ROWS
