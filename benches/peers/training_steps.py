"""What training.py times: a step of training, by oxidet and by torch, of each of some networks.

Both sides of a workload start from the same weights and see the same images. Nothing of a runtime
is imported before its side is built, so that a process may hold just one.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

ORDERS = {"torch": "contiguous_format", "torch channels_last": "channels_last"}
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Side:
    """One implementation of a workload."""

    model: Any
    step: Callable[[], float]  # a whole step of training; the sum of the losses before it
    losses: Callable[[dict[str, Any]], list[float]]
    """Losses of the first batch. oxidet fills the dict with what it drew, torch takes it."""


class Workload(ABC):
    """A network and what it is trained on."""

    key: str
    title: str
    rounds: int  # by default

    @abstractmethod
    def ours(self) -> Side:
        """oxidet's."""

    @abstractmethod
    def theirs(self, order: str) -> Side:
        """torch's, its weights in this memory format."""


def weights(model: Any) -> dict[str, np.ndarray]:
    """The state of one of torch's models."""
    return {key: value.detach().numpy().copy() for key, value in model.state_dict().items()}


# --- classifiers


class Classifier(Workload):
    """SGD with momentum on one batch of noise, cross-entropy."""

    def __init__(self, name: str, title: str, batch: int, rounds: int) -> None:
        self.key, self.title, self.rounds = name, f"{title}, batch {batch}", rounds
        self.name = name
        rng = np.random.default_rng(0)
        # In channels-last memory; torch gets a copy in the order of its weights.
        self.x = rng.standard_normal((batch, 224, 224, 3), np.float32).transpose(0, 3, 1, 2)
        self.y = np.arange(batch)

    def ours(self) -> Side:
        from oxidet import models, nn, optim
        from oxidet.nn import functional as F

        model = models.get_model(self.name).train()
        optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

        def step() -> float:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(self.x), self.y)
            loss.backward()
            optimizer.step()
            return float(loss)

        def losses(drawn: dict[str, Any]) -> list[float]:
            with without_dropout(model, nn.Dropout):
                return [float(F.cross_entropy(model(self.x), self.y))]

        return Side(model, step, losses)

    def theirs(self, order: str) -> Side:
        import torch
        import torchvision
        from torch.nn import functional as F

        memory_format = getattr(torch, order)
        model = getattr(torchvision.models, self.name)(weights=None).train()
        model = model.to(memory_format=memory_format)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        x = torch.from_numpy(self.x).contiguous(memory_format=memory_format)
        y = torch.from_numpy(self.y)

        def step() -> float:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        def losses(drawn: dict[str, Any]) -> list[float]:
            with without_dropout(model, torch.nn.Dropout):
                return [float(F.cross_entropy(model(x), y).detach())]

        return Side(model, step, losses)


@contextmanager
def without_dropout(model: Any, kind: type) -> Iterator[None]:
    """For a comparison: two runtimes never draw the same units."""
    layers = [layer for layer in model.modules() if isinstance(layer, kind)]
    before = [layer.p for layer in layers]
    for layer in layers:
        layer.p = 0.0
    yield
    for layer, p in zip(layers, before, strict=True):
        layer.p = p


# --- detectors with a pyramid


@dataclass
class Pictures:
    """A batch, as oxidet's detectors take it: RGB of 0..255, (x1, y1, x2, y2), labels from 0."""

    images: list[np.ndarray]
    boxes: list[np.ndarray]
    labels: list[np.ndarray]


class Pyramid(Workload):
    """A Faster R-CNN with a feature pyramid: SGD with momentum, one batch after the other."""

    clip: float | None = None

    def __init__(self, batches: Sequence[Pictures]) -> None:
        self.batches = batches

    @abstractmethod
    def build_ours(self) -> Any:
        """oxidet's detector."""

    @abstractmethod
    def build_theirs(self) -> Any:
        """torchvision's, with weights of its own."""

    def ours(self) -> Side:
        from oxidet import optim
        from oxidet.nn.utils import clip_grad_norm_

        model = self.build_ours().train()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = optim.SGD(trained, lr=0.001, momentum=0.9, weight_decay=1e-4)
        rng = np.random.RandomState(0)
        following = cycle(self.batches)

        def forward(batch: Pictures) -> dict[str, Any]:
            return model.training_losses(batch.images, batch.boxes, batch.labels, rng=rng)

        def step() -> float:
            total = sum(forward(next(following)).values())
            optimizer.zero_grad()
            total.backward()
            if self.clip is not None:
                clip_grad_norm_(trained, self.clip)
            optimizer.step()
            return float(total)

        def losses(drawn: dict[str, Any]) -> list[float]:
            propose = model.rpn.propose

            def record(*arguments: Any) -> Any:
                drawn["regions"] = propose(*arguments)
                return drawn["regions"]

            with replaced(model.rpn, "propose", record), same_samples(model, lambda mask: mask):
                found = forward(self.batches[0])
            return [float(found[name]) for name in sorted(found)]

        return Side(model, step, losses)

    def theirs(self, order: str) -> Side:
        import torch

        model = self.build_theirs().to(memory_format=getattr(torch, order)).train()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.001, momentum=0.9, weight_decay=1e-4)
        batches = [
            (
                [torch.from_numpy(image) / 255 for image in batch.images],
                [
                    {"boxes": torch.from_numpy(b), "labels": torch.from_numpy(y) + 1}
                    for b, y in zip(batch.boxes, batch.labels, strict=True)
                ],
            )
            for batch in self.batches
        ]
        following = cycle(batches)

        def step() -> float:
            total = sum(model(*next(following)).values())
            optimizer.zero_grad()
            total.backward()
            if self.clip is not None:
                torch.nn.utils.clip_grad_norm_(trained, self.clip)
            optimizer.step()
            return float(total.detach())

        def losses(drawn: dict[str, Any]) -> list[float]:
            def recorded(*_: Any) -> Any:
                regions = [torch.from_numpy(region) for region in drawn["regions"]]
                return regions, [torch.zeros(len(region)) for region in regions]

            with (
                replaced(model.rpn, "filter_proposals", recorded),
                same_samples(model, torch.from_numpy),
            ):
                found = model(*batches[0])
            return [float(found[name].detach()) for name in sorted(found)]

        return Side(model, step, losses)


class ResNet50Pyramid(Pyramid):
    """torchvision's fasterrcnn_resnet50_fpn without weights: every layer of it learns."""

    key = "fasterrcnn_resnet50_fpn"
    title = "fasterrcnn_resnet50_fpn, batch 1, 600 x 800 scaled to 800 x 1066"
    rounds = 5

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        image = np.round(255 * photo(600, 800))
        super().__init__([Pictures([image], [objects(rng, 8)], [rng.integers(0, 90, 8)])])

    def build_ours(self) -> Any:
        from oxidet.models.detection import fasterrcnn_resnet50_fpn

        return fasterrcnn_resnet50_fpn()

    def build_theirs(self) -> Any:
        from torchvision.models import detection

        return detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)


class Bccd(Pyramid):
    """ResNet-18 with a pyramid on pictures of blood, four at a time, their gradients clipped."""

    key = "bccd"
    title = "fasterrcnn_resnet_fpn (ResNet-18), BCCD, batch 4, 320 x 427"
    rounds = 30
    clip = 5.0
    names = ("RBC", "WBC", "Platelets")
    form: ClassVar[dict[str, Any]] = {
        "min_size": 320,
        "max_size": 427,
        "image_mean": (0.65, 0.61, 0.62),
        "image_std": (0.2, 0.2, 0.2),
    }

    @classmethod
    def of(cls, folder: Path, count: int) -> Bccd:
        """With ``count`` batches of the training split, which is in the layout of VOC."""
        from oxidet.data import VOCBboxDataset

        data = VOCBboxDataset(folder, "train", class_names=cls.names, coordinates="edges")
        batches = []
        for i in range(min(count, len(data) // 4)):
            images, boxes, labels, _ = zip(*(data[j] for j in range(4 * i, 4 * i + 4)), strict=True)
            batches.append(
                Pictures(
                    list(images),
                    [np.ascontiguousarray(box[:, [1, 0, 3, 2]]) for box in boxes],
                    [label.astype(np.int64) for label in labels],
                )
            )
        return cls(batches)

    def build_ours(self) -> Any:
        from oxidet.models.detection import fasterrcnn_resnet_fpn

        return fasterrcnn_resnet_fpn(
            backbone="resnet18", norm_layer="batch", class_names=self.names, **self.form
        )

    def build_theirs(self) -> Any:
        import torch
        from torchvision.models.detection import FasterRCNN
        from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

        backbone = resnet_fpn_backbone(
            backbone_name="resnet18",
            weights=None,
            norm_layer=torch.nn.BatchNorm2d,
            trainable_layers=5,
        )
        return FasterRCNN(backbone, num_classes=len(self.names) + 1, **self.form)


@contextmanager
def same_samples(model: Any, wrap: Callable[[np.ndarray], Any]) -> Iterator[None]:
    """Both stages draw anchors and regions from the same numbers, whoever's model it is."""
    from oxidet.models.detection import BalancedPositiveNegativeSampler

    with ExitStack() as stack:
        for stage in (model.rpn, model.roi_heads):
            sampler = stage.fg_bg_sampler
            plain = BalancedPositiveNegativeSampler(
                sampler.batch_size_per_image, sampler.positive_fraction
            )

            def sample(labels: Any, rng: Any = None, plain: Any = plain) -> Any:
                masks = plain([np.asarray(one) for one in labels], rng=np.random.RandomState(1))
                return [[wrap(mask) for mask in side] for side in masks]

            stack.enter_context(replaced(stage, "fg_bg_sampler", sample))
        yield


# --- simple-faster-rcnn


class SimpleFasterRCNN(Workload):
    """Approximate joint training over VGG-16 as simple-faster-rcnn's trainer does it."""

    key = "simple_faster_rcnn_vgg16"
    title = "simple-faster-rcnn, VGG-16, 600 x 800"
    rounds = 5

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.image = (5 * photo(600, 800) - 2.5)[None]
        self.boxes = np.ascontiguousarray(objects(rng, 8)[:, [1, 0, 3, 2]])
        self.labels = np.arange(8, dtype=np.int32)

    def ours(self) -> Side:
        from oxidet.simple_faster_rcnn import FasterRCNNVGG16
        from oxidet.train import FasterRCNNTrainer, faster_rcnn_optimizer

        model = FasterRCNNVGG16().train()
        trainer = FasterRCNNTrainer(model, rng=np.random.RandomState(0))
        optimizer = faster_rcnn_optimizer(model)

        def step() -> float:
            total = trainer(self.image, [self.boxes], [self.labels]).total_loss
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            return float(total)

        def losses(drawn: dict[str, Any]) -> list[float]:
            def recording(name: str) -> Any:
                creator = getattr(trainer, name)

                def create(*arguments: Any, **options: Any) -> Any:
                    drawn[name] = creator(*arguments, **options)
                    return drawn[name]

                return replaced(trainer, name, create)

            with recording("proposal_target_creator"), recording("anchor_target_creator"):
                found = trainer(self.image, [self.boxes], [self.labels])
            return [float(loss) for loss in found]

        return Side(model, step, losses)

    def theirs(self, order: str) -> Side:
        import torch

        sys.path.insert(0, str(ROOT / "tests"))
        from parity import torch_faster_rcnn, torch_training

        model = torch_faster_rcnn.FasterRCNN()
        # Fresh layers of torch make their outputs smaller and smaller: the losses would hardly
        # depend on the image.
        for layer in [*model.extractor, *model.head.classifier]:
            if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
                torch.nn.init.kaiming_normal_(layer.weight)
        model = model.to(memory_format=getattr(torch, order)).train()
        trainer = torch_training.Trainer(model)
        np.random.seed(0)

        def step() -> float:
            return trainer.step(self.image[0], self.boxes, self.labels, 1.0)["total_loss"]

        def losses(drawn: dict[str, Any]) -> list[float]:
            samples = torch_training.Samples(
                *drawn["proposal_target_creator"], *drawn["anchor_target_creator"]
            )
            found = trainer.forward(
                self.image[0], self.boxes, self.labels, 1.0, samples.sample_roi, samples
            )
            return [float(loss.detach()) for loss in found]

        return Side(model, step, losses)


# --- what they share


def photo(height: int, width: int) -> np.ndarray:
    """A (3, H, W) float32 picture in 0..1, of squares of several sizes and noise."""
    rng = np.random.default_rng(0)
    image = rng.uniform(-0.05, 0.05, (3, height, width))
    for side in (8, 32, 128):
        squares = rng.uniform(-0.15, 0.15, (3, -(-height // side), -(-width // side)))
        image += np.kron(squares, np.ones((side, side)))[:, :height, :width]
    return (0.5 + image).astype(np.float32)


def objects(rng: np.random.Generator, count: int) -> np.ndarray:
    """Boxes (x1, y1, x2, y2) with sides of 40 to 300 pixels, inside 600 x 800."""
    sides = rng.uniform(40, 300, (count, 2))
    start = rng.uniform(0, 1, (count, 2)) * ((800, 600) - sides)
    return np.concatenate((start, start + sides), axis=1).astype(np.float32)


def cycle(items: Sequence[Any]) -> Iterator[Any]:
    """One after the other, over and over."""
    while True:
        yield from items


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """``owner`` with another attribute of that name."""
    own, before = name in vars(owner), getattr(owner, name)
    setattr(owner, name, value)
    yield
    if own:
        setattr(owner, name, before)
    else:
        delattr(owner, name)  # what it covered was the class's
