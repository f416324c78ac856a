"""Converts the parts of a batch that have no missing entries: masks, weights, contexts."""

from typing import Any

import jax

from vaejax.arrays.convert import convert


def complete(value: Any, name: str, *, categories: bool = False) -> Any:
    """Converts an array in which no entry may be missing.

    Args:
        value: as in `convert`.
        name: of the argument, for error messages.
        categories: as in `convert`.

    Raises:
        ValueError: missing entries.
    """
    values, present = convert(value, name, categories=categories)
    if present is not None:
        raise ValueError(
            f"{name} must have a value in every entry, got {int((~present).sum())} missing. "
            "Remove those examples, or fill the missing entries"
        )
    return values


def convert_context(context: Any) -> Any:
    """Converts the leaves of a context that JAX cannot read itself: series, frames, tensors, lists of numbers."""

    def converted(path: Any, leaf: Any) -> Any:
        if isinstance(leaf, jax.Array | bool | int | float | jax.ShapeDtypeStruct):
            return leaf
        return complete(leaf, f"batch.context{jax.tree_util.keystr(path)}", categories=True)

    def is_numbers(node: Any) -> bool:
        return isinstance(node, list) and bool(node) and all(isinstance(v, bool | int | float) for v in node)

    return jax.tree_util.tree_map_with_path(converted, context, is_leaf=is_numbers)
