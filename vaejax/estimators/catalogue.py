"""The table of gradient estimators."""

from collections.abc import Callable
from typing import NamedTuple

from vaejax.estimators.pathwise import pathwise


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
)


def catalogue() -> tuple[CatalogueRow, ...]:
    """All estimators, one row each.

    Examples:
        >>> [row.name for row in catalogue()]
        ['pathwise']
    """
    return _ROWS
