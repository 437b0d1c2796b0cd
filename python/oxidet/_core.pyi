"""The private extension module: kernels in Rust. Activations are C-contiguous (N, H, W, C)."""

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
Pair = tuple[int, int]
Quad = tuple[int, int, int, int]

__version__: str

# --- runtime ---
def num_threads() -> int: ...
def set_num_threads(num_threads: int) -> None: ...
def isa() -> str: ...
def kernels() -> str: ...
def peak_flops() -> float: ...

# --- convolution and matrix products ---
def conv2d(
    input: F32,
    weight: F32,
    bias: F32 | None,
    stride: Pair,
    padding: Quad,
    dilation: Pair,
    groups: int,
    precision: str = "direct",
) -> F32: ...
def conv2d_backward_data(
    grad_output: F32,
    weight: F32,
    input_size: Pair,
    stride: Pair,
    padding: Quad,
    dilation: Pair,
    groups: int,
    precision: str = "direct",
) -> F32: ...
def conv2d_backward_weight(
    input: F32,
    grad_output: F32,
    kernel_size: Pair,
    stride: Pair,
    padding: Quad,
    dilation: Pair,
    groups: int,
    precision: str = "direct",
) -> F32: ...
def conv2d_backward_bias(grad_output: F32) -> F32: ...

# Weight shape (kh, kw, C / groups, O), stride, padding, dilation, groups, offset groups.
DeformableOptions = tuple[Quad, Pair, Pair, Pair, int, int]

def deform_columns(
    input: F32, offset: F32, mask: F32 | None, columns: F32, options: DeformableOptions
) -> None: ...
def deform_columns_backward_input(
    grad_columns: F32,
    offset: F32,
    mask: F32 | None,
    input_shape: Quad,
    options: DeformableOptions,
) -> F32: ...
def deform_columns_backward_samples(
    grad_columns: F32,
    input: F32,
    offset: F32,
    mask: F32 | None,
    options: DeformableOptions,
) -> F32: ...
def matmul(a: F32, b: F32, transpose_a: bool, transpose_b: bool) -> F32: ...

# --- steps of optimisers, over lists of arrays of one axis ---
def sgd_step(
    params: list[F32],
    grads: list[F32],
    velocities: list[F32],
    lr: float,
    momentum: float,
    share: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    first: bool,
) -> None: ...
def adam_step(
    params: list[F32],
    grads: list[F32],
    means: list[F32],
    squares: list[F32],
    largest: list[F32],
    step_size: float,
    root: float,
    share: float,
    beta2: float,
    square_share: float,
    eps: float,
    weight_decay: float,
    kept: float,
    maximize: bool,
) -> None: ...
def rmsprop_step(
    params: list[F32],
    grads: list[F32],
    squares: list[F32],
    means: list[F32],
    steps: list[F32],
    lr: float,
    alpha: float,
    share: float,
    eps: float,
    weight_decay: float,
    momentum: float,
    maximize: bool,
    eps_inside: bool,
) -> None: ...
def average_arrays(averages: list[F32], values: list[F32], share: float) -> None: ...
def add_arrays(sums: list[F32], values: list[F32]) -> None: ...
def sum_of_squares(arrays: list[F32]) -> float: ...
def largest_magnitude(arrays: list[F32]) -> float: ...
def scale_arrays(arrays: list[F32], factor: float) -> None: ...
def clamp_arrays(arrays: list[F32], limit: float) -> None: ...

# --- layers: pooling, batch norm, activations, losses, dropout ---
def max_pool2d(
    input: F32, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> F32: ...
def max_pool2d_with_places(
    input: F32, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> tuple[F32, NDArray[np.uint8] | I32]: ...
def max_pool2d_with_indices(
    input: F32, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> tuple[F32, I32]: ...
def max_pool2d_backward(
    grad_output: F32,
    places: NDArray[np.uint8] | I32,
    input_size: Pair,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    ceil_mode: bool,
) -> F32: ...
def adaptive_max_pool2d(input: F32, output_size: Pair) -> F32: ...
def adaptive_max_pool2d_with_places(
    input: F32, output_size: Pair
) -> tuple[F32, NDArray[np.uint8] | I32]: ...
def adaptive_max_pool2d_with_indices(input: F32, output_size: Pair) -> tuple[F32, I32]: ...
def adaptive_max_pool2d_backward(
    grad_output: F32, places: NDArray[np.uint8] | I32, input_size: Pair
) -> F32: ...
def avg_pool2d(
    input: F32,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> F32: ...
def avg_pool2d_backward(
    grad_output: F32,
    input_size: Pair,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> F32: ...
def adaptive_avg_pool2d(input: F32, output_size: Pair) -> F32: ...
def adaptive_avg_pool2d_backward(grad_output: F32, input_size: Pair) -> F32: ...
def pad2d(input: F32, padding: Quad, channels: Pair, mode: str, value: float) -> F32: ...
def pad2d_backward(
    grad_output: F32,
    input_shape: tuple[int, int, int],
    padding: Quad,
    channels: Pair,
    mode: str,
) -> F32: ...
def nearest2d(
    input: F32, output_size: Pair, scales: tuple[float | None, float | None], centres: bool
) -> F32: ...
def nearest2d_backward(
    grad_output: F32,
    input_size: Pair,
    scales: tuple[float | None, float | None],
    centres: bool,
) -> F32: ...
def bilinear2d(
    input: F32, output_size: Pair, scales: tuple[float | None, float | None], align_corners: bool
) -> F32: ...
def bilinear2d_backward(
    grad_output: F32,
    input_size: Pair,
    scales: tuple[float | None, float | None],
    align_corners: bool,
) -> F32: ...
def local_response_norm(input: F32, size: int, alpha: float, beta: float, k: float) -> F32: ...
def local_response_norm_backward(
    input: F32, grad_output: F32, size: int, alpha: float, beta: float, k: float
) -> F32: ...
def batch_norm_statistics(input: F32) -> tuple[F32, F32]: ...
def batch_norm(
    input: F32, mean: F32, var: F32, weight: F32 | None, bias: F32 | None, eps: float
) -> F32: ...
def batch_norm_backward(
    input: F32,
    grad_output: F32,
    mean: F32,
    var: F32,
    weight: F32 | None,
    eps: float,
    training: bool,
) -> tuple[F32, F32, F32]: ...
def fold_batch_norm(
    weight: F32,
    bias: F32 | None,
    mean: F32,
    var: F32,
    gamma: F32 | None,
    beta: F32 | None,
    eps: float,
) -> tuple[F32, F32]: ...
def relu(input: F32) -> F32: ...
def relu_backward(output: F32, grad_output: F32) -> F32: ...
def tanh(input: F32) -> F32: ...
def tanh_backward(output: F32, grad_output: F32) -> F32: ...
def sigmoid(input: F32) -> F32: ...
def sigmoid_backward(output: F32, grad_output: F32) -> F32: ...
def softmax(input: F32) -> F32: ...
def softmax_backward(output: F32, grad_output: F32) -> F32: ...
def log_softmax(input: F32) -> F32: ...
def log_softmax_backward(output: F32, grad_output: F32) -> F32: ...
def cross_entropy(
    input: F32, target: I64, weight: F32 | None, ignore_index: int, label_smoothing: float
) -> tuple[F32, float]: ...
def cross_entropy_backward(
    input: F32,
    target: I64,
    weight: F32 | None,
    ignore_index: int,
    label_smoothing: float,
    factors: F32,
) -> F32: ...
def nll_loss(
    input: F32, target: I64, weight: F32 | None, ignore_index: int
) -> tuple[F32, float]: ...
def nll_loss_backward(
    classes: int, target: I64, weight: F32 | None, ignore_index: int, factors: F32
) -> F32: ...
def smooth_l1(difference: F32, beta: float) -> F32: ...
def smooth_l1_derivative(difference: F32, beta: float) -> F32: ...
def dropout(input: F32, p: float, seed: int, mask: int) -> F32: ...

# --- boxes, and losses of dense detectors ---
# The functions of any object compute boxes that are C-contiguous (R, 4) arrays, float32 or float64,
# all of one type. For anything else they return None.
def box_area(boxes: object, fmt: str) -> NDArray[Any] | None: ...
def box_iou(a: object, b: object, fmt: str) -> NDArray[Any] | None: ...
def bbox_iou(a: object, b: object) -> NDArray[Any] | None: ...
def generalized_box_iou(a: object, b: object) -> NDArray[Any] | None: ...
def distance_box_iou(a: object, b: object, eps: float) -> NDArray[Any] | None: ...
def complete_box_iou(a: object, b: object, eps: float) -> NDArray[Any] | None: ...
def bbox2loc(src_bbox: object, dst_bbox: object) -> NDArray[Any] | None: ...
def loc2bbox(src_bbox: object, loc: object) -> NDArray[Any] | None: ...
def clip_boxes(boxes: object, size: tuple[float, float]) -> NDArray[Any] | None: ...
def mask_boxes(masks: NDArray[np.uint8]) -> F32: ...
def box_loss(kind: str, a: object, b: object, eps: float) -> NDArray[Any] | None: ...
def box_loss_backward(kind: str, a: F32, b: F32, eps: float, weights: F32) -> F32: ...
def sigmoid_focal_loss(
    inputs: object, targets: object, alpha: float, gamma: float
) -> NDArray[Any] | None: ...
def sigmoid_focal_gradient(
    inputs: F32, targets: F32, alpha: float, gamma: float, weights: F32, by_target: bool
) -> F32: ...

# --- boxes, anchors, creators, evaluation ---
# Boxes are C-contiguous (R, 4) arrays [min_0, min_1, max_0, max_1]; one kernel serves (y, x) and
# (x, y). Scores are float64 whatever the boxes are (an exact widening). Suppression: `inclusive`
# is `iou >= threshold` (chainercv) against `iou > threshold` (torchvision); `rounded` compares
# with the threshold rounded to the boxes' dtype (chainercv) against in float64 (torchvision).
# Order: NaN scores first, then descending, ties by ascending index. Indices are int64.
def nms(
    boxes: object,
    scores: object | None,
    threshold: float,
    inclusive: bool,
    rounded: bool,
    limit: int | None,
) -> I64 | None: ...
def batched_nms(boxes: object, scores: object, idxs: object, threshold: float) -> I64 | None: ...
def soft_nms(
    boxes: F64, scores: F64, method: str, parameter: float, floor: float
) -> tuple[I64, F64]: ...
def matrix_nms(
    boxes: F64, scores: F64, idxs: I64, method: str, parameter: float, floor: float
) -> tuple[I64, F64]: ...
def fuse_boxes(
    boxes: F64,
    scores: F64,
    labels: I64,
    models: I64,
    weights: F64,
    threshold: float,
    confidence: str,
    overflow: bool,
) -> tuple[F64, F64, I64]: ...
def rotated_box_iou(a: F64, b: F64) -> F64: ...
def rotated_nms(boxes: F64, scores: F64, threshold: float) -> I64: ...
def anchor_base(base_size: float, ratios: list[float], anchor_scales: list[float]) -> F32: ...
def shifted_anchors(
    anchor_base: F64, stride: tuple[float, float], size: tuple[int, int], xy: bool
) -> F32: ...
def anchor_targets_f32(
    anchor: F32,
    bbox: F32,
    size: tuple[float, float],
    positive: float,
    negative: float,
    unreached: bool,
) -> tuple[F32, I32, I64, I64]: ...
def anchor_targets_f64(
    anchor: F64,
    bbox: F64,
    size: tuple[float, float],
    positive: float,
    negative: float,
    unreached: bool,
) -> tuple[F64, I32, I64, I64]: ...
def proposals_f32(
    loc: F32,
    score: F32 | F64,
    anchor: F32,
    size: tuple[float, float],
    min_size: float,
    limits: tuple[int | None, int | None],
    threshold: float,
    inclusive: bool,
    rounded: bool,
) -> tuple[F32, I64]: ...
def proposals_f64(
    loc: F64,
    score: F32 | F64,
    anchor: F64,
    size: tuple[float, float],
    min_size: float,
    limits: tuple[int | None, int | None],
    threshold: float,
    inclusive: bool,
    rounded: bool,
) -> tuple[F64, I64]: ...
def roi_targets_f32(
    roi: F32, bbox: F32, positive: float, negative_hi: float, negative_lo: float
) -> tuple[I64, I64, I64]: ...
def roi_targets_f64(
    roi: F64, bbox: F64, positive: float, negative_hi: float, negative_lo: float
) -> tuple[I64, I64, I64]: ...
def match_predictions_f32(quality: F32, high: float, low: float, low_quality: bool) -> I64: ...
def match_predictions_f64(quality: F64, high: float, low: float, low_quality: bool) -> I64: ...
def match_boxes_f32(
    objects: F32, boxes: F32, high: float, low: float, low_quality: bool
) -> I64: ...
def match_boxes_f64(
    objects: F64, boxes: F64, high: float, low: float, low_quality: bool
) -> I64: ...
def encode_boxes_f32(reference_boxes: F32, proposals: F32, weights: Sequence[float]) -> F32: ...
def encode_boxes_f64(reference_boxes: F64, proposals: F64, weights: Sequence[float]) -> F64: ...
def decode_boxes_f32(
    rel_codes: F32, boxes: F32, weights: Sequence[float], exponent: float
) -> F32: ...
def decode_boxes_f64(
    rel_codes: F64, boxes: F64, weights: Sequence[float], exponent: float
) -> F64: ...

# Boxes, labels and images of all boxes, a row each.
def voc_match_f32(
    pred: tuple[F32, I32, I32],
    pred_score: F64,
    gt: tuple[F32, I32, I32],
    gt_difficult: Bool,
    threshold: float,
) -> list[tuple[NDArray[np.int8], int | None]]: ...
def voc_match_f64(
    pred: tuple[F64, I32, I32],
    pred_score: F64,
    gt: tuple[F64, I32, I32],
    gt_difficult: Bool,
    threshold: float,
) -> list[tuple[NDArray[np.int8], int | None]]: ...
def voc_ap_f32(
    pred: tuple[F32, I32, I32],
    pred_score: F64,
    gt: tuple[F32, I32, I32],
    gt_difficult: Bool,
    threshold: float,
    eleven_points: bool,
) -> F64: ...
def voc_ap_f64(
    pred: tuple[F64, I32, I32],
    pred_score: F64,
    gt: tuple[F64, I32, I32],
    gt_difficult: Bool,
    threshold: float,
    eleven_points: bool,
) -> F64: ...
def coco_curves(
    pred: tuple[F64, I32, I32],
    pred_score: F64,
    pred_area: F64,
    gt: tuple[F64, I32, I32],
    gt_area: F64,
    gt_crowded: Bool,
    classes: int,
    thresholds: F64,
    recalls: F64,
    area_ranges: Sequence[tuple[float, float]],
    max_detections: Sequence[int],
) -> F64: ...
def voc_average_precision(prec: F64, rec: F64, eleven_points: bool) -> float: ...

# --- between the networks of a detector ---
# Maps are (N, H, W, C); results are lists over images. Sizes are (height, width).
def batch_images(
    images: list[tuple[NDArray[Any], bool]],
    sizes: list[Pair],
    factors: list[float],
    summands: list[float],
    multiple: int,
) -> F32: ...
def rpn_proposals(
    objectness: list[F32],
    deltas: list[F32],
    cell_anchors: list[F32],
    strides: list[tuple[float, float]],
    image_sizes: list[tuple[float, float]],
    limits: Pair,
    nms_thresh: float,
    score_thresh: float,
    min_size: float,
) -> list[tuple[F32, F32]]: ...
def box_detections(
    class_logits: F32,
    box_regression: F32,
    proposals: F32,
    counts: list[int],
    image_sizes: list[tuple[float, float]],
    weights: list[float],
    exponent: float,
    score_thresh: float,
    nms_thresh: float,
    most: int,
    min_size: float,
) -> list[tuple[F32, I64, F32]]: ...
def detect_per_class(
    roi_scores: F32,
    roi_cls_locs: F32,
    rois: F32,
    counts: list[int],
    originals: list[tuple[float, float, float]],
    mean: list[float],
    std: list[float],
    score_thresh: float,
    nms_thresh: float,
    inclusive: bool,
) -> list[tuple[F32, I32, F32]]: ...

# --- RoI operators ---
# `rois` is (R, 5): batch_index, x1, y1, x2, y2; results are (R, oh, ow, C). With `channels_first`,
# `input` is (N, C, H, W) and `output`, of which every element is written, (R, C, oh, ow).
def roi_pool(
    input: F32,
    channels_first: bool,
    rois: F32,
    output: F32,
    output_size: Pair,
    scale: float,
    half_to_even: bool,
    float64_edges: bool,
) -> None: ...
def roi_pool_with_argmax(
    input: F32,
    rois: F32,
    output_size: Pair,
    scale: float,
    half_to_even: bool,
    float64_edges: bool,
) -> tuple[F32, NDArray[np.int32]]: ...
def roi_pool_backward(
    grad_output: F32, argmax: NDArray[np.int32], rois: F32, input_shape: Quad
) -> F32: ...
def roi_align(
    input: F32,
    channels_first: bool,
    rois: F32,
    output: F32,
    output_size: Pair,
    scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> None: ...
def roi_align_backward(
    grad_output: F32,
    rois: F32,
    input_shape: Quad,
    scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> F32: ...
def roi_levels(
    boxes: F32, levels: tuple[float, float], canonical_scale: float, canonical_level: float
) -> I64: ...
def roi_align_levels(
    inputs: list[F32],
    rois: F32,
    levels: I64,
    output: F32,
    scales: Sequence[float],
    sampling_ratio: int,
) -> None: ...
def roi_align_levels_backward(
    grad_output: F32,
    rois: F32,
    levels: I64,
    shapes: list[Quad],
    scales: Sequence[float],
    sampling_ratio: int,
) -> list[F32]: ...
def ps_roi_pool(
    input: F32,
    channels_first: bool,
    rois: F32,
    output: F32,
    output_size: Pair,
    scale: float,
) -> None: ...
def ps_roi_pool_backward(grad_output: F32, rois: F32, input_shape: Quad, scale: float) -> F32: ...
def ps_roi_align(
    input: F32,
    channels_first: bool,
    rois: F32,
    output: F32,
    output_size: Pair,
    scale: float,
    sampling_ratio: int,
) -> None: ...
def ps_roi_align_backward(
    grad_output: F32, rois: F32, input_shape: Quad, scale: float, sampling_ratio: int
) -> F32: ...

# --- graphs and plans ---
# Values are ints. Shapes are (C, H, W) or (F,), without the batch; arrays are (N, H, W, C) or
# (N, F). A key names the constants of a node, (serial, version) of each; () is shared with nothing.
Key = Sequence[tuple[int, int]]

@final
class PackedWeights:
    def __new__(cls) -> PackedWeights: ...
    def __len__(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

@final
class GraphBuilder:
    def __new__(cls) -> GraphBuilder: ...
    def input(self, shape: Sequence[int]) -> int: ...
    def shape(self, value: int) -> tuple[int, ...]: ...
    def conv2d(
        self,
        input: int,
        weight: F32,
        bias: F32 | None,
        stride: Pair,
        padding: Quad,
        dilation: Pair,
        groups: int,
        key: Key,
        name: str,
    ) -> int: ...
    def linear(self, input: int, weight: F32, bias: F32 | None, key: Key, name: str) -> int: ...
    def batch_norm(
        self,
        input: int,
        mean: F32,
        var: F32,
        weight: F32 | None,
        bias: F32 | None,
        eps: float,
        key: Key,
        name: str,
    ) -> int: ...
    def channelwise(self, input: int, kind: str, operand: F32, key: Key, name: str) -> int: ...
    def activation(self, input: int, kind: str, low: float, high: float, name: str) -> int: ...
    def add(self, a: int, b: int, name: str) -> int: ...
    def scale(self, input: int, factor: float, offset: float, name: str) -> int: ...
    def channels(self, input: int, first: int, count: int, name: str) -> int: ...
    def max_pool2d(
        self,
        input: int,
        kernel_size: Pair,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        ceil_mode: bool,
        name: str,
    ) -> int: ...
    def avg_pool2d(
        self,
        input: int,
        kernel_size: Pair,
        stride: Pair,
        padding: Pair,
        ceil_mode: bool,
        count_include_pad: bool,
        divisor_override: int | None,
        name: str,
    ) -> int: ...
    def adaptive_avg_pool2d(self, input: int, output_size: Pair, name: str) -> int: ...
    def adaptive_max_pool2d(self, input: int, output_size: Pair, name: str) -> int: ...
    def pad(
        self, input: int, padding: Quad, channels: Pair, mode: str, value: float, name: str
    ) -> int: ...
    def slice(
        self,
        input: int,
        rows: tuple[int, int, int],
        cols: tuple[int, int, int],
        name: str,
    ) -> int: ...
    def nearest2d(
        self,
        input: int,
        output_size: Pair,
        scales: tuple[float | None, float | None],
        centres: bool,
        name: str,
    ) -> int: ...
    def bilinear2d(
        self,
        input: int,
        output_size: Pair,
        scales: tuple[float | None, float | None],
        align_corners: bool,
        name: str,
    ) -> int: ...
    def local_response_norm(
        self, input: int, size: int, alpha: float, beta: float, k: float, name: str
    ) -> int: ...
    def concat(self, inputs: Sequence[int], name: str) -> int: ...
    def flatten(self, input: int, name: str) -> int: ...
    def softmax(self, input: int, log: bool, name: str) -> int: ...
    def dropout(self, input: int, name: str) -> int: ...
    def compile(
        self, outputs: Sequence[int], precision: str, storage: str, packed: PackedWeights
    ) -> Plan: ...
    def train_norm(
        self,
        input: int,
        running: tuple[F32, F32] | None,
        weight: F32 | None,
        bias: F32 | None,
        eps: float,
        number: int,
        name: str,
    ) -> int: ...
    def random_drop(self, input: int, p: float, number: int, channels: bool, name: str) -> int: ...
    def constants(self) -> list[F32]: ...
    def compile_training(
        self,
        outputs: Sequence[int],
        trained: Sequence[bool],
        inputs: Sequence[bool],
        precision: str,
        packed: PackedWeights,
    ) -> TrainingPlan: ...

@final
class TrainingPlan:
    def forward(
        self, inputs: Sequence[F32], constants: Sequence[F32], masks: Sequence[tuple[int, int]]
    ) -> tuple[list[F32], TrainingPass, list[tuple[int, list[float], list[float]]]]: ...
    def memory(self, batch: int) -> int: ...
    def seconds(self) -> list[tuple[float, float]]: ...
    def memory_at_rest(self) -> int: ...
    def take_memory(self, other: TrainingPlan) -> None: ...
    def reached(self) -> list[tuple[list[int], list[int]]]: ...
    def steps(self) -> list[tuple[str, str, list[str]]]: ...

@final
class TrainingPass:
    def backward(
        self,
        inputs: Sequence[F32],
        constants: Sequence[F32],
        gradients: Sequence[F32 | None],
        grad_inputs: Sequence[F32 | None],
        grad_constants: Sequence[F32 | None],
        keep: bool,
    ) -> None: ...

@final
class Plan:
    def run(self, inputs: Sequence[F32]) -> list[F32]: ...
    def steps(self) -> list[dict[str, Any]]: ...
    def profile(self, inputs: Sequence[F32], repeats: int) -> list[list[float]]: ...
    def memory(self, batch: int) -> dict[str, int]: ...
