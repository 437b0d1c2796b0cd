//! Sizes of a convolution. One function computes output sizes; kernels, reference and tests call it.

use crate::memory::result_len;
use crate::{Error, Result};

/// Largest accepted stride, dilation and padding; sums of them and of a size stay far from overflow.
const MAX_EXTENT: usize = i32::MAX as usize;

/// Zeros around an image, in pixels. The two ends of an axis may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the left.
    pub left: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Padding {
    /// The same padding at both ends of each axis.
    pub fn symmetric(vertical: usize, horizontal: usize) -> Self {
        Padding { top: vertical, bottom: vertical, left: horizontal, right: horizontal }
    }
}

/// The geometry of one convolution: everything but the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2d {
    /// Images in the batch.
    pub batch: usize,
    /// Input rows and columns.
    pub input: (usize, usize),
    /// Input channels, C.
    pub in_channels: usize,
    /// Output channels, O.
    pub out_channels: usize,
    /// Kernel rows and columns.
    pub kernel: (usize, usize),
    /// Step of the kernel, rows and columns.
    pub stride: (usize, usize),
    /// Zeros around the input.
    pub padding: Padding,
    /// Distance of neighbouring kernel taps, rows and columns.
    pub dilation: (usize, usize),
    /// Number of independent channel groups.
    pub groups: usize,
    /// Output rows and columns; computed by [`Conv2d::new`].
    pub output: (usize, usize),
}

/// `floor((size + padding - dilation * (kernel - 1) - 1) / stride) + 1`, or `None` if the kernel
/// does not fit once.
pub fn output_size(
    size: usize,
    padding: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
) -> Option<usize> {
    let extent = dilation.checked_mul(kernel.checked_sub(1)?)?.checked_add(1)?;
    let room = size.checked_add(padding)?.checked_sub(extent)?;
    Some(room / stride + 1)
}

impl Conv2d {
    /// Checks the arguments and computes the output size.
    ///
    /// `weight` is the shape `(kh, kw, C / groups, O)`.
    pub fn new(
        input: (usize, usize, usize, usize),
        weight: (usize, usize, usize, usize),
        stride: (usize, usize),
        padding: Padding,
        dilation: (usize, usize),
        groups: usize,
    ) -> Result<Self> {
        let (batch, height, width, in_channels) = input;
        let (kh, kw, group_channels, out_channels) = weight;
        for (argument, pair) in [("stride", stride), ("dilation", dilation)] {
            if pair.0 == 0 || pair.1 == 0 {
                return Err(Error::value(argument, "positive integers", format!("{pair:?}")));
            }
        }
        let Padding { top, bottom, left, right } = padding;
        for (argument, most) in [
            ("stride", stride.0.max(stride.1)),
            ("dilation", dilation.0.max(dilation.1)),
            ("padding", top.max(bottom).max(left).max(right)),
        ] {
            if most > MAX_EXTENT {
                let expected = format!("at most {MAX_EXTENT}");
                return Err(Error::value(argument, expected, most.to_string()));
            }
        }
        if kh == 0 || kw == 0 {
            return Err(Error::shape(
                "weight",
                "a kernel of at least 1 x 1",
                format!("{kh} x {kw}"),
            ));
        }
        if groups == 0
            || !in_channels.is_multiple_of(groups)
            || !out_channels.is_multiple_of(groups)
        {
            return Err(Error::value(
                "groups",
                format!("a divisor of both {in_channels} input and {out_channels} output channels"),
                groups.to_string(),
            ));
        }
        if group_channels * groups != in_channels {
            return Err(Error::shape(
                "input",
                format!(
                    "{} channels (weight has {group_channels} input channels in each of {groups} \
                     groups)",
                    group_channels * groups
                ),
                format!("{in_channels} channels"),
            ));
        }
        let rows = output_size(height, top + bottom, kh, stride.0, dilation.0);
        let cols = output_size(width, left + right, kw, stride.1, dilation.1);
        let (Some(rows), Some(cols)) = (rows, cols) else {
            return Err(Error::shape(
                "input",
                format!(
                    "at least {} x {} pixels for a {kh} x {kw} kernel with dilation {dilation:?} \
                     and padding {:?}",
                    (dilation.0 * (kh - 1) + 1).saturating_sub(top + bottom),
                    (dilation.1 * (kw - 1) + 1).saturating_sub(left + right),
                    ((top, bottom), (left, right)),
                ),
                format!("{height} x {width}"),
            ));
        };
        result_len::<f32>("input", &[batch, rows, cols, out_channels])?;
        Ok(Conv2d {
            batch,
            input: (height, width),
            in_channels,
            out_channels,
            kernel: (kh, kw),
            stride,
            padding,
            dilation,
            groups,
            output: (rows, cols),
        })
    }

    /// Input channels of one group.
    pub fn group_in(&self) -> usize {
        self.in_channels / self.groups
    }

    /// Output channels of one group.
    pub fn group_out(&self) -> usize {
        self.out_channels / self.groups
    }

    /// Rows of one group's weight matrix: `kh * kw * C / groups`.
    pub fn depth(&self) -> usize {
        self.kernel.0 * self.kernel.1 * self.group_in()
    }

    /// Output pixels of the whole batch.
    pub fn output_pixels(&self) -> usize {
        self.batch * self.output.0 * self.output.1
    }

    /// Elements of the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.input.0 * self.input.1 * self.in_channels
    }

    /// Elements of the output.
    pub fn output_len(&self) -> usize {
        self.output_pixels() * self.out_channels
    }

    /// Elements of the weights.
    pub fn weight_len(&self) -> usize {
        self.depth() * self.out_channels
    }

    /// Multiply-accumulate operations of the forward pass.
    pub fn macs(&self) -> usize {
        self.output_pixels() * self.weight_len()
    }

    /// Whether output pixel `p` sees input pixel `p` and no other.
    pub fn is_pointwise(&self) -> bool {
        self.kernel == (1, 1) && self.stride == (1, 1) && self.padding == Padding::default()
    }

    /// Image, row and column of output pixel `index` in N, H, W order.
    pub(super) fn output_position(&self, index: usize) -> (usize, usize, usize) {
        let (rows, cols) = self.output;
        (index / (rows * cols), index / cols % rows, index % cols)
    }

    /// The input row (or column, with `axis` 1) under tap `tap` of output row `out`, if it is not
    /// padding.
    pub(super) fn input_coordinate(&self, axis: Axis, out: usize, tap: usize) -> Option<usize> {
        let (stride, dilation, before, size) = match axis {
            Axis::Rows => (self.stride.0, self.dilation.0, self.padding.top, self.input.0),
            Axis::Cols => (self.stride.1, self.dilation.1, self.padding.left, self.input.1),
        };
        (out * stride + tap * dilation).checked_sub(before).filter(|&i| i < size)
    }

    /// Checks the lengths of slices against the geometry. A mismatch is a mistake of the caller in
    /// this crate or the bindings, hence a panic.
    pub(super) fn assert_lengths(&self, input: usize, weight: usize, output: usize) {
        assert_eq!(input, self.input_len(), "input length does not match the geometry");
        assert_eq!(weight, self.weight_len(), "weight length does not match the geometry");
        assert_eq!(output, self.output_len(), "output length does not match the geometry");
    }
}

/// One of the two spatial axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    Rows,
    Cols,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_size_floors() {
        // (100 + 2 - 3) / 2 + 1 = 50.5: the floor is essential.
        assert_eq!(output_size(100, 2, 3, 2, 1), Some(50));
        assert_eq!(output_size(227, 0, 11, 4, 1), Some(55));
        assert_eq!(output_size(3, 0, 2, 1, 2), Some(1));
        assert_eq!(output_size(2, 0, 3, 1, 1), None);
        assert_eq!(output_size(2, 0, 0, 1, 1), None);
    }

    #[test]
    fn bad_arguments_are_named() {
        let p = Padding::default();
        let new = |x, w, s, d, g| Conv2d::new(x, w, s, p, d, g).unwrap_err().to_string();
        let x = (1, 5, 5, 4);
        assert!(new(x, (3, 3, 3, 8), (1, 1), (1, 1), 1).starts_with("input: expected 3 channels"));
        assert!(new(x, (3, 3, 4, 8), (0, 1), (1, 1), 1).starts_with("stride"));
        assert!(new(x, (3, 3, 4, 8), (1, 1), (1, 0), 1).starts_with("dilation"));
        assert!(new(x, (3, 3, 4, 8), (1, 1), (1, 1), 3).starts_with("groups"));
        assert!(new(x, (7, 3, 4, 8), (1, 1), (1, 1), 1).starts_with("input: expected at least 7"));
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        let (x, w) = ((1, 5, 5, 4), (3, 3, 4, 8));
        let new = |stride, padding, dilation| {
            let padding = Padding::symmetric(padding, padding);
            Conv2d::new(x, w, (stride, 1), padding, (dilation, 1), 1).unwrap_err().to_string()
        };
        // Twice 2^63 is 0 in 64 bits.
        for huge in [1 << 31, 1 << 62, 1 << 63, usize::MAX] {
            assert!(new(huge, 1, 1).starts_with("stride: expected at most 2147483647"));
            assert!(new(1, huge, 1).starts_with("padding: expected at most 2147483647"));
            assert!(new(1, 1, huge).starts_with("dilation: expected at most 2147483647"));
        }
        assert!(
            new(1, MAX_EXTENT, 1).starts_with("input: expected a result that can be addressed")
        );
        assert!(new(1, 1 << 22, 1).starts_with("input: expected a result that fits into memory"));
        assert!(
            new(1, 0, MAX_EXTENT).starts_with("input: expected at least 4294967295 x 3 pixels")
        );
    }
}
