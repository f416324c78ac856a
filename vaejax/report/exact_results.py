"""What ``vaejax fit`` found: in words, and as files.

params.npz     the parameters, and what the columns were standardised by     loadings.csv, components.csv   the same, for people
summary.json   settings, criteria, log-likelihoods     rows.csv   a line for each row, in the order of the source
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import vaejax
from vaejax import evaluate
from vaejax.conjugate import FitResult
from vaejax.report.exact_models import Kind
from vaejax.report.exact_sheets import write_table
from vaejax.report.exact_table import PARTS, Table
from vaejax.report.run import write_summary
from vaejax.types import Params

OfParts = dict[str, dict[str, np.ndarray]]


class Plan(NamedTuple):
    """A fit before it begins, all checked."""

    options: Any
    kind: Kind
    table: Table
    sizes: list[int]


class Candidate(NamedTuple):
    """A fit of one size.

    Attributes:
        size: components, or latents.
        params: of the columns as fitted.
        result: of EM; None where there was a closed form.
        log_prob: ``{"train", "validation", "test"}``: ``[n]`` nats, in the data's own units.
        num_parameters: how many numbers are free.
        seconds: taken.
    """

    size: int
    params: Params
    result: FitResult | None
    log_prob: dict[str, np.ndarray]
    num_parameters: int
    seconds: float

    @property
    def collapsed(self) -> bool:
        """Whether components did, and ended the fit: its criteria then say how far it came, and nothing else."""
        return self.result is not None and self.result.collapsed is not None and int(self.result.collapsed) > 0

    @property
    def log_likelihood(self) -> float:
        """Of all training rows."""
        return float(self.log_prob["train"].sum())

    @property
    def aic(self) -> float:
        """Akaike's criterion: smaller is better."""
        return 2 * self.num_parameters - 2 * self.log_likelihood

    @property
    def bic(self) -> float:
        """Schwarz's criterion: smaller is better."""
        return self.num_parameters * float(np.log(len(self.log_prob["train"]))) - 2 * self.log_likelihood


def counted(kind: Kind, size: int) -> str:
    """A size in words."""
    return f"{size} {kind.noun if size > 1 else kind.noun[:-1]}"


def in_words(planned: Plan, candidates: list[Candidate], chosen: Candidate, agreement: dict[str, float] | None) -> str:
    """The results in a few lines for a terminal."""
    kind, table = planned.kind, planned.table
    counts = {part: len(batch.x) for part, batch in table.parts.items()}
    watched = counts["validation"] > 0
    head = f"{kind.noun:>10} {'log-likelihood':>16} {'parameters':>11} {'AIC':>14} {'BIC':>14}"
    lines = [head + f" {'validation':>12}" * watched]
    for one in candidates:
        mark = "  collapsed" if one.collapsed else "  *" * (one is chosen and len(candidates) > 1)
        lines.append(
            f"{one.size:>10} {one.log_likelihood:>16.3f} {one.num_parameters:>11} {one.aic:>14.3f} {one.bic:>14.3f}"
            + (f" {one.log_prob['validation'].mean():>12.3f}" if watched else "")
            + mark
        )
    validation = f"; validation: mean over its {counts['validation']} rows" if watched else ""
    lines.append(f"(of all {counts['train']} training rows{validation}; nats)")
    lines.append(f"\n{counted(kind, chosen.size)}" + (", of smallest BIC:" if len(candidates) > 1 else ":"))
    lines += _larger(planned, candidates, chosen)
    lines += [f"{part:<5} log-likelihood  {_mean(chosen, part)} nats" for part in ("train", "test") if counts[part]]
    if agreement is not None:
        name = planned.options.table.labels or "the labels"
        told = ", ".join(f"{value:.3f} {part}" for part, value in agreement.items())
        lines.append(f"agreement with {name} (adjusted Rand index): {told}")
    words = kind.words(chosen.params, table)
    return "\n".join([*lines, words] if words else lines)


def _larger(planned: Plan, candidates: list[Candidate], chosen: Candidate) -> list[str]:
    """A hint where the best size is the largest that was tried, none was refused, and larger ones are possible."""
    largest = max(planned.sizes)
    more = range(largest + 1, min(largest + 5, planned.kind.most(planned.table)) + 1)
    if len(candidates) == 1 or chosen.size < largest or chosen.collapsed or not more:
        return []
    return [f"(the largest tried: more may be better still, --{planned.kind.noun} {' '.join(map(str, more))})"]


def _mean(chosen: Candidate, part: str) -> evaluate.MeanEstimate:
    values = chosen.log_prob[part]
    return evaluate.mean_estimate(values, np.full(len(values), np.nan))


def write(
    planned: Plan,
    directory: Path,
    candidates: list[Candidate],
    chosen: Candidate,
    rows: OfParts,
    agreement: dict[str, float] | None,
) -> None:
    """Writes parameters, rows and summary."""
    table, settings = planned.table, dataclasses.asdict(planned.options)
    arrays: dict[str, Any] = {name: np.asarray(leaf) for name, leaf in chosen.params._asdict().items()}
    arrays |= {"column_mean": table.mean, "column_scale": table.scale, "column_names": np.array(table.columns)}
    np.savez(directory / "params.npz", **arrays)
    _write_rows(directory / "rows.csv", planned, chosen, rows)
    summary = {
        "model": planned.kind.name,
        "name": table.name,
        "settings": settings,
        "columns": table.columns,
        "rows": {part: len(batch.x) for part, batch in table.parts.items()},
        planned.kind.noun: chosen.size,
        "log_likelihood": {part: _mean(chosen, part)._asdict() for part in PARTS if len(table.parts[part].x)},
        "adjusted_rand_index": agreement,
        "candidates": [_told(one) for one in candidates],
        "versions": {"vaejax": vaejax.__version__, "jax": jax.__version__},
    }
    write_summary(directory / "summary.json", summary)


def _told(one: Candidate) -> dict[str, Any]:
    made = {} if one.result is None else {"steps": int(one.result.num_steps), "converged": bool(one.result.converged)}
    if one.result is not None and one.result.reseeded is not None:
        made["reseeded"] = int(np.sum(one.result.reseeded))
    return {
        "size": one.size,
        "log_likelihood": one.log_likelihood,
        "parameters": one.num_parameters,
        "aic": one.aic,
        "bic": one.bic,
        "validation_mean": float(one.log_prob["validation"].mean()) if len(one.log_prob["validation"]) else None,
        **made,
        "seconds": one.seconds,
    }


def _write_rows(path: Path, planned: Plan, chosen: Candidate, rows: OfParts) -> None:
    """A line for each row, in the order of the source."""
    table = planned.table
    places = np.concatenate([table.places[part] for part in PARTS])
    columns: dict[str, Any] = {
        "row": places,
        "part": np.concatenate([np.full(len(table.places[part]), part) for part in PARTS]),
    }
    if table.labels is not None:
        codes = np.concatenate([table.labels[part] for part in PARTS])
        columns["label"] = codes if table.label_names is None else np.array(table.label_names)[codes]
    columns["log_density"] = np.concatenate([chosen.log_prob[part] for part in PARTS])
    columns |= {name: np.concatenate([rows[part][name] for part in PARTS]) for name in rows["train"]}
    order = np.argsort(places, kind="stable")
    write_table(path, list(columns), zip(*(values[order].tolist() for values in columns.values())))
