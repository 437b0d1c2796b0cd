"""The private extension module: kernels in Rust. Activations are C-contiguous (N, H, W, C)."""

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
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
