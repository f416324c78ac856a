"""Prints the errors of the table as JSON: ``python -m tests.exact_numpy [--all] [part of a row's name]``."""

import json
import sys
import time

from tests.exact_numpy import densities, divergences, estimators, evaluations, mixtures, numerics, table

assert all((densities, divergences, estimators, evaluations, mixtures, numerics))

if __name__ == "__main__":
    begin = time.perf_counter()
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    errors = table.run("--all" in sys.argv, *words)
    print(json.dumps({"errors": errors, "seconds": time.perf_counter() - begin}))
