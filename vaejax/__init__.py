"""vaejax: variational autoencoders and Monte Carlo gradient estimators as pure JAX functions.

Namespaces load when first touched, so that ``import vaejax`` costs little more than importing JAX.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_NAMESPACES = (
    "arrays",
    "checks",
    "compilation",
    "conjugate",
    "data",
    "dists",
    "estimators",
    "evaluate",
    "linalg",
    "models",
    "nets",
    "numerics",
    "objectives",
    "plots",
    "report",
    "terms",
    "train",
    "types",
)
_NAMES = {
    "Batch": "types",
    "Estimate": "types",
    "Estimator": "types",
    "LogTerms": "types",
    "Model": "types",
    "TrainState": "types",
    "as_batch": "types",
    "broadcast_context": "types",
    "kl_divergence": "dists",
    "log_terms": "terms",
}

__all__ = [*_NAMES, *_NAMESPACES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _NAMESPACES:
        return importlib.import_module(f"vaejax.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"vaejax.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'vaejax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
