"""The one door to BlackJAX, which takes a quarter of a second to import: opened by the first chain or k̂, not by all who train."""

import functools
import importlib
from typing import Any

import jax


@functools.cache
def blackjax() -> Any:
    """The library.

    It is first asked for while a program is traced: whatever its modules make when imported must not belong to that program.
    """
    with jax.ensure_compile_time_eval():
        return importlib.import_module("blackjax")
