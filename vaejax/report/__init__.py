"""What a run leaves on disk, and the jobs that make and read it."""

from vaejax.report.config import RunConfig, from_json, preset, to_json
from vaejax.report.run import Run, new_run_directory, open_run, params_of, read_history

__all__ = [
    "Run",
    "RunConfig",
    "from_json",
    "new_run_directory",
    "open_run",
    "params_of",
    "preset",
    "read_history",
    "to_json",
]
