"""Parameters on disk, through Orbax: plain pytrees, never pickle."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp

from vaejax import checks
from vaejax.types import Array, Params


def save_params(path: str | os.PathLike, params: Params) -> Path:
    """Writes a params tree to a new directory, atomically: the directory appears only when it is whole.

    Raises:
        FileExistsError: where something is there already; nothing is overwritten.
    """
    import orbax.checkpoint as ocp

    target = Path(path).absolute()
    if target.exists():
        raise FileExistsError(f"{target} exists already; choose another directory")
    # Orbax would fail here from a thread of its own, at length.
    target.parent.mkdir(parents=True, exist_ok=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(target, _by_path(params))
    return target


def load_params(path: str | os.PathLike, like: Params) -> Params:
    """Reads a params tree back, in the structure, shapes and types of ``like`` (from ``model.init``).

    Raises:
        FileNotFoundError: nothing there.
        ValueError: a damaged checkpoint, or the parameters of another model; the first path that differs is named.
    """
    import orbax.checkpoint as ocp

    source = Path(path).absolute()
    if not source.is_dir() or (source / "params").is_dir():
        hint = f"; did you mean {source / 'params'}?" if source.is_dir() else ""
        raise FileNotFoundError(f"no checkpoint at {source}: it is a directory that save_params wrote{hint}")
    with ocp.StandardCheckpointer() as checkpointer:
        wanted = _by_path(like)
        try:
            saved = checkpointer.metadata(source).item_metadata.tree
            checks.same_tree(saved, wanted, f"the checkpoint {source}")
            target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), wanted)
            leaves = checkpointer.restore(source, target)
        except ValueError:
            raise
        except Exception as error:
            raise ValueError(
                f"the checkpoint at {source} cannot be read and may be damaged ({type(error).__name__}: {error})"
            ) from error
    return jax.tree.unflatten(jax.tree.structure(like), [leaves[path] for path in wanted])


def _by_path(params: Params) -> dict[str, Array]:
    """Leaves by their path: any pytree (NamedTuples, modules of other libraries) becomes plain names and arrays."""
    return {
        f"params{jax.tree_util.keystr(path)}": jnp.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
