"""The training part of a run directory: history, best and last checkpoints, and the way back to the last whole epoch.

fit.json                    what must stay the same for a resumed run to be the same run
history.jsonl, history.csv  one line an epoch
checkpoints/epoch-000120    the training state after epoch 120 (the last two are kept)
checkpoints/best-000097     the parameters with the best validation ELBO so far
"""

import contextlib
import csv
import io
import json
import os
import platform
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import vaejax
from vaejax import checks
from vaejax.train import storage
from vaejax.train.checkpoint import read_checkpoint, write_checkpoint
from vaejax.train.storage import CheckpointError
from vaejax.types import Key, Params, TrainState

Row = dict[str, float]
_KEPT = 2


class Progress(NamedTuple):
    """What training has so far.

    Attributes:
        state: after the last whole epoch; never donated.
        epoch: its number.
        rows: the history, one row an epoch; only the first ``epoch`` count.
        best_params: with the best validation ELBO, or None.
        best_epoch: when that was, 0 for never.
        improved_epoch: when the validation ELBO last rose by more than ``min_improvement``, from which patience counts.
    """

    state: TrainState
    epoch: int
    rows: list[Row]
    best_params: Params | None = None
    best_epoch: int = 0
    improved_epoch: int = 0


def columns(rows: list[Row]) -> dict[str, np.ndarray]:
    """A history as one array a column."""
    return {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else ())}


def facts(key: Key, data: Any, validation: Any, options: dict[str, Any], config: Any) -> dict[str, Any]:
    """What decides the numbers of a run besides the code that calls it; and the machine, on which the last bits depend."""
    return {
        "run": {
            "key": storage.fingerprint(key),
            "data": storage.fingerprint(data),
            "validation": storage.fingerprint(validation),
            **options,
            "config": _jsonable(config),
        },
        "machine": {
            "vaejax": vaejax.__version__,
            "jax": jax.__version__,
            "python": platform.python_version(),
            "device": jax.devices()[0].device_kind,
            "devices": jax.device_count(),
            "cores": os.cpu_count(),
        },
    }


@contextlib.contextmanager
def opened(directory: Path, known: dict[str, Any], state: TrainState, *, resume: bool) -> Iterator[Progress]:
    """Makes a directory ready for a run, or for going on with the one in it, and holds it for this process.

    Yields:
        Where to begin: ``state``, or the run's last whole checkpoint.

    Raises:
        FileExistsError: a run is there and ``resume`` is false.
        OSError: it cannot be written, or its disk is too full.
        ValueError: the run in it had other data, another key or another batch size; or another model or optimiser.
        CheckpointError: none of its checkpoints can be read.
    """
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state) if hasattr(leaf, "nbytes"))
    there = sum(path.stat().st_size for path in directory.glob("checkpoints/**/*") if path.is_file())
    # Those kept, the one being written, the best ones, and something for history and figures.
    storage.make_writable(directory, max((2 * _KEPT + 1) * size - there, size) + 2**20)
    with storage.locked(directory):
        record = directory / "fit.json"
        if not record.exists() and any((directory / "checkpoints").glob("*")):
            raise CheckpointError(
                f"{directory} holds checkpoints and no fit.json, without which a run cannot be told; choose another directory"
            )
        if record.exists():
            if not resume:
                raise FileExistsError(
                    f"{directory} holds a run already; choose another directory, or pass resume=True to go on with it"
                )
            _compare(record, known)
        else:
            storage.write_text(record, json.dumps(known, indent=2) + "\n")
        storage.remove_leftovers(directory)
        storage.remove_leftovers(directory / "checkpoints")
        yield _restore(directory, state)


def _compare(record: Path, known: dict[str, Any]) -> None:
    try:
        before = json.loads(record.read_bytes())
        changed = [name for name in known["run"] if before["run"][name] != known["run"][name]]
        machine = [
            f"{k} {before['machine'].get(k)} → {v}"
            for k, v in known["machine"].items()
            if before["machine"].get(k) != v
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{record} is damaged; a run cannot be resumed without it") from error
    if changed:
        raise ValueError(
            f"the run in {record.parent} was made with another {' and '.join(changed)}; resume it with the same, or start a new run"
        )
    if machine:
        warnings.warn(
            f"resuming on a changed machine ({', '.join(machine)}): the last bits of the parameters may differ",
            stacklevel=4,
        )


def _restore(directory: Path, like: TrainState) -> Progress:
    """The latest whole checkpoint of a run; the beginning where there is none yet.

    Damaged checkpoints are named in a warning and set aside once one before them has been read.

    Raises:
        CheckpointError: where all are damaged.
        ValueError: checkpoints of another model or optimiser.
    """
    folder, damaged = directory / "checkpoints", []
    found = sorted(folder.glob("epoch-*"), reverse=True)
    for path in found:
        try:
            trees, notes = read_checkpoint(path, {"params": like.params, "training": _rest(like)}, same_types=True)
        except CheckpointError as error:
            damaged.append((path, error))
            continue
        for bad, why in damaged:
            _set_aside(bad, why, f"going back to epoch {notes['epoch']}")
        # Of epochs that are about to be trained again.
        for later in (p for p in folder.glob("best-*") if p.name > _best(directory, notes["epoch"]).name):
            shutil.rmtree(later)
        history = {name: [np.nan if v is None else v for v in values] for name, values in notes["history"].items()}
        rows = [dict(zip(history, values)) for values in zip(*history.values())]
        _write_history(directory, rows)
        state = TrainState(trees["params"], *trees["training"])
        best, best_epoch = _restore_best(directory, notes["best_epoch"], like)
        return Progress(state, notes["epoch"], rows, best, best_epoch, notes["improved_epoch"])
    if damaged:
        reasons = "; ".join(str(error) for _, error in damaged)
        raise CheckpointError(f"no checkpoint of {directory} can be read ({reasons}); start a new run elsewhere")
    _write_history(directory, [])
    return Progress(like, 0, [])


def _restore_best(directory: Path, epoch: int, like: TrainState) -> tuple[Params | None, int]:
    """The best parameters and their epoch; where they are damaged, those that were best before them."""
    for path in sorted((directory / "checkpoints").glob("best-*"), reverse=True) if epoch else ():
        try:
            trees, notes = read_checkpoint(path, {"params": like.params}, same_types=True)
            return trees["params"], notes["epoch"]
        except CheckpointError as error:
            _set_aside(path, error, "going back to the best parameters before it, if any")
    return None, 0


def _set_aside(path: Path, error: CheckpointError, consequence: str) -> None:
    """Keeps a damaged checkpoint out of the way of the whole ones, where it can be looked at."""
    aside = path.with_name(f"damaged-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    if path.exists():
        path.rename(aside)
    warnings.warn(f"{error}; it is now {aside.name}; {consequence}", stacklevel=6)


def save(directory: Path, progress: Progress) -> None:
    """Writes the best parameters, if they are new, and the training state; removes what is no longer needed.

    Raises:
        OSError: a full disk and the like.
    """
    history = {name: [_plain(v) for v in values] for name, values in columns(progress.rows[: progress.epoch]).items()}
    notes = {
        "epoch": progress.epoch,
        "best_epoch": progress.best_epoch,
        "improved_epoch": progress.improved_epoch,
        "history": history,
    }
    best, last = _best(directory, progress.best_epoch), directory / "checkpoints" / f"epoch-{progress.epoch:06d}"
    if progress.best_epoch and not best.exists():
        write_checkpoint(best, {"params": progress.best_params}, {"epoch": progress.best_epoch})
    if not last.exists():
        write_checkpoint(last, {"params": progress.state.params, "training": _rest(progress.state)}, notes)
    for kind in ("epoch-*", "best-*"):
        for old in sorted((directory / "checkpoints").glob(kind))[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)


def record(directory: Path, row: Row) -> None:
    """Adds one epoch to the history files."""
    with open(directory / "history.jsonl", "a") as stream:
        stream.write(_json(row))
    with open(directory / "history.csv", "a", newline="") as stream:
        _csv(stream, row, header=not stream.tell())


def find_checkpoint(directory: str | os.PathLike, which: str = "best") -> Path:
    """The checkpoint of a run to read parameters from, with `vaejax.train.load_params`.

    Args:
        directory: the run directory.
        which: ``"best"``, by validation ELBO (the last where there was no validation), or ``"last"``.

    Raises:
        FileNotFoundError: the run has none.
        ValueError: another ``which``.
    """
    checks.one_of(which, "checkpoint", ("best", "last"))
    folder = Path(directory) / "checkpoints"
    best, last = sorted(folder.glob("best-*")), sorted(folder.glob("epoch-*"))
    found = best if which == "best" and best else last
    if not found:
        raise FileNotFoundError(f"{directory} holds no checkpoint; train there first, or name another run")
    return found[-1]


def _best(directory: Path, epoch: int) -> Path:
    return directory / "checkpoints" / f"best-{epoch:06d}"


def _rest(state: TrainState) -> tuple[Any, ...]:
    return (state.opt_state, state.estimator_state, state.key, state.step)


def _write_history(directory: Path, rows: list[Row]) -> None:
    storage.write_text(directory / "history.jsonl", "".join(map(_json, rows)))
    table = io.StringIO(newline="")
    for number, row in enumerate(rows):
        _csv(table, row, header=not number)
    storage.write_text(directory / "history.csv", table.getvalue())


def _csv(stream: Any, row: Row, *, header: bool) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    if header:
        writer.writerow(row)
    writer.writerow(row.values())


def _json(row: Row) -> str:
    return json.dumps({name: _plain(value) for name, value in row.items()}) + "\n"


def _jsonable(config: Any) -> Any:
    """The settings as they come back from JSON (tuples as lists).

    Raises:
        TypeError: what JSON cannot hold.
    """
    try:
        return json.loads(json.dumps(config))
    except (TypeError, ValueError) as error:
        raise TypeError(f"config must be what JSON can hold (numbers, text, lists, dicts): {error}") from error


def _plain(value: Any) -> Any:
    """A number as strict JSON has it; NaN and infinity, which it lacks, become null."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if not isinstance(value, float) or np.isfinite(value) else None
