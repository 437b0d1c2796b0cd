//! The forward pass of training: a layer prepared for one call.
//!
//! Weights change between the calls of training, so packing them is part of each call. That writes
//! every weight to memory once, which pays where each is then used for many pixels. Where there are
//! few (the last layers of a network, one image at a time, and fully connected ones) the input under
//! each pixel is gathered instead, and the weights are packed a block at a time, which never leaves
//! the cache.

use std::ops::Range;

use super::columns::gather;
use super::epilogue::{Activation, Epilogue};
use super::geometry::Conv2d;
use super::options::Precision;
use super::prepared::{PreparedConv, in_order};
use crate::gemm::{MatRef, Source, multiply_once};
use crate::isa::Isa;
use crate::memory::Scratch;
use crate::parallel;
use crate::rows::{Rows, RowsMut, Tiling, roomy_stride};

/// Floats of scratch memory above which a batch is computed in parts: 32 MiB.
const SCRATCH: usize = 8 << 20;
/// Floats of the weights of a pointwise layer from which on they are packed block by block: as a
/// whole they would not fit the last-level cache.
const LARGE: usize = 4 << 20;
/// Pixels that one task gathers.
const GATHERED: usize = 16;
/// Output pixels of a batch from which on the weights are packed as a whole.
const MANY_PIXELS: usize = 128;

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
    let source = in_order(conv, weight);
    forward_from(conv, input, (weight, &source), bias, epilogue, precision, output);
}

/// [`forward_into`] with weights whose elements `source` gives, in whatever order they lie.
pub(super) fn forward_from(
    conv: &Conv2d,
    input: Rows<'_>,
    (weight, source): (&[f32], &Source<'_>),
    bias: Option<&[f32]>,
    epilogue: Epilogue<'_>,
    precision: Precision,
    output: RowsMut<'_>,
) {
    let few = conv.output_pixels() < MANY_PIXELS;
    let large = conv.is_pointwise() && conv.weight_len() > LARGE;
    parallel::assemble(|| match conv.groups == 1 && (few || large) {
        true => multiply_columns(conv, input, source, bias, epilogue, output),
        false => run_prepared(conv, input, (weight, source), bias, epilogue, precision, output),
    });
}

/// Prepares the layer and runs it.
fn run_prepared(
    conv: &Conv2d,
    input: Rows<'_>,
    (weight, source): (&[f32], &Source<'_>),
    bias: Option<&[f32]>,
    epilogue: Epilogue<'_>,
    precision: Precision,
    mut output: RowsMut<'_>,
) {
    let layer = PreparedConv::for_one_call(conv, weight, source, bias, precision);
    let (pixels, out_pixels) = (conv.input.0 * conv.input.1, conv.output.0 * conv.output.1);
    let images = (SCRATCH / layer.scratch_len(1).max(1)).clamp(1, conv.batch);
    // Fewer images, those of the last part, may ask for more: they may be transformed as a whole.
    let last = conv.batch % images;
    let mut scratch = Scratch::new(layer.scratch_len(images).max(layer.scratch_len(last)));
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
}

/// Multiplies pixels, or the input gathered under each, by the weights.
fn multiply_columns(
    conv: &Conv2d,
    input: Rows<'_>,
    source: &Source<'_>,
    bias: Option<&[f32]>,
    epilogue: Epilogue<'_>,
    mut output: RowsMut<'_>,
) {
    let (isa, depth, pixels) = (Isa::active(), conv.depth(), conv.output_pixels());
    if conv.is_pointwise() {
        let lhs = MatRef::new(input.as_slice(), pixels, depth, input.stride());
        multiply_once(isa, lhs, source, output.reborrow());
    } else {
        let stride = roomy_stride(depth);
        let mut columns = Scratch::new(pixels * stride);
        RowsMut::new(&mut columns, pixels, depth, stride).for_each_tile(Tiling::rows(GATHERED), {
            |tile| {
                let pixels = tile.first_row..tile.first_row + tile.rows.count();
                gather(conv, input, pixels, tile.rows);
            }
        });
        let lhs = MatRef::new(&columns, pixels, depth, stride);
        multiply_once(isa, lhs, source, output.reborrow());
    }
    if bias.is_none() && epilogue.residual.is_none() && epilogue.activation == Activation::Identity
    {
        return;
    }
    output.for_each_tile(Tiling::rows(GATHERED), |tile| {
        let pixels = tile.first_row..tile.first_row + tile.rows.count();
        finish(bias, epilogue, pixels, tile.rows);
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
    use super::super::reference::{self, cases, close, values, winograd_cases};
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
    fn epilogues_and_gaps_in_either_precision_with_any_number_of_threads() {
        for conv in cases().into_iter().chain(winograd_cases()) {
            let (out, channels) = (conv.out_channels, conv.in_channels);
            let weight = values(conv.weight_len(), 2);
            let bias = values(out, 3);
            // Rows with gaps around the input, the residual and the output.
            let (pixels, results) =
                (conv.batch * conv.input.0 * conv.input.1, conv.output_pixels());
            let spread = values(pixels * (channels + 3), 1);
            let dense = |stride: usize| {
                spread.chunks_exact(stride).flat_map(|row| row[..channels].to_vec()).collect()
            };
            let input: Vec<f32> = dense(channels + 3);
            let residual = values(results * (out + 1), 4);
            let mut expected = reference::forward(&conv, &input, &weight, Some(&bias));
            for (index, value) in expected.iter_mut().enumerate() {
                *value = (*value + residual[index / out * (out + 1) + index % out]).max(0.0);
            }
            for precision in [Precision::Direct, Precision::Winograd] {
                let run = |threads| {
                    let mut output = vec![f32::NAN; results * (out + 2)];
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                    pool.unwrap().install(|| {
                        let input = Rows::new(&spread, pixels, channels, channels + 3);
                        let residual = Some(Rows::new(&residual, results, out, out + 1));
                        let epilogue = Epilogue { residual, activation: Activation::Relu };
                        let rows = RowsMut::new(&mut output, results, out, out + 2);
                        forward_into(&conv, input, &weight, Some(&bias), epilogue, precision, rows);
                    });
                    assert!(
                        output.chunks(out + 2).all(|row| row[out..].iter().all(|x| x.is_nan()))
                    );
                    let rows = output.chunks(out + 2);
                    rows.flat_map(|row| row[..out].to_vec()).collect::<Vec<f32>>()
                };
                let one = run(1);
                assert!(close(&one, &expected, 5e-5), "{precision:?} {conv:?}");
                for threads in [2, 3, 8] {
                    assert_eq!(one, run(threads), "{threads} threads, {precision:?} {conv:?}");
                }
            }
        }
    }
}
