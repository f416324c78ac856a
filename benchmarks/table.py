"""The tables of a result file in Markdown, as they stand in docs/benchmarks.md.

python -m benchmarks table benchmarks/results/cpu.json [--suites epoch train_step evaluate]

Nothing is measured: a test compares what is printed with what is published.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.harness import OURS, short

_OTHERS = ("hand-written", "NumPyro", "PyTorch", "PyTorch compiled", "Pythae", "scikit-learn", "matrix products")
# Suites whose rows make one table; of the others each has its own.
_TOGETHER = ("epoch", "train_step", "evaluate")


def tables(content: dict[str, Any], suites: list[str]) -> list[list[str]]:
    """A table for each suite, one for those that belong together, and one for rows that are compared with nobody else."""
    groups = [
        [suite for suite in suites if suite in _TOGETHER],
        *([suite] for suite in suites if suite not in _TOGETHER),
    ]
    found = []
    for group in groups:
        works = [row for suite in group for row in content["suites"][suite]]
        common = [row for row in works if set(row["ratios"]) & set(_OTHERS) or not row["ratios"]]
        found += [_table(part) for part in (common, [row for row in works if row not in common]) if part]
    return found


def _table(works: list[dict[str, Any]]) -> list[str]:
    """One line for each work: vaejax's figure, its ratio to each other's with quartiles, what was promised, and what else was measured."""
    named = [who for who in _OTHERS if any(who in row["ratios"] for row in works)]
    named += [who for row in works for who in row["ratios"] if who not in _OTHERS]
    named = list(dict.fromkeys(named))
    facts = list(dict.fromkeys(name for row in works for name in row.get("facts", {})))
    lines = [f"| work | {OURS} | {' | '.join(named + facts)} |", "|---" * (len(named + facts) + 2) + "|"]
    for row in works:
        cells = [row["work"], f"{short(row['figures'][OURS]['median'])} {row['unit']}"]
        for who in named:
            ratio, target = row["ratios"].get(who), row["targets"].get(who)
            promised = "" if ratio is None or target is None else f" (≤ {target:.2f}: {row['verdicts'][who]})"
            spread = "" if ratio is None or row["repeats"] < 2 else f" [{ratio['low']:.2f}, {ratio['high']:.2f}]"
            cells.append("–" if ratio is None else f"{ratio['median']:.2f}{spread}{promised}")
        measured = [row.get("facts", {}).get(name) for name in facts]
        cells += ["–" if value is None else f"{value:.3g}" for value in measured]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def heading(content: dict[str, Any]) -> str:
    """Where, when and by which command."""
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items() if name != "jaxlib")
    return f"`{content['command']}`, {content['date']}, {content['device']}, {content['cores']} cores; {versions}."


def read(path: Path) -> dict[str, Any]:
    """A result file.

    Raises:
        ValueError: no such file, or not one of these.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path} is no result file: {error}") from None
    missing = [
        name
        for name in ("command", "date", "device", "cores", "versions", "suites")
        if not (isinstance(content, dict) and name in content)
    ]
    if missing:
        raise ValueError(f"{path} is no result file of `python -m benchmarks … --json`: it has no {', '.join(missing)}")
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--suites", nargs="+", default=None, help="those of the file if not given")
    options = parser.parse_args()
    try:
        content = read(options.file)
    except ValueError as error:
        parser.error(str(error))
    unknown = sorted(set(options.suites or []) - set(content["suites"]))
    if unknown:
        parser.error(f"{options.file} has no {', '.join(unknown)}; it has {', '.join(content['suites'])}")
    if not content.get("complete", True):
        print(f"{options.file} was not finished: rows are missing", file=sys.stderr)
    print(heading(content))
    for lines in tables(content, options.suites or list(content["suites"])):
        print("", *lines, sep="\n")


if __name__ == "__main__":
    main()
