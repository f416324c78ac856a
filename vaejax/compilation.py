"""`jax.jit` with the compiler's options for the processor at hand, and a warning about compilers that compute wrong values."""

import functools
import os
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jaxlib

# XLA keeps to 256 bits on processors with AVX-512, for the sake of those that slow down on it; elementwise passes (optimisers,
# likelihoods, activations) take some 20 % longer that way: benchmarks/NOTES.md.
_FLAG = "xla_cpu_prefer_vector_width"
_WIDE = {_FLAG: 512}


def jit(function: Callable, *, compiler_options: dict[str, Any] | None = None, **options: Any) -> Callable:
    """`jax.jit` with vectors of 512 bits on a CPU that has them; elsewhere `jax.jit` as it is.

    JAX takes compiler options at the top level only: within another program it is `jax.jit` too, so that ``jax.jit(jax.vmap(f))`` of
    a function compiled here has narrow vectors and ``jit(jax.vmap(f))`` wide ones. A width given in ``XLA_FLAGS`` is left alone.

    Args:
        function: pure.
        compiler_options: of `jax.jit`; those given here go before the width.
        **options: of `jax.jit`.

    Examples:
        >>> import jax
        >>> double = jit(lambda x: 2 * x)
        >>> float(double(3.0)), float(jax.grad(double)(3.0))
        (6.0, 2.0)
    """
    return _Compiled(function, compiler_options or {}, options)


class _Compiled:
    """What `jit` returns. A class, so that whatever wraps it does not take its methods for its own."""

    def __init__(self, function: Callable, compiler_options: dict[str, Any], options: dict[str, Any]):
        functools.update_wrapper(self, function)
        self._plain: Any = jax.jit(function, compiler_options=compiler_options or None, **options)
        self._wide: Any = jax.jit(function, compiler_options=_WIDE | compiler_options, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not _has_wide_vectors():
            return self._plain(*args, **kwargs)
        try:
            return self._wide(*args, **kwargs)
        except ValueError as error:
            # What JAX says of options within another trace; it says so before anything is run or donated.
            if not str(error).startswith("`compiler_options` can only be passed to top-level"):
                raise
            return self._plain(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """As a function's: a method, on an instance."""
        return self if instance is None else types.MethodType(self, instance)

    def __getattr__(self, name: str) -> Any:
        """`lower`, `trace`, `eval_shape` and the rest of what a function of `jax.jit` has."""
        if name in ("_plain", "_wide"):  # not made yet: copying and pickling ask
            raise AttributeError(name)
        return getattr(self._wide if _has_wide_vectors() else self._plain, name)

    def clear_cache(self) -> None:
        """As that of `jax.jit`."""
        self._plain.clear_cache()
        self._wide.clear_cache()

    def _cache_size(self) -> int:
        return self._plain._cache_size() + self._wide._cache_size()


@functools.cache
def _has_wide_vectors() -> bool:
    if jax.default_backend() != "cpu" or _FLAG in os.environ.get("XLA_FLAGS", ""):
        return False
    try:
        if "avx512f" not in Path("/proc/cpuinfo").read_text():
            return False
        # Another version of the compiler may know no such option; asked at once, also where the first to ask is being traced.
        with jax.ensure_compile_time_eval():
            jax.jit(lambda: 0, compiler_options=_WIDE)()
    except (OSError, jax.errors.JaxRuntimeError):
        return False
    return True


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
