"""Local response normalization: `local_response_norm`, and each source's constants for it.

y = x / (k + a s)^beta, where s is the sum of x^2 over a window around x. All sources agree on that,
but neither on the constants nor on a: the paper's formula has a = alpha, the programs divide alpha
by the number of positions in the window, whether or not they lie inside the input.

| name               | size | alpha | beta | k | a                                 |
|--------------------|------|-------|------|---|-----------------------------------|
| `paper_lrn`        | 5    | 1e-4  | 0.75 | 2 | alpha                             |
| `cuda_convnet_lrn` | -    | -     | -    | 1 | alpha / size; alpha / size^2 (*)  |
| `caffe_lrn`        | 5    | 1     | 0.75 | 1 | alpha / size; alpha / size^2 (*)  |
| `torch_lrn`        | -    | 1e-4  | 0.75 | 1 | alpha / size                      |

(*) across channels; within a map. A dash is a constant without a default, there and here.

References:
  Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks",
  2012, section 3.3. `layer.py` and `LayerParams` of cuda-convnet and cuda-convnet2 (`cmrnorm` and
  `rnorm`; alpha is their `scale`, beta their `pow`, k the second's `minDiv`). Caffe's
  `LRNParameter`. PyTorch's `LocalResponseNorm`, which is across channels only.
"""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcnn.layers.pooling import pool, sum_dtype


def local_response_norm(
    inputs: Float[Array, "*batch_and_space channels"],
    size: int,
    alpha: float,
    beta: float,
    k: float,
    *,
    mean: bool,
    within_maps: bool = False,
) -> Float[Array, "*batch_and_space channels"]:
    """Divide each value by (k + a s)^beta, s the sum of the squares in the window around it.

    The window of channel i is channels i - size // 2 to i + (size - 1) // 2; `within_maps` it is a
    square of such rows and columns, in the same channel. Positions outside the input add 0.
    For even sizes, cuda-convnet and PyTorch use the same window; Caffe does not allow them, and the
    paper's formula, read to the letter, has one channel more.

    float16 and bfloat16 are computed in float32. All derivatives exist.

    Args:
      inputs: array with the channels last; with `within_maps`, `[*batch, height, width, channels]`.
      size: number of channels in the window, or its side in pixels; at least 1.
      alpha: weight of the squares, at least 0.
      beta: exponent.
      k: constant added to the weighted squares, above 0.
      mean: if True, a is alpha divided by the number of positions in the window; else a is alpha.
      within_maps: if True, the window lies within a map; else across channels.

    Returns:
      Array with the shape and the type of `inputs`.

    Raises:
      ValueError: if a constant is out of range, for integer inputs, or if `inputs` have too few
        dimensions.
    """
    inputs = jnp.asarray(inputs)
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise ValueError(
            f"inputs are {inputs.dtype}; expected a float type; cast them, as in "
            "inputs.astype(jnp.float32)"
        )
    if not (alpha >= 0 and k > 0):
        raise ValueError(f"alpha is {alpha} and k is {k}; expected alpha >= 0 and k > 0")
    x = inputs.astype(sum_dtype(inputs.dtype))
    num_dims = 2 if within_maps else 1
    # `pool` slides along the dimensions before the last, so one is added after the channels.
    squares = x**2 if within_maps else (x**2)[..., None]
    pads = ((size // 2, (size - 1) // 2),) * num_dims
    sums = pool(squares, 0, jnp.add, (size,) * num_dims, 1, pads).reshape(x.shape)
    scale = alpha / size**num_dims if mean else alpha
    # `**` with its gradient takes four times as long on a CPU.
    return (x * jnp.exp(-beta * jnp.log(k + scale * sums))).astype(inputs.dtype)


paper_lrn = partial(local_response_norm, size=5, alpha=1e-4, beta=0.75, k=2.0, mean=False)
cuda_convnet_lrn = partial(local_response_norm, k=1.0, mean=True)
caffe_lrn = partial(local_response_norm, size=5, alpha=1.0, beta=0.75, k=1.0, mean=True)
torch_lrn = partial(local_response_norm, alpha=1e-4, beta=0.75, k=1.0, mean=True)
