"""Training switches of modules from other libraries: which arguments turn dropout on or off."""

import inspect
import re
from collections.abc import Callable
from typing import Any

# The value of each switch in training.
SWITCHES = {
    **dict.fromkeys(("train", "training", "is_train", "is_training", "train_mode"), True),
    **dict.fromkeys(("dropout", "enable_dropout", "use_dropout"), True),
    **dict.fromkeys(("deterministic", "inference", "eval", "evaluation", "eval_mode"), False),
    **dict.fromkeys(("is_eval", "is_inference", "test", "testing"), False),
}
_RESEMBLES = re.compile("(?:^|_)(?:train|drop|determin|infer|eval|test(?:ing)?(?:_|$))")


def settings(
    function: Callable, args: tuple, options: dict[str, Any], switches: dict[str, bool], training: bool
) -> dict[str, bool]:
    """Returns the switches that a call declares and that its caller leaves out, by name.

    A switch is a keyword in ``switches`` (name -> value in training) with no default, or a bool or None as default.

    Examples:
        >>> settings(lambda x, train=False: x, (0,), {}, SWITCHES, True)
        {'train': True}
        >>> settings(lambda x, train=False: x, (0, False), {}, SWITCHES, True)
        {}
    """
    signature = inspect.signature(function)
    try:
        bound = signature.bind_partial(*args, **options).arguments
    except TypeError:  # the call itself reports it
        return {}
    return {
        name: switches[name] == training
        for name, parameter in signature.parameters.items()
        if name in switches and name not in bound and _is_switch(parameter)
    }


def _is_switch(parameter: inspect.Parameter) -> bool:
    named = parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    default = parameter.default
    return named and (default is parameter.empty or default is None or isinstance(default, bool))


def check(function: Callable, switches: dict[str, bool], owner: str) -> None:
    """Refuses a switch of an unknown name, which would silently stay at its default in training.

    Raises:
        ValueError: a keyword with a bool as default that reads like a switch.
    """
    for name, parameter in inspect.signature(function).parameters.items():
        if isinstance(parameter.default, bool) and name not in switches and _RESEMBLES.search(name.lower()):
            raise ValueError(
                f"the switches of {owner} must be among {', '.join(switches)}, got {name}={parameter.default}. "
                "Rename it, or wrap the module in one that declares train."
            )
