"""What every suite is told, and what studies of published data sets ask."""

import argparse
from pathlib import Path
from typing import NamedTuple

import vaejax
from benchmarks.workloads import Workload, quick


class Options(NamedTuple):
    """The choices of the command line.

    Attributes:
        peers: who is measured beside vaejax and the hand-written programs.
        quick: small sizes and two repeats: to see that it runs, not how fast.
        large: the workload for accelerators too, wherever this is.
        wanted: how many repeats; None leaves it to the suite.
    """

    peers: list[str]
    quick: bool = False
    large: bool = False
    wanted: int | None = None

    def works(self, all_of: dict[str, Workload]) -> dict[str, Workload]:
        """The workloads, small ones where it is to be quick."""
        return {name: quick(work) if self.quick else work for name, work in all_of.items()}

    def repeats(self, usual: int) -> int:
        """How often each contestant is timed."""
        return self.wanted or (2 if self.quick else usual)

    def targets(self, published: dict[str, float]) -> dict[str, float]:
        """The promises, which are about whole sizes only."""
        return {} if self.quick else published


def study(description: str | None) -> argparse.ArgumentParser:
    """A parser for a study of published data."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=None,
        help="folder of the data; else VAEJAX_DATA, or where `vaejax data` keeps them",
    )
    return parser


def load(parser: argparse.ArgumentParser, name: str, directory: Path | None) -> vaejax.data.Dataset:
    """The data set; where it is missing the parser says what to do."""
    try:
        return vaejax.data.load(name, directory)
    except vaejax.data.MissingDataError as error:
        parser.error(str(error))


def add_results(parser: argparse.ArgumentParser, *, repeats: int | None, usual: str = "default %(default)s") -> None:
    """How often, and where to."""
    parser.add_argument("--repeats", type=int, default=repeats, help=f"how often each is timed ({usual})")
    parser.add_argument(
        "--json",
        type=Path,
        default=None,
        metavar="OUT",
        help="write what was measured, where and with what, to this file, as each row is done",
    )


def check_results(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Before anything is measured: whether the repeats are some, and the file can be written."""
    if given.repeats is not None and given.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {given.repeats}")
    if given.json is not None:
        try:
            given.json.parent.mkdir(parents=True, exist_ok=True)
            there = given.json.exists()
            with given.json.open("a"):
                pass
            if not there:
                given.json.unlink()
        except OSError as error:
            parser.error(f"--json {given.json} cannot be written: {error.strerror}")
