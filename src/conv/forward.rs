//! The forward pass of training: a layer prepared for one call.
//!
//! Weights change between the calls of training, so packing them is part of each call. That reads and
//! writes every weight once, which pays where each is then used for many pixels. Where there are few
//! (the last layers of a network, one image at a time) the input under each pixel is gathered
//! instead, and multiplied by the weights as they lie.

use std::ops::Range;

use super::columns::{gather, pixels_per_block};
use super::geometry::Conv2d;
use super::prepared::{Activation, Epilogue, Options, Precision, PreparedConv};
use crate::gemm::{MatRef, Storage, gemm};
use crate::memory::Scratch;
use crate::parallel;
use crate::rows::{Rows, RowsMut, Tiling};

/// Floats of scratch memory above which a batch is computed in parts: 32 MiB.
const SCRATCH: usize = 8 << 20;
/// Output pixels of a batch from which on it pays to pack the weights. Measured on layers of ResNet,
/// VGG and Inception, one thread and two: at 49 pixels packing costs up to 0.7 times the layer more
/// than it saves, at 200 to 400 nothing to an eighth, at 800 both are equal, beyond it saves up to an
/// eighth.
const MANY_PIXELS: usize = 512;

/// Convolution of a batch. `input` is `(N, H, W, C)`, `weight` `(kh, kw, C / groups, O)`, `bias`
/// `(O,)`; returns `(N, H_out, W_out, O)`.
pub fn forward(
    conv: &Conv2d,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    precision: Precision,
) -> Vec<f32> {
    let mut output = vec![0.0; conv.output_len()];
    let (pixels, out) = (conv.batch * conv.input.0 * conv.input.1, conv.out_channels);
    let input = Rows::new(input, pixels, conv.in_channels, conv.in_channels);
    let rows = RowsMut::new(&mut output, conv.output_pixels(), out, out);
    forward_into(conv, input, weight, bias, Epilogue::NONE, precision, rows);
    output
}

/// [`forward`] into memory of the caller's: a row for each pixel, with what `epilogue` asks for.
pub fn forward_into(
    conv: &Conv2d,
    input: Rows<'_>,
    weight: &[f32],
    bias: Option<&[f32]>,
    epilogue: Epilogue<'_>,
    precision: Precision,
    output: RowsMut<'_>,
) {
    let (read, written) = (input.count() * input.channels(), output.count() * output.channels());
    conv.assert_lengths(read, weight.len(), written);
    if written == 0 {
        return;
    }
    if conv.groups == 1 && conv.output_pixels() < MANY_PIXELS {
        multiply_columns(conv, input, weight, bias, epilogue, output);
    } else {
        run_prepared(conv, input, weight, bias, epilogue, precision, output);
    }
}

/// Prepares the layer and runs it.
fn run_prepared(
    conv: &Conv2d,
    input: Rows<'_>,
    weight: &[f32],
    bias: Option<&[f32]>,
    epilogue: Epilogue<'_>,
    precision: Precision,
    mut output: RowsMut<'_>,
) {
    parallel::assemble(|| {
        let options = Options { precision, storage: Storage::F32 };
        let layer = PreparedConv::new(conv, weight, bias, options);
        let (pixels, out_pixels) = (conv.input.0 * conv.input.1, conv.output.0 * conv.output.1);
        let images = (SCRATCH / layer.scratch_len(1).max(1)).clamp(1, conv.batch);
        let mut scratch = Scratch::new(layer.scratch_len(images));
        for first in (0..conv.batch).step_by(images) {
            let count = images.min(conv.batch - first);
            let (part, after) = output.split_rows(count * out_pixels);
            let epilogue = Epilogue {
                residual: epilogue.residual.map(|r| r.rows(first * out_pixels, part.count())),
                ..epilogue
            };
            let images = input.rows(first * pixels, count * pixels);
            layer.run(count, images, part, epilogue, &mut scratch);
            output = after;
        }
    });
}

/// Multiplies gathered blocks of pixels by the weights.
fn multiply_columns(
    conv: &Conv2d,
    input: Rows<'_>,
    weight: &[f32],
    bias: Option<&[f32]>,
    epilogue: Epilogue<'_>,
    output: RowsMut<'_>,
) {
    let (block, depth, width) = (pixels_per_block(conv), conv.depth(), conv.out_channels);
    let len = if conv.is_pointwise() { 0 } else { block * depth };
    parallel::assemble(|| {
        let mut scratch = Scratch::new(len * parallel::workers());
        output.for_each_tile_with(Tiling::rows(block), &mut scratch, len, |columns, mut tile| {
            let pixels = tile.first_row..tile.first_row + tile.rows.count();
            let lhs = if conv.is_pointwise() {
                // The input rows are the columns already.
                let rows = input.rows(pixels.start, pixels.len());
                MatRef::new(rows.as_slice(), rows.count(), depth, rows.stride())
            } else {
                gather(conv, 0, input, pixels.clone(), columns);
                MatRef::new(columns, pixels.len(), depth, depth)
            };
            let weight = MatRef::new(weight, depth, width, width);
            gemm(tile.rows.reborrow(), false, lhs, weight);
            finish(bias, epilogue, pixels, tile.rows);
        });
    });
}

/// Does to sums what is left to do.
fn finish(
    bias: Option<&[f32]>,
    epilogue: Epilogue<'_>,
    pixels: Range<usize>,
    mut rows: RowsMut<'_>,
) {
    for (index, pixel) in pixels.enumerate() {
        let row = rows.row_mut(index);
        let added = [bias, epilogue.residual.map(|residual| residual.row(pixel))];
        for added in added.into_iter().flatten() {
            row.iter_mut().zip(added).for_each(|(value, x)| *value += x);
        }
        if epilogue.activation != Activation::Identity {
            row.iter_mut().for_each(|value| *value = epilogue.activation.apply(*value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{self, cases, close, values};
    use super::*;

    const DIRECT: Precision = Precision::Direct;

    #[test]
    fn agrees_with_the_naive_sum() {
        for conv in cases() {
            let input = values(conv.input_len(), 1);
            let weight = values(conv.weight_len(), 2);
            let bias = values(conv.out_channels, 3);
            for bias in [None, Some(&bias[..])] {
                let expected = reference::forward(&conv, &input, &weight, bias);
                let got = forward(&conv, &input, &weight, bias, DIRECT);
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
                pool.unwrap().install(|| forward(&conv, &input, &weight, None, DIRECT))
            };
            let one = run(1);
            for threads in [2, 3, 8] {
                assert_eq!(one, run(threads), "{threads} threads, {conv:?}");
            }
        }
    }
}
