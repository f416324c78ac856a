"""`jax.jit` with options for the processor at hand, programs held weakly, and a warning of compilers that compute wrong values."""

import copy
import functools
import os
import types
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jaxlib

# XLA keeps to 256 bits on processors with AVX-512, for the sake of those that slow down on it; elementwise passes (optimisers,
# likelihoods, activations) take some 20 % longer that way: benchmarks/NOTES.md.
_FLAG = "xla_cpu_prefer_vector_width"
_WIDE = {_FLAG: 512}


def jit(
    function: Callable,
    *,
    compiler_options: dict[str, Any] | None = None,
    prepare: Callable[..., tuple] | None = None,
    **options: Any,
) -> Callable:
    """`jax.jit` with vectors of 512 bits on a CPU that has them; elsewhere `jax.jit` as it is.

    JAX takes compiler options at the top level only: within another program it is `jax.jit` too, so that ``jax.jit(jax.vmap(f))`` of
    a function compiled here has narrow vectors and ``jit(jax.vmap(f))`` wide ones. A width given in ``XLA_FLAGS`` is left alone.

    Args:
        function: pure.
        compiler_options: of `jax.jit`; those given here go before the width.
        prepare: positional arguments -> the positional arguments of ``function``, called outside the compiled program. `jax.jit`
            itself wraps integers that its types cannot hold.
        **options: of `jax.jit`.

    Examples:
        >>> import jax
        >>> double = jit(lambda x: 2 * x)
        >>> float(double(3.0)), float(jax.grad(double)(3.0))
        (6.0, 2.0)
    """
    return _Compiled(function, compiler_options or {}, prepare, options)


class _Compiled:
    """What `jit` returns. A class, so that whatever wraps it does not take its methods for its own."""

    def __init__(
        self,
        function: Callable,
        compiler_options: dict[str, Any],
        prepare: Callable[..., tuple] | None,
        options: dict[str, Any],
    ):
        functools.update_wrapper(self, function)
        self._prepare = prepare
        self._plain: Any = jax.jit(function, compiler_options=compiler_options or None, **options)
        self._wide: Any = jax.jit(function, compiler_options=_WIDE | compiler_options, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._prepare is not None:
            args = self._prepare(*args)
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
        if name in ("_plain", "_wide", "_prepare"):  # not made yet: copying and pickling ask
            raise AttributeError(name)
        return getattr(self._wide if _has_wide_vectors() else self._plain, name)

    def clear_cache(self) -> None:
        """As that of `jax.jit`."""
        self._plain.clear_cache()
        self._wide.clear_cache()

    def _cache_size(self) -> int:
        return self._plain._cache_size() + self._wide._cache_size()


class _Node(NamedTuple):
    """A tuple, a NamedTuple or a `functools.partial`, with weak references in place of functions."""

    kind: Any
    parts: tuple


class static_jit:
    """`jit` of a function whose first arguments are static, held by weak references only.

    ``static_argnums`` of `jax.jit` keeps its values, such as a model with the arrays that it holds, until the process ends. Here a
    program is dropped with the first function that it was made from. Static arguments compare by content: tuples, NamedTuples and
    `functools.partial` by their parts, functions by identity.

    Args:
        function: pure; its first ``num_static`` arguments are static and positional.
        num_static: how many.
        compiler: `jit`, or `jax.jit`.
        **options: of the compiler; ``donate_argnums`` counts the other arguments from 0.

    Examples:
        >>> import jax
        >>> apply = static_jit(lambda f, x: f(x), num_static=1)
        >>> float(apply(jax.numpy.square, 3.0))
        9.0
    """

    def __init__(self, function: Callable, *, num_static: int, compiler: Callable = jit, **options: Any):
        functools.update_wrapper(self, function)
        self._function, self._num_static, self._compiler, self._options = function, num_static, compiler, options
        self._programs: dict[Any, tuple[Any, list[weakref.ref]]] = {}

    def __call__(self, *args: Any) -> Any:
        """Runs the program of the static arguments, which is compiled where it is new."""
        return self._program(args[: self._num_static])(*args[self._num_static :])

    def program(self, *statics: Any) -> Any:
        """Returns the compiled function of the other arguments; it keeps the static ones alive."""
        held = copy.copy(self._program(statics))
        held.statics = statics
        return held

    def _program(self, statics: tuple) -> Any:
        try:
            entry = self._programs.get(_weakened(statics))
        except TypeError:  # Unhashable: a program for this call alone.
            return self._compiled(lambda: statics)
        if entry is None:
            refs: list[weakref.ref] = []
            key = _weakened(statics, self._drop, refs)
            entry = self._programs[key] = (self._compiled(lambda: _restored(key)), refs)
        return entry[0]

    def _compiled(self, statics: Callable[[], tuple]) -> Any:
        @functools.wraps(self._function)
        def traced(*dynamic: Any) -> Any:
            return self._function(*statics(), *dynamic)

        del traced.__wrapped__  # its signature is another one
        return self._compiler(traced, **self._options)

    def _drop(self, dead: weakref.ref) -> None:
        for key, (_, refs) in list(self._programs.items()):
            if any(ref is dead for ref in refs):
                self._programs.pop(key, None)

    def _cache_size(self) -> int:
        return sum(program._cache_size() for program, _ in list(self._programs.values()))


def _weakened(value: Any, callback: Callable | None = None, refs: list[weakref.ref] | None = None) -> Any:
    """Returns a hashable key of ``value`` that keeps no function alive; its references are added to ``refs``."""
    if type(value) is functools.partial and _is_hashable((value.args, tuple(value.keywords.items()))):
        parts = (value.func, *value.args, tuple(sorted(value.keywords.items())))
        return _Node(functools.partial, tuple(_weakened(part, callback, refs) for part in parts))
    if isinstance(value, tuple):
        return _Node(type(value), tuple(_weakened(part, callback, refs) for part in value))
    hash(value)
    if not callable(value) and type(value).__hash__ is not object.__hash__:
        return value
    try:
        ref = weakref.ref(value, callback) if callback else weakref.ref(value)
    except TypeError:  # Built-in functions, which live as long as the process.
        return value
    if refs is not None:
        refs.append(ref)
    return ref


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _restored(key: Any) -> Any:
    """Inverts `_weakened`."""
    if isinstance(key, weakref.ref):
        return key()
    if not isinstance(key, _Node):
        return key
    parts = tuple(_restored(part) for part in key.parts)
    if key.kind is functools.partial:
        function, *args, options = parts
        return functools.partial(function, *args, **dict(options))
    return getattr(key.kind, "_make", key.kind)(parts)


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
