"""The networks in onnxruntime: forward passes of what `convert.py export RUN net.onnx` writes."""

from __future__ import annotations

import importlib
from typing import Any

import jax

from jaxcnn.benchmarks.job import Job, Prepared, normalized, random_images
from jaxcnn.config import TrainConfig
from jaxcnn.errors import UserError
from jaxcnn.interop.onnx import to_onnx
from jaxcnn.interop.trained import Trained
from jaxcnn.models.variants import constructor, image_shape
from jaxcnn.workdir.dataset_info import DatasetInfo


def prepare(job: Job) -> Prepared:
    """Prepare forward passes of normalized images on the CPU, in float32.

    Raises:
      UserError: a package is missing, the network has no ONNX builder, or the job is not a forward
        pass in float32.
    """
    if job.what != "infer" or job.dtype != "float32":
        raise UserError("onnxruntime runs forward passes in float32; use --what infer")
    try:
        onnxruntime: Any = importlib.import_module("onnxruntime")
    except ModuleNotFoundError:
        raise UserError("onnxruntime is not installed; run: pip install onnxruntime") from None
    model = constructor(job.network)()
    shape = job.image_shape(image_shape(job.network))
    raw, _ = random_images(job.batch_size, shape)
    images = normalized(raw)
    params = jax.device_get(jax.jit(model.init)(jax.random.key(0), images[:1])["params"])
    names = tuple(map(str, range(getattr(model, "num_classes", 10))))
    info = DatasetInfo(names, shape, num_train_images=1)
    trained = Trained(TrainConfig(model=job.network), info, model, params, 0, job.network)
    program = to_onnx(trained, {}, input="preprocessed").SerializeToString()
    session = onnxruntime.InferenceSession(program, providers=["CPUExecutionProvider"])

    def run(num_steps: int) -> None:
        for _ in range(num_steps):
            session.run(None, {"images": images})

    return Prepared(run, "cpu", {"onnxruntime": onnxruntime.__version__})
