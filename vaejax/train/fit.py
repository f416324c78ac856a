"""Training from data to a fitted state, with validation, history and a progress bar."""

import contextlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vaejax import checks
from vaejax.terms import batch_shape
from vaejax.train import finite, layout, runs
from vaejax.train.callbacks import Callback
from vaejax.train.epoch import Preprocess, make_epoch
from vaejax.train.loop import Ending, HeldOut, Loop, callers_state, run
from vaejax.train.optimizers import evaluation_params
from vaejax.train.runs import Progress
from vaejax.train.state import check_parts, init
from vaejax.types import Batch, Estimator, Key, Model, Params, TrainState, as_batch, on_device

# Preprocessing everything at once to initialise the model stops paying beyond this many entries.
_INIT_ENTRIES = 2**26


class FitResult(NamedTuple):
    """What training leaves.

    Attributes:
        state: the final training state; ``state.params`` are the parameters that the next step differentiates.
        history: one array over epochs for each of ``epoch`` (from 1, also when continuing), ``objective`` (what is optimised, mean
            over the epoch's rows, weighted by ``data.weight``, dropout and annealing included), ``log_likelihood``, ``kl`` (means over the
            same rows with the same weights; β and free bits do not enter the KL), ``seconds`` (training alone;
            the first epoch compiles), with validation data ``validation_elbo`` and ``validation_standard_error`` (between examples),
            and with ``nonfinite="skip"`` ``skipped``.
        interrupted: whether Ctrl-C or SIGTERM ended it early; the state is then that of the last whole epoch.
        stopped: why it ended: ``"num_epochs"``, ``"patience"``, ``"callback"``, ``"SIGINT"`` or ``"SIGTERM"``.
        best_params: the parameters with the best validation ELBO; None without validation data.
        best_epoch: their epoch; 0 without.
        params: the parameters to evaluate (`vaejax.train.evaluation_params`). They differ from ``state.params`` for
            optimizers such as `optax.lookahead` and `optax.contrib.schedule_free`; validation uses them too.
    """

    state: TrainState
    history: dict[str, np.ndarray]
    interrupted: bool = False
    stopped: str = "num_epochs"
    best_params: Params | None = None
    best_epoch: int = 0
    params: Params | None = None


def fit(
    key: Key,
    model: Model,
    data: Any,
    *,
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    num_epochs: int,
    batch_size: int,
    validation: Any = None,
    validation_samples: int = 1,
    preprocess: Preprocess | None = None,
    sharding: jax.sharding.Sharding | None = None,
    nonfinite: str = "stop",
    state: TrainState | None = None,
    patience: int | None = None,
    min_improvement: float = 0.0,
    callbacks: Sequence[Callback] = (),
    run_directory: str | os.PathLike | None = None,
    resume: bool = False,
    save_every: float = 30.0,
    config: Any = None,
    progress: bool | None = None,
) -> FitResult:
    """Trains a model for a number of epochs, each one compiled scan.

    With ``run_directory`` nothing is lost: the history is written after every epoch, the training state and the best parameters at
    least every ``save_every`` seconds and at the end, whatever the end is. Called again with ``resume=True`` and otherwise the same
    arguments, training goes on from the last whole checkpoint, to the same bits as if it had never stopped (same machine, device,
    core count and versions).

    Args:
        key: typed key.
        model: the model.
        data: a `Batch` or an array ``[n, *event]``; moved to the device once, in its own type.
        estimator: built from the same model.
        optimizer: an Optax gradient transformation, schedules included. Those that read the loss receive ``value``, ``grad``,
            ``value_fn`` and ``grad_fn``, on the batch and the random numbers of the step.
        num_epochs: passes over the data, those before a resumption included.
        batch_size: examples per step.
        validation: held-out examples, whose ELBO is estimated after every epoch (preprocessed once, with a fixed key).
        validation_samples: draws per example for it.
        preprocess: ``(key, Batch) -> Batch`` for each batch.
        sharding: layout of each batch over devices, as in `make_epoch`.
        nonfinite: ``"stop"`` raises `NonFiniteError`, naming the step and the term that broke and carrying the state before
            it; ``"skip"`` leaves out updates whose gradient is not finite (`optax.apply_if_finite`) and counts them, however
            many; the history then averages over the finite values.
        state: a state to continue from, in place of a fresh one; it is not consumed.
        patience: end after this many epochs without a better validation ELBO; None never does.
        min_improvement: how many nats more count as better for ``patience``.
        callbacks: functions ``(step, state, metrics)`` called after every epoch with the number of updates, the state (theirs to keep)
            and the epoch's row of the history; one that returns True ends training. `vaejax.train.every` thins them.
        run_directory: where history and checkpoints are kept (files: `vaejax.train.runs`).
        resume: go on with the run in ``run_directory``, or begin it where there is none yet. The data, the key and the batch size
            must be the same; ``num_epochs`` may grow. What only the optimiser or the objective knows (a learning rate, β) cannot be
            compared: put it into ``config``.
        save_every: seconds between checkpoints; 0 writes one after every epoch.
        config: settings of your own (anything JSON) from which the model can be built again; kept in the run's ``fit.json`` under
            ``run.config``, and compared when the run is resumed.
        progress: a bar with rate, ELBO, KL and time left; None shows it on a terminal only.

    Returns:
        `FitResult`. Ctrl-C ends training after the epoch in hand, with a warning; a second one ends it at once, with the epoch before.

    Raises:
        TypeError, ValueError: bad arguments or data, before anything is compiled; with ``resume`` other data than the run's.
        FileExistsError: a run is in ``run_directory`` already, and ``resume`` is false.
        OSError: ``run_directory`` cannot be written, or its disk is too full, before anything is trained.
        CheckpointError: none of the run's checkpoints can be read. (A damaged one is named in a warning, and the one before it used.)
        NonFiniteError: see ``nonfinite``.
    """
    checks.key(key)
    _check_counts(num_epochs=num_epochs, batch_size=batch_size, validation_samples=validation_samples)
    checks.one_of(nonfinite, "nonfinite", ("stop", "skip"))
    check_parts(estimator, optimizer)
    layout.check_divisible(layout.automatic(sharding), batch_size)
    _check_ending(patience, min_improvement, callbacks, validation)
    _check_files(run_directory, resume, save_every, state)
    init_key, look_key, validation_key = jax.random.split(key, 3)
    given = state is not None
    device_data, state = _begin((init_key, look_key), model, data, estimator, optimizer, batch_size, preprocess, state)
    held_out = _held_out(model, validation, validation_samples, validation_key, preprocess)
    with _kept(key, device_data, held_out, batch_size, nonfinite, config, state, run_directory, resume) as start:
        directory = _absolute(run_directory)
        if given and directory is not None:
            # A state of the caller's cannot be made again from the key.
            runs.save(directory, start)
        if nonfinite == "skip":
            estimator, optimizer, guarded = finite.with_skipping(estimator, optimizer, start.state)
            start = start._replace(state=guarded)
        epoch = make_epoch(estimator, optimizer, batch_size=batch_size, preprocess=preprocess, sharding=sharding)
        ending = Ending(num_epochs, patience, min_improvement, tuple(callbacks))
        parts = (model, estimator, optimizer, device_data, held_out, batch_size, preprocess, epoch, nonfinite)
        loop = Loop(*parts, ending, directory, save_every)
        reached, stopped = run(loop, start, progress)
    return _result(reached._replace(state=callers_state(loop, reached.state)), stopped, num_epochs)


def _begin(
    keys: tuple[Key, Key],
    model: Model,
    data: Any,
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    preprocess: Preprocess | None,
    state: TrainState | None,
) -> tuple[Batch, TrainState]:
    """The data on the device, and the first state; both checked."""
    init_key, look_key = keys
    device_data = layout.on_automatic_axes(on_device(checks.batch(data)))
    first_look = _first_look(look_key, device_data, preprocess)
    if state is None:
        state = init(init_key, model, estimator, optimizer, first_look)
    elif not isinstance(state, TrainState):
        raise TypeError(f"state must be a vaejax.TrainState, such as FitResult.state, got {type(state).__name__}")
    else:
        checks.batch(first_look, "data", model)
        state = layout.on_automatic_axes(jax.tree.map(jnp.copy, state))
    _check_batch_axis(model, state, first_look, device_data.x.shape[0], batch_size)
    return device_data, state


def _kept(
    key: Key,
    data: Batch,
    held_out: HeldOut | None,
    batch_size: int,
    nonfinite: str,
    config: Any,
    state: TrainState,
    directory: str | os.PathLike | None,
    resume: bool,
) -> contextlib.AbstractContextManager[Progress]:
    """Where training begins: the state, or what the run directory holds."""
    path = _absolute(directory)
    if path is None:
        return contextlib.nullcontext(Progress(state, 0, []))
    validation_samples = held_out.num_samples if held_out else 0
    options = {"batch_size": batch_size, "validation_samples": validation_samples, "nonfinite": nonfinite}
    known = runs.facts(key, data, held_out and held_out.batch, options, config)
    return runs.opened(path, known, state, resume=resume)


def _absolute(directory: str | os.PathLike | None) -> Path | None:
    return None if directory is None else Path(directory).absolute()


def _result(reached: Progress, stopped: str, num_epochs: int) -> FitResult:
    interrupted = stopped.startswith("SIG")
    if interrupted:
        warnings.warn(
            f"interrupted; returning the state after epoch {reached.epoch} of {num_epochs} ({stopped})", stacklevel=3
        )
    history = runs.columns(reached.rows[: reached.epoch])
    params = evaluation_params(reached.state)
    return FitResult(reached.state, history, interrupted, stopped, reached.best_params, reached.best_epoch, params)


def _held_out(
    model: Model, validation: Any, num_samples: int, key: Key, preprocess: Preprocess | None
) -> HeldOut | None:
    """Validation data on the device, preprocessed once so that its ELBO is comparable between epochs."""
    if validation is None:
        return None
    batch = layout.on_automatic_axes(on_device(checks.batch(validation, "validation")))
    prepared = batch if preprocess is None else preprocess(jax.random.fold_in(key, 0), batch)
    return HeldOut(checks.batch(prepared, "validation", model), num_samples, key)


def _check_counts(**counts: Any) -> None:
    for name, count in counts.items():
        checks.positive_int(count, name)


def _check_ending(patience: Any, min_improvement: Any, callbacks: Any, validation: Any) -> None:
    if patience is not None:
        checks.positive_int(patience, "patience")
        if validation is None:
            raise ValueError(
                "patience waits for a better validation ELBO; pass validation= data, or leave patience out"
            )
    checks.real(min_improvement, "min_improvement", minimum=0.0)
    if callable(callbacks):
        raise TypeError(
            "callbacks must be a sequence of functions (step, state, metrics), got one function; put it in a list"
        )
    for callback in callbacks:
        checks.function(callback, "each of callbacks")


def _check_files(run_directory: Any, resume: Any, save_every: Any, state: Any) -> None:
    checks.real(save_every, "save_every", minimum=0.0)
    if resume and run_directory is None:
        raise ValueError("resume=True needs run_directory=, the directory of the run to go on with")
    if resume and state is not None:
        raise ValueError("resume=True takes the state from run_directory; leave state= out")


def _check_batch_axis(model: Model, state: TrainState, data: Batch, num_examples: int, batch_size: int) -> None:
    shape = batch_shape(model, state.params, state.key, data)
    if not shape:
        raise ValueError(
            f"data of shape {list(data.x.shape)} are a single example to this model; add a leading axis of examples"
        )


def _first_look(key: Key, data: Batch, preprocess: Preprocess | None) -> Batch:
    """The data as the model will see them, for initialisation and the checks of their values."""
    if preprocess is None:
        return data
    stride = -(-data.x.size // _INIT_ENTRIES)
    return as_batch(preprocess(key, jax.tree.map(lambda leaf: leaf[::stride], data)))
