"""`jax.jit` with the compiler's options for the processor at hand."""

import functools
import inspect
import os
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

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
            if kwargs:
                bound = inspect.signature(self).bind(*args, **kwargs)
                args, kwargs = bound.args, bound.kwargs
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
