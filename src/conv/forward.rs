//! The forward pass of the eager interface: a layer prepared for one call.
//!
//! Weights change between the calls of training, so packing them is part of each call. That reads and
//! writes every weight once, which pays where each is then used for many pixels. Where there are few
//! (the last layers of a network, one image at a time) the input under each pixel is gathered
//! instead, and multiplied by the weights as they lie. Sums are direct in every precision: the
//! transforms of Winograd's weights would cost more than they save.

use rayon::prelude::*;

use super::columns::{gather, pixels_per_block};
use super::geometry::Conv2d;
use super::prepared::{Activation, Epilogue, Options, Precision, PreparedConv};
use crate::gemm::{MatMut, MatRef, Storage, gemm};
use crate::parallel;
use crate::rows::{Rows, RowsMut};

/// Floats of scratch memory above which a batch is computed in parts: 32 MiB.
const SCRATCH: usize = 8 << 20;
/// Output pixels of a batch from which on it pays to pack the weights. Measured on layers of ResNet,
/// VGG and Inception, one thread and two: at 49 pixels packing costs up to 0.7 times the layer more
/// than it saves, at 200 to 400 nothing to an eighth, at 800 both are equal, beyond it saves up to an
/// eighth.
const MANY_PIXELS: usize = 512;

/// Convolution of a batch. `input` is `(N, H, W, C)`, `weight` `(kh, kw, C / groups, O)`, `bias`
/// `(O,)`; returns `(N, H_out, W_out, O)`.
pub fn forward(conv: &Conv2d, input: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    conv.assert_lengths(input.len(), weight.len(), conv.output_len());
    let mut output = vec![0.0; conv.output_len()];
    if output.is_empty() {
        return output;
    }
    if conv.groups == 1 && conv.output_pixels() < MANY_PIXELS {
        multiply_columns(conv, input, weight, bias, &mut output);
    } else {
        run_prepared(conv, input, weight, bias, &mut output);
    }
    output
}

/// Prepares the layer and runs it.
fn run_prepared(
    conv: &Conv2d,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    output: &mut [f32],
) {
    let options = Options { precision: Precision::Direct, storage: Storage::F32 };
    let layer = PreparedConv::new(conv, weight, bias, options);
    let epilogue = Epilogue { residual: None, activation: Activation::Identity };
    let (pixels, channels) = (conv.input.0 * conv.input.1, conv.in_channels);
    let input = Rows::new(input, conv.batch * pixels, channels, channels);
    parallel::assemble(|| {
        let images = (SCRATCH / layer.scratch_len(1).max(1)).clamp(1, conv.batch);
        let mut scratch = vec![0.0; layer.scratch_len(images)];
        let mut rest = RowsMut::dense(output, conv.out_channels);
        for first in (0..conv.batch).step_by(images) {
            let count = images.min(conv.batch - first);
            let (part, after) = rest.split_rows(count * conv.output.0 * conv.output.1);
            let images = input.rows(first * pixels, count * pixels);
            layer.run(count, images, part, epilogue, &mut scratch);
            rest = after;
        }
    });
}

/// Multiplies gathered blocks of pixels by the weights.
fn multiply_columns(
    conv: &Conv2d,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    output: &mut [f32],
) {
    let block = pixels_per_block(conv);
    output.par_chunks_mut(block * conv.out_channels).enumerate().for_each_init(
        Vec::new,
        |columns, (index, out)| {
            let start = index * block;
            let pixels = start..start + out.len() / conv.out_channels;
            multiply_block(conv, input, weight, pixels, columns, out);
            if let Some(bias) = bias {
                for pixel in out.chunks_exact_mut(conv.out_channels) {
                    for (value, b) in pixel.iter_mut().zip(bias) {
                        *value += b;
                    }
                }
            }
        },
    );
}

/// `out = columns(pixels) * weight`.
fn multiply_block(
    conv: &Conv2d,
    input: &[f32],
    weight: &[f32],
    pixels: std::ops::Range<usize>,
    columns: &mut Vec<f32>,
    out: &mut [f32],
) {
    let (count, depth, width) = (pixels.len(), conv.depth(), conv.out_channels);
    let lhs = if conv.is_pointwise() {
        // The input rows are the columns already.
        let start = pixels.start * conv.in_channels;
        MatRef::new(&input[start..], count, depth, conv.in_channels)
    } else {
        columns.resize(count * depth, 0.0);
        gather(conv, 0, input, pixels, columns);
        MatRef::new(columns, count, depth, depth)
    };
    gemm(
        MatMut::new(out, count, width, width),
        false,
        lhs,
        MatRef::new(weight, depth, width, width),
    );
}

#[cfg(test)]
mod tests {
    use super::super::reference::{self, cases, close, values};
    use super::*;

    #[test]
    fn agrees_with_the_naive_sum() {
        for conv in cases() {
            let input = values(conv.input_len(), 1);
            let weight = values(conv.weight_len(), 2);
            let bias = values(conv.out_channels, 3);
            for bias in [None, Some(&bias[..])] {
                let expected = reference::forward(&conv, &input, &weight, bias);
                let got = forward(&conv, &input, &weight, bias);
                assert!(close(&got, &expected, 1e-5), "{conv:?}");
            }
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        for conv in cases() {
            let input = values(conv.input_len(), 1);
            let weight = values(conv.weight_len(), 2);
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                pool.unwrap().install(|| forward(&conv, &input, &weight, None))
            };
            let one = run(1);
            for threads in [2, 3, 8] {
                assert_eq!(one, run(threads), "{threads} threads, {conv:?}");
            }
        }
    }
}
