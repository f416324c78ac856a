"""Pytrees on disk: arrays through Orbax, never pickle, each directory whole or absent and sealed with checksums."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.train.storage import SEAL, CheckpointError, new_directory, seal, unseal
from vaejax.types import Array, Params


def save_params(path: str | os.PathLike, params: Params) -> Path:
    """Writes a params tree to a new directory, atomically: the directory appears only when it is whole.

    Raises:
        FileExistsError: where something is there already; nothing is overwritten.
    """
    target = Path(path).absolute()
    if target.exists():
        raise FileExistsError(f"{target} exists already; choose another directory")
    write_checkpoint(target, {"params": params}, {})
    return target


def load_params(path: str | os.PathLike, like: Params) -> Params:
    """Reads a params tree back, in the structure, shapes and types of ``like`` (from ``model.init``).

    Args:
        path: what `save_params` wrote, or one of a run's ``checkpoints``.
        like: a tree of the same structure.

    Raises:
        FileNotFoundError: nothing there.
        CheckpointError: a damaged checkpoint, or a directory that is none.
        ValueError: the parameters of another model; the first path that differs is named.
    """
    source = Path(path).absolute()
    if not source.is_dir():
        raise FileNotFoundError(f"no checkpoint at {source}: it is a directory that save_params wrote")
    inside = sorted(seal.parent for depth in ("*", "*/*") for seal in source.glob(f"{depth}/{SEAL}"))
    if inside:
        raise FileNotFoundError(f"{source} holds checkpoints and is none; did you mean {inside[0]}?")
    trees, _ = read_checkpoint(source, {"params": like})
    return trees["params"]


def write_checkpoint(target: Path, trees: dict[str, Any], notes: dict[str, Any]) -> None:
    """Writes named trees and notes (anything JSON) as one directory, which appears only when it is whole.

    Each tree has a folder of its own, so that the parameters can be read without knowing the optimiser's state.
    """
    import orbax.checkpoint as ocp

    # Orbax would fail here from a thread of its own, at length.
    target.parent.mkdir(parents=True, exist_ok=True)
    with new_directory(target) as aside, without_absl_log():
        leaves = {name: _by_path(name, tree) for name, tree in trees.items()}
        with ocp.StandardCheckpointer() as checkpointer:
            for name, tree in leaves.items():
                # Orbax refuses arrays without entries; their shapes are in the notes.
                checkpointer.save(aside / name, {path: leaf for path, leaf in tree.items() if leaf.size} or _NOTHING)
                checkpointer.wait_until_finished()
        shapes = {name: {p: [list(v.shape), v.dtype.name] for p, v in tree.items()} for name, tree in leaves.items()}
        seal(aside, {**notes, "trees": shapes})


@contextlib.contextmanager
def without_absl_log() -> Iterator[None]:
    """Silences absl's logger: Orbax logs traces beside the errors that it raises, and Optax warns of pairs."""
    logger = logging.getLogger("absl")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


_NOTHING = {"empty": np.zeros(1)}


def read_checkpoint(
    source: Path, like: dict[str, Any], *, same_types: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads trees and notes back, after every file was compared with its checksum.

    Args:
        source: the directory.
        like: the trees wanted, by name, in the structure and shapes that they must have.
        same_types: refuse other dtypes too, in place of converting.

    Raises:
        CheckpointError: damaged, or no checkpoint.
        ValueError: trees of another model or optimiser.
    """
    notes = unseal(source)
    trees = {}
    for name, tree in like.items():
        wanted = _by_path(name, tree)
        if name not in notes.get("trees", {}):
            raise CheckpointError(f"the checkpoint {source} holds no {name}, only {', '.join(notes.get('trees', {}))}")
        _check_same(notes["trees"][name], wanted, source, same_types)
        leaves = _restore(source / name, wanted)
        trees[name] = jax.tree.unflatten(
            jax.tree.structure(tree), [_typed(leaves[p], old) for p, old in zip(wanted, jax.tree.leaves(tree))]
        )
    return trees, notes


def _check_same(saved: dict[str, Any], wanted: dict[str, Array], source: Path, same_types: bool) -> None:
    shapes = {path: tuple(shape) for path, (shape, _) in saved.items()}
    checks.same_shapes(shapes, {path: leaf.shape for path, leaf in wanted.items()}, f"the checkpoint {source}")
    for path, leaf in wanted.items():
        if same_types and saved[path][1] != leaf.dtype.name:
            raise ValueError(
                f"{path} is {saved[path][1]} in the checkpoint {source}, and {leaf.dtype} here; "
                "use the same precision (jax_enable_x64) as the run"
            )


def _restore(source: Path, wanted: dict[str, Array]) -> dict[str, Array]:
    import orbax.checkpoint as ocp

    target = {p: jax.ShapeDtypeStruct(v.shape, v.dtype) for p, v in wanted.items() if v.size}
    if not target:
        return wanted
    # Every file has been compared with its checksum: what goes wrong now (memory, open files) is not the checkpoint's doing.
    with ocp.StandardCheckpointer() as checkpointer:
        return {**wanted, **checkpointer.restore(source, target)}


def _by_path(name: str, tree: Any) -> dict[str, Array]:
    """Leaves by their path: any pytree (NamedTuples, modules of other libraries) becomes plain names and arrays."""
    leaves = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        where = f"{name}{jax.tree_util.keystr(path)}"
        if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
            leaves[f"{where}<{jax.random.key_impl(leaf)}>"] = jax.random.key_data(leaf)
        else:
            leaves[where] = jnp.asarray(leaf)
    return leaves


def _typed(leaf: Array, old: Any) -> Array:
    """The leaf as a random key again where the old one is one."""
    if jnp.issubdtype(jnp.result_type(old), jax.dtypes.prng_key):
        return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(old))
    return leaf
