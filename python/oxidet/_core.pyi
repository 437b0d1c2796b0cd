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
