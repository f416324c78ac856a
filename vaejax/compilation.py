"""`jax.jit` with the compiler's options for the processor at hand."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

# XLA keeps to 256 bits on processors with AVX-512, for the sake of those that slow down on it; elementwise passes (optimisers,
# likelihoods, activations) take some 20 % longer that way: benchmarks/NOTES.md.
_FLAG = "xla_cpu_prefer_vector_width"
_WIDE = {_FLAG: 512}


def jit(function: Callable, **options: Any) -> Callable:
    """`jax.jit` with vectors of 512 bits on a CPU that has them; elsewhere `jax.jit` as it is.

    JAX takes compiler options at the top level only: within another program it is `jax.jit` too. A width given in ``XLA_FLAGS``
    is left alone.

    Args:
        function: pure.
        **options: of `jax.jit`.

    Examples:
        >>> import jax
        >>> double = jit(lambda x: 2 * x)
        >>> float(double(3.0)), float(jax.grad(double)(3.0))
        (6.0, 2.0)
    """
    plain: Any = jax.jit(function, **options)
    wide: Any = jax.jit(function, compiler_options=_WIDE, **options)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not _has_wide_vectors():
            return plain(*args, **kwargs)
        try:
            return wide(*args, **kwargs)
        except ValueError as error:
            # What JAX says of options within another trace; it says so before anything is run or donated.
            if "top-level" not in str(error):
                raise
            return plain(*args, **kwargs)

    def clear_cache() -> None:
        plain.clear_cache()
        wide.clear_cache()

    # What else one asks of a compiled function.
    asked: Any = call
    asked.lower = lambda *args, **kwargs: (wide if _has_wide_vectors() else plain).lower(*args, **kwargs)
    asked.clear_cache = clear_cache
    asked._cache_size = lambda: plain._cache_size() + wide._cache_size()
    return asked


@functools.cache
def _has_wide_vectors() -> bool:
    if jax.default_backend() != "cpu" or _FLAG in os.environ.get("XLA_FLAGS", ""):
        return False
    try:
        if "avx512f" not in Path("/proc/cpuinfo").read_text():
            return False
        # Another version of the compiler may know no such option.
        jax.jit(lambda: 0, compiler_options=_WIDE)()
    except (OSError, jax.errors.JaxRuntimeError):
        return False
    return True
