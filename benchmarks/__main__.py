"""Benchmarks: vaejax beside hand-written JAX, its peers and the matrix products alone, on the same work in the same run.

    python -m benchmarks [suite …] [--peers numpyro torch …] [--quick] [--json OUT]
    python -m benchmarks table FILE

Suites: train_step, epoch, likelihoods, evaluate, estimators, conjugate, compile, import, memory;
without a name all of them. A study (tables of the papers: ``python -m benchmarks STUDY --help``) is
run by its name alone; ``table`` prints a result file.
"""

import argparse
import functools
import importlib
import pkgutil
import sys
from collections.abc import Iterator

from benchmarks import harness, options, studies
from benchmarks.peers import PEERS, chosen

SUITES = {
    "train_step": "train_step",
    "epoch": "epoch",
    "likelihoods": "likelihoods",
    "evaluate": "evaluate",
    "estimators": "estimators",
    "conjugate": "conjugate",
    "compile": "compile",
    "import": "imports",
    "memory": "memory",
}
STUDIES = sorted(module.name for module in pkgutil.iter_modules(studies.__path__))
_ALONE = {"table": "benchmarks.table", **{name: f"benchmarks.studies.{name}" for name in STUDIES}}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "suites", nargs="*", metavar="suite", help=f"of {', '.join(SUITES)}; or a study: {', '.join(STUDIES)}"
    )
    made.add_argument(
        "--peers",
        nargs="*",
        default=None,
        help=f"whom of {', '.join(PEERS)} to measure beside vaejax; all that are installed if not given",
    )
    made.add_argument("--quick", action="store_true", help="small sizes and two repeats: to see that it runs")
    made.add_argument("--large", action="store_true", help="the workload for accelerators on a CPU too")
    options.add_results(made, repeats=None, usual="the suites know better")
    return made


def _parsed(arguments: list[str]) -> argparse.Namespace:
    made = parser()
    given = made.parse_args(arguments)
    unknown = [name for name in given.suites if name not in SUITES]
    if unknown:
        made.error(
            f"no suite {', '.join(unknown)}: there are {', '.join(SUITES)}, and by themselves {', '.join(_ALONE)}"
        )
    strange = [name for name in given.peers or [] if name not in PEERS]
    if strange:
        hint = "; name suites before --peers" if set(strange) & set(SUITES) else ""
        made.error(f"no peer {', '.join(strange)}: there are {', '.join(PEERS)}{hint}")
    options.check_results(made, given)
    return given


def _rows(name: str, choices: options.Options) -> Iterator[harness.Row]:
    yield from importlib.import_module(f"benchmarks.suites.{SUITES[name]}").run(choices)


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in _ALONE:
        sys.argv = [f"python -m benchmarks {arguments[0]}", *arguments[1:]]
        importlib.import_module(_ALONE[arguments[0]]).main()
        return
    given = _parsed(arguments)
    choices = options.Options(chosen(given.peers), given.quick, given.large, given.repeats)
    where = harness.describe()
    if (where["load"] or 0) > 0.5 * (where["cores"] or 1):
        print(f"the machine is busy with something else (load {where['load']}): ratios will be noisy", file=sys.stderr)
    print(f"{where['device']}, {where['cores']} cores, {', '.join(f'{k} {v}' for k, v in where['versions'].items())}")
    suites = {name: functools.partial(_rows, name, choices) for name in given.suites or SUITES}
    harness.measure(harness.Results(given.json, harness.command(arguments), {}, {}), suites)


if __name__ == "__main__":
    main()
