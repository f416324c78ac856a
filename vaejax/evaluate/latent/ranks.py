"""The test of ranks that should be uniform, and words for how they are not."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vaejax import checks

LOG_LIKELIHOOD = "log p(x|z)"
CALIBRATED = "calibrated"
_MOST_BINS, _FEWEST_EXPECTED = 20, 5
_ROWS = 20
# By the sign of the shift (truth above the draws: +) or of the excess spread of the ranks.
_OF_LATENTS = {
    "shift+": "shifted: q lies too low",
    "shift-": "shifted: q lies too high",
    "spread+": "∪ overconfident: q too narrow, or off by more than its width",
    "spread-": "∩ underconfident: q too wide",
    "": "of another shape",
}
_OF_LIKELIHOOD = {
    "shift+": "shifted: draws of q explain x worse than the z that made it",
    "shift-": "shifted: draws of q explain x better than the z that made it",
    "spread+": "∪ too even: varies too little between draws of q",
    "spread-": "∩ too uneven: varies too much between draws of q",
    "": "of another shape",
}


class Calibration(NamedTuple):
    """Ranks of the truth among draws, and a test for each quantity of whether they are uniform.

    Attributes:
        ranks: ``[n, Q]`` integers 0 … L: how many draws lie below the truth, ties broken at random.
        names: of the quantities.
        num_draws: L.
        num_bins: of the chi-square test, of equally many ranks each.
        level: of the test of all quantities together.
        p_values: ``[Q]`` of each quantity alone.
        adjusted_p_values: ``[Q]`` by Holm's method: below ``level`` the quantity fails.
        mean_rank: ``[Q]`` on the scale from 0 to 1: 1/2 where calibrated, more where the truth lies above the draws.
        mean_rank_error: ``[Q]`` its standard error.
        outer_rank: ``[Q]`` mean squared distance of the ranks from the middle, as a multiple of what is expected: 1 where calibrated, more
            where the truth lies too often outside the draws (∪, or one end of it), less where too often in their midst (∩).
        outer_rank_error: ``[Q]`` its standard error.
        verdicts: ``[Q]`` "calibrated", or how the quantity fails: by the mean of its ranks, by their spread about it, or by both.
    """

    ranks: np.ndarray
    names: tuple[str, ...]
    num_draws: int
    num_bins: int
    level: float
    p_values: np.ndarray
    adjusted_p_values: np.ndarray
    mean_rank: np.ndarray
    mean_rank_error: np.ndarray
    outer_rank: np.ndarray
    outer_rank_error: np.ndarray
    verdicts: tuple[str, ...]

    @property
    def failed(self) -> np.ndarray:
        """``[Q]`` whether each quantity fails."""
        return self.adjusted_p_values < self.level

    @property
    def passed(self) -> bool:
        """Whether none fails."""
        return not self.failed.any()

    def __str__(self) -> str:
        count, total = int(self.failed.sum()), len(self.names)
        verdict = f"{count} of {total} quantities fail" if count else f"all {total} quantities pass"
        head = (
            f"calibration: {verdict} at level {self.level:g} (Holm); {len(self.ranks)} simulations, {self.num_draws} draws, "
            f"{self.num_bins} bins"
        )
        shown = np.sort(np.argsort(self.p_values, kind="stable")[:_ROWS])
        rows = [("", "p", "adjusted", "mean rank", "outer rank", "")]
        for q in shown:
            mean = f"{self.mean_rank[q]:.3f} ± {self.mean_rank_error[q]:.3f}"
            outer = f"{self.outer_rank[q]:.3f} ± {self.outer_rank_error[q]:.3f}"
            p, adjusted = f"{self.p_values[q]:.2g}", f"{self.adjusted_p_values[q]:.2g}"
            rows.append((self.names[q], p, adjusted, mean, outer, self.verdicts[q]))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
        left_out = [f"and {total - len(shown)} of larger p-values"] if total > len(shown) else []
        return "\n".join([head, *lines, *left_out])


def rank_test(ranks: Any, num_draws: int, *, names: Sequence[str] | None = None, level: float = 0.01) -> Calibration:
    """Tests for each column of ranks whether they are uniform on 0 … L, and says how they are not.

    Pearson's chi-square over bins of equally many ranks, at most 20 of them where L + 1 allows, with five expected in each at least;
    p-values of the Q quantities, however dependent, are adjusted by Holm's method.

    Args:
        ranks: ``[n, Q]`` integers: in each of n independent simulations how many of L draws lie below the truth.
        num_draws: L.
        names: of the quantities; ``quantity 0``, … without.
        level: the probability that any fails where all are uniform, at most.

    Returns:
        `Calibration`.

    Raises:
        TypeError, ValueError: ranks that are no integers from 0 to L; names of another number; no bins for so few ranks.

    Source:
        Talts et al. 2018, section 5 (what the shapes mean); Holm 1979.

    Examples:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> good, low = rng.integers(0, 20, (2, 500))
        >>> rank_test(np.stack([good, low // 2], 1), 19).verdicts
        ('calibrated', 'shifted: q lies too high')
    """
    from scipy import stats

    ranks = np.asarray(ranks)
    checks.positive_int(num_draws, "num_draws")
    checks.real(level, "level", minimum=0.0, maximum=1.0, open_minimum=True)
    if ranks.ndim != 2 or not ranks.size or not np.issubdtype(ranks.dtype, np.integer):
        raise TypeError(f"ranks must be integers [n, Q], got {ranks.dtype} of shape {list(ranks.shape)}")
    checks.values(ranks, lambda r: (r >= 0) & (r <= num_draws), "ranks", f"integers from 0 to num_draws = {num_draws}")
    count, quantities = ranks.shape
    called = tuple(f"quantity {q}" for q in range(quantities)) if names is None else tuple(map(str, names))
    if len(called) != quantities:
        raise ValueError(f"names holds {len(called)} names for {quantities} columns of ranks; give one for each")
    num_bins = bins(count, num_draws)
    p_values = np.asarray(stats.chisquare(histograms(ranks, num_draws, num_bins), axis=0).pvalue)
    adjusted = _holm(p_values)
    positions = (ranks + 0.5) / (num_draws + 1)
    expected = (1 - 1 / (num_draws + 1) ** 2) / 12
    outer = (positions - 0.5) ** 2 / expected
    moments = [(v.mean(0), v.std(0, ddof=1) / np.sqrt(count)) for v in (positions, outer)]
    # Errors are those of uniform ranks: an observed one is 0 where all are alike. A uniform's fourth moment is 9/5 of its squared variance.
    shift = (moments[0][0] - 0.5) / np.sqrt(expected / count)
    spread = (positions.var(0) / expected - 1) / np.sqrt(0.8 / count)
    verdicts = tuple(
        _words(name, s, o) if p < level else CALIBRATED for name, s, o, p in zip(called, shift, spread, adjusted)
    )
    return Calibration(
        ranks, called, num_draws, num_bins, float(level), p_values, adjusted, *moments[0], *moments[1], verdicts
    )  # fmt: skip


def bins(count: int, num_draws: int) -> int:
    """How many bins of equally many of the ranks 0 … L: the most up to 20, or the fewest beyond, with five of n ranks expected in each.

    Raises:
        ValueError: where no number of bins divides L + 1 and leaves that many.
    """
    values = num_draws + 1
    possible = [b for b in range(2, values + 1) if values % b == 0 and count >= _FEWEST_EXPECTED * b]
    if not possible:
        raise ValueError(
            f"{count} simulations of {num_draws} draws cannot be tested: num_draws + 1 = {values} has no divisor from 2 to "
            f"{count // _FEWEST_EXPECTED}, the number of bins with {_FEWEST_EXPECTED} expected ranks each; take num_draws=99 and "
            "at least 100 simulations"
        )
    few = [b for b in possible if b <= _MOST_BINS]
    return max(few) if few else min(possible)


def histograms(ranks: np.ndarray, num_draws: int, num_bins: int) -> np.ndarray:
    """How many ranks of each column fall into each bin: ``[bins, Q]``."""
    which = ranks * num_bins // (num_draws + 1)
    return np.stack([np.bincount(column, minlength=num_bins) for column in which.T], axis=1)


def _holm(p_values: np.ndarray) -> np.ndarray:
    order = np.argsort(p_values)
    steps = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def _words(name: str, shift: float, spread: float) -> str:
    """From standard scores: what is above 3 and at least half of the other. Ranks that crowd at one end spread little: that is a shift."""
    said = _OF_LIKELIHOOD if name == LOG_LIKELIHOOD else _OF_LATENTS
    shifted = abs(shift) > 3 and abs(shift) >= abs(spread) / 2
    spread_too = abs(spread) > 3 and abs(spread) >= abs(shift) / 2 and not (shifted and spread < 0)
    kinds = ["shift" + ("+" if shift > 0 else "-")] * bool(shifted)
    kinds += ["spread" + ("+" if spread > 0 else "-")] * bool(spread_too)
    if abs(spread) > abs(shift):
        kinds.reverse()
    return "; ".join(said[kind] for kind in kinds or [""])
