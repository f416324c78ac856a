"""`jax.jit` with options for the processor at hand, programs held weakly, and a warning of compilers that compute wrong values."""

from vaejax.compilation.miscompilation import (
    MISCOMPILING,
    CompilerWarning,
    has_faulty_reductions,
    warn_of_miscompilation,
)
from vaejax.compilation.static import static_jit
from vaejax.compilation.vectors import jit

__all__ = ["MISCOMPILING", "CompilerWarning", "has_faulty_reductions", "jit", "static_jit", "warn_of_miscompilation"]
