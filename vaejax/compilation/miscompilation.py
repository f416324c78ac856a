"""A warning about compilers that compute wrong values."""

import functools
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import jaxlib


class CompilerWarning(UserWarning):
    """The installed jaxlib computes wrong values with the current settings."""


class Miscompilation(NamedTuple):
    """A release of jaxlib that computes wrong values on CPUs, and what avoids them.

    Attributes:
        issue: address of the report.
        remedy: a release that computes right values.
    """

    issue: str
    remedy: str


# Releases whose wrong values come from reductions that XLA hands to YNNPACK; `_YNN=-reduce` turns that off.
MISCOMPILING = {"0.10.2": Miscompilation("https://github.com/jax-ml/jax/issues/39103", "0.10.1")}
_YNN = "--xla_cpu_experimental_ynn_fusion_type"
_COMPILED = "/jax/core/compile/backend_compile_duration"


def warn_of_miscompilation() -> None:
    """Arranges for one `CompilerWarning` when JAX first compiles a program, if this jaxlib miscompiles on CPUs.

    The warning comes with the first computation, since importing a package must neither start a
    backend nor warn. With any other jaxlib nothing is arranged, and calling this again has no
    effect. On accelerators, and where ``XLA_FLAGS`` turns the faulty kernels off, no warning comes.

    Source:
        https://github.com/jax-ml/jax/issues/39103; docs/compilers.md.
    """
    if jaxlib.__version__ in MISCOMPILING:
        _listen()


@functools.cache
def _listen() -> None:
    pending = [jaxlib.__version__]

    def on_event(event: str, duration_secs: float, **_: str | int) -> None:
        if event == _COMPILED and pending:
            # Removed before the warning, which may be an error: it must not come again.
            _warn(pending.pop())

    jax.monitoring.register_event_duration_secs_listener(on_event)


def _warn(version: str) -> None:
    if jax.default_backend() != "cpu" or not has_faulty_reductions(os.environ.get("XLA_FLAGS", "")):
        return
    from vaejax import checks  # checks imports types, and types this module

    issue, remedy = MISCOMPILING[version]
    warnings.warn(
        f"jaxlib {version} computes wrong values on CPUs, without an error: it miscompiles sums over "
        f"one axis of large arrays ({issue}). Install another release (pip install jax=={remedy} "
        f"jaxlib=={remedy}), or set XLA_FLAGS={_YNN}=-reduce before Python starts. The flag is for "
        f"jaxlib {version}: a release that does not define it ends the process.",
        CompilerWarning,
        stacklevel=checks.outside("jax"),
    )


def has_faulty_reductions(flags: str) -> bool:
    """Whether XLA leaves reductions to YNNPACK under the given value of ``XLA_FLAGS``.

    The value lists flags, or is the path of a file that does. The kinds of operations in YNNPACK's
    flag replace XLA's default list, which includes reductions, or with signs add to it and remove from it.

    Examples:
        >>> name = "--xla_cpu_experimental_ynn_fusion_type"
        >>> [has_faulty_reductions(name + kinds) for kinds in ("=-reduce", "=", "=-dot", "=dot,reduce")]
        [False, False, True, True]
    """
    if flags.strip() and not flags.lstrip().startswith("-"):
        try:
            flags = Path(flags).read_text()
        except OSError:
            return True
    faulty = True
    for name, _, value in (flag.partition("=") for flag in flags.split()):
        if name != _YNN:
            continue
        kinds = value.strip("'\"").lower().split(",")
        if any(kind.startswith(("+", "-")) for kind in kinds):
            faulty = (faulty or "+reduce" in kinds) and "-reduce" not in kinds
        else:
            faulty = "reduce" in kinds
    return faulty
