"""Ctrl-C and SIGTERM that wait for the epoch in hand."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Request:
    """Whether a signal has asked for the end, and which; and whether now is a bad time to end at once."""

    def __init__(self) -> None:
        self.name = ""
        self.busy = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """No `KeyboardInterrupt` inside: a checkpoint is being written, which takes a moment."""
        self.busy = True
        try:
            yield
        finally:
            self.busy = False


@contextlib.contextmanager
def deferred(*signals: signal.Signals) -> Iterator[Request]:
    """Notes signals in place of obeying them at once; a second Ctrl-C raises `KeyboardInterrupt`.

    Python would raise `KeyboardInterrupt` wherever it happens to be, in one of JAX's own callbacks for example, where it is
    swallowed. Outside the main thread, where signals cannot be caught, nothing changes.
    """
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before: dict[signal.Signals, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        if request.name and number == signal.SIGINT and not request.busy:
            raise KeyboardInterrupt
        request.name = request.name or signal.Signals(number).name
        words = f"\n{request.name}: stopping after this epoch; Ctrl-C (again) stops at once\n"
        # Not print: a handler that runs inside another write to the same stream must not enter it again. Nor may a closed one matter.
        with contextlib.suppress(OSError):
            os.write(2, words.encode())

    try:
        for which in signals:
            before[which] = signal.signal(which, handle)
        yield request
    finally:
        for which, handler in before.items():
            # None: a handler that was not set from Python, which signal.signal cannot put back.
            signal.signal(which, signal.SIG_DFL if handler is None else handler)
