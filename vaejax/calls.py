"""Calls of model functions with the optional inputs that they declare."""

import inspect
from collections.abc import Callable
from typing import Any


def call(function: Callable, *args: Any, context: Any = None, **optional: Any) -> Any:
    """Calls a model function with the optional inputs that are given *and* that it declares.

    ``context`` is passed by name where the function has such a parameter, else as the next positional argument where one
    more is required (a parameter with a default, as in ``lambda params, z, scale=0.1: …``, is the function's own business).
    ``optional`` (mask, key, …) is passed only by name. Inputs that are None, or not declared, are left out, so that
    ``lambda params: prior`` is a complete prior.
    """
    given = {name: value for name, value in {"context": context, **optional}.items() if value is not None}
    if not given:
        _check_required(function, args)
        return function(*args)
    if "context" in given and not declares(function, "context"):
        given.pop("context")
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        spare = [p for p in inspect.signature(function).parameters.values() if p.kind in kinds][
            len(args) : len(args) + 1
        ]
        if spare and spare[0].default is inspect.Parameter.empty:
            args = (*args, context)
    return function(*args, **{name: value for name, value in given.items() if declares(function, name)})


def _check_required(function: Callable, args: tuple) -> None:
    """Raises for a function that requires a context where none is given."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # builtins have none
        return
    if _fits(signature, args) or not (_fits(signature, (*args, None)) or _fits(signature, args, context=None)):
        return
    raise ValueError(
        f"{getattr(function, '__qualname__', function)} must get a context, got none. Pass "
        "vaejax.Batch(x, context=...), or context= where there is no batch"
    )


def _fits(signature: inspect.Signature, args: tuple, **options: Any) -> bool:
    try:
        signature.bind(*args, **options)
    except TypeError:
        return False
    return True


def declares(function: Callable, name: str) -> bool:
    """Whether a function takes a keyword of this name."""
    parameters = inspect.signature(function).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
