"""Times this checkout beside another one, such as the commit before a change.

    git worktree add ../before COMMIT
    python -m benchmarks compare ../before epoch train_step evaluate --json changes.json

Both checkouts run in the same environment, each in one process, and take turns: a repeat of one,
then a repeat of the other, while the first one waits. The ratio of a row is the median of the ratios
within pairs, with its 95 % confidence interval (order statistics). A row is "no slower" when the upper
limit is at most ``--limit``.
"""

import argparse
import contextlib
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks import __main__ as command_line
from benchmarks import harness, options

_BEFORE = "before"
# One file serves both processes: the other checkout may be older than this study.
_WORKER = "--worker"
_TURN, _ROW, _END = "turn", "row", "end"


class Series(NamedTuple):
    """Holds one row: its name, its unit, and one number per repeat."""

    work: str
    unit: str
    figures: list[float]


class Checkout(NamedTuple):
    """Holds a process that runs the suites of one checkout and waits for its turn before each repeat."""

    directory: Path
    process: subprocess.Popen
    rows: list[Series]


def start(directory: Path, suites: list[str], repeats: int | None, quick: bool) -> Checkout:
    """Starts the process of a checkout, which waits for its first turn."""
    environment = {**os.environ, "PYTHONPATH": str(directory)}
    choices = json.dumps({"suites": suites, "repeats": repeats, "quick": quick})
    command = [sys.executable, "-P", __file__, _WORKER, choices]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=directory, env=environment, stdin=pipe, stdout=pipe, text=True)
    checkout = Checkout(directory, process, [])
    _wait(checkout)
    return checkout


def give_turn(checkout: Checkout) -> bool:
    """Lets a checkout time one repeat, and returns whether it asks for another turn.

    Raises:
        RuntimeError: its process ended before its suites were complete.
    """
    assert checkout.process.stdin is not None
    checkout.process.stdin.write(_TURN + "\n")
    checkout.process.stdin.flush()
    return _wait(checkout)


def _wait(checkout: Checkout) -> bool:
    assert checkout.process.stdout is not None
    for line in checkout.process.stdout:
        kind, _, content = line.strip().partition(" ")
        if kind == _ROW:
            checkout.rows.append(Series(*json.loads(content)))
        else:
            return kind == _TURN
    status = checkout.process.wait()
    raise RuntimeError(f"the suites of {checkout.directory} ended with status {status}; its messages are above")


def compared(before: Checkout, after: Checkout, limit: float) -> Iterator[harness.Row]:
    """Yields each row as soon as both checkouts have it.

    Raises:
        RuntimeError: a checkout fails, or the two time different work.
    """
    count, is_running = 0, True
    while is_running:
        both = [give_turn(before), give_turn(after)]
        is_running = any(both)
        if both[0] != both[1] or len(before.rows) != len(after.rows):
            raise RuntimeError("the checkouts must time the same rows; name suites that did not change")
        for old, new in zip(before.rows[count:], after.rows[count:]):
            if old.work != new.work:
                raise RuntimeError(f"the checkouts must time the same work, got {old.work!r} and {new.work!r}")
            yield harness.Row(
                new.work, new.unit, {harness.OURS: new.figures, _BEFORE: old.figures}, {_BEFORE: limit}, note(old, new)
            )
        count = len(after.rows)


def note(old: Series, new: Series) -> str:
    """Returns the interval of the median ratio as a sentence."""
    low, high = harness.median_interval([b / a for a, b in zip(old.figures, new.figures, strict=True)])
    return f"95 % interval of the median ratio: {low:.3f} to {high:.3f}"


def serve(suites: list[str], repeats: int | None, quick: bool) -> None:
    """Runs suites in this process, one turn per repeat of vaejax. Peers and hand-written programs are left out."""
    answers, sys.stdout = sys.stdout, sys.stderr

    def send(message: str) -> None:
        print(message, file=answers, flush=True)

    def wait_for_turn() -> None:
        send(_TURN)
        if not sys.stdin.readline():
            raise SystemExit(1)

    def timed(functions: dict[str, Callable[[], Any]], count: int, *, scale: float = 1.0) -> dict[str, list[float]]:
        function, seconds = functions[harness.OURS], []
        for repeat in range(-2, count):
            wait_for_turn()
            time.sleep(0.02)
            begin = time.perf_counter()
            jax.block_until_ready(function())
            if repeat >= 0:
                seconds.append(scale * (time.perf_counter() - begin))
        return {harness.OURS: seconds}

    harness.interleaved = timed
    wait_for_turn()
    for name in suites:
        module = importlib.import_module(f"benchmarks.suites.{command_line.SUITES[name]}")
        for row in module.run(options.Options([], quick, False, repeats)):
            send(f"{_ROW} {json.dumps([row.work, row.unit, row.figures[harness.OURS]])}")
    send(_END)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="folder of the other checkout")
    parser.add_argument(
        "suites", nargs="+", choices=("epoch", "train_step", "evaluate", "likelihoods"), metavar="suite"
    )
    parser.add_argument("--limit", type=float, default=1.05, help="upper limit of the ratio (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="small sizes and two repeats: to see that it runs")
    options.add_results(parser, repeats=None, usual="each suite has its own default")
    return parser


def main() -> None:
    """Compares the checkouts that the command line names."""
    arguments = parser()
    settings = arguments.parse_args()
    options.check_results(arguments, settings)
    if not (settings.before / "benchmarks" / "suites").is_dir():
        arguments.error(f"before must be a checkout with benchmarks/suites, got {settings.before}")
    here = Path(__file__).parents[2]
    results = harness.Results(settings.json, harness.command(["compare", *sys.argv[1:]]), {}, {})
    with contextlib.ExitStack() as stack:
        checkouts = []
        for directory in (settings.before.resolve(), here):
            checkouts.append(start(directory, settings.suites, settings.repeats, settings.quick))
            # Closes the pipes after the process was stopped.
            stack.enter_context(checkouts[-1].process)
            stack.callback(checkouts[-1].process.kill)
        harness.measure(results, {"compare": lambda: compared(*checkouts, settings.limit)})


if __name__ == "__main__":
    if sys.argv[1:2] == [_WORKER]:
        serve(**json.loads(sys.argv[2]))
    else:
        main()
