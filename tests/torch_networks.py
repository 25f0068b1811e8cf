"""The networks in PyTorch, as functions of their parameters: oracles for ours.

Each takes `f`, which is `torch.nn.functional`; `p`, layer -> (weight, bias); and images [batch,
channels, height, width]. PyTorch is optional, so nothing is imported here. The modules whose speed
is measured are in `jaxcnn/benchmarks/torch_side.py`.
"""

# The shapes of the notebook's state_dict().
LENET5_SHAPES = {
    **{"conv1.weight": (6, 1, 5, 5), "conv1.bias": (6,)},
    **{"conv2.weight": (16, 6, 5, 5), "conv2.bias": (16,)},
    **{"conv3.weight": (120, 16, 5, 5), "conv3.bias": (120,)},
    **{"fc1.weight": (84, 120), "fc1.bias": (84,)},
    **{"fc2.weight": (10, 84), "fc2.bias": (10,)},
}


def alexnet(f, p, x):
    """Return the logits of torchvision's AlexNet in evaluation."""
    x = f.max_pool2d(f.relu(f.conv2d(x, *p["conv1"], stride=4, padding=2)), 3, 2)
    x = f.max_pool2d(f.relu(f.conv2d(x, *p["conv2"], padding=2)), 3, 2)
    x = f.relu(f.conv2d(x, *p["conv3"], padding=1))
    x = f.relu(f.conv2d(x, *p["conv4"], padding=1))
    x = f.max_pool2d(f.relu(f.conv2d(x, *p["conv5"], padding=1)), 3, 2)
    x = f.adaptive_avg_pool2d(x, (6, 6)).flatten(1)
    x = f.relu(f.linear(x, *p["fc6"]))
    x = f.relu(f.linear(x, *p["fc7"]))
    return f.linear(x, *p["fc8"])


def alexnet_2012(f, p, x):
    """Return the logits of Krizhevsky et al. 2012 in evaluation."""

    def norm(x):  # torch divides alpha by the size, the paper does not
        return f.local_response_norm(x, 5, alpha=5 * 1e-4, beta=0.75, k=2)

    missing = 227 - x.shape[-1]
    x = f.relu(f.conv2d(f.pad(x, (0, missing, 0, missing)), *p["conv1"], stride=4))
    x = f.max_pool2d(norm(x), 3, 2)
    x = f.relu(f.conv2d(x, *p["conv2"], padding=2, groups=2))
    x = f.max_pool2d(norm(x), 3, 2)
    x = f.relu(f.conv2d(x, *p["conv3"], padding=1))
    x = f.relu(f.conv2d(x, *p["conv4"], padding=1, groups=2))
    x = f.max_pool2d(f.relu(f.conv2d(x, *p["conv5"], padding=1, groups=2)), 3, 2)
    x = f.relu(f.linear(x.flatten(1), *p["fc6"]))
    x = f.relu(f.linear(x, *p["fc7"]))
    return f.linear(x, *p["fc8"])


def cuda_convnet(f, p, x, lrn=False):
    """Return the logits of cuda-convnet's `layers-19pct.cfg`.

    With `lrn`, of `layers-18pct.cfg`; with a layer fc64, of `layers-80sec.cfg`.
    """

    def norm(x):
        return x / (1 + 5e-5 * f.avg_pool2d(x**2, 3, stride=1, padding=1)) ** 0.75 if lrn else x

    x = f.max_pool2d(f.conv2d(x, *p["conv1"], padding=2), 3, 2, ceil_mode=True)
    x = norm(f.relu(x))
    x = f.relu(f.conv2d(x, *p["conv2"], padding=2))
    x = norm(f.avg_pool2d(x, 3, 2, ceil_mode=True))
    x = f.relu(f.conv2d(x, *p["conv3"], padding=2))
    x = f.avg_pool2d(x, 3, 2, ceil_mode=True).flatten(1)
    x = f.relu(f.linear(x, *p["fc64"])) if "fc64" in p else x
    return f.linear(x, *p["fc10"])


def cuda_convnet_18pct(f, p, x):
    """Return the logits of cuda-convnet's `layers-18pct.cfg`."""
    return cuda_convnet(f, p, x, lrn=True)


def cuda_convnet_local(f, p, x, norm=None, norm1_after_pool1=False):
    """Return the logits of cuda-convnet's `layers-conv-local-13pct.cfg`, with normalizations."""
    norm = norm or (lambda x: x)

    def pool(x):
        return f.max_pool2d(x, 3, 2, ceil_mode=True)

    def local(x, kernel, bias):  # kernel [height, width, channels * 9, features]
        patches = f.unfold(x, 3, padding=1).unflatten(-1, kernel.shape[:2])
        return (patches[:, :, None] * kernel.permute(2, 3, 0, 1)).sum(1) + bias.permute(2, 0, 1)

    x = f.relu(f.conv2d(x, *p["conv1"], padding=2))
    x = norm(pool(x)) if norm1_after_pool1 else pool(norm(x))
    x = pool(norm(f.relu(f.conv2d(x, *p["conv2"], padding=2))))
    x = f.relu(local(x, *p["local3"]))
    x = f.relu(local(x, *p["local4"]))
    return f.linear(x.flatten(1), *p["fc10"])


def cuda_convnet_11pct(f, p, x):
    """Return the logits of cuda-convnet's `layers-conv-local-11pct.cfg`."""

    def norm(x):
        return f.local_response_norm(x, 9, alpha=1e-3, beta=0.75, k=1)

    return cuda_convnet_local(f, p, x, norm, norm1_after_pool1=True)


def cuda_convnet_11pct_first(f, p, x):
    """Return the logits of the first revision of `layers-conv-local-11pct.cfg`."""

    def norm(x):
        return f.local_response_norm(x, 5, alpha=1e-3, beta=0.75, k=1)

    return cuda_convnet_local(f, p, x, norm)


def lenet5(torch):
    """Build the course notebook's LeNet-5, without its softmax; its state_dict names are tested."""

    class LeNet5(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = torch.nn.Conv2d(1, 6, kernel_size=5, stride=1, padding=2)
            self.conv2 = torch.nn.Conv2d(6, 16, kernel_size=5, stride=1)
            self.conv3 = torch.nn.Conv2d(16, 120, kernel_size=5, stride=1)
            self.fc1 = torch.nn.Linear(120, 84)
            self.fc2 = torch.nn.Linear(84, 10)

        def forward(self, x):
            pool = torch.nn.functional.avg_pool2d
            x = pool(torch.sigmoid(self.conv1(x)), 2)
            x = pool(torch.sigmoid(self.conv2(x)), 2)
            x = torch.sigmoid(self.conv3(x)).flatten(1)
            return self.fc2(torch.sigmoid(self.fc1(x)))

    return LeNet5()
