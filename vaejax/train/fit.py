"""Training from data to a fitted state, with validation, history and a progress bar."""

import functools
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vaejax import checks, evaluate
from vaejax.terms import log_terms
from vaejax.train import finite
from vaejax.train.epoch import Preprocess, make_epoch
from vaejax.train.progress import Meter
from vaejax.train.state import check_parts, init
from vaejax.types import Batch, Estimator, Key, Model, TrainState, as_batch

# Preprocessing everything at once to initialise the model stops paying beyond this many entries.
_INIT_ENTRIES = 2**26


class FitResult(NamedTuple):
    """What training leaves.

    Attributes:
        state: the final training state; ``state.params`` are the parameters.
        history: one array over epochs for each of ``epoch`` (from 1, also when continuing), ``objective`` (what is optimised, mean
            over the epoch's steps, dropout and annealing included), ``log_likelihood``, ``kl`` (unweighted), ``seconds`` (training alone;
            the first epoch compiles), with validation data ``validation_elbo`` and ``validation_standard_error`` (between examples),
            and with ``nonfinite="skip"`` ``skipped``.
        interrupted: whether Ctrl-C ended it early; the state is then that of the last whole epoch.
    """

    state: TrainState
    history: dict[str, np.ndarray]
    interrupted: bool = False


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
    progress: bool | None = None,
) -> FitResult:
    """Trains a model for a number of epochs, each one compiled scan.

    Args:
        key: typed key.
        model: the model.
        data: a `Batch` or an array ``[n, *event]``; moved to the device once, in its own type.
        estimator: built from the same model.
        optimizer: an Optax gradient transformation, schedules included.
        num_epochs: passes over the data.
        batch_size: examples per step.
        validation: held-out examples, whose ELBO is estimated after every epoch (preprocessed once, with a fixed key).
        validation_samples: draws per example for it.
        preprocess: ``(key, Batch) -> Batch`` for each batch.
        sharding: layout of each batch over devices.
        nonfinite: ``"stop"`` raises `NonFiniteError`, naming the step and the term that broke and carrying the state before
            it; ``"skip"`` leaves out updates whose gradient is not finite (`optax.apply_if_finite`) and counts them, however
            many; the history then averages over the finite values.
        state: a state to continue from, in place of a fresh one; it is not consumed.
        progress: a bar with rate, ELBO, KL and time left; None shows it on a terminal only.

    Returns:
        `FitResult`. Ctrl-C returns the last whole epoch, with a warning.

    Raises:
        TypeError, ValueError: bad arguments or data, before anything is compiled.
        NonFiniteError: see ``nonfinite``.
    """
    checks.key(key)
    checks.positive_int(num_epochs, "num_epochs")
    checks.positive_int(batch_size, "batch_size")
    checks.positive_int(validation_samples, "validation_samples")
    checks.one_of(nonfinite, "nonfinite", ("stop", "skip"))
    check_parts(estimator, optimizer)
    device_data = jax.tree.map(jnp.asarray, checks.batch(data))
    init_key, look_key, validation_key = jax.random.split(key, 3)
    first_look = _first_look(look_key, device_data, preprocess)
    if state is None:
        state = init(init_key, model, estimator, optimizer, first_look)
    elif not isinstance(state, TrainState):
        raise TypeError(f"state must be a vaejax.TrainState, such as FitResult.state, got {type(state).__name__}")
    else:
        checks.batch(first_look, "data", model)
        state = jax.tree.map(jnp.copy, state)
    _check_batch_axis(model, state, first_look, device_data.x.shape[0], batch_size)
    held_out = None
    if validation is not None:
        held_out = _HeldOut(
            _prepared(model, validation, validation_key, preprocess), validation_samples, validation_key
        )
    if nonfinite == "skip":
        estimator, optimizer, state = finite.with_skipping(estimator, optimizer, state)
    loop = _Loop(model, estimator, optimizer, device_data, held_out, batch_size, preprocess, sharding, nonfinite)
    result = loop.run(state, num_epochs, progress)
    return result if nonfinite == "stop" else result._replace(state=finite.without_skipping(result.state))


def _check_batch_axis(model: Model, state: TrainState, data: Batch, num_examples: int, batch_size: int) -> None:
    shape = jax.eval_shape(functools.partial(log_terms, model), state.params, state.key, data).log_posterior.shape
    if len(shape) < 2:
        raise ValueError(
            f"data of shape {list(data.x.shape)} are a single example to this model; add a leading axis of examples"
        )


def _first_look(key: Key, data: Batch, preprocess: Preprocess | None) -> Batch:
    """The data as the model will see them, for initialisation and the checks of their values."""
    if preprocess is None:
        return data
    stride = -(-data.x.size // _INIT_ENTRIES)
    return as_batch(preprocess(key, jax.tree.map(lambda leaf: leaf[::stride], data)))


def _prepared(model: Model, validation: Any, key: Key, preprocess: Preprocess | None) -> Batch:
    """Validation data on the device, preprocessed once so that its ELBO is comparable between epochs."""
    batch = jax.tree.map(jnp.asarray, checks.batch(validation, "validation"))
    return checks.batch(
        batch if preprocess is None else preprocess(jax.random.fold_in(key, 0), batch), "validation", model
    )


class _HeldOut(NamedTuple):
    batch: Batch
    num_samples: int
    key: Key


class _Loop(NamedTuple):
    model: Model
    estimator: Estimator
    optimizer: optax.GradientTransformation
    data: Batch
    held_out: _HeldOut | None
    batch_size: int
    preprocess: Preprocess | None
    sharding: Any
    nonfinite: str

    def run(self, state: TrainState, num_epochs: int, progress: bool | None) -> FitResult:
        epoch = make_epoch(
            self.estimator,
            self.optimizer,
            batch_size=self.batch_size,
            preprocess=self.preprocess,
            sharding=self.sharding,
        )
        validate = self._validation()
        used = self.data.x.shape[0] // self.batch_size * self.batch_size
        rows: list[dict[str, float]] = []
        # The last whole epoch: its state and its number. One assignment, so that Ctrl-C never sees half of it.
        done = (state, 0)
        with Meter(num_epochs, used, progress) as meter:
            try:
                for number in range(1, num_epochs + 1):
                    # Donation eats the state; this copy is what an interrupt or a NaN falls back to.
                    before = jax.tree.map(jnp.copy, state)
                    done = (before, number - 1)
                    start = time.perf_counter()
                    state, metrics = epoch(state, self.data)
                    row = {"epoch": number, **self._means(jax.device_get(metrics), before, state, rows)}
                    row |= {"seconds": time.perf_counter() - start, **validate(state, number)}
                    rows.append(row)
                    done = (state, number)
                    meter.update(row)
            except KeyboardInterrupt:
                warnings.warn(f"interrupted; returning the state after epoch {done[1]} of {num_epochs}", stacklevel=3)
                return FitResult(done[0], _columns(rows[: done[1]]), True)
        return FitResult(state, _columns(rows))

    def _means(
        self, metrics: dict[str, np.ndarray], before: TrainState, after: TrainState, rows: list[dict[str, float]]
    ) -> dict[str, float]:
        finite_metrics = all(np.isfinite(values).all() for values in metrics.values())
        # A last update that broke shows in no metric: the parameters themselves are asked too.
        if not finite.all_finite(after.params) or (self.nonfinite == "stop" and not finite_metrics):
            self._stop(before, rows)
        means = {name: finite.mean(values) for name, values in metrics.items()}
        return means if self.nonfinite == "stop" else means | {"skipped": finite.skipped(before, after)}

    def _stop(self, before: TrainState, rows: list[dict[str, float]]) -> None:
        state, broken = finite.find(self.estimator, self.optimizer, before, self.data, self.batch_size, self.preprocess)
        number = int(state.step)
        advice = "try a smaller learning rate, optax.clip_by_global_norm, or nonfinite='skip'"
        raise finite.NonFiniteError(
            f"training stopped at step {number} (epoch {len(rows) + 1}): {broken}. The state before it is in this error's "
            f".state; {advice if self.nonfinite == 'stop' else 'the gradient is finite, so look at the optimiser'}",
            number,
            state if self.nonfinite == "stop" else finite.without_skipping(state),
            _columns(rows),
        )

    def _validation(self) -> Callable[[TrainState, int], dict[str, float]]:
        if self.held_out is None:
            return lambda state, number: {}
        batch, num_samples, key = self.held_out
        # Compiled here, its checks of the data's values are left out: they were made before training.
        compiled = jax.jit(functools.partial(evaluate.elbo, self.model, num_samples=num_samples))

        def validate(state: TrainState, number: int) -> dict[str, float]:
            values = compiled(state.params, jax.random.fold_in(key, number), batch).estimate
            summary = evaluate.mean_estimate(values, jnp.zeros_like(values))
            return {"validation_elbo": summary.mean, "validation_standard_error": summary.standard_error}

        return validate


def _columns(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else ())}
