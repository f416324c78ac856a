"""Compiled programs that live as long as the functions that they are made from."""

import copy
import functools
import inspect
import types
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from vaejax.compilation.vectors import jit


class _Node(NamedTuple):
    """A tuple, a NamedTuple or a `functools.partial`, with weak references in place of functions."""

    kind: Any
    parts: tuple


class _Ref(weakref.ref):
    """A weak reference that equals another one to the same object; `weakref.ref` compares what is referred to by value."""

    _identity: int

    def __new__(cls, value: Any, callback: Callable | None = None) -> "_Ref":
        """A reference whose hash is that of the object's identity, which outlives the object."""
        self = super().__new__(cls, value, callback)
        self._identity = id(value)
        return self

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Ref) and self() is not None and self() is other())

    def __hash__(self) -> int:
        return self._identity


class static_jit:
    """`jit` of a function whose first arguments are static, held by weak references only.

    ``static_argnums`` of `jax.jit` keeps its values, such as a model with the arrays that it holds, until the process ends. Here a
    program is dropped with the first function that it was made from. Static arguments compare by content: tuples, NamedTuples,
    `functools.partial` and bound methods by their parts, functions and other objects that can be called by identity.

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
        parameters = list(inspect.signature(self._function).parameters.values())
        traced.__signature__ = inspect.Signature(parameters[self._num_static :])  # type: ignore[attr-defined]
        return self._compiler(traced, **self._options)

    def _drop(self, dead: weakref.ref) -> None:
        for key, (_, refs) in list(self._programs.items()):
            if any(ref is dead for ref in refs):
                self._programs.pop(key, None)

    def clear_cache(self) -> None:
        """Drops all programs."""
        self._programs.clear()

    def _cache_size(self) -> int:
        return sum(program._cache_size() for program, _ in list(self._programs.values()))


def _weakened(value: Any, callback: Callable | None = None, refs: list[weakref.ref] | None = None) -> Any:
    """Returns a hashable key of ``value`` that keeps no function alive; its references are added to ``refs``."""
    if type(value) is functools.partial and _is_hashable((value.args, tuple(value.keywords.items()))):
        parts = (value.func, *value.args, tuple(sorted(value.keywords.items())))
        return _Node(functools.partial, tuple(_weakened(part, callback, refs) for part in parts))
    if isinstance(value, types.MethodType):
        # Each access to a method makes another object, which dies at once.
        return _Node(
            types.MethodType, tuple(_weakened(part, callback, refs) for part in (value.__func__, value.__self__))
        )
    if isinstance(value, tuple):
        return _Node(type(value), tuple(_weakened(part, callback, refs) for part in value))
    hash(value)
    if not callable(value) and type(value).__hash__ is not object.__hash__:
        return value
    try:
        ref = _Ref(value, callback)
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
        value = key()
        if value is None:
            raise RuntimeError(
                "a static argument of a compiled function must outlive its programs, but one was dropped"
            )
        return value
    if not isinstance(key, _Node):
        return key
    parts = tuple(_restored(part) for part in key.parts)
    if key.kind is types.MethodType:
        return types.MethodType(*parts)
    if key.kind is functools.partial:
        function, *args, options = parts
        return functools.partial(function, *args, **dict(options))
    return getattr(key.kind, "_make", key.kind)(parts)
