"""The loop over epochs: metrics, validation, callbacks, checkpoints, and every way in which it can end."""

import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vaejax import compilation, evaluate
from vaejax.train import finite, runs, signals
from vaejax.train.callbacks import Callback
from vaejax.train.epoch import Preprocess
from vaejax.train.progress import Meter
from vaejax.train.runs import Progress
from vaejax.types import Batch, Estimator, Key, Model, TrainState


class HeldOut(NamedTuple):
    """Validation data, preprocessed."""

    batch: Batch
    num_samples: int
    key: Key


class Ending(NamedTuple):
    """What ends training, signals apart."""

    num_epochs: int
    patience: int | None
    min_improvement: float
    callbacks: tuple[Callback, ...]


class Loop(NamedTuple):
    """Everything that an epoch needs and that does not change."""

    model: Model
    estimator: Estimator
    optimizer: optax.GradientTransformation
    data: Batch
    held_out: HeldOut | None
    batch_size: int
    preprocess: Preprocess | None
    epoch: Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]]
    nonfinite: str
    ending: Ending
    directory: Path | None
    save_every: float


def run(loop: Loop, progress: Progress, show: bool | None) -> tuple[Progress, str]:
    """Trains from ``progress`` to the end.

    Returns:
        What was reached, and why it ended: ``"num_epochs"``, ``"patience"``, ``"callback"``, or a signal's name.
    """
    validate = _validation(loop)
    used = loop.data.x.shape[0] // loop.batch_size * loop.batch_size
    caught = (signal.SIGINT, signal.SIGTERM) if loop.directory else (signal.SIGINT,)
    first, saved_at, asked = progress.epoch, time.monotonic(), False
    with Meter(loop.ending.num_epochs, used, show, first) as meter, signals.deferred(*caught) as request:
        try:
            while not (reason := _reason(loop.ending, progress, request.name, asked)):
                progress = _advance(loop, progress, validate)
                meter.update(progress.rows[progress.epoch - 1])
                # Written before the callbacks run: they may take long, or fail.
                _record(loop, progress)
                if time.monotonic() - saved_at >= loop.save_every:
                    _save(loop, progress, request)
                    saved_at = time.monotonic()
                asked = _call(loop, progress)
        except KeyboardInterrupt:
            reason = "SIGINT"
        finally:
            # However it ends, by an error of a callback too.
            if progress.epoch > first:
                _save(loop, progress, request)
    return progress, reason


def _reason(ending: Ending, progress: Progress, signal_name: str, asked: bool) -> str:
    """Why training ends here, or nothing."""
    if signal_name or asked:
        return signal_name or "callback"
    if progress.epoch >= ending.num_epochs:
        return "num_epochs"
    waited = progress.epoch - progress.improved_epoch
    return "patience" if ending.patience is not None and waited >= ending.patience else ""


def _call(loop: Loop, progress: Progress) -> bool:
    """Runs the callbacks; whether one asked for the end."""
    state, row = callers_state(loop, progress.state), progress.rows[progress.epoch - 1]
    answers = [callback(int(state.step), state, dict(row)) for callback in loop.ending.callbacks]
    return any(answer is True for answer in answers)


def _advance(loop: Loop, progress: Progress, validate: Callable) -> Progress:
    number = progress.epoch + 1
    start = time.perf_counter()
    # Donation eats the state; the copy lets an interrupt, a NaN or a callback keep the one before.
    state, metrics = loop.epoch(jax.tree.map(jnp.copy, progress.state), loop.data)
    row = {"epoch": number, **_means(loop, jax.device_get(metrics), progress, state)}
    row |= {"seconds": time.perf_counter() - start, **validate(state, number)}
    del progress.rows[number - 1 :]
    progress.rows.append(row)
    after = progress._replace(state=state, epoch=number)
    if row.get("validation_elbo", -np.inf) > _validated(progress, progress.best_epoch):
        after = after._replace(best_params=state.params, best_epoch=number)
    if (
        row.get("validation_elbo", -np.inf)
        > _validated(progress, progress.improved_epoch) + loop.ending.min_improvement
    ):
        after = after._replace(improved_epoch=number)
    return after


def _validated(progress: Progress, epoch: int) -> float:
    """The validation ELBO of an epoch, minus infinity where there is none."""
    value = progress.rows[epoch - 1]["validation_elbo"] if epoch else -np.inf
    return float(value) if np.isfinite(value) else -np.inf


def _means(loop: Loop, metrics: dict[str, np.ndarray], progress: Progress, after: TrainState) -> dict[str, float]:
    finite_metrics = all(np.isfinite(values).all() for values in metrics.values())
    # A last update that broke shows in no metric: the parameters themselves are asked too.
    if not finite.all_finite(after.params) or (loop.nonfinite == "stop" and not finite_metrics):
        _stop(loop, progress)
    means = {name: finite.mean(values) for name, values in metrics.items()}
    return means if loop.nonfinite == "stop" else means | {"skipped": finite.skipped(progress.state, after)}


def _stop(loop: Loop, progress: Progress) -> None:
    state, broken = finite.find(
        loop.estimator, loop.optimizer, progress.state, loop.data, loop.batch_size, loop.preprocess
    )
    number = int(state.step)
    advice = "try a smaller learning rate, optax.clip_by_global_norm, or nonfinite='skip'"
    raise finite.NonFiniteError(
        f"training stopped at step {number} (epoch {progress.epoch + 1}): {broken}. The state before it is in this error's "
        f".state; {advice if loop.nonfinite == 'stop' else 'the gradient is finite, so look at the optimiser'}",
        number,
        callers_state(loop, state),
        runs.columns(progress.rows[: progress.epoch]),
    )


def callers_state(loop: Loop, state: TrainState) -> TrainState:
    """The state as the caller's own optimiser made it."""
    return state if loop.nonfinite == "stop" else finite.without_skipping(state)


def _validation(loop: Loop) -> Callable[[TrainState, int], dict[str, float]]:
    if loop.held_out is None:
        return lambda state, number: {}
    batch, num_samples, key = loop.held_out
    # Compiled here, its checks of the data's values are left out: they were made before training.
    # Only the estimate leaves the program: the standard error of one draw is NaN.
    compiled = compilation.jit(lambda *args: evaluate.elbo(loop.model, *args, num_samples=num_samples).estimate)

    def validate(state: TrainState, number: int) -> dict[str, float]:
        values = compiled(state.params, jax.random.fold_in(key, number), batch)
        summary = evaluate.mean_estimate(values, jnp.zeros_like(values))
        return {"validation_elbo": summary.mean, "validation_standard_error": summary.standard_error}

    return validate


def _record(loop: Loop, progress: Progress) -> None:
    if loop.directory:
        try:
            runs.record(loop.directory, progress.rows[progress.epoch - 1])
        except OSError as error:
            warnings.warn(f"epoch {progress.epoch} could not be added to the history files ({error})", stacklevel=4)


def _save(loop: Loop, progress: Progress, request: signals.Request) -> None:
    """A disk that fills up must not end a training that is still in memory: the next checkpoint tries again."""
    if loop.directory:
        try:
            with request.held():
                runs.save(loop.directory, progress._replace(state=callers_state(loop, progress.state)))
        except Exception as error:  # Orbax has kinds of its own
            reason = " ".join(str(error).split())[:300]
            warnings.warn(f"no checkpoint of epoch {progress.epoch} could be written ({reason})", stacklevel=4)
