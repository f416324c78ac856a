"""The one door to distrax: imported with its import-time DeprecationWarning silenced, and nothing else.

distrax 0.1.9 imports TFP nightly, which touches a name that JAX has deprecated. Programs that turn warnings into errors
could otherwise not import vaejax.
"""

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=r"jax\.core\.\w+ is deprecated", category=DeprecationWarning)
    import distrax

Distribution = distrax.Distribution

__all__ = ["Distribution", "distrax"]
