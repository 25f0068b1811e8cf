"""The sides that run on JAX: jaxcnn, plain linen, and two yardsticks, matrix product and copy."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import AxisType, Mesh

from jaxcnn.benchmarks.job import (
    COPY_BYTES,
    LEARNING_RATE,
    MNIST_SHAPE,
    MNIST_SIZE,
    Job,
    Prepared,
    Run,
    normalized,
    random_images,
)
from jaxcnn.benchmarks.linen_networks import NETWORKS
from jaxcnn.data.preprocess import make_preprocess
from jaxcnn.distributed import mesh
from jaxcnn.errors import RunError, UserError, lookup
from jaxcnn.models.variants import constructor, image_shape
from jaxcnn.summary.summarize import summarize
from jaxcnn.training import cores, memory
from jaxcnn.training.device_loops import train_steps
from jaxcnn.training.step import TrainState, create_state, train_step, zero_metrics

# Number of batches in the set that jaxcnn's side gathers rows from.
NUM_BATCHES = 4


def prepare_jaxcnn(job: Job) -> Prepared:
    """Prepare the job in jaxcnn: training in chunks of steps, each chunk one program.

    Raises:
      UserError: the network is not in MODELS.
    """
    model = constructor(job.network)(dtype=jnp.dtype(job.dtype))
    cores.use_cores(job.network, job.batch_size, train=job.what != "infer")  # as the commands do
    make_run = {"train": _our_train, "infer": _our_infer, "epoch": _our_epochs}[job.what]
    summary = summarize(model, _image_shape(job))
    multiply_adds = summary.multiply_adds
    if job.what != "infer":  # also the gradients of weights, and of inputs except the images
        multiply_adds = 3 * multiply_adds - summary.layers[0].multiply_adds
    return _prepared(make_run(job, model), flops=2 * multiply_adds * job.images_per_step)


def prepare_linen(job: Job) -> Prepared:
    """Prepare the job in plain linen: a jitted step in a Python loop, as in Flax's examples.

    Raises:
      UserError: the network is not in linen_networks.NETWORKS, or an image size is given.
    """
    if job.image_size is not None:
        raise UserError(
            f"`image_size` is {job.image_size}; expected the default for plain linen, whose "
            "networks have one size; compare with torch, or omit it"
        )
    model = lookup("network of the linen side", job.network, NETWORKS)(dtype=jnp.dtype(job.dtype))
    make_run = {"train": _linen_train, "infer": _linen_infer, "epoch": _linen_epochs}[job.what]
    return _prepared(make_run(job, model))


def prepare_matmul(job: Job) -> Prepared:
    """Prepare the product of two large square matrices, whose rate is the yardstick of a side."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    values = np.random.default_rng(0).uniform(-1, 1, (2, size, size))
    a, b = jax.device_put(list(values.astype(jnp.dtype(job.dtype))))
    product = jax.jit(jnp.matmul)

    def run(num_steps: int) -> None:
        for _ in range(num_steps):
            product(a, b).block_until_ready()

    return _prepared(run, flops=2 * size**3)


def prepare_copy(job: Job) -> Prepared:
    """Prepare an in-place update of a large array: `COPY_BYTES` read and as many written."""
    values = jnp.zeros(COPY_BYTES // 4, jnp.float32)
    negative = jax.jit(jnp.negative, donate_argnums=0)  # new memory pages would cost extra time

    def run(num_steps: int) -> None:
        nonlocal values
        for _ in range(num_steps):
            values = negative(values).block_until_ready()

    return _prepared(run)


def _prepared(run: Run, flops: int | None = None) -> Prepared:
    versions = {module.__name__: module.__version__ for module in (jax, flax, optax)}
    device = jax.devices()[0]
    has_peak = "peak_bytes_in_use" in (device.memory_stats() or {})

    def peak_bytes() -> int:
        return int(device.memory_stats()["peak_bytes_in_use"])

    return Prepared(run, device.device_kind, versions, flops, peak_bytes if has_peak else None)


def _our_infer(job: Job, model: nn.Module) -> Run:
    over_images = _mesh(_our_devices())
    sharding = mesh.batch_sharding(over_images)

    def forward(variables: Any, images: jax.Array) -> jax.Array:
        apply = functools.partial(model.apply, train=False)
        return cores.forward(apply, variables, images, sharding)

    return _infer(job, model, mesh.jit(forward, over_images, sharding), over_images)


def _linen_infer(job: Job, model: nn.Module) -> Run:
    program = jax.jit(functools.partial(model.apply, train=False))
    return _infer(job, model, program, _mesh(jax.devices()[:1]))


def _infer(job: Job, model: nn.Module, forward: Callable[..., Any], over_images: Mesh) -> Run:
    num_images = mesh.round_up(job.batch_size, over_images)  # as in evaluation
    raw, _ = random_images(num_images, _image_shape(job))
    images = jax.device_put(normalized(raw), mesh.batch_sharding(over_images))
    rng = np.random.default_rng(1)

    def values(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        array = rng.standard_normal(leaf.shape, np.float32)
        array /= math.sqrt(math.prod(leaf.shape[:-1]))
        return mesh.replicate(array, over_images)

    # As if read from a file: an initializer's temporary arrays would count as peak memory.
    shapes = jax.eval_shape(model.init, jax.random.key(0), images[:1])
    variables = jax.tree.map(values, shapes)

    def run(num_steps: int) -> None:
        for _ in range(num_steps):
            jax.block_until_ready(forward(variables, images))

    return run


def _our_train(job: Job, model: nn.Module) -> Run:
    over_images = _mesh(_our_devices())
    mesh.check_batch_size(job.batch_size, over_images)
    place = functools.partial(mesh.replicate, mesh=over_images)
    images, labels = place(random_images(NUM_BATCHES * job.batch_size, _image_shape(job)))
    preprocess = make_preprocess((), lambda: images, (0.5,), (0.5,)).train
    program = mesh.jit(
        functools.partial(
            train_steps,
            preprocess=preprocess,
            batch_size=job.batch_size,
            sharding=mesh.batch_sharding(over_images),
        ),
        over_images,
        donate_argnums=(0, 1),
    )
    order = np.random.default_rng(1).permutation(len(labels)).astype(np.int32)
    state, metrics = place((initial_state(job, model), zero_metrics()))
    data = images, labels, place(order)
    keys = place((jax.random.key(1), jax.random.key(2)))
    done = 0

    @functools.cache
    def compiled() -> Callable[..., Any]:
        arrays = state, metrics, *data, place(np.int32(0)), keys
        executable = mesh.compile_loop(program, *arrays)
        memory.trim()
        return executable

    def run(num_steps: int) -> None:
        nonlocal state, metrics, done
        done += num_steps
        state, metrics = compiled()(state, metrics, *data, place(np.int32(done)), keys)
        if int(state.step) != done:
            raise RunError(f"the loss is not finite at step {int(state.step)}")

    return run


def _our_devices() -> list[jax.Device]:
    """Return one accelerator, or all CPU devices."""
    return jax.devices()[: None if jax.default_backend() == "cpu" else 1]


def _mesh(devices: list[jax.Device]) -> Mesh:
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def _our_epochs(job: Job, model: nn.Module) -> Run:
    # Imported here, because its imports would add to the measured memory of every other job.
    from jaxcnn.benchmarks.our_epochs import epochs

    return epochs(job)


def _linen_train(job: Job, model: nn.Module) -> Run:
    raw, labels = random_images(job.batch_size, _image_shape(job))
    batch = jax.device_put({"image": normalized(raw), "label": labels})
    step = _linen_step(job, model)

    def run(num_steps: int) -> None:
        for _ in range(num_steps):
            state = step(batch)
        jax.block_until_ready(state.params)

    return run


def _linen_epochs(job: Job, model: nn.Module) -> Run:
    images, labels = random_images(MNIST_SIZE, MNIST_SHAPE)
    rng = np.random.default_rng(1)
    step = _linen_step(job, model)

    def run(num_steps: int) -> None:
        for _ in range(num_steps):
            order = rng.permutation(MNIST_SIZE)[: job.images_per_step]
            for rows in order.reshape(-1, job.batch_size):
                state = step({"image": normalized(images[rows]), "label": labels[rows]})
        jax.block_until_ready(state.params)

    return run


def _linen_step(job: Job, model: nn.Module) -> Callable[[Any], TrainState]:
    program = jax.jit(train_step, donate_argnums=0)
    state, key = initial_state(job, model), jax.random.key(1)

    def step(batch: Any) -> TrainState:
        nonlocal state
        state, _ = program(state, batch, key)
        return state

    return step


def initial_state(job: Job, model: nn.Module) -> TrainState:
    """Create a state at step 0 with the job's optimizer."""
    tx = optax.adam(LEARNING_RATE) if job.adam else optax.sgd(LEARNING_RATE, job.momentum)
    create = functools.partial(create_state, model, tx, _image_shape(job))
    return jax.jit(create)(jax.random.key(0))


def _image_shape(job: Job) -> tuple[int, int, int]:
    return job.image_shape(image_shape(job.network))
