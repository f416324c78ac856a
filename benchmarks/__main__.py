"""Benchmarks: vaejax beside hand-written JAX, its peers and the matrix products alone, on the same work in the same run.

    python -m benchmarks [suite …] [--peers numpyro torch …] [--quick] [--json OUT]
    python -m benchmarks table FILE

Suites: train_step, epoch, evaluate, estimators, conjugate, compile, import, memory; without a name all of them. A study (tables of
the papers: ``python -m benchmarks STUDY --help``) is run by its name alone; ``table`` prints a result file.
"""

import argparse
import importlib
import pkgutil
import shlex
import sys
import traceback
from pathlib import Path

from benchmarks import harness, studies
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
    made.add_argument("--repeats", type=int, default=None, help="how often each is timed; the suites know better")
    made.add_argument(
        "--json",
        type=Path,
        default=None,
        metavar="OUT",
        help="write what was measured, where and with what, to this file, as each row is done",
    )
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
    if given.repeats is not None and given.repeats < 1:
        made.error(f"--repeats must be at least 1, got {given.repeats}")
    if given.json is not None:
        try:
            given.json.parent.mkdir(parents=True, exist_ok=True)
            there = given.json.exists()
            with given.json.open("a"):
                pass
            if not there:
                given.json.unlink()
        except OSError as error:
            made.error(f"--json {given.json} cannot be written: {error.strerror}")
    return given


def _command(arguments: list[str]) -> str:
    """The command, without where its results went."""
    after = [False, *(argument == "--json" for argument in arguments)]
    kept = [a for a, skip in zip(arguments, after) if not skip and not a.startswith("--json")]
    return shlex.join(["python", "-m", "benchmarks", *kept])


def _measure(suites: list[str], options: Options, results: harness.Results, *, keep: bool) -> None:
    """Fills the results suite by suite; one that fails says why, and the others go on."""
    for name in suites:
        print(f"\n== {name}", flush=True)
        results.suites[name] = []
        try:
            for row in importlib.import_module(f"benchmarks.suites.{SUITES[name]}").run(options):
                print("\n".join(harness.lines(row)), flush=True)
                results.suites[name].append(row)
                if keep:
                    results.write(complete=False)
        except Exception as error:
            traceback.print_exc()
            results.failed[name] = f"{type(error).__name__}: {error}"
    if keep:
        results.write(complete=not results.failed)


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in _ALONE:
        sys.argv = [f"python -m benchmarks {arguments[0]}", *arguments[1:]]
        importlib.import_module(_ALONE[arguments[0]]).main()
        return
    given = _parsed(arguments)
    options = Options(chosen(given.peers), given.quick, given.large, given.repeats)
    where = harness.describe()
    if (where["load"] or 0) > 0.5 * (where["cores"] or 1):
        print(f"the machine is busy with something else (load {where['load']}): ratios will be noisy", file=sys.stderr)
    print(f"{where['device']}, {where['cores']} cores, {', '.join(f'{k} {v}' for k, v in where['versions'].items())}")
    results = harness.Results(given.json or Path(), _command(arguments), {}, {})
    try:
        _measure(given.suites or list(SUITES), options, results, keep=given.json is not None)
    except KeyboardInterrupt:
        kept = sum(map(len, results.suites.values()))
        where_to = f"; {kept} rows are in {given.json}, marked as not complete" if kept and given.json else ""
        print(f"\nstopped{where_to}", file=sys.stderr)
        raise SystemExit(130) from None
    if results.failed:
        raise SystemExit(f"failed: {', '.join(results.failed)}")


if __name__ == "__main__":
    main()
