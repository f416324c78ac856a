"""Two sets of examples in the feature space in which they are compared."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vaejax import checks
from vaejax.evaluate.summary import check_weight, whole

_BLOCK = 1000


class FeatureSet(NamedTuple):
    """A set of examples in a feature space.

    Attributes:
        x: ``[n, d]`` features.
        weight: ``[n]`` how many rows each example stands for, positive.
    """

    x: np.ndarray
    weight: np.ndarray

    @property
    def total(self) -> float:
        """The sum of the weights, an integer where it is one."""
        return whole(self.weight.sum())


def feature_pair(a: Any, b: Any, features: Callable | None, *, minimum: int = 2) -> tuple[FeatureSet, FeatureSet]:
    """Both sets as `FeatureSet` of float64, without the examples of weight 0.

    Raises:
        TypeError: no arrays of real numbers; ``features`` that is no function.
        ValueError: fewer than ``minimum`` examples, or weights with a smaller sum; NaN or infinity;
            events of different shape; features that are not ``[n, d]``.
    """
    if features is not None:
        checks.function(features, "features")
    sets = [checks.batch(data, name) for data, name in ((a, "a"), (b, "b"))]
    weights: list[np.ndarray] = []
    for i, batch in enumerate(sets):
        weight = check_weight(batch.weight, len(batch.x))
        if weight is not None:
            sets[i] = batch._replace(x=batch.x[weight > 0])
        weights.append(np.ones(len(batch.x)) if weight is None else weight[weight > 0])
    for (x, context, mask, _), weight, name in zip(sets, weights, "ab"):
        if context is not None or mask is not None:
            raise ValueError(f"{name} must be an array of examples; give batch.x, without context and mask")
        if weight.sum() < minimum:
            held = f"weights with a sum of {weight.sum():g}" if len(x) >= minimum else f"{len(x)} examples"
            raise ValueError(f"{name} holds {held}; give at least {minimum}")
    shapes = [x.shape[1:] for x, *_ in sets]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the examples of a have shape {list(shapes[0])}, those of b {list(shapes[1])}; give the same kind"
        )
    first, second = (_apply(features, x, name) for (x, *_), name in zip(sets, "ab"))
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"features gave {first.shape[1]} columns for a and {second.shape[1]} for b; they must depend on the example alone"
        )
    return FeatureSet(first, weights[0]), FeatureSet(second, weights[1])


def _apply(features: Callable | None, x: Any, name: str) -> np.ndarray:
    if features is None:
        return np.asarray(x, np.float64).reshape(len(x), -1)
    found = [_block(features, x[first : first + _BLOCK], name) for first in range(0, len(x), _BLOCK)]
    if len({part.shape[1] for part in found}) > 1:
        raise ValueError(f"features gave {name} blocks of different width; they must depend on the example alone")
    return np.concatenate(found)


def _block(features: Callable, x: Any, name: str) -> np.ndarray:
    found = np.asarray(features(x))
    if found.ndim != 2 or len(found) != len(x) or not found.shape[1]:
        raise ValueError(
            f"features gave shape {list(found.shape)} for {len(x)} examples of {name}, wanted [{len(x)}, d]; flatten with "
            "reshape(len(x), -1), or for a single number add an axis"
        )
    if not (np.issubdtype(found.dtype, np.floating) or np.issubdtype(found.dtype, np.integer) or found.dtype == bool):
        raise TypeError(f"features gave dtype {found.dtype} for {name}; they must be real numbers")
    checks.finite(found, f"features of {name}", remedy="leave those examples out, or mend the features")
    return found.astype(np.float64)
