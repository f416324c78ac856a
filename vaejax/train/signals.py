"""Ctrl-C and SIGTERM that wait for the epoch in hand."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Request:
    """Whether a signal has asked for the end, and which."""

    def __init__(self) -> None:
        self.name = ""


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
        if request.name and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.name = signal.Signals(number).name
        # Not print: a handler that runs inside another write to the same stream must not enter it again.
        os.write(2, f"\n{request.name}: stopping after this epoch; Ctrl-C (again) stops at once\n".encode())

    try:
        for which in signals:
            before[which] = signal.signal(which, handle)
        yield request
    finally:
        for which, handler in before.items():
            # None: a handler that was not set from Python, which signal.signal cannot put back.
            signal.signal(which, signal.SIG_DFL if handler is None else handler)
