"""Hundreds of random calls of operators beside torchvision's: sizes, types, layouts, gradients.

Each case draws everything from a seed of its own, which a failure names.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conftest import assert_close
from oxidet import nn, ops

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("torchvision").ops

Array = np.ndarray[Any, Any]
Rng = np.random.Generator


def disguised(rng: Rng, array: Array) -> Array:
    """The same numbers in one of the forms that arrays come in."""
    form = rng.integers(6)
    if form == 0:
        return array.astype(array.dtype.newbyteorder(">"))
    if form == 1:  # every second row of a larger array
        return np.repeat(array, 2, axis=0)[::2]
    if form == 2:
        return np.ascontiguousarray(array[::-1])[::-1]
    if form == 3:
        return np.asfortranarray(array)
    if form == 4:
        frozen = array.copy()
        frozen.flags.writeable = False
        return frozen
    return array


def float_type(rng: Rng) -> type[np.floating[Any]]:
    return (np.float32, np.float64)[rng.integers(2)]


def check_all(seeds: range, case: Any) -> None:
    """Run all cases and report all failures."""
    failures = []
    for seed in seeds:
        try:
            case(np.random.default_rng(seed))
        except AssertionError as error:
            failures.append(f"seed {seed}: {str(error).strip()[:300]}")
    assert not failures, f"{len(failures)} of {len(seeds)} cases:\n" + "\n".join(failures[:10])


# --- batched_nms


def random_boxes(rng: Rng, count: int) -> Array:
    """Corners at multiples of 1/8, some boxes twice, some without area or with ends exchanged."""
    corner = rng.integers(0, 300, (count, 2)) / 8
    boxes = np.concatenate([corner, corner + rng.integers(1, 200, (count, 2)) / 8], 1)
    if count > 3:
        boxes[rng.integers(count)] = boxes[rng.integers(count)]
        boxes[rng.integers(count), 2:] = boxes[0, :2]
        row = rng.integers(count)
        boxes[row] = boxes[row, [2, 3, 0, 1]]
    return boxes


def per_class(boxes: Array, scores: Array, classes: Array, threshold: float) -> Array:
    """torchvision's nms of every class by itself, the better score first."""
    kept = [np.zeros(0, np.int64)]
    for category in np.unique(classes):
        [rows] = np.nonzero(classes == category)
        tensors = torch.from_numpy(boxes[rows]), torch.from_numpy(scores[rows])
        kept.append(rows[theirs.nms(*tensors, threshold).numpy()])
    together = np.concatenate(kept)
    return together[np.argsort(-scores[together], kind="stable")]


def batched_nms_case(rng: Rng) -> None:
    count = int(rng.choice([0, 1, 2, 7, 40, 150]))
    dtype = float_type(rng)
    boxes = random_boxes(rng, count).astype(dtype)
    classes = rng.integers(-3, 4, count)
    if rng.random() < 0.3:
        classes = classes * 2**40
    threshold = float(rng.choice([-1.0, 0.0, 0.1, 0.5, 0.5000001, 0.7, 1.0, 2.0, np.inf]))
    ties = rng.random() < 0.3
    scores = (rng.integers(0, 4, count) if ties else rng.permutation(count) - 9).astype(dtype)
    expected = per_class(boxes, scores, classes, threshold)
    arrays = (disguised(rng, x) for x in (boxes, scores, classes))
    got = ops.batched_nms(*arrays, threshold)
    assert got.dtype == np.int64
    if ties:
        assert set(got.tolist()) == set(expected.tolist())
        assert (np.diff(scores[got]) <= 0).all()
    else:
        np.testing.assert_array_equal(got, expected)
    tensors = [torch.from_numpy(x) for x in (boxes, scores, classes)]
    np.testing.assert_array_equal(ops.batched_nms(*tensors, threshold), got)


def test_batched_nms() -> None:
    check_all(range(300), batched_nms_case)


# --- masks_to_boxes


def masks_case(rng: Rng) -> None:
    shape = tuple(rng.integers(1, (6, 20, 70)))
    if rng.random() < 0.1:
        shape = tuple(size * int(rng.integers(2)) for size in shape)
    masks: Array = rng.random(shape) < rng.choice([0.01, 0.1, 0.9])
    if masks.size:
        masks[0] = False  # torchvision gives zeros
    dtype = rng.choice(np.array(["?", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]))
    numbers = rng.integers(1, 100, shape) * rng.choice([-1, 1], shape)
    values = (masks * numbers).astype(dtype) if dtype != "u1" else (masks * 200).astype(dtype)
    if values.dtype.kind == "f" and values.size:
        values[-1, 0, 0] = np.nan  # belongs to the mask
    expected = theirs.masks_to_boxes(torch.from_numpy(values))
    got = ops.masks_to_boxes(disguised(rng, values))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(ops.masks_to_boxes(torch.from_numpy(values)), expected)


def test_masks_to_boxes() -> None:
    check_all(range(300), masks_case)


# --- sigmoid_focal_loss


def focal_case(rng: Rng) -> None:
    shape = tuple(rng.integers(0, 6, rng.integers(0, 4)))
    dtype = float_type(rng)
    logits = np.asarray(rng.standard_normal(shape) * rng.choice([1, 10, 60]), dtype)
    targets = np.asarray(rng.integers(0, 2, shape), dtype)
    if rng.random() < 0.3:
        targets = np.asarray(rng.random(shape), dtype)
    options = {
        "alpha": float(rng.choice([-1, 0, 0.25, 0.6, 1])),
        "gamma": float(rng.choice([0, 0.5, 1, 2, 5])),
        "reduction": str(rng.choice(["none", "mean", "sum"])),
    }
    x, t = (torch.from_numpy(a.copy()).requires_grad_() for a in (logits, targets))
    expected = theirs.sigmoid_focal_loss(x, t, **options)
    hidden = [disguised(rng, a) if a.ndim else a for a in (logits, targets)]
    got = ops.sigmoid_focal_loss(*hidden, **options)
    assert np.asarray(got).dtype == dtype
    if expected.isnan().any():  # the mean of nothing
        assert np.isnan(got)
        return
    # torchvision subtracts logits and probabilities from each other; where little is left of them
    # its digits are rounding errors of these, not ours.
    most = float(np.abs(logits).max(initial=1))
    terms = logits.size if options["reduction"] == "sum" else 1
    rounding = 4 * np.finfo(dtype).eps * most * terms
    np.testing.assert_allclose(got, expected.detach(), 2e-6, rounding, err_msg=f"{options}")
    # In torch alone sqrt(1 - p_t) has no derivative where the difference is 0.
    if options["gamma"] == 0.5 or not logits.size:
        return
    mine = [nn.Tensor(a.astype(np.float32), requires_grad=True) for a in (logits, targets)]
    ops.sigmoid_focal_loss(*mine, **options).sum().backward()
    expected.sum().backward()
    rounding = 4 * np.finfo(np.float32).eps * most
    for name, ours, tensor in (("inputs", mine[0], x), ("targets", mine[1], t)):
        message = f"gradient of {name}, {options}"
        np.testing.assert_allclose(ours.grad, tensor.grad, 1e-5, rounding, err_msg=message)


def test_sigmoid_focal_loss() -> None:
    check_all(range(400), focal_case)


# --- deform_conv2d


def deform_case(rng: Rng) -> None:
    groups, offset_groups = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    channels = 2 * int(rng.integers(1, 3))
    outputs = groups * int(rng.integers(1, 3))
    kernel = rng.integers(1, 4, 2)
    stride, padding = rng.integers(1, 3, 2).tolist(), rng.integers(0, 3, 2).tolist()
    dilation = rng.integers(1, 3, 2).tolist()
    size = dilation * (kernel - 1) + 1 + rng.integers(0, 5, 2)
    images = int(rng.integers(0, 3))
    rows, cols = (
        (size + 2 * np.array(padding) - dilation * (kernel - 1) - 1) // stride + 1
    ).tolist()
    taps = offset_groups * int(kernel.prod())
    dtype = float_type(rng)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(dtype)

    arrays: dict[str, Array] = {
        "input": normal(images, channels, *size),
        "offset": normal(images, 2 * taps, rows, cols) * rng.choice([0.5, 3]).astype(dtype),
        "weight": normal(outputs, channels // groups, *kernel),
    }
    # torchvision's gradient jumps at whole positions; ours need not jump to the same side.
    whole = np.abs(arrays["offset"] - np.round(arrays["offset"])) < 1e-2
    arrays["offset"][whole] += dtype(0.05)
    if rng.random() < 0.6:
        arrays["bias"] = normal(outputs)
    if rng.random() < 0.6:
        arrays["mask"] = rng.random((images, taps, rows, cols)).astype(dtype)
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    pairs = {key: tuple(value) for key, value in options.items()}

    tensors = {key: torch.from_numpy(a.copy()).requires_grad_() for key, a in arrays.items()}
    expected = theirs.deform_conv2d(**tensors, **pairs)
    got = ops.deform_conv2d(**{key: disguised(rng, a) for key, a in arrays.items()}, **pairs)
    assert got.dtype == dtype
    assert_close(got, expected.detach(), 3e-6, "output")
    if images == 0:
        return
    mine = {key: nn.Tensor(a.astype(np.float32), requires_grad=True) for key, a in arrays.items()}
    grad = normal(*expected.shape)
    ops.deform_conv2d(**mine, **pairs).backward(grad.astype(np.float32))
    expected.backward(torch.from_numpy(grad))
    for key, tensor in tensors.items():
        assert_close(mine[key].grad, tensor.grad, 2e-5, f"gradient of {key}")


def test_deform_conv2d() -> None:
    check_all(range(250), deform_case)
