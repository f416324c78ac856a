"""The table of a result file in Markdown, as it stands in docs/benchmarks.md.

python -m benchmarks table benchmarks/results/cpu.json [--suites epoch train_step evaluate]

Nothing is measured: a test compares what is printed with what is published.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.harness import OURS, short

_OTHERS = ("hand-written", "NumPyro", "PyTorch", "PyTorch compiled", "Pythae", "scikit-learn", "matrix products")


def rows(content: dict[str, Any], suites: list[str]) -> list[str]:
    """One line for each work: vaejax's figure, and its ratio to each other's, the promised ones with what was promised."""
    works = [row for suite in suites for row in content["suites"].get(suite, [])]
    named = [who for who in _OTHERS if any(who in row["ratios"] for row in works)]
    named += sorted({who for row in works for who in row["ratios"]} - set(_OTHERS))
    lines = [f"| work | {OURS} | {' | '.join(named)} |", "|---" * (len(named) + 2) + "|"]
    for row in works:
        cells = [row["work"], f"{short(row['figures'][OURS]['median'])} {row['unit']}"]
        for who in named:
            ratio = row["ratios"].get(who)
            target = row["targets"].get(who)
            promised = f" (≤ {target:.2f})" if ratio is not None and target is not None else ""
            cells.append("–" if ratio is None else f"{ratio['median']:.2f}{promised}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def heading(content: dict[str, Any]) -> str:
    """Where, when and by which command."""
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items() if name != "jaxlib")
    return f"`{content['command']}`, {content['date']}, {content['device']}, {content['cores']} cores; {versions}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--suites", nargs="+", default=["epoch", "train_step", "evaluate"])
    options = parser.parse_args()
    content = json.loads(options.file.read_text())
    print(heading(content), *rows(content, options.suites), sep="\n")


if __name__ == "__main__":
    main()
