"""Benchmarks: vaejax beside hand-written JAX, its peers and the matrix products alone, on the same work in the same run.

    python -m benchmarks [suite …] [--peers numpyro torch …] [--quick] [--json OUT]

Suites: train_step, epoch, evaluate, estimators, conjugate, compile, import, memory; without a name all of them. A study (tables of
the papers: ``python -m benchmarks STUDY --help``) is run by its name alone.
"""

import argparse
import importlib
import pkgutil
import runpy
import shlex
import sys
from pathlib import Path

from benchmarks import harness
from benchmarks.options import Options
from benchmarks.peers import PEERS, chosen

SUITES = {
    "train_step": "train_step",
    "epoch": "epoch",
    "evaluate": "evaluate",
    "estimators": "estimators",
    "conjugate": "conjugate",
    "compile": "compile",
    "import": "imports",
    "memory": "memory",
}
_PARTS = {"__main__", "enumerable", "floor", "handwritten", "harness", "options", "ours", "workloads"}


def studies() -> list[str]:
    """Programs of their own beside the suites."""
    found = {m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if not m.ispkg}
    return sorted(found - _PARTS - set(SUITES))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "suites", nargs="*", metavar="suite", help=f"of {', '.join(SUITES)}; or a study: {', '.join(studies())}"
    )
    made.add_argument(
        "--peers",
        nargs="*",
        choices=list(PEERS),
        default=None,
        help="whom to measure beside vaejax; all that are installed",
    )
    made.add_argument("--quick", action="store_true", help="small sizes and two repeats: to see that it runs")
    made.add_argument("--large", action="store_true", help="the workload for accelerators on a CPU too")
    made.add_argument("--repeats", type=int, default=None, help="how often each is timed; the suites know better")
    made.add_argument(
        "--json",
        type=Path,
        default=None,
        metavar="OUT",
        help="write what was measured, where and with what, to this file",
    )
    return made


def _command(arguments: list[str]) -> str:
    """The command, without where its results went."""
    after = [False, *(argument == "--json" for argument in arguments)]
    kept = [a for a, skip in zip(arguments, after) if not skip and not a.startswith("--json")]
    return shlex.join(["python", "-m", "benchmarks", *kept])


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in studies():
        sys.argv = [f"python -m benchmarks {arguments[0]}", *arguments[1:]]
        runpy.run_module(f"benchmarks.{arguments[0]}", run_name="__main__")
        return
    made = parser()
    given = made.parse_args(arguments)
    unknown = [name for name in given.suites if name not in SUITES]
    if unknown:
        made.error(
            f"no suite {', '.join(unknown)}: there are {', '.join(SUITES)}, and the studies {', '.join(studies())}"
        )
    if given.repeats is not None and given.repeats < 1:
        made.error(f"--repeats must be at least 1, got {given.repeats}")
    options = Options(chosen(given.peers), given.quick, given.large, given.repeats)
    where = harness.describe()
    print(f"{where['device']}, {where['cores']} cores, {', '.join(f'{k} {v}' for k, v in where['versions'].items())}")
    found: dict[str, list[harness.Row]] = {}
    for name in given.suites or SUITES:
        print(f"\n== {name}", flush=True)
        found[name] = []
        for row in importlib.import_module(f"benchmarks.suites.{SUITES[name]}").run(options):
            print("\n".join(harness.lines(row)), flush=True)
            found[name].append(row)
            if given.json is not None:
                harness.write(given.json, _command(arguments), found)


if __name__ == "__main__":
    main()
