"""Networks as pairs of pure functions, and adapters that make them from Flax, Equinox or plain functions."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from vaejax import checks
from vaejax.nets import switches
from vaejax.types import Key, Params, call, default_float


class Network(NamedTuple):
    """A network without hidden state. Plain functions over a dict are a network already.

    Attributes:
        init: ``(key, *inputs) -> params``; the inputs are examples of what ``apply`` will see.
        apply: ``(params, *inputs) -> output``, any leading axes; may declare ``key=None``, given in training (dropout).

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> linear = Network(
        ...     init=lambda key, x: {"w": jax.random.normal(key, (x.shape[-1], 2))},
        ...     apply=lambda params, x: x @ params["w"],
        ... )
        >>> params = linear.init(jax.random.key(0), jnp.zeros((1, 3)))
        >>> linear.apply(params, jnp.zeros((5, 4, 3))).shape
        (5, 4, 2)
    """

    init: Callable
    apply: Callable


def from_nnx(build: Callable[[nnx.Rngs], nnx.Module]) -> Network:
    """A `Network` of a Flax NNX module: its parameters become a plain dict, nothing else of NNX is seen outside.

    Dropout and other random layers run in evaluation mode, except where ``apply`` gets a ``key``. A call that declares a switch
    (``train``, ``training``, ``deterministic`` and the like) receives it.

    Args:
        build: makes the module from its random streams, e.g. ``lambda rngs: nnx.Linear(3, 2, rngs=rngs)``.

    Raises:
        ValueError: for a module that keeps state other than parameters and random streams (batch statistics); and, when
            applied, for params of another module.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> net = from_nnx(lambda rngs: nnx.Linear(3, 2, rngs=rngs))
        >>> sorted(net.init(jax.random.key(0)))
        ['bias', 'kernel']
    """
    abstract = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
    training_graph, abstract_params, abstract_rest = _split(abstract)
    abstract.eval()
    graph = nnx.graphdef(abstract)
    expected = nnx.to_pure_dict(abstract_params)
    kept = {type(variable).__name__ for _, variable in nnx.to_flat_state(abstract_rest)} - {"RngKey", "RngCount"}
    owner, call_of = type(abstract).__name__, type(abstract).__call__
    switches.check(call_of, switches.SWITCHES, owner)
    if kept:
        raise ValueError(
            f"{owner} keeps state that is not a parameter ({', '.join(sorted(kept))}), which a pure network cannot update; use layer "
            "normalisation in place of batch normalisation, or write init and apply yourself and update through Model.refresh"
        )

    def init(key: Key, *inputs: Any) -> Params:
        return jax.tree.map(
            lambda leaf: leaf.astype(default_float()),
            nnx.to_pure_dict(_split(build(nnx.Rngs(key)))[1]),
        )

    def random_streams(key: Key | None) -> Any:
        leaves, tree = jax.tree.flatten(abstract_rest)
        keys = iter(() if key is None else jax.random.split(key, max(len(leaves), 1)))

        def fill(leaf: Any) -> Any:
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                return jax.random.key(0) if key is None else next(keys)
            return jnp.zeros(leaf.shape, leaf.dtype)

        return jax.tree.unflatten(tree, [fill(leaf) for leaf in leaves])

    def apply(params: Params, *inputs: Any, key: Key | None = None) -> Any:
        checks.same_tree(params, expected, owner)
        state = _split(abstract)[1]
        nnx.replace_by_pure_dict(state, params)
        module = nnx.merge(graph if key is None else training_graph, state, random_streams(key))
        return module(*inputs, **switches.settings(call_of, (module, *inputs), {}, switches.SWITCHES, key is not None))

    return Network(init, apply)


def _split(module: nnx.Module) -> tuple[Any, Any, Any]:
    """Its graph, its parameters, and whatever else it holds."""
    parts: Any = nnx.split(module, nnx.Param, ...)
    return parts


def from_linen(module: Any, *, deterministic_argument: str = "deterministic") -> Network:
    """A `Network` of a Flax Linen module whose only variables are ``params``.

    The switches that turn dropout on or off (``train``, ``training``, ``is_training``, ``deterministic``, ``inference`` and the like)
    are set to training where ``apply`` gets a ``key``, and to evaluation elsewhere: keywords of the module's call, those of nested
    modules that their caller leaves out, and fields of ``module`` itself. A nested call that passes a switch keeps its value.

    Args:
        module: the Linen module; ``init`` shows it example inputs.
        deterministic_argument: one more name of a keyword that turns dropout off.

    Raises:
        ValueError: for a keyword such as ``training_phase=False``, which resembles a switch of another name; and, from ``init``,
            where the module makes other collections (batch statistics).
    """
    from flax import linen

    owner = type(module).__name__
    names = {**switches.SWITCHES, deterministic_argument: False}
    switches.check(type(module).__call__, names, owner)
    fields = {
        name: names[name]
        for name in set(names) & set(type(module).__dataclass_fields__)
        if isinstance(getattr(module, name, None), bool)
    }

    def run(function: Callable, training: bool) -> Any:
        def intercept(following: Callable, args: tuple, options: dict[str, Any], context: Any) -> Any:
            if context.method_name == "__call__":
                inner = context.module
                missing = switches.settings(type(inner).__call__, (inner, *args), options, names, training)
                # Linen refuses a switch that is both a field and an argument.
                options = options | {k: v for k, v in missing.items() if getattr(inner, k, None) is None}
            return following(*args, **options)

        switched = module.clone(**{name: value == training for name, value in fields.items()}) if fields else module
        with linen.intercept_methods(intercept):
            return function(switched)

    def init(key: Key, *inputs: Any) -> Params:
        variables = run(lambda switched: switched.init({"params": key}, *inputs), False)
        if extra := set(variables) - {"params"}:
            raise ValueError(
                f"{owner} makes the collections {sorted(extra)} beside params, which a pure network cannot update. Use layer "
                "normalization in place of batch normalization, or write init and apply yourself and update through Model.refresh."
            )
        return variables["params"]

    def apply(params: Params, *inputs: Any, key: Key | None = None) -> Any:
        rngs = {} if key is None else {"dropout": key}
        return run(lambda switched: switched.apply({"params": params}, *inputs, rngs=rngs), key is not None)

    return Network(init, apply)


def from_equinox(build: Callable[[Key], Any], *, event_ndims: int = 1) -> Network:
    """A `Network` of an Equinox module, which takes one example at a time: it is mapped over all leading axes.

    Dropout and the like run in inference mode, except where ``apply`` gets a ``key``. A call that declares a switch
    (``train``, ``training``, ``deterministic`` and the like, with a bool as default) receives it.

    Args:
        build: makes the module from a key.
        event_ndims: axes of one example of every input.
    """
    import equinox as eqx

    static = eqx.partition(build(jax.random.key(0)), eqx.is_inexact_array)[1]
    call_of = type(static).__call__
    switches.check(call_of, switches.SWITCHES, type(static).__name__)
    # Equinox's own modules have switches with None as default: their field, which inference_mode sets, decides.
    names = {
        name: value
        for name, value in switches.SWITCHES.items()
        if (parameter := inspect.signature(call_of).parameters.get(name)) and parameter.default is not None
    }

    def init(key: Key, *inputs: Any) -> Params:
        return eqx.filter(build(key), eqx.is_inexact_array)

    def apply(params: Params, *inputs: Any, key: Key | None = None) -> Any:
        module = eqx.nn.inference_mode(eqx.combine(params, static), key is None)
        lead = jnp.shape(inputs[0])[: jnp.ndim(inputs[0]) - event_ndims]
        flat = [x.reshape(-1, *x.shape[x.ndim - event_ndims :]) for x in map(jnp.asarray, inputs)]
        options = switches.settings(call_of, (module, *flat), {}, names, key is not None)
        if key is None:
            out = jax.vmap(lambda *example: module(*example, **options))(*flat)
        else:
            out = jax.vmap(lambda k, *example: call(module, *example, key=k, **options))(
                jax.random.split(key, flat[0].shape[0]), *flat
            )
        return jax.tree.map(lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]), out)

    return Network(init, apply)
