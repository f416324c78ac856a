"""``vaejax fit``: models whose evidence is exact, from a table to a run directory, in float64."""

import contextlib
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vaejax import checks, plots, random
from vaejax.conjugate import factor_analysis
from vaejax.report import pictures
from vaejax.report.exact_models import KINDS
from vaejax.report.exact_results import Candidate, OfParts, Plan, counted, in_words, write
from vaejax.report.exact_sheets import write_table
from vaejax.report.exact_table import PARTS, Table, open_table
from vaejax.report.options import in_flags
from vaejax.report.run import new_run_directory, write_figures
from vaejax.types import Batch, Params

# Rows at once: what a model makes of them may be far larger than they are.
_BLOCK = 8192


def plan(options: Any) -> Plan:
    """Reads the data and checks everything, before anything is written or fitted.

    Args:
        options: `vaejax.report.fit_options.Gmm`, `Ppca` or `Fa`.

    Raises:
        FileNotFoundError, ValueError, TypeError: missing data, or such as the model cannot have; settings out of range.
    """
    kind = KINDS[type(options)]
    checks.positive_int(options.max_steps, "--max-steps")
    checks.seed(options.seed, "--seed")
    checks.real(options.tolerance, "--tolerance", minimum=0.0)
    varied = kind.name == "fa" or (kind.name == "gmm" and options.prior_count == 0)
    table = open_table(options.dataset, options.table, varied=varied)
    return Plan(options, kind, table, kind.sizes(options, table))


def outline(planned: Plan) -> str:
    """What will be fitted, in a few lines for a terminal."""
    kind, sizes = planned.kind, ", ".join(map(str, planned.sizes))
    detail = (
        f", {planned.options.covariance} covariances, {planned.options.starts} starts" if kind.name == "gmm" else ""
    )
    columns = ", the columns standardised" if planned.options.table.standardize else ""
    return f"{planned.table.summary}\n{kind.title}: {sizes} {kind.noun if planned.sizes != [1] else kind.noun[:-1]}{detail}{columns}"


def run(planned: Plan) -> str:
    """Fits, chooses, and writes everything into a new run directory.

    Returns:
        The results in a few lines for a terminal.

    Raises:
        OSError: where the directory cannot be made.
        ValueError: from the fits; nothing is left behind then.
    """
    options, kind = planned.options, planned.kind
    directory = new_run_directory(options.runs, f"{Path(options.dataset).stem}-{kind.name}")
    try:
        with jax.enable_x64(True):
            candidates = fit_all(planned)
            chosen = _choose(candidates)
            rows = _each_row(kind.row_columns, chosen.params, planned.table)
            agreement = _agreement(planned, rows)
            sheet = kind.sheet(chosen.params, options, planned.table)
            write(planned, directory, candidates, chosen, rows, agreement)
            write_table(directory / f"{sheet.name}.csv", sheet.columns, sheet.rows)
            names = _draw(planned, directory, chosen) if options.figures else []
    except BaseException:
        with contextlib.suppress(OSError):  # something is in it already
            directory.rmdir()
        raise
    figures = f" and figures ({', '.join(names)})" if names else ""
    files = f"params.npz, {sheet.name}.csv, rows.csv, summary.json{figures}"
    return f"\n{in_words(planned, candidates, chosen, agreement)}\n\n{sheet}\n\n{files}\nare in {directory}"


def fit_all(planned: Plan) -> list[Candidate]:
    """A fit of each size. One that nobody asked for is left out where the model refuses it, with a warning, unless all are refused.

    Raises:
        ValueError: the refusal of a size that was asked for, or the first of all.
    """
    found: list[Candidate] = []
    refused: list[tuple[int, ValueError]] = []
    for size in planned.sizes:
        try:
            found.append(fit_one(planned, size))
        except ValueError as error:
            if size in getattr(planned.options, planned.kind.noun):
                raise
            refused.append((size, error))
    if not found:
        raise refused[0][1]
    for size, reason in refused:
        warnings.warn(f"{counted(planned.kind, size)} left out: {reason}", stacklevel=2)
    return found


def fit_one(planned: Plan, size: int) -> Candidate:
    """A fit of one size; what it warns of says which."""
    options, kind, table = planned.options, planned.kind, planned.table
    begin = time.perf_counter()
    key = jax.random.fold_in(random.seed_key(options.seed, "--seed"), size)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            params, result = kind.fit(options, key, table, size)
    except ValueError as error:
        raise ValueError(in_flags(str(error))) from error
    for warning in caught:
        warnings.warn(f"{counted(kind, size)}: {in_flags(str(warning.message))}", warning.category, stacklevel=2)
    density = _each_row(lambda p, rows: {"log": kind.log_prob(p, rows)}, params, table)
    log_prob = {part: density[part]["log"] - table.log_scale(part) for part in PARTS}
    count = kind.num_parameters(params, options)
    found = Candidate(size, params, result, log_prob, count, time.perf_counter() - begin)
    # Towards a noise of 0 EM goes on for ever: more steps are no remedy.
    endless = found.collapsed or any(issubclass(warning.category, factor_analysis.Heywood) for warning in caught)
    if result is not None and not result.converged and not endless:
        steps = int(result.num_steps)
        warnings.warn(
            f"{counted(kind, size)}: EM had not converged after {steps} steps; raise --max-steps", stacklevel=2
        )
    return found


def _choose(candidates: list[Candidate]) -> Candidate:
    """The smallest BIC, of those that did not collapse where there are any."""
    finite = [one for one in candidates if np.isfinite(one.bic)]
    if not finite:
        raise ValueError("no fit has a finite log-likelihood; bring the columns to one scale with --standardize")
    return min(finite, key=lambda one: (one.collapsed, one.bic))


def _each_row(function: Callable[[Any, Batch], dict[str, Any]], params: Params, table: Table) -> OfParts:
    """What ``function`` finds for each row, by part; compiled, all parts at once, since compiling is what takes time."""
    names: list[str] = []

    def values(params: Params, rows: Batch) -> tuple:
        told = function(params, rows)
        names[:] = told  # in their own order, which a compiled dictionary does not keep
        return tuple(told.values())

    compiled, rows = jax.jit(values), table.stacked()
    starts = range(0, len(rows.x), _BLOCK)
    found = [compiled(params, jax.tree.map(lambda leaf, at=at: leaf[at : at + _BLOCK], rows)) for at in starts]
    whole = {name: np.concatenate([np.asarray(part) for part in parts]) for name, parts in zip(names, zip(*found))}
    ends = np.cumsum([len(table.parts[part].x) for part in PARTS])[:-1]
    split = {name: dict(zip(PARTS, np.split(values, ends))) for name, values in whole.items()}
    return {part: {name: split[name][part] for name in split} for part in PARTS}


def _agreement(planned: Plan, rows: OfParts) -> dict[str, float] | None:
    """Adjusted Rand index of likeliest components and labels, where there are both: 1 for the same groups, 0 as by chance."""
    labels = planned.table.labels
    if labels is None or planned.kind.name != "gmm":
        return None
    from sklearn.metrics import adjusted_rand_score

    told = [part for part in ("train", "test") if len(labels[part])]
    return {part: float(adjusted_rand_score(labels[part], rows[part]["component"])) for part in told}


def _draw(planned: Plan, directory: Path, chosen: Candidate) -> list[str]:
    options, result = planned.options, chosen.result
    made = planned.kind.drawings(chosen.params, options, planned.table)
    if result is not None:
        what = "penalised log-likelihood" if getattr(options, "prior_count", 0) > 0 else "log-likelihood"
        what += " of standardised columns" * options.table.standardize
        made["fit_trace"] = lambda: plots.fit_trace(result, what=what)
    return [path.stem for path in write_figures(directory / "figures", pictures.draw_all(made))]
