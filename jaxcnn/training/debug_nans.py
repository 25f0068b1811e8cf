"""The first value of a training step that is not finite: its layer, and in which pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.distributed import mesh
from jaxcnn.training import microbatch
from jaxcnn.training.experiment import Experiment
from jaxcnn.training.step import Batch, TrainState

ADVICE = (
    "try a smaller `optimizer.learning_rate` or `optimizer.clip_norm` 1 in another `workdir`, or "
    "`on_nonfinite` skip"
)

OUTPUT, UPDATED = "the output of ", "after the update, "

Values = list[tuple[str, Any]]  # trees of arrays by name, in the order of computation


def locate(experiment: Experiment, state: TrainState, after: TrainState) -> str:
    """Repeat a step layer by layer; return its first value that is not finite, in words.

    Every process of the run must call it.

    Args:
      experiment: experiment of the run.
      state: state before the step.
      after: state after the step.
    """
    before = "the raw pixels are in [0, 255]"
    for name, (num_nans, num_infinities, size, low, high) in _numbers(experiment, state, after):
        if num_nans or num_infinities:
            return (
                f"{name} holds {num_nans:,} NaN and {num_infinities:,} infinite of {size:,} values "
                f"({before}); {ADVICE}"
            )
        before = f"{name} is in [{low:.3g}, {high:.3g}]"
    return (
        "a value of the compiled step is not finite, but none is when it is repeated layer by "
        f"layer, which rounds differently; {ADVICE}"
    )


def _numbers(
    experiment: Experiment, state: TrainState, after: TrainState
) -> Iterator[tuple[str, tuple[int, int, int, float, float]]]:
    """Yield the name and the `_count` of each value of a step, in the order of computation."""
    image_key, step_key = experiment.step_keys

    def counted(function: Callable[..., Values], *args: Any) -> Iterator[tuple[str, Any]]:
        names: list[str] = []

        def run(*args: Any) -> Any:
            values = function(*args)
            names[:] = [name for name, _ in values]
            return [_count(tree) for _, tree in values]

        counts = jax.device_get(mesh.jit(run, experiment.mesh)(*args))
        yield from zip(names, counts, strict=True)

    def inputs(state: TrainState, batch: Batch) -> tuple[Batch, jax.Array]:
        image = experiment.preprocess.train(
            jax.random.fold_in(image_key, state.step), batch["image"]
        )
        return batch | {"image": image}, jax.random.fold_in(step_key, state.step)

    raw = experiment.feed.batch(int(jax.device_get(state.step)))
    batch, key = mesh.jit(inputs, experiment.mesh)(state, raw)
    yield from counted(partial(_named, prefix=""), state.params)
    yield from counted(partial(_named, prefix="the optimizer's "), state.opt_state)
    size = microbatch.choose_size(
        state.apply_fn, state.params, batch["image"], {*experiment.mesh.devices.flat}, train=True
    )
    parts = [(batch, key)]
    if size != len(batch["label"]):  # a single device
        several, left_over = microbatch.split_step(batch, key, size)
        parts = [jax.tree.map(lambda x, i=i: x[i], several) for i in range(len(several[1]))]
        parts += left_over
    for part in parts:
        yield from counted(_passes, state, *part)
    yield from counted(partial(_named, prefix=UPDATED), after.params)
    yield from counted(partial(_named, prefix=f"{UPDATED}the optimizer's "), after.opt_state)


def _passes(state: TrainState, batch: Batch, key: jax.Array) -> Values:
    """Return the values of the forward and the backward pass."""
    names: list[str] = []

    def loss(params: Any, probes: dict[str, jax.Array]) -> tuple[jax.Array, list[Any]]:
        values: list[Any] = []
        names.clear()

        def note(name: str, value: Any) -> Any:
            if name in probes:  # zeros, whose gradient is that of the value
                value = value + probes[name]
            names.append(name)
            values.append(value)
            return value

        def record(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
            if context.method_name != "__call__":
                return call(*args, **kwargs)
            module = "/".join(context.module.path) or "the network"
            note(f"the input of {module}", args)
            return note(f"{OUTPUT}{module}", call(*args, **kwargs))

        with nn.intercept_methods(record):
            outputs = state.apply_fn(
                {"params": params}, batch["image"], train=True, rngs={"dropout": key}
            )
        losses = note("the loss", state.loss_fn(outputs, batch["label"]))
        return losses.mean(), values

    _, values = jax.eval_shape(loss, state.params, {})
    probes = {
        name: jnp.zeros(value.shape, value.dtype)
        for name, value in zip(names, values, strict=True)
        if name.startswith(OUTPUT)
    }
    grads, values = jax.grad(loss, argnums=(0, 1), has_aux=True)(state.params, probes)
    passes: Values = list(zip(names, values, strict=True))
    for name in reversed(names):
        if name in probes:
            passes.append((f"the gradient of {name}", grads[1][name]))
            module = name.removeprefix(OUTPUT)
            passes += [
                (f"the gradient of {param}", grad)
                for param, grad in _named(grads[0], "")
                if param.rpartition("/")[0] == module
            ]
    return passes


def _named(tree: Any, prefix: str) -> Values:
    return [
        (prefix + jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _count(tree: Any) -> tuple[jax.Array, ...]:
    """Return the numbers of NaN, of infinite and of all values, and the range of the finite."""
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    values = jnp.concatenate([jnp.zeros(0), *(x.astype(jnp.float32).ravel() for x in floats)])
    finite = jnp.isfinite(values)
    return (
        jnp.isnan(values).sum(),
        jnp.isinf(values).sum(),
        jnp.int32(values.size),
        values.min(initial=jnp.inf, where=finite),
        values.max(initial=-jnp.inf, where=finite),
    )
