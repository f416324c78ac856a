"""Between scikit-learn's conventions and those of vaejax: rows, seeds, precision."""

import functools
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from vaejax import checks
from vaejax.random import seed_key
from vaejax.types import Batch, Key, Params

FLOATS = (np.float64, np.float32)


class Density:
    """What estimators over a module of this room share."""

    _module: ModuleType
    _missing = "Leave incomplete rows out."
    _missing_later = _missing
    params_: Any
    random_state: Any

    def score_samples(self, X: Any) -> np.ndarray:
        """log p(x) of rows ``[n, d]``, ``[n]`` nats."""
        return self._of_rows(_log_prob, X)

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of log p(x) over rows ``[n, d]``, nats; y is ignored."""
        return float(np.mean(self.score_samples(X), dtype=np.float64))

    def _opened(self, X: Any, sample_weight: Any, **limits: int) -> Batch:
        """Rows to fit, in one of the two precisions."""
        X = self._complete(X, self._missing, ensure_min_samples=2, **limits)
        if sample_weight is None:
            return Batch(X)
        weight = check_array(sample_weight, dtype=X.dtype, ensure_2d=False, input_name="sample_weight")
        if weight.shape != (len(X),):
            raise ValueError(f"sample_weight must be [{len(X)}], one number a row, got shape {list(weight.shape)}")
        if weight.min() < 0:
            raise ValueError(f"sample_weight must not be negative, got a minimum of {weight.min():g}")
        count = np.count_nonzero(weight)
        if count < 2:
            raise ValueError(f"at least 2 rows need a positive sample_weight, got {count}; that of the others is zero")
        return Batch(X, weight=weight)

    def _complete(self, X: Any, missing: str, **limits: Any) -> Any:
        """Rows as scikit-learn checks them; where it finds NaN, what serves missing entries."""
        try:
            return validate_data(self, X, dtype=FLOATS, **limits)
        except ValueError as error:
            if "contains NaN" not in str(error):
                raise
            raise ValueError(f"{str(error).splitlines()[0]} {missing}") from None

    def _of_rows(self, function: Callable, X: Any) -> np.ndarray:
        """A function of (module, params, x), in the precision of the fit or of X, whichever is higher; returned in that of X."""
        check_is_fitted(self, "params_")
        X = self._complete(X, self._missing_later, reset=False)
        dtype = np.result_type(X, self.params_.mean)
        params, x = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), (self.params_, X))
        return computed(dtype, _compiled, function, self._module, params, x).astype(X.dtype, copy=False)

    def _draws(self, n_samples: int) -> tuple:
        check_is_fitted(self, "params_")
        n_samples = checks.positive_int(n_samples, "n_samples")
        key = key_of(self.random_state, "sample")
        return computed(self.params_.mean.dtype, _sample, self._module, self.params_, key, n_samples)


def finite(value: Any) -> float:
    """What a fit has reached, if that is a number."""
    if not np.isfinite(value):
        raise ValueError(
            f"the fit ended at a log-likelihood of {value}: columns that depend on each other or hardly vary, or whose squares overflow "
            "their float type; scale them, leave some out, or fit float64"
        )
    return float(value)


def warn_unconverged(found: Any, tol: float, max_iter: int) -> None:
    """A ConvergenceWarning where EM wanted more steps."""
    if not found.converged and not found.collapsed:
        warnings.warn(
            f"EM gained more than tol={tol:g} in the last of max_iter={max_iter} steps; increase either",
            ConvergenceWarning,
            stacklevel=checks.outside(),
        )


def computed(dtype: Any, function: Callable, *args: Any, **settings: Any) -> Any:
    """What a function returns, as NumPy arrays, computed in that precision whatever the global one."""
    with jax.enable_x64(dtype == np.float64):
        return jax.tree.map(np.array, function(*args, **settings))


def key_of(random_state: Any, use: str) -> Key:
    """A key from a seed of any size, a ``RandomState`` (which moves on) or None (NumPy's own); uses of one seed have different keys."""
    if not isinstance(random_state, int | np.integer | np.bool_):
        high, low = check_random_state(random_state).randint(2**32, size=2, dtype=np.uint64).tolist()
        random_state = high << 32 | low
    key = seed_key(random_state, "random_state")
    return jax.random.fold_in(key, ("fit", "sample").index(use))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _compiled(function: Callable, module: ModuleType, params: Params, x: Any) -> Any:
    return function(module, params, x)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _sample(module: Any, params: Params, key: Key, n_samples: int) -> tuple:
    return module.sample(params, key, n_samples)


def _log_prob(module: Any, params: Params, x: Any) -> Any:
    return module.log_prob(params, x)
