"""What a report of the evidence holds, and what its numbers say together."""

from typing import NamedTuple

import numpy as np

from vaejax.evaluate.evidence.pareto import pareto_threshold
from vaejax.evaluate.summary import MeanEstimate, paired
from vaejax.types import Batch

# Standard errors of a difference that is taken for one.
SIGNIFICANT = 2.0
# Of float32, relative: what is no difference whatever its error.
_ROUNDING = 1e-6
_COLUMN = {"ELBO": "elbo", "IWAE": "iwae", "IS": "importance", "AIS": "ais", "exact": "exact", "gap, simulated": "gap"}


class Line(NamedTuple):
    """One number of a report.

    Attributes:
        name: what it is, short.
        value: its mean over examples, with both errors, nats.
        kind: ``"exact"``, ``"lower bound"`` (in the mean) or ``"diagnostic"``.
        says: what it says, a sentence.
        seconds: that it took, compilation included; the bounds of one pass share theirs.
    """

    name: str
    value: MeanEstimate
    kind: str
    says: str
    seconds: float


class Evidence(NamedTuple):
    """log p(x) of each example, nats.

    Attributes:
        estimate: ``[n]``.
        standard_error: ``[n]``, Monte Carlo; 0 where it is exact.
        weight: ``[n]``, the weights of the examples; None without.
    """

    estimate: np.ndarray
    standard_error: np.ndarray
    weight: np.ndarray | None = None


class EvidenceReport(NamedTuple):
    """The evidence of some examples from every side.

    Attributes:
        lines: the numbers.
        notes: what they say together.
        columns: per-example arrays ``[n]``: ``elbo``, ``iwae``, ``importance`` with ``…_error``; ``pareto_k``,
            ``effective_sample_size``; where they exist ``exact``, ``ais``, ``ais_error``, ``ais_acceptance``,
            ``ais_effective_sample_size``, and ``gap`` (of as many simulated examples); ``weight`` for a batch with weights.
        best: the name of the line to quote: the exact one; AIS where it is above importance sampling by two paired standard errors; else
            the latter. Lower bounds in the mean, both.
        num_samples: S of importance sampling.
    """

    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    columns: dict[str, np.ndarray]
    best: str
    num_samples: int

    @property
    def evidence(self) -> Evidence:
        """The per-example numbers of the line to quote."""
        error = self.columns.get(f"{_column(self.best)}_error")
        estimate = self.values(self.best)
        error = np.zeros_like(estimate) if error is None else error
        return Evidence(estimate, error, self.columns.get("weight"))

    def values(self, name: str) -> np.ndarray:
        """The per-example numbers of a line by its name."""
        return self.columns[_column(name)]

    def __str__(self) -> str:
        width = max(len(line.name) for line in self.lines)
        rows = [
            f"{line.name:{width}}  {line.kind:11}  {line.value} nats  [{line.seconds:.1f} s]" for line in self.lines
        ]
        return "\n".join([*rows, f"to quote: {self.best}", *(f"- {note}" for note in self.notes)])


def _column(name: str) -> str:
    return _COLUMN[name.split("_")[0]]


def trust(columns: dict[str, np.ndarray], num_samples: int) -> str:
    """What Pareto k̂ and the effective sample size say of importance sampling."""
    limit, weight = pareto_threshold(num_samples), columns.get("weight")
    k, sizes = (
        columns[name] if weight is None else columns[name][weight > 0] for name in ("pareto_k", "effective_sample_size")
    )
    size = f"median effective sample size {np.median(sizes):.1f} of {num_samples}"
    if np.isnan(k).all():
        return f"importance sampling: {size}; Pareto k̂ is not defined for discrete latents or so few samples"
    above = int(np.sum(k > limit))
    verdict = "trusted for all" if not above else f"not to be trusted for {above}"
    return f"importance sampling: {verdict} of {len(k)} examples by Pareto k̂ (threshold {limit:.2f}); {size}"


def _both(columns: dict[str, np.ndarray]) -> tuple[Evidence, Evidence]:
    weight = columns.get("weight")
    ours, other = (Evidence(columns[name], columns[f"{name}_error"], weight) for name in ("ais", "importance"))
    return ours, other


def exceeds(first: Evidence, second: Evidence) -> bool:
    """Whether the first is above the second, paired, by two standard errors (of one example, none) and by more than rounding."""
    found = paired(first, second)
    error = 0.0 if np.isnan(found.standard_error) else found.standard_error
    values = second.estimate if second.weight is None else second.estimate[np.asarray(second.weight) > 0]
    return found.mean > SIGNIFICANT * error + _ROUNDING * np.abs(values).max()


def compared(columns: dict[str, np.ndarray]) -> list[str]:
    """What AIS beside importance sampling says."""
    ours, other = _both(columns)
    found = paired(ours, other)
    if found.num_examples <= 1:
        return ["one example: AIS and importance sampling cannot be compared between examples"]
    figure = f"AIS − IS = {found.mean:+.3f} ± {found.standard_error:.3f} nats, paired over examples"
    if exceeds(other, ours):
        return [f"{figure}: AIS needs more temperatures, importance sampling is the better bound"]
    if exceeds(ours, other):
        return [f"{figure}: importance sampling is too low by at least that, AIS is the better bound"]
    return [f"{figure}: the two cannot be told apart"]


def two_sided(gap: MeanEstimate, batch: Batch) -> list[str]:
    """What the gap on simulated data says."""
    figure = f"the gap on simulated data is {gap.mean:.3f} ± {gap.standard_error:.3f} nats"
    if np.isnan(gap.standard_error):
        return [f"the gap on one simulated example is {gap.mean:.3f} nats; simulate more to tell it from noise"]
    seen = gap.mean > SIGNIFICANT * gap.standard_error
    says = "in the mean AIS with these settings is off by no more there" if seen else "none can be seen"
    notes = [f"{figure}: {says}; real data may be harder: for them it is a diagnostic, not a bound"]
    if batch.mask is not None:
        notes.append("the simulated data have no missing entries, unlike these")
    return notes


def best(lines: list[Line], columns: dict[str, np.ndarray]) -> str:
    """The name of the line to quote: the exact one; AIS where it is above importance sampling by two standard errors; else the latter."""
    names = {_column(line.name): line.name for line in lines}
    if "exact" in names:
        return names["exact"]
    if "ais" in names and exceeds(*_both(columns)):
        return names["ais"]
    return names["importance"]
