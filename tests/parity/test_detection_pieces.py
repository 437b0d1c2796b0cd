"""AnchorGenerator, BoxCoder, Matcher and the sampler against torchvision's."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from box_comparison import random_boxes
from oxidet.models import detection as ours

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from torchvision.models.detection import _utils as theirs  # noqa: E402
from torchvision.models.detection.anchor_utils import (  # noqa: E402
    AnchorGenerator as TorchAnchorGenerator,
)
from torchvision.models.detection.image_list import ImageList as TorchImageList  # noqa: E402
from torchvision.ops import box_iou  # noqa: E402

PIECES = ["BalancedPositiveNegativeSampler", "BoxCoder", "Matcher"]


@pytest.mark.parametrize("name", [*PIECES, "AnchorGenerator", "ImageList"])
def test_signatures(name: str) -> None:
    if name in PIECES:
        original = getattr(theirs, name)
    else:
        original = {"AnchorGenerator": TorchAnchorGenerator, "ImageList": TorchImageList}[name]
    mine = getattr(ours, name)
    methods = {
        "AnchorGenerator": ["forward", "grid_anchors", "num_anchors_per_location"],
        "BoxCoder": ["encode", "encode_single", "decode", "decode_single"],
        "ImageList": [],
    }.get(name, ["__call__"])
    for method in ["__init__", *methods]:
        parameters = [
            [
                (p.name, p.default)
                for p in inspect.signature(getattr(cls, method)).parameters.values()
                if p.kind is not p.KEYWORD_ONLY
            ]
            for cls in (mine, original)
        ]
        assert parameters[0] == parameters[1], method


@pytest.mark.parametrize(
    ("sizes", "ratios", "maps"),
    [
        (None, None, [(25, 34)]),
        (((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5, "pyramid"),
        ((32, 64, 128), (0.5, 1.0, 2.0), [(7, 9), (1, 1), (3, 0)]),
        (((15, 33), (100,)), ((0.3,), (1.0, 4.0)), [(50, 3), (800, 1000)]),
    ],
)
def test_anchors(sizes: Any, ratios: Any, maps: Any) -> None:
    if maps == "pyramid":
        maps = [(200, 272), (100, 136), (50, 68), (25, 34), (13, 17)]
    arguments = () if sizes is None else (sizes, ratios)
    mine, original = ours.AnchorGenerator(*arguments), TorchAnchorGenerator(*arguments)
    assert str(mine) == str(original)
    assert mine.num_anchors_per_location() == original.num_anchors_per_location()
    for a, b in zip(mine.cell_anchors, original.cell_anchors, strict=True):
        assert a.dtype == np.float32
        assert a.tolist() == b.tolist()
    image_sizes = [(790, 1001), (800, 600)]
    tensors = torch.zeros(2, 1, 800, 1088)
    for dtype in (torch.float32, torch.float64):
        features = [torch.zeros(2, 1, *size, dtype=dtype) for size in maps]
        if any(0 in size for size in maps):
            features = [*features[:2], torch.zeros(2, 1, 3, 2, dtype=dtype)]
        expected = original(TorchImageList(tensors, image_sizes), features)
        got = mine(
            ours.ImageList(tensors.numpy(), image_sizes), [feature.numpy() for feature in features]
        )
        assert len(got) == len(expected) == 2
        for a, b in zip(got, expected, strict=True):
            assert a.dtype == b.numpy().dtype
            assert (a == b.numpy()).all()
        features[0].requires_grad_()
        tensor = mine(TorchImageList(tensors, image_sizes), features)[1]
        assert torch.equal(tensor, expected[1])
        assert tensor.dtype == dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(60))
def test_coder(seed: int, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    weights = [(10.0, 10.0, 5.0, 5.0), (1.0, 1.0, 1.0, 1.0), (0.3, 2.0, 7.0, 1.1)][seed % 3]
    mine, original = ours.BoxCoder(weights), theirs.BoxCoder(weights)
    counts = [[5, 0, 17], [1], [40, 3], [3000, 4000, 2500]][seed % 4]
    tolerance: Any = {"rtol": 1e-5, "atol": 1e-6} if dtype is np.float32 else {"rtol": 1e-12}
    proposals = [random_boxes(rng, n, 300, dtype) for n in counts]
    references = [random_boxes(rng, n, 300, dtype) for n in counts]
    tensors = [[torch.from_numpy(a) for a in arrays] for arrays in (references, proposals)]
    codes = mine.encode(references, proposals)
    expected = original.encode(*tensors)
    assert isinstance(codes, tuple)
    assert len(codes) == len(expected)
    for a, b in zip(codes, expected, strict=True):
        assert (a.dtype, a.shape) == (dtype, tuple(b.shape))
        np.testing.assert_allclose(a, b.numpy(), **tolerance)
    per_box = 1 + seed % 5
    rel = rng.normal(0, 3, (sum(counts), 4 * per_box)).astype(dtype)
    rel.flat[:: 7 + seed] = [np.nan, 100, -np.inf, 1000][seed % 4]
    got = mine.decode(rel, proposals)
    decoded = original.decode(torch.from_numpy(rel), tensors[1]).numpy()
    assert (got.dtype, got.shape) == (decoded.dtype, decoded.shape)
    # The corners of a box are a centre plus and minus half a size.
    scale = np.nanmax(np.abs(np.where(np.isfinite(decoded), decoded, 0)), initial=1)
    np.testing.assert_allclose(got, decoded, rtol=1e-5, atol=tolerance["rtol"] / 10 * scale)
    single = mine.decode_single(rel, np.concatenate(proposals))
    assert (single.reshape(decoded.shape) == got).sum() == (~np.isnan(got)).sum()
    tensor = mine.decode(torch.from_numpy(rel), tensors[1])
    assert isinstance(tensor, torch.Tensor)


def test_coder_without_boxes_and_of_mixed_types() -> None:
    mine, original = ours.BoxCoder((1.0, 1.0, 1.0, 1.0)), theirs.BoxCoder((1.0, 1.0, 1.0, 1.0))
    none = np.zeros((0, 4), np.float32)
    for width in (4, 84):
        codes = np.zeros((0, width), np.float32)
        expected = original.decode(torch.from_numpy(codes), [torch.from_numpy(none)])
        assert mine.decode(codes, [none]).shape == tuple(expected.shape)
    assert [a.shape for a in mine.encode([none, none], [none, none])] == [(0, 4), (0, 4)]
    boxes = random_boxes(np.random.default_rng(0), 5)
    for box_type, code_type in ((np.float64, np.float32), (np.float32, np.float64)):
        assert mine.decode(np.zeros((5, 4), code_type), [boxes.astype(box_type)]).dtype == code_type


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(60))
def test_matcher(seed: int, dtype: type, low_quality: bool) -> None:
    rng = np.random.default_rng(seed)
    shape = [(1, 1), (3, 50), (7, 5000), (40, 4097), (1, 2049), (25, 2)][seed % 6]
    quality = {
        0: lambda: rng.random(shape),
        1: lambda: rng.integers(0, 11, shape) / 10,  # ties, and thresholds met exactly
        2: lambda: box_iou(*(torch.from_numpy(random_boxes(rng, n, 40)) for n in shape)).numpy(),
        3: lambda: np.where(rng.random(shape) < 0.01, np.nan, rng.random(shape)),
    }[seed % 4]().astype(dtype)
    thresholds = [(0.7, 0.3), (0.5, 0.5), (0.9, 0.0), (0.6, -1.0)][seed // 4 % 4]
    expected = theirs.Matcher(*thresholds, low_quality)(torch.from_numpy(quality))
    matcher = ours.Matcher(*thresholds, low_quality)
    got = matcher(quality)
    assert got.dtype == np.int64
    assert got.tolist() == expected.tolist()
    assert matcher(np.asfortranarray(quality)).tolist() == expected.tolist()
    assert matcher(torch.from_numpy(quality)).tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(40))
def test_sampler_counts(seed: int) -> None:
    """The draws differ from torch's; how many there are does not."""
    rng = np.random.default_rng(seed)
    settings = [(256, 0.5), (8, 0.25), (10, 0.0), (7, 1.0), (0, 0.5)][seed % 5]
    labels = [rng.integers(-1, 3, n).astype([np.int64, np.float32][seed % 2]) for n in (300, 0, 9)]
    positive, negative = ours.BalancedPositiveNegativeSampler(*settings)(labels, rng=rng)
    expected = theirs.BalancedPositiveNegativeSampler(*settings)(
        [torch.from_numpy(label) for label in labels]
    )
    for got, masks in zip((positive, negative), expected, strict=True):
        assert [mask.dtype for mask in got] == [np.uint8] * 3
        assert [int(a.sum()) for a in got] == [int(b.sum()) for b in masks]
    for label, a, b in zip(labels, positive, negative, strict=True):
        assert (label[a == 1] >= 1).all()
        assert (label[b == 1] == 0).all()
        assert a.shape == b.shape == label.shape
