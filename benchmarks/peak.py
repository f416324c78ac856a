"""The most memory that this process has held.

``getrusage`` will not do: on Linux a child begins with the peak of the process that started it.
"""

import resource
import sys
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def mib() -> float:
    """MiB at the most, since `forget` if that could be done."""
    if _STATUS.exists():
        return float(next(line.split()[1] for line in _STATUS.read_text().splitlines() if "VmHWM" in line)) / 2**10
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held / (2**20 if sys.platform == "darwin" else 2**10)


def forget() -> None:
    """Lets the peak be what is held now, where the system knows how to."""
    if _RESET.exists():
        _RESET.write_text("5")
