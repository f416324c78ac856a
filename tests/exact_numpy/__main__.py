"""Prints the errors of the table as JSON: ``python -m tests.exact_numpy [--all] [part of a row's name]``."""

import importlib
import json
import sys
import time

from tests.exact_numpy import table

# Each module registers its rows in `table.ROWS`.
MODULES = (
    "densities",
    "diagnostics",
    "discrete_estimators",
    "divergences",
    "estimators",
    "evaluations",
    "mixtures",
    "numerics",
    "relaxed_estimators",
    "scores",
)

if __name__ == "__main__":
    begin = time.perf_counter()
    for module in MODULES:
        importlib.import_module(f"tests.exact_numpy.{module}")
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    errors = table.run("--all" in sys.argv, *words)
    print(json.dumps({"errors": errors, "seconds": time.perf_counter() - begin}))
