"""LeNet-5, LeCun et al., "Gradient-based learning applied to document recognition" (1998).

:class:`LeNet5` has two forms. That of most tutorials: every map of C3 sees all six maps of S2, S2
and S4 are plain averages, and ten linear units give logits; 61,706 parameters. And the paper's own,
with ``original=True``: S2 and S4 have a trainable coefficient and bias per map, C3 sees a part of
S2, and each output unit measures a distance from a picture of its digit; exactly 60,000 parameters.

:class:`LeNet` is Caffe's, for 28 x 28: wider, with max pools and one ReLU; 431,080 parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from oxidet import nn
from oxidet._arrays import F32, choice, number
from oxidet.models.classifier import Classifier
from oxidet.models.registry import register_model
from oxidet.nn import functional as F
from oxidet.nn import init
from oxidet.transforms import ImageClassification

# Which maps of S2 each of C3's 16 maps sees (table I of the paper): three or four in a row, the
# last and the first being neighbours; two pairs; all.
C3_INPUTS = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (4, 5, 0), (5, 0, 1)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (3, 4, 5, 0), (4, 5, 0, 1), (5, 0, 1, 2)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)

# What the output units compare F6 with: each digit as 12 rows of 7, # for 1 and . for -1. Drawn
# anew in the paper's manner; similar digits have similar pictures.
DIGITS = """
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
..###..  ...#...  .####..  .####..  .....#.  ######.  ..####.  #######  ..###..  ..###..
.#...#.  ..##...  #....#.  #....#.  ....##.  #......  .#.....  ......#  .#...#.  .#...#.
#.....#  .#.#...  ......#  ......#  ...#.#.  #......  #......  .....#.  #.....#  #.....#
#.....#  ...#...  ......#  .....#.  ..#..#.  #......  #......  .....#.  .#...#.  #.....#
#.....#  ...#...  .....#.  ..###..  .#...#.  #####..  #.###..  ....#..  ..###..  .#...##
#.....#  ...#...  ....#..  .....#.  #....#.  .....#.  ##...#.  ....#..  .#...#.  ..###.#
#.....#  ...#...  ...#...  ......#  #######  ......#  #.....#  ...#...  #.....#  ......#
#.....#  ...#...  ..#....  ......#  .....#.  ......#  #.....#  ...#...  #.....#  ......#
.#...#.  ...#...  .#.....  #....#.  .....#.  #....#.  .#...#.  ..#....  .#...#.  .....#.
..###..  .#####.  #######  .####..  .....#.  .####..  ..###..  ..#....  ..###..  .####..
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
"""


def digit_bitmaps() -> F32:
    """The pictures of the ten digits: (10, 84) float32 of 1 (ink) and -1.

    >>> from oxidet.models.lenet import digit_bitmaps
    >>> for row in digit_bitmaps()[7].reshape(12, 7)[1:5]:
    ...     print("".join("#" if value > 0 else "." for value in row))
    #######
    ......#
    .....#.
    .....#.
    """
    rows = [line.split() for line in DIGITS.split("\n") if line]
    ink = [[c == "#" for row in rows for c in row[digit]] for digit in range(10)]
    return np.where(np.array(ink), np.float32(1), np.float32(-1))


class ScaledTanh(nn.Module):
    """``1.7159 * tanh(2 / 3 * x)``: 1 at 1 and -1 at -1, where its curvature is greatest."""

    _mode_matters = False

    def forward(self, x: Any) -> Any:
        """Any shape; the same out."""
        return F.tanh(x * (2 / 3)) * 1.7159


class Subsampling(nn.Module):
    """Sums over 2 x 2 pixels, times a trainable coefficient per map, plus a bias.

    The coefficients are a 1 x 1 convolution in which every map is a group of its own.
    """

    coefficient: nn.Conv2d

    _mode_matters = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.coefficient = nn.Conv2d(channels, channels, 1, groups=channels)

    def forward(self, x: Any) -> Any:
        """(N, C, H, W) -> (N, C, H / 2, W / 2)."""
        return self.coefficient(F.avg_pool2d(x, 2, divisor_override=1))


class SparseConvolution(nn.Module):
    """C3: 6 maps to 16 by 5 x 5 kernels, each output seeing the inputs of :data:`C3_INPUTS`.

    Outputs with as many inputs make one grouped convolution, of the inputs laid out one group after
    the other. 1,516 parameters, where a full convolution has 2,416.
    """

    three: nn.Conv2d
    four: nn.Conv2d
    six: nn.Conv2d

    _mode_matters = False

    def __init__(self) -> None:
        super().__init__()
        self.three = nn.Conv2d(18, 6, 5, groups=6)
        self.four = nn.Conv2d(36, 9, 5, groups=9)
        self.six = nn.Conv2d(6, 1, 5)

    def forward(self, x: Any) -> Any:
        """(N, 6, H, W) -> (N, 16, H - 4, W - 4)."""
        maps = [x[:, c : c + 1] for c in range(6)]
        three = F.cat([maps[c] for inputs in C3_INPUTS[:6] for c in inputs], 1)
        four = F.cat([maps[c] for inputs in C3_INPUTS[6:15] for c in inputs], 1)
        return F.cat([self.three(three), self.four(four), self.six(x)], 1)


class EuclideanRBF(nn.Module):
    """Squared distances of a vector from fixed ones, one per class."""

    _mode_matters = False

    def __init__(self, centers: F32) -> None:
        super().__init__()
        self.register_buffer("centers", centers)

    def forward(self, x: Any) -> Any:
        """(N, F) -> (N, classes), each at least 0."""
        difference = x.reshape(x.shape[0], 1, x.shape[1]) - self.centers.data
        return (difference * difference).sum(2)


class LeNet5(Classifier):
    """LeNet-5 for (N, 1, 32, 32) images; returns (N, num_classes) logits.

    Paper should be -0.1 and ink 1.175, see :func:`oxidet.data.lenet_input`. The logits of the
    original are the negated distances of its output units, so that here, too, the largest wins;
    train them with :func:`map_loss`. Its weights start uniform within 2.4 / fan-in. Where a
    distance is computed there is no plan: only ``features`` is compiled.

    Parameters
    ----------
    num_classes
        Number of classes, 10 for digits. The original has pictures of ten digits.
    activation
        ``"tanh"`` (as the paper, up to its scaling) or ``"sigmoid"``.
    pool
        ``"avg"`` or ``"max"``.
    original
        Whether to build the paper's own form.

    Examples
    --------
    >>> from oxidet.models import LeNet5
    >>> [sum(p.numel() for p in LeNet5(original=o).parameters()) for o in (False, True)]
    [61706, 60000]
    """

    features: nn.Sequential
    classifier: nn.Sequential

    # White digits on black, such as MNIST's: 28 x 28 in a black frame, to -0.1 and 1.175.
    preprocess: ImageClassification = ImageClassification(
        32, resize_size=28, mean=0.1 / 1.275, std=1 / 1.275, channels="L"
    )

    def __init__(
        self,
        num_classes: int = 10,
        activation: str = "tanh",
        pool: str = "avg",
        original: bool = False,
    ) -> None:
        super().__init__()
        choice(activation, "activation", ("tanh", "sigmoid"))
        choice(pool, "pool", ("avg", "max"))
        if original:
            for name, value, only in (
                ("num_classes", num_classes, 10),
                ("activation", activation, "tanh"),
                ("pool", pool, "avg"),
            ):
                if value != only:
                    raise ValueError(f"{name}: expected {only!r} with original=True, got {value!r}")
            self._build_original()
        else:
            act = nn.Tanh if activation == "tanh" else nn.Sigmoid
            self._build(num_classes, act, nn.AvgPool2d if pool == "avg" else nn.MaxPool2d)

    def _build(
        self, num_classes: int, act: Callable[[], nn.Module], pool: Callable[[int], nn.Module]
    ) -> None:
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5),  # C1: 6 x 28 x 28
            act(),
            pool(2),  # S2: 6 x 14 x 14
            nn.Conv2d(6, 16, 5),  # C3: 16 x 10 x 10
            act(),
            pool(2),  # S4: 16 x 5 x 5
            nn.Conv2d(16, 120, 5),  # C5: 120 x 1 x 1
            act(),
        )
        self.classifier = nn.Sequential(nn.Linear(120, 84), act(), nn.Linear(84, num_classes))

    def _build_original(self) -> None:
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5),  # C1: 6 x 28 x 28
            ScaledTanh(),
            Subsampling(6),  # S2: 6 x 14 x 14
            ScaledTanh(),
            SparseConvolution(),  # C3: 16 x 10 x 10
            ScaledTanh(),
            Subsampling(16),  # S4: 16 x 5 x 5
            ScaledTanh(),
            nn.Conv2d(16, 120, 5),  # C5: 120 x 1 x 1
            ScaledTanh(),
            nn.Flatten(),
            nn.Linear(120, 84),  # F6
            ScaledTanh(),
        )
        self.classifier = nn.Sequential(EuclideanRBF(digit_bitmaps()), Negate())
        self.compiled = False
        self.features.compiled = True
        for module in self.features.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                init.fan_in_uniform_(module.weight, 2.4)
                assert module.bias is not None
                bound = 2.4 / module.weight.data[0].size
                init.uniform_(module.bias, -bound, bound)

    def forward(self, x: Any) -> Any:
        """(N, 1, 32, 32) -> (N, num_classes)."""
        shape = np.shape(x)
        if len(shape) != 4 or shape[1:] != (1, 32, 32):
            raise ValueError(f"x: expected shape (N, 1, 32, 32), got {shape}")
        return self.classifier(F.flatten(self.features(x), 1))


class Negate(nn.Module):
    """``-x``: the smallest distance becomes the largest logit."""

    _mode_matters = False

    def forward(self, x: Any) -> Any:
        """Any shape; the same out."""
        return -x


def map_loss(logits: Any, target: Any, j: float = 0.1) -> Any:
    """The paper's "maximum a posteriori" loss of ``LeNet5(original=True)`` (its equation 9).

    The mean over images of ``y_t + log(exp(-j) + sum_i exp(-y_i))``, where ``y = -logits`` are
    the distances of the ten units and t is the image's class. The first term pulls the output
    towards the picture of its class. The second pushes the others away, those that are near most;
    ``j`` says from what distance on that is enough, and so keeps all from running away together.

    Parameters
    ----------
    logits
        (N, classes) float32, as the network returns them.
    target
        (N,) integers, the classes.
    j
        A positive number.

    Returns
    -------
    A number, or with tensors one that is recorded. It is the cross-entropy of the logits and one
    more, always ``-j``, that is never right.

    Raises ValueError if ``j`` is not positive, shapes do not fit or a class is out of range.

    Examples
    --------
    >>> from oxidet.models.lenet import map_loss
    >>> round(float(map_loss([[0.0, -4.0]], [0], j=2.0)), 4)  # log(1 + exp(-4) + exp(-2))
    0.1429
    """
    if not number(j, "j") > 0:
        raise ValueError(f"j: expected a positive number, got {j}")
    shape = np.shape(logits)
    if len(shape) != 2:
        raise ValueError(f"logits: expected shape (N, classes), got {shape}")
    labels = np.ravel(target)
    if labels.dtype.kind in "iu" and labels.size and labels.max() >= shape[1]:
        raise ValueError(f"target: expected classes below {shape[1]}, got {labels.max()}")
    none_of_them = np.full((shape[0], 1), -j, np.float32)
    return F.cross_entropy(F.cat([logits, none_of_them], 1), target)


class LeNet(Classifier):
    """Caffe's LeNet for (N, 1, 28, 28) images; returns (N, num_classes) logits.

    Images should be in [0, 1). Weights start as in Caffe's file: uniform within sqrt(3 / fan-in),
    biases 0.

    Parameters
    ----------
    num_classes
        Number of classes, 10 for digits.

    Examples
    --------
    >>> from oxidet.models import LeNet
    >>> sum(p.numel() for p in LeNet().parameters())
    431080
    """

    features: nn.Sequential
    classifier: nn.Sequential

    preprocess: ImageClassification = ImageClassification(
        28, resize_size=28, mean=0, std=1, channels="L", scale=1 / 256
    )

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 20, 5),  # 20 x 24 x 24
            nn.MaxPool2d(2),  # 20 x 12 x 12
            nn.Conv2d(20, 50, 5),  # 50 x 8 x 8
            nn.MaxPool2d(2),  # 50 x 4 x 4
        )
        self.classifier = nn.Sequential(
            nn.Linear(50 * 4 * 4, 500), nn.ReLU(inplace=True), nn.Linear(500, num_classes)
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                init.caffe_xavier_(module.weight)
                assert module.bias is not None
                init.zeros_(module.bias)

    def forward(self, x: Any) -> Any:
        """(N, 1, 28, 28) -> (N, num_classes)."""
        shape = np.shape(x)
        if len(shape) != 4 or shape[1:] != (1, 28, 28):
            raise ValueError(f"x: expected shape (N, 1, 28, 28), got {shape}")
        return self.classifier(F.flatten(self.features(x), 1))


@register_model()
def lenet5(
    num_classes: int = 10, activation: str = "tanh", pool: str = "avg", original: bool = False
) -> LeNet5:
    """LeNet-5 with fresh weights; see :class:`LeNet5`."""
    return LeNet5(num_classes, activation, pool, original)


@register_model()
def lenet(num_classes: int = 10) -> LeNet:
    """Caffe's LeNet with fresh weights; see :class:`LeNet`."""
    return LeNet(num_classes)
