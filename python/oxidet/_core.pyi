"""The private extension module: kernels in Rust. Activations are C-contiguous (N, H, W, C)."""

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Pair = tuple[int, int]
Quad = tuple[int, int, int, int]

__version__: str

# --- runtime ---
def num_threads() -> int: ...
def set_num_threads(num_threads: int) -> None: ...
def isa() -> str: ...

# --- convolution and matrix products ---
def conv2d(
    input: F32,
    weight: F32,
    bias: F32 | None,
    stride: Pair,
    padding: Quad,
    dilation: Pair,
    groups: int,
) -> F32: ...
def conv2d_backward_data(
    grad_output: F32,
    weight: F32,
    input_size: Pair,
    stride: Pair,
    padding: Quad,
    dilation: Pair,
    groups: int,
) -> F32: ...
def conv2d_backward_weight(
    input: F32,
    grad_output: F32,
    kernel_size: Pair,
    stride: Pair,
    padding: Quad,
    dilation: Pair,
    groups: int,
) -> F32: ...
def conv2d_backward_bias(grad_output: F32) -> F32: ...
def matmul(a: F32, b: F32, transpose_a: bool, transpose_b: bool) -> F32: ...

# --- layers: pooling, batch norm, activations, losses, dropout ---

# --- boxes, anchors, creators, evaluation ---
# Boxes are C-contiguous (R, 4) arrays [min_0, min_1, max_0, max_1]; one kernel serves (y, x) and
# (x, y). Scores are float64 whatever the boxes are (an exact widening). Suppression: `inclusive`
# is `iou >= threshold` (chainercv) against `iou > threshold` (torchvision); `rounded` compares
# with the threshold rounded to the boxes' dtype (chainercv) against in float64 (torchvision).
# Order: NaN scores first, then descending, ties by ascending index. Indices are int64.
def box_iou_f32(a: F32, b: F32) -> F32: ...
def box_iou_f64(a: F64, b: F64) -> F64: ...
def bbox2loc_f32(src_bbox: F32, dst_bbox: F32) -> F32: ...
def bbox2loc_f64(src_bbox: F64, dst_bbox: F64) -> F64: ...
def loc2bbox_f32(src_bbox: F32, loc: F32) -> F32: ...
def loc2bbox_f64(src_bbox: F64, loc: F64) -> F64: ...
def clip_boxes_f32(bbox: F32, size: tuple[float, float]) -> F32: ...
def clip_boxes_f64(bbox: F64, size: tuple[float, float]) -> F64: ...
def nms_f32(
    bbox: F32,
    scores: F64 | None,
    threshold: float,
    inclusive: bool,
    rounded: bool,
    limit: int | None,
) -> I64: ...
def nms_f64(
    bbox: F64,
    scores: F64 | None,
    threshold: float,
    inclusive: bool,
    rounded: bool,
    limit: int | None,
) -> I64: ...
def batched_nms_f32(
    bbox: F32, scores: F64, idxs: I64, threshold: float, inclusive: bool, rounded: bool
) -> I64: ...
def batched_nms_f64(
    bbox: F64, scores: F64, idxs: I64, threshold: float, inclusive: bool, rounded: bool
) -> I64: ...

# --- RoI operators ---
# `rois` is (R, 5): batch_index, x1, y1, x2, y2; results are (R, oh, ow, C).
def roi_pool(
    input: F32,
    rois: F32,
    output_size: Pair,
    spatial_scale: float,
    half_to_even: bool,
    float64_edges: bool,
) -> F32: ...
def roi_pool_with_argmax(
    input: F32,
    rois: F32,
    output_size: Pair,
    spatial_scale: float,
    half_to_even: bool,
    float64_edges: bool,
) -> tuple[F32, NDArray[np.int32]]: ...
def roi_pool_backward(
    grad_output: F32, argmax: NDArray[np.int32], rois: F32, input_shape: Quad
) -> F32: ...
def roi_align(
    input: F32,
    rois: F32,
    output_size: Pair,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> F32: ...
def roi_align_backward(
    grad_output: F32,
    rois: F32,
    input_shape: Quad,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> F32: ...
