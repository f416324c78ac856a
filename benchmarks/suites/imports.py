"""Imports, each in a fresh process."""

from collections.abc import Iterator

from benchmarks.harness import OURS, Row
from benchmarks.options import Options
from benchmarks.suites.compile import seconds

_STATEMENTS = {
    "import vaejax": {OURS: "vaejax", "import distrax": "distrax", "import jax": "jax"},
    "import vaejax, and the namespaces that train a model": {
        OURS: "vaejax.models, vaejax.objectives, vaejax.estimators, vaejax.train",
        "import distrax": "distrax",
        "import distrax, flax.nnx, optax": "distrax, flax.nnx, optax",
    },
}
_PEERS = {"numpyro": "numpyro", "torch": "torch", "pythae": "pythae.models"}


def run(options: Options) -> Iterator[Row]:
    for name, statements in _STATEMENTS.items():
        everybody = {**statements, **{f"import {_PEERS[p]}": _PEERS[p] for p in options.peers if p in _PEERS}}
        figures: dict[str, list[float]] = {who: [] for who in everybody}
        # The first import of each reads from disk.
        for repeat in range(-1, options.repeats(9)):
            for who, modules in everybody.items():
                taken = seconds(
                    f"import time\nbegan = time.perf_counter()\nimport {modules}\nprint(time.perf_counter() - began)"
                )
                if repeat >= 0:
                    figures[who].append(taken)
        promised = {"import distrax": 1.3} if name == "import vaejax" else {}
        yield Row(name, "s", figures, options.targets(promised))
