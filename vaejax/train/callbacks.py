"""Callbacks of `vaejax.train.fit`: plain functions called after every epoch."""

from collections.abc import Callable, Mapping
from typing import Any

from vaejax import checks
from vaejax.types import TrainState

# (number of updates so far, state, the epoch's row of the history) -> True to end training, anything else to go on.
Callback = Callable[[int, TrainState, Mapping[str, Any]], Any]


def every(num_epochs: int, callback: Callback) -> Callback:
    """The same callback, after each ``num_epochs``-th epoch only.

    Examples:
        >>> seen = []
        >>> thinned = every(2, lambda step, state, metrics: seen.append(metrics["epoch"]))
        >>> for epoch in range(1, 6):
        ...     thinned(10 * epoch, None, {"epoch": epoch})
        >>> seen
        [2, 4]
    """
    checks.positive_int(num_epochs, "num_epochs")
    checks.function(callback, "callback")

    def thinned(step: int, state: TrainState, metrics: Mapping[str, Any]) -> Any:
        return callback(step, state, metrics) if metrics["epoch"] % num_epochs == 0 else None

    return thinned
