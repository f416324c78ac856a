"""``python -m benchmarks NAME`` runs ``benchmarks/NAME.py``; without a name, what there is."""

import pkgutil
import runpy
import sys
from pathlib import Path

_PARTS = {"handwritten", "enumerable", "__main__"}


def main() -> None:
    names = sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if m.name not in _PARTS)
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        raise SystemExit(f"usage: python -m benchmarks NAME [options]; NAME is one of {', '.join(names)}")
    name = sys.argv.pop(1)
    sys.argv[0] = f"python -m benchmarks {name}"
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")


if __name__ == "__main__":
    main()
