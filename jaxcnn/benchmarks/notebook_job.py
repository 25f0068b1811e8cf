"""The course notebook's LeNet-5 job, as a process: python -m jaxcnn.benchmarks.notebook_job FILE.

FILE is an .npz file with the arrays of the dataset. torchvision is not needed: `Digits` applies the
operations of torchvision's `MNIST`, `ToTensor` and `Normalize` to each image.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np
from PIL import Image

from jaxcnn.benchmarks.torch_networks import lenet5


class Digits:
    """Dataset of (image, label), each image converted and normalized when it is read."""

    def __init__(self, torch: Any, images: np.ndarray, labels: np.ndarray) -> None:
        """Take uint8 images [examples, 28, 28, 1] and their labels."""
        self._torch = torch
        self._images = torch.from_numpy(images[..., 0].copy())
        self._labels = torch.from_numpy(labels).long()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        torch = self._torch
        picture = Image.fromarray(self._images[index].numpy())
        image = torch.from_numpy(np.array(picture, np.uint8, copy=True)).view(28, 28, 1)
        image = image.permute(2, 0, 1).contiguous().to(torch.float32).div(255)
        mean, std = (torch.as_tensor((0.5,)).view(-1, 1, 1) for _ in range(2))
        return image.clone().sub_(mean).div_(std), int(self._labels[index])


def main(file: str, num_epochs: int = 10) -> None:
    """Train and test as the notebook does, and print its lines."""
    torch: Any = importlib.import_module("torch")
    with np.load(file) as arrays:
        train_set = Digits(torch, arrays["train_images"], arrays["train_labels"])
        test_set = Digits(torch, arrays["test_images"], arrays["test_labels"])
    train_loader = torch.utils.data.DataLoader(dataset=train_set, batch_size=64, shuffle=True)
    test_loader = torch.utils.data.DataLoader(dataset=test_set, batch_size=64, shuffle=False)
    model = torch.nn.Sequential(*lenet5(torch), torch.nn.Softmax(dim=1))
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    for epoch in range(num_epochs):
        model.train()
        running_loss = 0.0
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        print(f"Epoch {epoch + 1}/{num_epochs}, Loss: {running_loss / len(train_loader)}")
    model.eval()
    correct = total = 0
    with torch.no_grad():
        for images, labels in test_loader:
            _, predicted = torch.max(model(images), 1)
            total += labels.size(0)
            correct += (predicted == labels).sum().item()
    print(f"Test Accuracy: {correct / total * 100:.2f}%")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
