"""What every suite is told."""

from typing import NamedTuple

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
