//! Gradient of the input.
//!
//! Written as a gather, so that tasks own disjoint input pixels and no sum is shared: input row `y`
//! received output row `i` through tap `u` where `y = i * stride + u * dilation - padding`. For a
//! stride above 1 only the taps with `(y + padding - u * dilation) % stride == 0` contribute, so
//! pixels are visited by residue ("phase") and each phase multiplies only its own taps:
//!
//! ```text
//! for each input row, for each phase of its columns:          (one task per block of rows)
//!     for each tap (u, v) of the phase:
//!         gradient pixels under the tap (gathered) * weight[u, v]^T   accumulated
//! ```

use rayon::prelude::*;

use super::backward_depthwise;
use super::geometry::Conv2d;
use crate::gemm::{MatMut, MatRef, gemm};

/// Gradient of the input from the gradient of the output, both channels-last.
pub fn backward_data(conv: &Conv2d, grad_output: &[f32], weight: &[f32]) -> Vec<f32> {
    conv.assert_lengths(conv.input_len(), weight.len(), grad_output.len());
    let mut grad_input = vec![0.0; conv.input_len()];
    if grad_input.is_empty() || grad_output.is_empty() {
        return grad_input;
    }
    if backward_depthwise::applies(conv) {
        return backward_depthwise::data(conv, grad_output, weight);
    }
    let row_len = conv.input.1 * conv.in_channels;
    // Rows of one phase lie `stride` apart; a task takes whole periods so that it owns them all.
    // A stride beyond the image has one phase a pixel.
    let phases = (conv.stride.0.min(conv.input.0), conv.stride.1.min(conv.input.1));
    let rows_per_task = (256 / conv.input.1).max(1).next_multiple_of(phases.0);
    let image_len = conv.input.0 * row_len;
    grad_input
        .par_chunks_mut(image_len)
        .enumerate()
        .flat_map(|(image, pixels)| {
            pixels
                .par_chunks_mut(rows_per_task * row_len)
                .enumerate()
                .map(move |(task, rows)| (image, task * rows_per_task, rows))
        })
        .for_each_init(Scratch::default, |scratch, (image, first_row, rows)| {
            for row_phase in 0..phases.0 {
                for col_phase in 0..phases.1 {
                    let block = Block {
                        conv,
                        image,
                        first_row,
                        rows: phase(rows.len() / row_len, row_phase, conv.stride.0),
                        cols: phase(conv.input.1, col_phase, conv.stride.1),
                    };
                    block.run(grad_output, weight, scratch, rows);
                }
            }
        });
    grad_input
}

/// Positions `start, start + stride, ...` below `len`.
fn phase(len: usize, start: usize, stride: usize) -> Vec<usize> {
    (start..len).step_by(stride).collect()
}

#[derive(Default)]
struct Scratch {
    gathered: Vec<f32>,
    product: Vec<f32>,
}

/// Input pixels of one task that share their residues modulo the stride.
struct Block<'a> {
    conv: &'a Conv2d,
    image: usize,
    first_row: usize,
    /// Rows relative to `first_row`.
    rows: Vec<usize>,
    cols: Vec<usize>,
}

impl Block<'_> {
    fn run(&self, grad_output: &[f32], weight: &[f32], scratch: &mut Scratch, target: &mut [f32]) {
        let conv = self.conv;
        let count = self.rows.len() * self.cols.len();
        if count == 0 {
            return;
        }
        let (group_in, group_out) = (conv.group_in(), conv.group_out());
        scratch.gathered.resize(count * conv.out_channels, 0.0);
        scratch.product.clear();
        scratch.product.resize(count * conv.in_channels, 0.0);
        for u in 0..conv.kernel.0 {
            for v in 0..conv.kernel.1 {
                if !self.gather(grad_output, (u, v), &mut scratch.gathered) {
                    continue;
                }
                let tap = (u * conv.kernel.1 + v) * group_in * conv.out_channels;
                for group in 0..conv.groups {
                    let (first_in, first_out) = (group * group_in, group * group_out);
                    gemm(
                        MatMut::new(
                            &mut scratch.product[first_in..],
                            count,
                            group_in,
                            conv.in_channels,
                        ),
                        true,
                        MatRef::new(
                            &scratch.gathered[first_out..],
                            count,
                            group_out,
                            conv.out_channels,
                        ),
                        MatRef::new(
                            &weight[tap + first_out..],
                            group_in,
                            group_out,
                            conv.out_channels,
                        )
                        .t(),
                    );
                }
            }
        }
        let pixels = self
            .rows
            .iter()
            .flat_map(|row| self.cols.iter().map(move |col| row * conv.input.1 + col));
        for (pixel, sum) in pixels.zip(scratch.product.chunks_exact(conv.in_channels)) {
            let at = pixel * conv.in_channels;
            target[at..at + conv.in_channels].copy_from_slice(sum);
        }
    }

    /// Copies the output gradient that reached each pixel of the block through tap `(u, v)`; false
    /// if none did.
    fn gather(&self, grad_output: &[f32], (u, v): (usize, usize), gathered: &mut [f32]) -> bool {
        let conv = self.conv;
        let (out_rows, out_cols) = conv.output;
        let out_row =
            |y: usize| source(y + conv.padding.top, u * conv.dilation.0, conv.stride.0, out_rows);
        let out_col =
            |x: usize| source(x + conv.padding.left, v * conv.dilation.1, conv.stride.1, out_cols);
        let mut any = false;
        let mut targets = gathered.chunks_exact_mut(conv.out_channels);
        for row in &self.rows {
            let i = out_row(self.first_row + row);
            for (&col, target) in self.cols.iter().zip(&mut targets) {
                match (i, out_col(col)) {
                    (Some(i), Some(j)) => {
                        let at = ((self.image * out_rows + i) * out_cols + j) * conv.out_channels;
                        target.copy_from_slice(&grad_output[at..at + conv.out_channels]);
                        any = true;
                    }
                    _ => target.fill(0.0),
                }
            }
        }
        any
    }
}

/// The output position that reads padded input position `padded` through a tap `offset` away.
fn source(padded: usize, offset: usize, stride: usize, outputs: usize) -> Option<usize> {
    let distance = padded.checked_sub(offset)?;
    let position = distance / stride;
    (distance.is_multiple_of(stride) && position < outputs).then_some(position)
}

#[cfg(test)]
mod tests {
    use super::super::reference::{self, cases, close, values};
    use super::*;

    #[test]
    fn agrees_with_the_naive_sum() {
        for conv in cases() {
            let grad = values(conv.output_len(), 1);
            let weight = values(conv.weight_len(), 2);
            let expected = reference::backward_data(&conv, &grad, &weight);
            let got = backward_data(&conv, &grad, &weight);
            assert!(close(&got, &expected, 1e-5), "{conv:?}");
        }
    }
}
