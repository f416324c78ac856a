"""Run directories: everything that one training leaves, in one place."""

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def new_run_directory(parent: str | Path, name: str) -> Path:
    """Makes ``parent/name-DATE-TIME`` (numbered where that exists), before any work is done that could be lost.

    Raises:
        OSError: where it cannot be made.
    """
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        directory = Path(parent) / f"{name}-{stamp}{suffix}"
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            continue
        return directory
    raise FileExistsError(f"{parent} holds too many runs named {name}-{stamp}")


def write_run(
    directory: Path,
    *,
    summary: Mapping[str, Any],
    history: Mapping[str, np.ndarray],
    figures: Mapping[str, Any],
) -> None:
    """Writes ``summary.json`` (with the history) and one PNG for each figure.

    Args:
        directory: from `new_run_directory`.
        summary: anything that JSON can hold; NaN becomes null.
        history: from `vaejax.train.fit`.
        figures: matplotlib figures by file name.
    """
    content = {**summary, "history": {name: values.tolist() for name, values in history.items()}}
    (directory / "summary.json").write_text(json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")
    for name, figure in figures.items():
        figure.savefig(directory / f"{name}.png", dpi=150)


def _plain(value: Any) -> Any:
    """Numbers, strings, lists and dicts that strict JSON can hold."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, int | float | bool | type(None)) else str(value)
