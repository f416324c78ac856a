"""What a run leaves on disk."""

from vaejax.report.run import new_run_directory, write_run

__all__ = ["new_run_directory", "write_run"]
