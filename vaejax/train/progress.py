"""The progress bar of training: silent in a pipe, off by flag."""

from types import TracebackType
from typing import Any

from tqdm import tqdm


class Meter:
    """Epochs done and left, examples per second, ELBO and KL.

    Args:
        num_epochs: total.
        examples: per epoch.
        show: True, False, or None for on a terminal only.
        done: epochs done before.
    """

    def __init__(self, num_epochs: int, examples: int, show: bool | None, done: int = 0):
        self.examples = examples
        disable = None if show is None else not show
        self.bar = tqdm(total=num_epochs, initial=done, unit="epoch", disable=disable, dynamic_ncols=True)

    def __enter__(self) -> "Meter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()

    def update(self, row: dict[str, Any]) -> None:
        """One epoch more."""
        shown = {"objective": f"{row['objective']:.2f}", "kl": f"{row['kl']:.2f}"} if "kl" in row else {}
        if "validation_elbo" in row:
            shown["validation"] = f"{row['validation_elbo']:.2f}"
        shown["ex/s"] = f"{self.examples / max(row['seconds'], 1e-9):,.0f}"
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()
