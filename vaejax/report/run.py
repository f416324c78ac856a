"""Run directories: everything that one training leaves, in one place, and the way back to its model.

config.json    the settings            data.json     what the model must know of the data, and their checksum
fit.json, history.jsonl, history.csv, checkpoints/   see vaejax.train.runs
summary.json   the results             figures/      PNGs
"""

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vaejax.report import config as settings
from vaejax.report.build import Facts, build_model, read_facts
from vaejax.report.config import RunConfig
from vaejax.train import find_checkpoint, load_params, runs
from vaejax.train.storage import make_writable, write_text
from vaejax.types import Model, Params


class Run(NamedTuple):
    """A run on disk.

    Attributes:
        directory: where.
        config: its settings.
        facts: what its model knows of the data.
        model: the model, rebuilt.
    """

    directory: Path
    config: RunConfig
    facts: Facts
    model: Model


def new_run_directory(parent: str | Path, name: str) -> Path:
    """Makes ``parent/name-DATE-TIME`` (numbered where that exists), before any work is done that could be lost.

    Raises:
        OSError: where it cannot be made.
    """
    make_writable(Path(parent), 0)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        directory = Path(parent) / f"{name}-{stamp}{suffix}"
        try:
            directory.mkdir()
        except FileExistsError:
            continue
        return directory
    raise FileExistsError(f"{parent} holds too many runs named {name}-{stamp}")


def open_run(directory: str | Path) -> Run:
    """Reads a run and rebuilds its model.

    Raises:
        FileNotFoundError: no run there.
        ValueError: settings or facts that are damaged.

    Examples:
        >>> open_run("nowhere")
        Traceback (most recent call last):
        FileNotFoundError: nowhere is no run: it has no config.json; name a directory that vaejax train made
    """
    directory = Path(directory)
    if not (directory / "config.json").is_file():
        raise FileNotFoundError(
            f"{directory} is no run: it has no config.json; name a directory that vaejax train made"
        )
    config = settings.from_json(directory / "config.json")
    facts = read_facts(directory / "data.json")
    return Run(directory, config, facts, build_model(config, facts))


def params_of(run: Run, use: str | None = None) -> Params:
    """A run's parameters.

    Args:
        run: from `open_run`.
        use: ``"best"`` or ``"last"``; None for what the run's settings say.

    Raises:
        FileNotFoundError: no checkpoint yet.
        CheckpointError: a damaged one.
    """
    path = find_checkpoint(run.directory, use or run.config.evaluation.use)
    return load_params(path, run.model.init(jax.random.key(0), None))


def read_history(directory: Path) -> dict[str, np.ndarray]:
    """A run's history, one array a column; a last line cut short by a crash is left out.

    Raises:
        FileNotFoundError: none there.
        ValueError: a damaged file.
    """
    path = directory / "history.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{directory} has no history.jsonl; was anything trained there?")
    lines = path.read_text().split("\n")
    try:
        rows = [json.loads(line) for line in lines[:-1] if line]
        return runs.columns([{k: np.nan if v is None else v for k, v in row.items()} for row in rows])
    except (ValueError, AttributeError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}); vaejax train --resume {directory} writes it anew") from error


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Writes results as JSON, at once; NaN becomes null."""
    write_text(path, json.dumps(plain(summary), indent=2, allow_nan=False) + "\n")


def write_figures(directory: Path, figures: Mapping[str, Any], kind: str = "png") -> list[Path]:
    """Writes one file for each matplotlib figure."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{name}.{kind}" for name in figures]
    for path, figure in zip(paths, figures.values()):
        figure.savefig(path, dpi=150)
    return paths


def plain(value: Any) -> Any:
    """Numbers, strings, lists and dicts that strict JSON can hold."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, int | float | bool | type(None)) else str(value)
