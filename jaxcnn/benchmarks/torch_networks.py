"""The networks as PyTorch modules."""

from __future__ import annotations

from typing import Any


def lenet5(torch: Any) -> Any:
    """Build the notebook's LeNet-5, without its softmax."""
    t = torch.nn
    return t.Sequential(
        *(t.Conv2d(1, 6, 5, padding=2), t.Sigmoid(), t.AvgPool2d(2)),
        *(t.Conv2d(6, 16, 5), t.Sigmoid(), t.AvgPool2d(2)),
        *(t.Conv2d(16, 120, 5), t.Sigmoid(), t.Flatten()),
        *(t.Linear(120, 84), t.Sigmoid(), t.Linear(84, 10)),
    )


def lenet5_relu(torch: Any) -> Any:
    """Build LeNet-5 with rectified units and maxima, which commute: maxima first take less time."""
    t = torch.nn
    return t.Sequential(
        *(t.Conv2d(1, 6, 5, padding=2), t.MaxPool2d(2), t.ReLU(inplace=True)),
        *(t.Conv2d(6, 16, 5), t.MaxPool2d(2), t.ReLU(inplace=True)),
        *(t.Conv2d(16, 120, 5), t.ReLU(inplace=True), t.Flatten()),
        *(t.Linear(120, 84), t.ReLU(inplace=True), t.Linear(84, 10)),
    )


def lenet5_relu_valid(torch: Any) -> Any:
    """Build `lenet5_relu` without padding; means of 5x5 regions keep the later layers' sizes."""
    t = torch.nn
    c1_to_s2 = (t.Conv2d(1, 6, 5), t.MaxPool2d(2), t.ReLU(inplace=True))
    c3_to_s4 = (t.Conv2d(6, 16, 5), t.ReLU(inplace=True), t.AdaptiveAvgPool2d(5))
    return t.Sequential(*c1_to_s2, *c3_to_s4, *lenet5_relu(torch)[6:])


def alexnet(torch: Any) -> Any:
    """Build the layers of torchvision's models/alexnet.py."""
    t = torch.nn
    return t.Sequential(
        *(t.Conv2d(3, 64, 11, stride=4, padding=2), t.ReLU(inplace=True), t.MaxPool2d(3, 2)),
        *(t.Conv2d(64, 192, 5, padding=2), t.ReLU(inplace=True), t.MaxPool2d(3, 2)),
        *(t.Conv2d(192, 384, 3, padding=1), t.ReLU(inplace=True)),
        *(t.Conv2d(384, 256, 3, padding=1), t.ReLU(inplace=True)),
        *(t.Conv2d(256, 256, 3, padding=1), t.ReLU(inplace=True), t.MaxPool2d(3, 2)),
        *(t.AdaptiveAvgPool2d(6), t.Flatten()),
        *(t.Dropout(), t.Linear(256 * 6 * 6, 4096), t.ReLU(inplace=True)),
        *(t.Dropout(), t.Linear(4096, 4096), t.ReLU(inplace=True), t.Linear(4096, 1000)),
    )


def alexnet_2012(torch: Any) -> Any:
    """Build the paper's AlexNet; alpha is multiplied by 5, because PyTorch divides it by 5."""
    t = torch.nn

    def lrn() -> Any:
        return t.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)

    return t.Sequential(
        t.ZeroPad2d((0, 3, 0, 3)),
        *(t.Conv2d(3, 96, 11, stride=4), t.ReLU(inplace=True), lrn(), t.MaxPool2d(3, 2)),
        t.Conv2d(96, 256, 5, padding=2, groups=2),
        *(t.ReLU(inplace=True), lrn(), t.MaxPool2d(3, 2)),
        *(t.Conv2d(256, 384, 3, padding=1), t.ReLU(inplace=True)),
        *(t.Conv2d(384, 384, 3, padding=1, groups=2), t.ReLU(inplace=True)),
        *(t.Conv2d(384, 256, 3, padding=1, groups=2), t.ReLU(inplace=True), t.MaxPool2d(3, 2)),
        t.Flatten(),
        *(t.Linear(256 * 6 * 6, 4096), t.ReLU(inplace=True), t.Dropout()),
        *(t.Linear(4096, 4096), t.ReLU(inplace=True), t.Dropout(), t.Linear(4096, 1000)),
    )


def alexnet_32(torch: Any) -> Any:
    """Build jaxcnn's AlexNet for images of 32x32."""
    t = torch.nn

    def pool_and_norm() -> tuple[Any, ...]:
        return t.MaxPool2d(2), t.ReLU(inplace=True), t.LocalResponseNorm(9, alpha=1.0, beta=0.5)

    return t.Sequential(
        *(t.Conv2d(3, 64, 3, padding=1), *pool_and_norm()),
        *(t.Conv2d(64, 128, 3, padding=1), *pool_and_norm()),
        *(t.Conv2d(128, 192, 3, padding=1), t.ReLU(inplace=True)),
        *(t.Conv2d(192, 128, 3, padding=1), t.ReLU(inplace=True)),
        *(t.Conv2d(128, 128, 3, padding=1), t.MaxPool2d(2), t.ReLU(inplace=True), t.Flatten()),
        *(t.Linear(128 * 4 * 4, 512), t.ReLU(inplace=True)),
        *(t.Linear(512, 512), t.ReLU(inplace=True), t.Linear(512, 10)),
    )


def cuda_convnet_18pct(torch: Any) -> Any:
    """Build cuda-convnet's `layers-18pct.cfg`; windows of pools may reach beyond the border."""
    t: Any = torch.nn

    class Norm(t.Module):  # within maps; `LocalResponseNorm` is across maps only
        def forward(self, x: Any) -> Any:
            squares = t.functional.avg_pool2d(x * x, 3, stride=1, padding=1)
            return x * (1 + 5e-5 * squares) ** -0.75

    def avg_pool() -> Any:
        return t.AvgPool2d(3, 2, ceil_mode=True)

    return t.Sequential(
        t.Conv2d(3, 32, 5, padding=2),
        *(t.MaxPool2d(3, 2, ceil_mode=True), t.ReLU(inplace=True), Norm()),
        *(t.Conv2d(32, 32, 5, padding=2), t.ReLU(inplace=True), avg_pool(), Norm()),
        *(t.Conv2d(32, 64, 5, padding=2), t.ReLU(inplace=True), avg_pool()),
        *(t.Flatten(), t.Linear(64 * 4 * 4, 10)),
    )


def lenet5_1998(torch: Any) -> Any:
    """Build LeNet-5 of 1998, with a mask on C3's kernel for Table I, and its loss, eq. 9.

    The bitmaps are a buffer of random signs. The constants of `jaxcnn.models` are not read, because
    importing JAX would add to the measured memory.
    """
    t: Any = torch.nn

    class Squash(t.Module):
        def forward(self, x: Any) -> Any:
            return 1.7159 * torch.tanh(2 / 3 * x)

    class Subsampling(t.Module):
        def __init__(self, maps: int) -> None:
            super().__init__()
            self.coefficient = t.Parameter(torch.empty(maps, 1, 1).uniform_(-0.6, 0.6))
            self.bias = t.Parameter(torch.empty(maps, 1, 1).uniform_(-0.6, 0.6))

        def forward(self, x: Any) -> Any:
            return 4 * t.functional.avg_pool2d(x, 2) * self.coefficient + self.bias

    class TableConv(t.Conv2d):
        def __init__(self) -> None:
            super().__init__(6, 16, 5)
            triples = [{i, i + 1, i + 2} for i in range(6)]
            quadruples = [{i, i + 1, i + 2, i + 3} for i in range(6)]
            pairs = [{i, i + 1, i + 3, i + 4} for i in range(3)]
            maps = [{i % 6 for i in each} for each in (*triples, *quadruples, *pairs, range(6))]
            mask = torch.tensor([[float(i in each) for i in range(6)] for each in maps])
            self.register_buffer("mask", mask[:, :, None, None], persistent=False)

        def forward(self, x: Any) -> Any:
            return t.functional.conv2d(x, self.weight * self.mask, self.bias)

    class LeNet1998(t.Sequential):
        def __init__(self) -> None:
            super().__init__(
                *(t.ConstantPad2d(2, -0.1), t.Conv2d(1, 6, 5), Squash()),
                *(Subsampling(6), Squash(), TableConv(), Squash(), Subsampling(16), Squash()),
                *(t.Conv2d(16, 120, 5), Squash(), t.Flatten(), t.Linear(120, 84), Squash()),
            )
            self.register_buffer("bitmaps", torch.randn(10, 84).sign())

        def forward(self, x: Any) -> Any:
            return -(super().forward(x)[:, None] - self.bitmaps).square().sum(-1)

        def loss_fn(self, outputs: Any, labels: Any) -> Any:
            rejected = outputs.new_full((len(outputs), 1), -10.0)
            return t.functional.cross_entropy(torch.cat([outputs, rejected], 1), labels)

    return LeNet1998()


# Name -> constructor, and shape of an image: height, width, channels.
NETWORKS = {
    "lenet5": (lenet5, (28, 28, 1)),
    "lenet5-relu": (lenet5_relu, (28, 28, 1)),
    "lenet5-relu:padding=valid": (lenet5_relu_valid, (28, 28, 1)),
    "alexnet": (alexnet, (224, 224, 3)),
    "alexnet-2012": (alexnet_2012, (224, 224, 3)),
    "alexnet-32": (alexnet_32, (32, 32, 3)),
    "cuda-convnet-18pct": (cuda_convnet_18pct, (32, 32, 3)),
    "lenet5-1998": (lenet5_1998, (28, 28, 1)),
}
