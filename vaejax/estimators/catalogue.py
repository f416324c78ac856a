"""The table of gradient estimators."""

from collections.abc import Callable
from typing import NamedTuple

from vaejax.estimators.arm import arm, arsm, disarm
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
from vaejax.estimators.weighted import enumerate_latents


class CatalogueRow(NamedTuple):
    """One estimator: what it is, what it serves, what it promises.

    Attributes:
        name: its name.
        constructor: ``(model, objective, *, num_samples, …) -> Estimator``.
        latents: the posteriors it serves.
        unbiased: whether its mean is the gradient of the objective.
        needs_many_samples: whether it needs K > 1.
        source: paper and equation.
        evaluations: model evaluations a draw, beside the one at the draw: D latents, n categories, L layers.
    """

    name: str
    constructor: Callable
    latents: str
    unbiased: str
    needs_many_samples: bool
    source: str
    evaluations: str = "0"


_BOTH = "Bernoulli, categorical, chains"
_PATH = "reparameterised"
_MEANS = "yes (means over draws)"
_NO = "no"
_TABLE: tuple[tuple, ...] = (
    (pathwise, _PATH, "yes", False, "Kingma & Welling 2014, eq. 7; Rezende et al. 2014, eq. 13"),
    (sticking_the_landing, _PATH, "yes (ELBO only)", False, "Roeder et al. 2017, algorithm 2"),
    (
        doubly_reparameterized,
        _PATH,
        "yes (smooth objectives of the log-weights)",
        False,
        "Tucker et al. 2019, eqs. 6-8; Bauer & Mnih 2021, eqs. 8 and 11",
    ),
    (piwae, _PATH, "yes (for each part's own objective)", False, "Rainforth et al. 2018, section 5"),
    (taylor_control_variate, "diagonal Gaussian", _MEANS, False, "Miller et al. 2017, eqs. 8-13"),
    (enumerate_latents, f"{_BOTH} with few states", "yes (exact)", False, "a sum", "all states"),
    (score_function, "any", "yes", False, "Williams 1992; Ranganath et al. 2014, eqs. 3-5"),
    (nvil, "any", "up to a positive factor", False, "Mnih & Gregor 2014, sections 2.2-2.3"),
    (vimco, "any", "yes (objectives of the log-weights)", True, "Mnih & Rezende 2016, eqs. 8-10"),
    (muprop, _BOTH, _MEANS, False, "Gu et al. 2016, eqs. 4-6", "L, with a slope"),
    (rebar, _BOTH, _MEANS, False, "Tucker et al. 2017, eqs. 3-7", "L, with two slopes"),
    (relax, _BOTH, _MEANS, False, "Grathwohl et al. 2018, eqs. 7-11", "L, with two slopes"),
    (arm, "Bernoulli, chains", _MEANS, False, "Yin & Zhou 2019, eq. 5", "L"),
    (disarm, "Bernoulli, chains", _MEANS, False, "Dong et al. 2020, eq. 6; Yin et al. 2020", "L"),
    (arsm, "categorical, chains", _MEANS, False, "Yin, Yue & Zhou 2019, theorem 1", "L (n(n-1)/2 + 1)"),
    (
        measure_valued,
        "Bernoulli, categorical, Poisson, Normal, chains",
        _MEANS,
        False,
        "Mohamed et al. 2020, section 6; Pflug 1989",
        "D, D n, D, 4 D",
    ),
    (unordered_set, "Bernoulli, categorical, one layer", _MEANS, True, "Kool et al. 2020, eqs. 9, 15"),
    (concrete, _BOTH, _NO, False, "Maddison et al. 2017, section 3.4; Jang et al. 2017"),
    (straight_through, _BOTH, _NO, False, "Bengio et al. 2013, section 4"),
    (gumbel_straight_through, _BOTH, _NO, False, "Jang et al. 2017, section 2.2"),
)
_ROWS = tuple(CatalogueRow(constructor.__name__, constructor, *rest) for constructor, *rest in _TABLE)


def catalogue() -> tuple[CatalogueRow, ...]:
    """All estimators, one row each.

    Examples:
        >>> [row.name for row in catalogue() if row.needs_many_samples]
        ['vimco', 'unordered_set']
    """
    return _ROWS
