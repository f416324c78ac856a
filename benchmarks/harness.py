"""Interleaved timings, ratios with their spread, and the files and tables that hold them."""

import datetime
import importlib.metadata
import json
import math
import os
import platform
import statistics
import time
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


class Row(NamedTuple):
    """One piece of work, by everybody who did it.

    Attributes:
        work: its name.
        unit: of the figures, such as "µs a step".
        figures: who -> one figure for each repeat, in the same order for everybody; `OURS` is among them.
        targets: who -> how large the ratio of ours to theirs may be, where that is promised.
        note: what else should be known.
    """

    work: str
    unit: str
    figures: dict[str, list[float]]
    targets: dict[str, float] = {}  # noqa: RUF012
    note: str = ""


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
    ours = row.figures[OURS]
    return {
        who: spread(a / b for a, b in zip(ours, theirs, strict=True))
        for who, theirs in row.figures.items()
        if who != OURS
    }


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


def as_dict(row: Row) -> dict[str, Any]:
    """A row as JSON keeps it."""
    found = ratios(row)
    return {
        "work": row.work,
        "unit": row.unit,
        "figures": {who: spread(values)._asdict() for who, values in row.figures.items()},
        "ratios": {who: value._asdict() for who, value in found.items()},
        "targets": row.targets,
        "met": {who: found[who].median <= target for who, target in row.targets.items() if who in found},
        "repeats": len(row.figures[OURS]),
        "note": row.note,
    }


def lines(row: Row) -> list[str]:
    """A row as it is printed: one line for each who did the work."""
    found = ratios(row)
    out = [f"\n{row.work} ({row.unit}, median of {len(row.figures[OURS])} and quartiles)"]
    for who, values in row.figures.items():
        middle = spread(values)
        line = f"  {who:24} {short(middle.median):>9}  [{short(middle.low)}, {short(middle.high)}]"
        if who in found:
            ratio = found[who]
            line += f"   ratio {ratio.median:6.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
            if who in row.targets:
                met = "met" if ratio.median <= row.targets[who] else "MISSED"
                line += f"   wanted ≤ {row.targets[who]:g}: {met}"
        out.append(line)
    return [*out, *([f"  {row.note}"] if row.note else [])]


def short(value: float) -> str:
    """Four digits that count."""
    if not math.isfinite(value) or value == 0:
        return f"{value}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def write(path: Path, command: str, suites: dict[str, list[Row]]) -> None:
    """A result file: everything that was measured, where, when and by which command."""
    content = {
        "command": command,
        **describe(),
        "suites": {suite: [as_dict(row) for row in rows] for suite, rows in suites.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
