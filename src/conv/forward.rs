//! The forward pass: gather a block of columns, multiply by the weights, add the bias.

use rayon::prelude::*;

use super::columns::{gather, pixels_per_block};
use super::geometry::Conv2d;
use crate::gemm::{MatMut, MatRef, gemm};

/// Convolution of a batch. `input` is `(N, H, W, C)`, `weight` `(kh, kw, C / groups, O)`, `bias`
/// `(O,)`; returns `(N, H_out, W_out, O)`.
pub fn forward(conv: &Conv2d, input: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    conv.assert_lengths(input.len(), weight.len(), conv.output_len());
    let mut output = vec![0.0; conv.output_len()];
    if output.is_empty() {
        return output;
    }
    let block = pixels_per_block(conv);
    output.par_chunks_mut(block * conv.out_channels).enumerate().for_each_init(
        Vec::new,
        |columns, (index, out)| {
            let start = index * block;
            let pixels = start..start + out.len() / conv.out_channels;
            for group in 0..conv.groups {
                multiply_block(conv, group, input, weight, pixels.clone(), columns, out);
            }
            if let Some(bias) = bias {
                for pixel in out.chunks_exact_mut(conv.out_channels) {
                    for (value, b) in pixel.iter_mut().zip(bias) {
                        *value += b;
                    }
                }
            }
        },
    );
    output
}

/// `out[:, group] = columns(pixels) * weight[:, group]`.
fn multiply_block(
    conv: &Conv2d,
    group: usize,
    input: &[f32],
    weight: &[f32],
    pixels: std::ops::Range<usize>,
    columns: &mut Vec<f32>,
    out: &mut [f32],
) {
    let (count, depth, group_out) = (pixels.len(), conv.depth(), conv.group_out());
    let lhs = if conv.is_pointwise() {
        // The input rows are the columns already.
        let start = pixels.start * conv.in_channels + group * conv.group_in();
        MatRef::new(&input[start..], count, depth, conv.in_channels)
    } else {
        columns.resize(count * depth, 0.0);
        gather(conv, group, input, pixels, columns);
        MatRef::new(columns, count, depth, depth)
    };
    let first = group * group_out;
    gemm(
        MatMut::new(&mut out[first..], count, group_out, conv.out_channels),
        false,
        lhs,
        MatRef::new(&weight[first..], depth, group_out, conv.out_channels),
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
