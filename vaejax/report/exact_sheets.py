"""The parameters that ``vaejax fit`` found, as tables for people: a CSV file, and its beginning on the terminal."""

import csv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaejax.conjugate.gmm import Gmm
from vaejax.conjugate.rotation import correlations
from vaejax.report.exact_table import Table

_ROWS, _COLUMNS, _NAME = 20, 8, 20


class Sheet(NamedTuple):
    """A table of parameters.

    Attributes:
        name: of its file, without .csv.
        caption: what it holds, in words.
        columns: their names.
        rows: their cells, text or numbers.
        told: how many of the columns the terminal shows.
        digits: format of numbers there.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    told: int
    digits: str

    def __str__(self) -> str:
        """Caption, names and the first rows, in columns."""
        told = min(self.told, _COLUMNS)
        head = [_short(name) for name in self.columns[:told]]
        body = [
            [_short(cell) if isinstance(cell, str) else format(cell, self.digits) for cell in row[:told]]
            for row in self.rows[:_ROWS]
        ]
        widths = [max(map(len, cells)) for cells in zip(head, *body)]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in (head, *body)]
        rows, columns = len(self.rows) - len(body), self.told - told
        more = [f"{rows} more rows"] * (rows > 0) + [f"{columns} more columns"] * (columns > 0)
        if more:
            lines.append(f"… {' and '.join(more)} in {self.name}.csv")
        return "\n".join([f"{self.caption}:", *lines])

    def write(self, directory: Path) -> str:
        """Writes it whole, and returns the name of the file."""
        path = directory / f"{self.name}.csv"
        with open(path, "w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(self.columns)
            writer.writerows(
                [cell if isinstance(cell, str | int) else f"{cell:.8g}" for cell in row] for row in self.rows
            )
        return path.name


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


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
    names = tuple(f"z_{k}" for k in range(found.shape[1]))
    caption = f"loadings, as correlations of columns and latents ({axes}); shared: their share of the column's variance"
    return Sheet("loadings", caption, ("column", *names, "shared"), rows, len(names) + 2, ".2f")


def components(params: Gmm, table: Table) -> Sheet:
    """A row for each component: its weight, then means and standard deviations of the columns, in the data's units."""
    own = in_own_units(params, table)
    variance = np.asarray(own.covariance)
    if variance.ndim == 3:
        variance = np.diagonal(variance, axis1=1, axis2=2)
    sd = np.sqrt(np.broadcast_to(variance, own.mean.shape))
    names = (
        "component",
        "weight",
        *(f"mean {name}" for name in table.columns),
        *(f"sd {name}" for name in table.columns),
    )
    rows = [(k, *map(float, (own.weight[k], *own.mean[k], *sd[k]))) for k in range(len(own.weight))]
    return Sheet("components", "components, their weights and means", names, rows, len(table.columns) + 2, ".4g")


def in_own_units(params: Gmm, table: Table) -> Gmm:
    """The mixture of the rows as they came."""
    weight, mean, covariance = map(np.asarray, params)
    scale = table.scale[:, None] * table.scale if covariance.ndim == 3 else table.scale**2
    moved: Any = (weight, mean * table.scale + table.mean, covariance * scale)
    return Gmm(*moved)
