"""Deformable convolution: the primitive, the function, the layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oxidet import _core
from oxidet._arrays import F32, as_float32, extent, flag, in_type_of, nchw, nhwc, pair
from oxidet._same_kind import same_kind
from oxidet.nn._convolution import _hwio, _oihw
from oxidet.nn._default_weights import default_weights
from oxidet.nn.module import Module
from oxidet.nn.primitive import Context, Primitive
from oxidet.nn.tensor import Parameter

Array = NDArray[Any]

# The pointwise convolution of the columns: stride, padding, dilation.
_POINTWISE = ((1, 1), (0, 0, 0, 0), (1, 1))


def _deform_conv2d(
    ctx: Context,
    input: Any,
    offset: Any,
    weight: Any,
    bias: Any,
    mask: Any,
    *,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Array:
    x, o, w = nhwc(input, "input"), nhwc(offset, "offset"), _hwio(weight)
    m = None if mask is None else nhwc(mask, "mask")
    b = None if bias is None else np.ascontiguousarray(as_float32(bias, "bias", 1, "(O,)"))
    rows, cols, own, outputs = w.shape
    if own == 0 or x.shape[3] % own:
        raise ValueError(
            f"weight: expected a divisor of {x.shape[3]} channels in each group, got shape "
            f"{np.shape(weight)}"
        )
    if b is not None and b.shape != (outputs,):
        raise ValueError(f"bias: expected shape ({outputs},), got {b.shape}")
    samples = rows * cols
    if o.shape[3] == 0 or o.shape[3] % (2 * samples):
        raise ValueError(
            f"offset: expected channels in a multiple of 2 * {rows} * {cols}, "
            f"got shape {np.shape(offset)}"
        )
    groups = x.shape[3] // own
    ctx.options = (w.shape, stride, padding, dilation, groups, o.shape[3] // (2 * samples))
    ctx.input, ctx.offset, ctx.mask, ctx.weight, ctx.groups = x, o, m, w, groups
    columns = _columns(ctx)
    # In memory the weight is that of a pointwise convolution already.
    pointwise = w.reshape(1, 1, samples * own, outputs)
    return nchw(_core.conv2d(columns, pointwise, b, *_POINTWISE, groups))


def _columns(ctx: Context) -> F32:
    """What the taps of each output pixel read: (N, H_out, W_out, groups * kh * kw * C / groups)."""
    rows, cols = ctx.weight.shape[:2]
    shape = (*ctx.offset.shape[:3], rows * cols * ctx.input.shape[3])
    columns = np.empty(shape, np.float32)
    _core.deform_columns(ctx.input, ctx.offset, ctx.mask, columns, ctx.options)
    return columns


def _deform_conv2d_backward(ctx: Context, grad: Array) -> tuple[Array | None, ...]:
    g, x, o, m, w = nhwc(grad, "grad"), ctx.input, ctx.offset, ctx.mask, ctx.weight
    rows, cols, own, outputs = w.shape
    need_input, need_offset, need_weight, need_bias, need_mask = ctx.needs_input_grad
    grad_input = grad_offset = grad_weight = grad_bias = grad_mask = None
    if need_input or need_offset or need_mask:
        pointwise = w.reshape(1, 1, rows * cols * own, outputs)
        size = g.shape[1:3]
        grad_columns = _core.conv2d_backward_data(g, pointwise, size, *_POINTWISE, ctx.groups)
        if need_input:
            grad_input = nchw(
                _core.deform_columns_backward_input(grad_columns, o, m, x.shape, ctx.options)
            )
        if need_offset or need_mask:
            parts = _core.deform_columns_backward_samples(grad_columns, x, o, m, ctx.options)
            parts = parts.reshape(*g.shape[:3], -1, 3)
            grad_offset = nchw(np.ascontiguousarray(parts[..., :2]).reshape(o.shape))
            grad_mask = nchw(np.ascontiguousarray(parts[..., 2])) if need_mask else None
    if need_weight:
        # Gathered anew: columns are as large as the input times the taps.
        gradient = _core.conv2d_backward_weight(_columns(ctx), g, (1, 1), *_POINTWISE, ctx.groups)
        grad_weight = _oihw(gradient.reshape(w.shape))
    if need_bias:
        grad_bias = _core.conv2d_backward_bias(g)
    return grad_input, grad_offset if need_offset else None, grad_weight, grad_bias, grad_mask


deform_conv2d_ = Primitive("deform_conv2d", _deform_conv2d, _deform_conv2d_backward)


@same_kind
def deform_conv2d(
    input: Any,
    offset: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = (1, 1),
    padding: Any = (0, 0),
    dilation: Any = (1, 1),
    mask: Any = None,
) -> Any:
    """Deformable convolution, as ``torchvision.ops.deform_conv2d``.

    Every tap of every output pixel reads, between pixels, where its offset moves it (Deformable
    Convolutional Networks, 2017); with a mask it also weighs what it reads (Deformable ConvNets
    v2, 2018). What lies outside the input counts as 0, and so does a position that is not finite.

    Parameters
    ----------
    input
        (N, C, H, W).
    offset
        (N, 2 * G * kh * kw, H_out, W_out), in pixels: for each of G offset groups and each
        tap the vertical and the horizontal offset. Each offset group moves C / G channels.
    weight
        (O, C / groups, kh, kw); the number of groups follows from the shapes.
    bias
        (O,), or None.
    stride, dilation
        Integer of at least 1, or a pair (rows, columns).
    padding
        Zeros around the input: an integer of at least 0, or a pair (rows, columns).
    mask
        (N, G * kh * kw, H_out, W_out) factors, or None for 1.

    Returns
    -------
    (N, O, H_out, W_out) in the floating type of ``input`` (float32 for integers), channels-last in
    memory. All arrays are converted to float32 first, so float64 comes back with the precision of
    float32. Differentiable in ``input``, ``offset``, ``weight``, ``bias`` and ``mask``.

    Raises
    ------
    ValueError
        If shapes do not fit or an output size would be less than 1.
    MemoryError
        If what is gathered, kh * kw * C numbers for each output pixel, does not fit into memory.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet import ops
    >>> x = np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3)
    >>> offset = np.zeros((1, 2, 2, 3))
    >>> offset[0, 0] = 0.5  # half a pixel down
    >>> ops.deform_conv2d(x[:, :, :2], offset, np.ones((1, 1, 1, 1)))
    array([[[[2.5, 3.5, 4.5],
             [2. , 2.5, 3. ]]]], dtype=float32)
    """
    result = deform_conv2d_(
        input,
        offset,
        weight,
        bias,
        mask,
        stride=pair(stride, "stride"),
        padding=pair(padding, "padding", minimum=0),
        dilation=pair(dilation, "dilation"),
    )
    return in_type_of(input, result)


class DeformConv2d(Module):
    """Deformable convolution, as ``torchvision.ops.DeformConv2d``; see :func:`deform_conv2d`.

    Arguments, and the initial values of ``weight`` (O, C / groups, kh, kw) and ``bias`` (O,), are
    those of :class:`~oxidet.nn.Conv2d`; padding is an integer or a pair.
    """

    weight: Parameter
    bias: Parameter | None
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    _mode_matters = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = extent(in_channels, "in_channels")
        self.out_channels = extent(out_channels, "out_channels")
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.stride = pair(stride, "stride")
        self.padding = pair(padding, "padding", minimum=0)
        self.dilation = pair(dilation, "dilation")
        self.groups = extent(groups, "groups")
        for name in ("in_channels", "out_channels"):
            if getattr(self, name) % self.groups:
                raise ValueError(
                    f"{name}: expected a multiple of groups={groups}, got {getattr(self, name)}"
                )
        depth = self.in_channels // self.groups
        fan_in = depth * math.prod(self.kernel_size)
        weight = default_weights((*self.kernel_size, depth, self.out_channels), fan_in)
        self.weight = Parameter._adopt(weight.transpose(3, 2, 0, 1))
        shift = default_weights((self.out_channels,), fan_in) if flag(bias, "bias") else None
        self.register_parameter("bias", None if shift is None else Parameter(shift))

    @same_kind
    def forward(self, input: Any, offset: Any, mask: Any = None) -> Any:
        """(N, C, H, W), offsets and perhaps masks -> (N, O, H_out, W_out)."""
        return deform_conv2d(
            input,
            offset,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            mask,
        )

    def extra_repr(self) -> str:
        """Arguments in torchvision's form: those at their default are left out."""
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}"
        )
        if self.padding != (0, 0):
            text += f", padding={self.padding}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        return text
