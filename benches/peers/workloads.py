"""What is compared: networks, with the shapes they are run at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """One network at one input shape."""

    model: str  # one of oxidet.models.list_models(); ".features": without the classifier
    size: tuple[int, int] = (224, 224)  # height, width
    batch: int = 1
    channels: int = 3

    @property
    def key(self) -> str:
        """Name on the command line and of the folder: ``resnet50-224x224-b8``."""
        height, width = self.size
        return f"{self.model}-{height}x{width}-b{self.batch}"

    @property
    def title(self) -> str:
        """Name in the table."""
        name = TITLES.get(self.model, self.model)
        if self.size != (224, 224):
            height, width = self.size
            name += f" at {height}" if height == width else f" at {height} x {width}"
        return name if self.batch == 1 else f"{name}, batch {self.batch}"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, C, H, W of the input."""
        return (self.batch, self.channels, *self.size)


TITLES = {
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "vgg16": "VGG-16",
    "vgg16.features": "VGG-16 features",
    "densenet121": "DenseNet-121",
    "googlenet": "GoogLeNet",
    "inception_v3": "Inception v3",
    "alexnet": "AlexNet",
}

# What builders are given, torchvision's and oxidet's: no heads that only training needs, and no
# initial weights that take seconds to draw and are overwritten.
ARGUMENTS = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
}

# The comparison with every rival.
NETWORKS = [
    Workload("resnet18"),
    Workload("resnet50"),
    Workload("resnet50", batch=8),
    Workload("vgg16"),
    Workload("vgg16.features", (600, 800)),
    Workload("densenet121"),
    Workload("googlenet"),
    Workload("inception_v3", (299, 299)),
    Workload("alexnet"),
]

# How the time grows with the batch, the image and the threads.
BATCH = [Workload("resnet50"), Workload("resnet50", batch=32)]
PIXELS = [Workload("resnet50"), Workload("resnet50", (1200, 1200))]
THREADS = [Workload("resnet50", batch=8), Workload("vgg16.features", (600, 800))]
