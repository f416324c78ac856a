"""Interleaved timings, ratios with their spread, and the files and tables that hold them."""

import datetime
import importlib.metadata
import json
import math
import os
import platform
import shlex
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax

OURS = "vaejax"
FLOOR = "matrix products"
HAND = "hand-written"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "distrax", "numpy", "numpyro", "torch", "pythae", "scikit-learn")
# Threads of one library may spin for a while after their work: they are let go to sleep before the next is timed.
_REST = 0.02
# With fewer repeats no interval of the median has 95 %.
_FEWEST = 6


class Row(NamedTuple):
    """One piece of work, by everybody who did it.

    Attributes:
        work: its name.
        unit: of the figures, such as "µs a step".
        figures: who -> one figure for each repeat, in the same order for everybody; `OURS` is among them.
        targets: who -> how large the ratio of ours to theirs may be, where that is promised.
        note: what else should be known.
        facts: what else was measured: name -> number.
    """

    work: str
    unit: str
    figures: dict[str, list[float]]
    targets: dict[str, float] = {}  # noqa: RUF012
    note: str = ""
    facts: dict[str, float] = {}  # noqa: RUF012


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    low: float
    high: float


def interleaved(functions: dict[str, Callable[[], Any]], repeats: int, *, scale: float = 1.0) -> dict[str, list[float]]:
    """Seconds times ``scale`` of each function, one repeat of all after another, each repeat beginning with another one.

    Two calls of each go before, for compilation and warm caches.
    """
    for function in functions.values():
        for _ in range(2):
            jax.block_until_ready(function())
    names = list(functions)
    figures: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(_REST)
            began = time.perf_counter()
            jax.block_until_ready(functions[name]())
            figures[name].append(scale * (time.perf_counter() - began))
    return figures


def spread(values: Iterable[float]) -> Spread:
    values = sorted(values)
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def ratios(row: Row) -> dict[str, Spread]:
    """Ours to each other's, repeat by repeat: a machine that slows down slows both."""
    found = {}
    for who in row.figures:
        if who != OURS:
            # Of logarithms, so that the inverse of a ratio is the ratio of the inverse, with an even number of repeats too.
            found[who] = Spread(*map(math.exp, spread(map(math.log, paired(row, who)))))
    return found


def paired(row: Row, who: str) -> list[float]:
    """Ours to theirs in each repeat."""
    return [a / b for a, b in zip(row.figures[OURS], row.figures[who], strict=True)]


def median_interval(values: Iterable[float]) -> tuple[float, float]:
    """95 % confidence limits of the median: order statistics whose ranks a fair coin would not reach; all there is below six."""
    values = sorted(values)
    count = len(values)
    dropped, below = 0, 2.0**-count
    while below + math.comb(count, dropped + 1) * 2.0**-count <= 0.025:
        dropped += 1
        below += math.comb(count, dropped) * 2.0**-count
    return values[dropped], values[count - 1 - dropped]


def verdicts(row: Row) -> dict[str, str]:
    """Whether each promised ratio was kept: "met" or "missed" where the interval of the median says so, else "within noise".

    Below six repeats, which are too few for that, in how many of them.
    """
    found = {}
    for who, target in row.targets.items():
        if who in row.figures:
            each = paired(row, who)
            low, high = median_interval(each)
            found[who] = "met" if high <= target else "missed" if low > target else "within noise"
            if len(each) < _FEWEST:
                found[who] = f"met in {sum(ratio <= target for ratio in each)} of {len(each)}"
    return found


def describe() -> dict[str, Any]:
    """Where and when: device, cores, versions, date."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    device = jax.devices()[0]
    return {
        "date": datetime.date.today().isoformat(),
        "device": processor() if device.platform == "cpu" else device.device_kind,
        "platform": device.platform,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": versions,
    }


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "cpu"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "cpu")


def command(arguments: list[str]) -> str:
    """`python -m benchmarks` with these arguments as it is typed, without where its results go."""
    after = [False, *(argument == "--json" for argument in arguments)]
    kept = [a for a, skip in zip(arguments, after) if not skip and a != "--json" and not a.startswith("--json=")]
    return shlex.join(["python", "-m", "benchmarks", *kept])


def as_dict(row: Row) -> dict[str, Any]:
    """A row as JSON keeps it."""
    found = ratios(row)
    return {
        "work": row.work,
        "unit": row.unit,
        "figures": {who: spread(values)._asdict() for who, values in row.figures.items()},
        "ratios": {who: value._asdict() for who, value in found.items()},
        "targets": row.targets,
        "verdicts": verdicts(row),
        "repeats": len(row.figures[OURS]),
        "note": row.note,
        "facts": {name: value if math.isfinite(value) else None for name, value in row.facts.items()},
        "all": {who: [float(f"{value:.6g}") for value in values] for who, values in row.figures.items()},
    }


def lines(row: Row) -> list[str]:
    """A row as it is printed: one line for each who did the work."""
    found, kept = ratios(row), verdicts(row)
    count = len(row.figures[OURS])
    out = [f"\n{row.work} ({row.unit}, {f'median of {count} and quartiles' if count > 1 else 'once'})"]
    for who, values in row.figures.items():
        middle = spread(values)
        line = f"  {who:24} {short(middle.median):>9}  [{short(middle.low)}, {short(middle.high)}]"
        if who in found:
            ratio = found[who]
            line += f"   ratio {ratio.median:6.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
            if who in kept:
                line += f"   wanted ≤ {row.targets[who]:g}: {kept[who]}"
        out.append(line)
    measured = "  " + ", ".join(f"{name} {value:.3g}" for name, value in row.facts.items())
    return [*out, *([measured] if row.facts else []), *([f"  {row.note}"] if row.note else [])]


def short(value: float) -> str:
    """Four digits that count."""
    if not math.isfinite(value) or value == 0:
        return f"{value}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


class Results(NamedTuple):
    """What was measured so far, and the file for it.

    Attributes:
        path: of the file; None writes none.
        command: that makes it.
        suites: the rows of each, so far.
        failed: suites that ended by an error, and which.
    """

    path: Path | None
    command: str
    suites: dict[str, list[Row]]
    failed: dict[str, str]

    def write(self, *, complete: bool) -> None:
        """Everything that was measured, where, when and by which command: the whole file or the one before it."""
        if self.path is None:
            return
        content = {
            "command": self.command,
            "complete": complete,
            **({"failed": self.failed} if self.failed else {}),
            **describe(),
            "suites": {suite: [as_dict(row) for row in rows] for suite, rows in self.suites.items()},
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        partial.replace(self.path)


def measure(results: Results, suites: dict[str, Callable[[], Iterable[Row]]]) -> None:
    """Suite by suite: prints each row when it is done, and writes it down; a suite that fails says why, and the others go on.

    Raises:
        SystemExit: stopped by Ctrl-C, or a suite failed.
    """
    try:
        for name, rows in suites.items():
            print(f"\n== {name}", flush=True)
            results.suites[name] = []
            try:
                for row in rows():
                    print("\n".join(lines(row)), flush=True)
                    results.suites[name].append(row)
                    results.write(complete=False)
            except Exception as error:
                traceback.print_exc()
                results.failed[name] = f"{type(error).__name__}: {error}"
    except KeyboardInterrupt:
        kept = sum(map(len, results.suites.values()))
        where_to = f"; {kept} rows are in {results.path}, marked as not complete" if kept and results.path else ""
        print(f"\nstopped{where_to}", file=sys.stderr)
        raise SystemExit(130) from None
    results.write(complete=not results.failed)
    if results.failed:
        raise SystemExit(f"failed: {', '.join(results.failed)}")
