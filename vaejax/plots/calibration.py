"""Rank histograms: where the truth lies among draws from the posterior."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vaejax import checks
from vaejax.evaluate import Calibration
from vaejax.evaluate.latent.ranks import LOG_LIKELIHOOD, histograms
from vaejax.plots import style

_COLUMNS = 3


def calibration(result: Calibration, *, max_panels: int = 6) -> Figure:
    """Histograms of the ranks of each quantity, grey where all bars of all quantities lie with probability 1 − level if q is the posterior.

    Of many latents those with the smallest p-values are shown, and log p(x|z) always. Quantities that fail the chi-square test are red. A ∪
    says that q is too narrow, a ∩ that it is too wide, a slope that it is shifted: up to the right, that it lies too low.

    Args:
        result: from `vaejax.evaluate.calibration` or `vaejax.evaluate.rank_test`.
        max_panels: at most so many quantities.

    Raises:
        TypeError: for anything else.

    Examples:
        >>> import numpy as np
        >>> from vaejax.evaluate import rank_test
        >>> ranks = np.random.default_rng(0).integers(0, 20, (200, 2))
        >>> len(calibration(rank_test(ranks, 19)).axes)
        2
    """
    from scipy import stats

    if not isinstance(result, Calibration):
        raise TypeError(f"result must be what vaejax.evaluate.calibration returns, got {type(result).__name__}")
    checks.positive_int(max_panels, "max_panels")
    chosen = _chosen(result, max_panels)
    counts = histograms(result.ranks, result.num_draws, result.num_bins)
    each = result.level / (result.num_bins * len(result.names))
    band = stats.binom.interval(1 - each, len(result.ranks), 1 / result.num_bins)
    top = 1.08 * max(counts[:, chosen].max(), band[1])
    columns = min(_COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = style.figure(max(2.2 * columns, 3.4) if columns < _COLUMNS else style.WIDTH, 0.6 + 1.7 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, q in zip(grid.ravel(), chosen):
        _bars(axes, counts[:, q], result, q, band)
        axes.set_ylim(0, top)
    for axes in grid.ravel()[len(chosen) :]:
        axes.remove()
    for column in range(columns):
        lowest = max(range(column, len(chosen), columns))
        grid.ravel()[lowest].set_xlabel(f"rank among {result.num_draws} draws of q", fontsize=style.TEXT)
        grid.ravel()[lowest].tick_params(labelbottom=True)
    for row in grid[:, 0]:
        row.set_ylabel("simulations", fontsize=style.TEXT)
    figure.suptitle(_title(result, len(chosen), figure.get_figwidth()), fontsize=style.TEXT, x=0.01, ha="left")
    return figure


def _chosen(result: Calibration, max_panels: int) -> list[int]:
    """The columns to show, in their order."""
    first = [q for q, name in enumerate(result.names) if name == LOG_LIKELIHOOD]
    rest = [int(q) for q in np.argsort(result.p_values, kind="stable") if q not in first]
    return sorted([*first, *rest][:max_panels])


def _bars(axes: Axes, counts: np.ndarray, result: Calibration, quantity: int, band: tuple[float, float]) -> None:
    fails = result.failed[quantity]
    edges = np.linspace(0, result.num_draws + 1, result.num_bins + 1) - 0.5
    axes.axhspan(*band, color=style.FAINT, lw=0, zorder=0)
    axes.axhline(len(result.ranks) / result.num_bins, color=style.GREY, lw=0.6, zorder=1)
    axes.stairs(counts, edges, color=style.VERMILLION if fails else style.BLUE, lw=1.2, zorder=2)
    p = result.adjusted_p_values[quantity]
    verdict = ", ".join(part.split(":")[0] for part in result.verdicts[quantity].split("; "))
    style.panel(axes, title=f"{style.plain(style.short(result.names[quantity]))}, p {_p(p)}\n{verdict}")
    margin = 0.015 * (edges[-1] - edges[0])
    axes.set_xlim(edges[0] - margin, edges[-1] + margin)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.2g}"


def _title(result: Calibration, shown: int, inches: float) -> str:
    failed, total = int(result.failed.sum()), len(result.names)
    words = f"{failed} of {total} quantities fail" if failed else f"all {total} quantities pass"
    words += f" at level {result.level:g} (p adjusted for {total})"
    words += f"; {shown} of them shown" if shown < total else ""
    words += "\ngrey: where all bars lie if calibrated"
    return style.wrapped(words, inches)
