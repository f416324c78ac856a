"""The parameters that ``vaejax fit`` found, as tables for people: a CSV file, and its beginning on the terminal."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaejax.conjugate.gmm import Gmm
from vaejax.conjugate.rotation import correlations
from vaejax.data.errors import one_line
from vaejax.plots import style
from vaejax.report.exact_table import Table

_ROWS, _COLUMNS, _NAME = 20, 10, 24


class Sheet(NamedTuple):
    """A table of parameters.

    Attributes:
        name: of its file, without .csv.
        caption: what it holds, in words.
        columns: their names.
        rows: their cells, text or numbers.
        shown: the columns that the terminal shows, with the format of each; the first holds names.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    shown: dict[int, str]

    def __str__(self) -> str:
        """Caption, names and the first rows, in columns."""
        # The last columns sum others up: they stay.
        chosen = list(self.shown.items())
        chosen = chosen if len(chosen) <= _COLUMNS else [*chosen[: _COLUMNS - 1], chosen[-1]]
        body = [[_cell(row[j], form) for j, form in chosen] for row in self.rows[:_ROWS]]
        lines = in_columns([[_cell(self.columns[j], "") for j, _ in chosen], *body])
        hidden = {"row": len(self.rows) - len(body), "column": len(self.columns) - len(chosen)}
        more = [f"{count} more {what}{'s' * (count > 1)}" for what, count in hidden.items() if count]
        return "\n".join(
            [f"{self.caption}:", *lines, *([f"({' and '.join(more)} in {self.name}.csv)"] if more else [])]
        )


def _cell(value: Any, form: str) -> str:
    return style.short(one_line(value), _NAME) if isinstance(value, str) else format(value, form)


def in_columns(rows: list[list[str]]) -> list[str]:
    """Cells below each other, the first of each row to the left."""
    widths = [max(map(len, cells)) for cells in zip(*rows)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV file; floats in as many digits as tell them apart."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([repr(float(cell)) if isinstance(cell, float) else cell for cell in row] for row in rows)


def loadings(weight: Any, noise: Any, table: Table, axes: str) -> Sheet:
    """A row for each column of the data: its correlation with each latent, and how much of its variance they share.

    Args:
        weight: ``[d, q]`` W.
        noise: ``[d]`` ψ, or one σ² for all.
        table: the data.
        axes: how the latents are turned, in words.
    """
    found = correlations(weight, noise)
    shared = np.sum(found**2, 1)
    rows = [(name, *map(float, row), float(part)) for name, row, part in zip(table.columns, found, shared)]
    names = ("column", *(f"z_{k}" for k in range(found.shape[1])), "shared")
    caption = f"loadings, as correlations of columns and latents ({axes}); shared: their share of the column's variance"
    return Sheet("loadings", caption, names, rows, dict.fromkeys(range(len(names)), ".2f"))


def components(params: Gmm, table: Table) -> Sheet:
    """A row for each component: its weight, then means and standard deviations of the columns, in the data's units."""
    own = in_own_units(params, table)
    variance = np.asarray(own.covariance)
    if variance.ndim == 3:
        variance = np.diagonal(variance, axis1=1, axis2=2)
    mean = np.asarray(own.mean)
    sd = np.sqrt(np.broadcast_to(variance, mean.shape))
    names = (
        "component",
        "weight",
        *(f"{name}, mean" for name in table.columns),
        *(f"{name}, sd" for name in table.columns),
    )
    rows = [(str(k), *map(float, (own.weight[k], *mean[k], *sd[k]))) for k in range(len(mean))]
    # Two digits beyond the first of the smallest standard deviation tell components apart.
    forms = [f".{places}f" if places <= 6 else ".4g" for places in map(_places, sd.min(0))]
    return Sheet(
        "components", "components, their weights and means", names, rows, {0: "", 1: ".3f", **dict(enumerate(forms, 2))}
    )


def _places(sd: float) -> int:
    return max(0, 2 - math.floor(math.log10(sd)))


def in_own_units(params: Gmm, table: Table) -> Gmm:
    """The mixture of the rows as they came."""
    weight, mean, covariance = map(np.asarray, params)
    scale = table.scale[:, None] * table.scale if covariance.ndim == 3 else table.scale**2
    moved: Any = (weight, mean * table.scale + table.mean, covariance * scale)
    return Gmm(*moved)
