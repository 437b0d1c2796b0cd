//! One step of a plan: a kernel with everything it needs but the arrays.

use std::sync::Arc;

use super::ir::Shape;
use super::memory::Home;
use crate::conv::{Activation, Epilogue, PreparedConv};
use crate::layers::activation::{self, Function};
use crate::layers::avg_pool::{self, Divisor};
use crate::layers::batch_norm::Affine;
use crate::layers::bilinear::Bilinear2d;
use crate::layers::gather::Gather2d;
use crate::layers::max_pool;
use crate::layers::response_norm::ResponseNorm;
use crate::layers::softmax::{log_softmax_into, softmax_into};
use crate::layers::windows::Pool2d;
use crate::rows::{Rows, RowsMut, Tiling};

/// What a step computes.
#[derive(Debug)]
pub(super) enum Kernel {
    Layer(Arc<PreparedConv>, Activation),
    Affine(Affine, Activation),
    Map(Function),
    Add(Activation),
    MaxPool(Pool2d),
    AvgPool(Pool2d, Divisor),
    Gather(Box<Gather2d>),
    Bilinear(Box<Bilinear2d>),
    ResponseNorm(ResponseNorm),
    Flatten,
    Softmax { log: bool },
    Copy,
}

/// A range of columns of the rows of a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    pub home: Home,
    /// Whether the rows of all images are there, rather than those of one group.
    pub whole: bool,
    /// Rows of one image.
    pub pixels: usize,
    /// Columns.
    pub channels: usize,
    /// First column.
    pub column: usize,
    /// Length of a row of the value that holds it.
    pub stride: usize,
}

/// Images from `first` on, of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub first: usize,
    pub images: usize,
}

impl View {
    fn start(&self, group: Group) -> usize {
        let first = if self.whole { group.first } else { 0 };
        first * self.pixels * self.stride + self.column
    }

    pub(super) fn rows<'a>(&self, data: &'a [f32], group: Group) -> Rows<'a> {
        let count = group.images * self.pixels;
        Rows::new(&data[self.start(group)..], count, self.channels, self.stride)
    }

    pub(super) fn rows_mut<'a>(&self, data: &'a mut [f32], group: Group) -> RowsMut<'a> {
        let count = group.images * self.pixels;
        RowsMut::new(&mut data[self.start(group)..], count, self.channels, self.stride)
    }
}

/// A kernel, what it reads and writes, and what is said about it.
#[derive(Debug)]
pub(super) struct Step {
    pub kernel: Kernel,
    pub input: View,
    /// A residual, or the other operand of a sum.
    pub second: Option<View>,
    pub output: View,
    pub info: StepInfo,
}

/// What a plan tells about one of its steps.
#[derive(Debug, Clone, PartialEq)]
pub struct StepInfo {
    /// Name of the layer, as the caller gave it.
    pub name: String,
    /// Name of the operation.
    pub op: &'static str,
    /// Name of the algorithm, for layers with a choice of them.
    pub algorithm: String,
    /// What was drawn into the step: `flatten`, `batch_norm`, `add`, `relu`, `clamp`, and `concat`
    /// where it writes into a wider value.
    pub fused: Vec<&'static str>,
    /// Shape of the input, without the batch.
    pub in_shape: Shape,
    /// Shape of the output, without the batch.
    pub out_shape: Shape,
    /// Multiply-accumulate operations an image, of layers.
    pub macs: usize,
    /// Bytes of constants.
    pub weight_bytes: usize,
    /// Bytes of the output, an image.
    pub output_bytes: usize,
}

impl Kernel {
    /// Name of the algorithm, for layers with a choice of them.
    pub(super) fn algorithm(&self) -> String {
        match self {
            Kernel::Layer(layer, _) => layer.algorithm(),
            _ => String::new(),
        }
    }

    pub(super) fn macs(&self) -> usize {
        match self {
            Kernel::Layer(layer, _) => layer.geometry().macs(),
            _ => 0,
        }
    }

    pub(super) fn weight_bytes(&self) -> usize {
        match self {
            Kernel::Layer(layer, _) => layer.weight_bytes(),
            Kernel::Affine(map, _) => map.bytes(),
            _ => 0,
        }
    }

    /// Floats of scratch memory for a group of images.
    pub(super) fn scratch_len(&self, images: usize) -> usize {
        match self {
            Kernel::Layer(layer, _) => layer.scratch_len(images),
            _ => 0,
        }
    }

    /// Computes the output of a group of images.
    pub(super) fn run(
        &self,
        images: usize,
        input: Rows<'_>,
        second: Option<Rows<'_>>,
        output: RowsMut<'_>,
        scratch: &mut [f32],
    ) {
        match self {
            Kernel::Layer(layer, activation) => {
                let epilogue = Epilogue { residual: second, activation: *activation };
                let scratch = &mut scratch[..layer.scratch_len(images)];
                let inputs = layer.geometry().in_channels;
                // A fully connected layer takes the pixels of an image, which lie there without
                // gaps, as one row.
                let input = match input.channels() == inputs {
                    true => input,
                    false => Rows::new(input.as_slice(), images, inputs, inputs),
                };
                layer.run(images, input, output, epilogue, scratch);
            }
            Kernel::Affine(map, activation) => map.apply_into(*activation, input, output),
            Kernel::Map(function) => activation::apply_into(*function, input, output),
            Kernel::Add(activation) => {
                let second = second.expect("lowering gives a sum two operands");
                activation::add_into(*activation, input, second, output);
            }
            Kernel::MaxPool(pool) => max_pool::forward_into(pool, input, output),
            Kernel::AvgPool(pool, divisor) => {
                avg_pool::forward_into(pool, *divisor, input, output);
            }
            Kernel::Gather(gather) => gather.forward_into(input, output),
            Kernel::Bilinear(resize) => resize.forward_into(input, output),
            Kernel::ResponseNorm(norm) => norm.forward_into(input, output),
            Kernel::Flatten => flatten_into(images, input, output),
            Kernel::Softmax { log: false } => softmax_into(input, output),
            Kernel::Softmax { log: true } => log_softmax_into(input, output),
            Kernel::Copy => activation::copy_into(input, output),
        }
    }
}

/// Writes each image, (H * W, C), as one row in C, H, W order.
pub(super) fn flatten_into(images: usize, input: Rows<'_>, output: RowsMut<'_>) {
    let pixels = input.count() / images.max(1);
    if output.channels() == 0 {
        return;
    }
    // One task a channel and image: its H * W values are contiguous in the output.
    let tiling = Tiling { group: 1, rows: 1, channels: pixels };
    output.for_each_tile(tiling, |tile| {
        let (image, channel) = (tile.first_row, tile.first_channel / pixels);
        let mut rows = tile.rows;
        for (pixel, value) in rows.row_mut(0).iter_mut().enumerate() {
            *value = input.row(image * pixels + pixel)[channel];
        }
    });
}
