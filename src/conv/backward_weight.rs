//! Gradients of the weights and the bias.
//!
//! The weight gradient is a sum over all output pixels of the batch: for each tap of the kernel, the
//! input pixels under the tap, transposed, times the gradient of the output. Both are read where they
//! lie (see [`add_product`]); what a tap sees of the padding is left out of its sum:
//!
//! ```text
//! for each share of the pixels, for each block of output channels:     (one task, or one a kernel row)
//!     for each block of pixels (whole output lines):
//!         pack the gradient of the output
//!         for each tap:  grad_weight[tap] += input under the tap' * gradient
//! ```
//!
//! With so few channels that they do not fill a tile, as in first layers, the taps of a kernel row are
//! taken together: they are neighbours in a padded copy of the input.
//!
//! Shares have sums of their own, which are added in their order. Their number follows from the
//! geometry, so no bit depends on the number of threads.

use super::backward_depthwise;
use super::geometry::{Axis, Conv2d, Padding};
use super::prepared::Precision;
use crate::gemm::{PackedRows, Pixels, add_product};
use crate::isa::Isa;
use crate::memory::Scratch;
use crate::parallel;
use crate::rows::{Rows, RowsMut, Tile, Tiling};

/// Output pixels in a block, and terms of a sum before it is added to those before: a compromise
/// between rounding and how often the sums pass through memory.
const PIXELS: usize = 512;
/// Output channels in a block: packed, it takes 256 KiB.
const CHANNELS: usize = 128;
/// Tasks wanted, so that a few threads finish at about the same time.
const TASKS: usize = 16;
/// Floats of the sums of all shares together: 4 MiB.
const SHARES: usize = 1 << 20;
/// Fewer channels than this are taken together with those of the neighbouring taps.
const FEW_CHANNELS: usize = 8;

/// Gradient of the weights, `(kh, kw, C / groups, O)`.
pub fn backward_weight(
    conv: &Conv2d,
    input: &[f32],
    grad_output: &[f32],
    precision: Precision,
) -> Vec<f32> {
    let mut grad_weight = vec![0.0; conv.weight_len()];
    backward_weight_into(conv, input, grad_output, precision, &mut grad_weight);
    grad_weight
}

/// [`backward_weight`] into memory of the caller's, all of which is written.
pub fn backward_weight_into(
    conv: &Conv2d,
    input: &[f32],
    grad_output: &[f32],
    _precision: Precision,
    grad_weight: &mut [f32],
) {
    conv.assert_lengths(input.len(), grad_weight.len(), grad_output.len());
    if grad_weight.is_empty() || grad_output.is_empty() {
        return grad_weight.fill(0.0);
    }
    parallel::assemble(|| {
        if backward_depthwise::applies(conv) {
            return backward_depthwise::weight(conv, input, grad_output, grad_weight);
        }
        if conv.in_channels < FEW_CHANNELS && conv.groups == 1 && conv.dilation.1 == 1 {
            let padded = pad(conv, input);
            Sum::of_kernel_rows(conv, &padded, grad_output).run(grad_weight);
        } else {
            Sum::of_taps(conv, input, grad_output).run(grad_weight);
        }
    });
}

/// The images with their padding, dense.
fn pad(conv: &Conv2d, input: &[f32]) -> Scratch {
    let Padding { top, left, .. } = conv.padding;
    let (height, width) = padded_size(conv);
    let (line, padded_line) = (conv.input.1 * conv.in_channels, width * conv.in_channels);
    let mut padded = Scratch::new(conv.batch * height * padded_line);
    parallel::for_each_chunk(&mut padded, height * padded_line, |image, to| {
        to.fill(0.0);
        let image = &input[image * conv.input.0 * line..][..conv.input.0 * line];
        for (from, to) in image.chunks(line.max(1)).zip(to.chunks_mut(padded_line).skip(top)) {
            to[left * conv.in_channels..][..line].copy_from_slice(from);
        }
    });
    padded
}

fn padded_size(conv: &Conv2d) -> (usize, usize) {
    let Padding { top, bottom, left, right } = conv.padding;
    (conv.input.0 + top + bottom, conv.input.1 + left + right)
}

/// A sum over all output pixels.
struct Sum<'a> {
    conv: &'a Conv2d,
    /// The images, with or without padding.
    data: &'a [f32],
    /// Rows and columns of an image in `data`.
    size: (usize, usize),
    /// Zeros above and to the left of it that are not in `data`.
    missing: (usize, usize),
    /// Kernel columns that are summed one by one.
    kernel_columns: usize,
    /// Rows of the gradient that one of them has.
    height: usize,
    grad_output: &'a [f32],
}

impl<'a> Sum<'a> {
    /// A product for every tap, over the pixels that it sees.
    fn of_taps(conv: &'a Conv2d, input: &'a [f32], grad_output: &'a [f32]) -> Self {
        Sum {
            conv,
            data: input,
            size: conv.input,
            missing: (conv.padding.top, conv.padding.left),
            kernel_columns: conv.kernel.1,
            height: conv.group_in(),
            grad_output,
        }
    }

    /// A product for every kernel row.
    fn of_kernel_rows(conv: &'a Conv2d, padded: &'a [f32], grad_output: &'a [f32]) -> Self {
        Sum {
            conv,
            data: padded,
            size: padded_size(conv),
            missing: (0, 0),
            kernel_columns: 1,
            height: conv.kernel.1 * conv.in_channels,
            grad_output,
        }
    }

    /// The sum, into `grad_weight`.
    fn run(&self, grad_weight: &mut [f32]) {
        let conv = self.conv;
        let pixels = conv.output_pixels();
        let channels = match conv.groups {
            1 => CHANNELS.min(conv.out_channels),
            // A block lies inside one group.
            _ => conv.group_out(),
        };
        let across = conv.out_channels.div_ceil(channels);
        // As many shares as make enough tasks, if their sums are small beside what is summed up.
        let most = (SHARES / conv.weight_len()).min(pixels / (2 * PIXELS)).max(1);
        let shares = TASKS.div_ceil(across).min(most);
        let rows = match shares * across >= TASKS {
            true => conv.depth(),
            false => self.kernel_columns * self.height,
        };
        let unit = if conv.is_pointwise() { 1 } else { conv.output.1 };
        let share = (pixels / unit).div_ceil(shares) * unit;
        let block = (PIXELS / unit).max(1) * unit;
        let isa = Isa::active();
        let scratch_len = PackedRows::len(isa, block.min(share), channels);

        let mut scratch = Scratch::new(scratch_len * parallel::workers());
        let sum_up = |sums: &mut [f32], scratch: &mut [f32]| {
            let tiling = Tiling { group: conv.depth(), rows, channels };
            let sums = RowsMut::dense(sums, conv.out_channels);
            sums.for_each_tile_with(tiling, scratch, scratch_len, |buffer, mut tile| {
                (0..tile.rows.count()).for_each(|row| tile.rows.row_mut(row).fill(0.0));
                let first = tile.first_row / conv.depth() * share;
                for start in (first..pixels.min(first + share)).step_by(block) {
                    let end = (start + block).min(first + share).min(pixels);
                    self.add_block(isa, start..end, buffer, &mut tile);
                }
            });
        };
        if shares == 1 {
            return sum_up(grad_weight, &mut scratch);
        }
        let mut sums = Scratch::new(shares * conv.weight_len());
        sum_up(&mut sums, &mut scratch);
        add_up(&sums, grad_weight);
    }

    /// Adds a block of pixels to the part of the sum that a tile holds.
    fn add_block(
        &self,
        isa: Isa,
        pixels: std::ops::Range<usize>,
        buffer: &mut [f32],
        tile: &mut Tile<'_>,
    ) {
        let conv = self.conv;
        let out = conv.out_channels;
        let grad = &self.grad_output[pixels.start * out..pixels.end * out];
        let grad = Rows::dense(grad, out).columns(tile.first_channel, tile.rows.channels());
        let packed = PackedRows::pack(isa, grad, buffer);
        let group = tile.first_channel / conv.group_out();
        let first = tile.first_row % conv.depth() / self.height;
        for index in 0..tile.rows.count() / self.height {
            let tap =
                ((first + index) / self.kernel_columns, (first + index) % self.kernel_columns);
            let (lines, rows, count) = self.lines(pixels.clone(), tap);
            let seen = Pixels {
                data: &self.data[(group * conv.group_in()).min(self.data.len())..],
                rows: self.height,
                step: conv.stride.1 * conv.in_channels,
                count,
                lines: &lines,
                unit: conv.in_channels,
            };
            let (_, rest) = tile.rows.reborrow().split_rows(index * self.height);
            add_product(&seen, &packed, &rows, rest.split_rows(self.height).0);
        }
    }

    /// What tap `(u, v)` sees of some output pixels: where each line begins, in pixels of the image;
    /// the first of the block's pixels that it belongs to; and the length of all lines.
    fn lines(
        &self,
        pixels: std::ops::Range<usize>,
        (u, v): (usize, usize),
    ) -> (Vec<usize>, Vec<usize>, usize) {
        let conv = self.conv;
        if conv.is_pointwise() {
            return (vec![pixels.start], vec![0], pixels.len());
        }
        let width = conv.output.1;
        let columns = self.seen(Axis::Cols, v);
        let rows = self.seen(Axis::Rows, u);
        let (mut lines, mut firsts) = (Vec::new(), Vec::new());
        for line in pixels.start / width..pixels.end / width {
            let (image, i) = (line / conv.output.0, line % conv.output.0);
            if rows.contains(&i) && !columns.is_empty() {
                let y = i * conv.stride.0 + u * conv.dilation.0 - self.missing.0;
                let x = columns.start * conv.stride.1 + v * conv.dilation.1 - self.missing.1;
                lines.push((image * self.size.0 + y) * self.size.1 + x);
                firsts.push(line * width - pixels.start + columns.start);
            }
        }
        (lines, firsts, columns.len())
    }

    /// Output rows (or columns) whose tap lies in `data`.
    fn seen(&self, axis: Axis, tap: usize) -> std::ops::Range<usize> {
        let conv = self.conv;
        let (stride, dilation, missing, size, outputs) = match axis {
            Axis::Rows => {
                (conv.stride.0, conv.dilation.0, self.missing.0, self.size.0, conv.output.0)
            }
            Axis::Cols => {
                (conv.stride.1, conv.dilation.1, self.missing.1, self.size.1, conv.output.1)
            }
        };
        let from = |end: usize| end.saturating_sub(tap * dilation).div_ceil(stride).min(outputs);
        from(missing)..from(missing + size)
    }
}

/// The sum of the parts that `sums` is made of, each as long as `total`.
fn add_up(sums: &[f32], total: &mut [f32]) {
    const CHUNK: usize = 16 * 1024;
    let len = total.len();
    parallel::for_each_chunk(total, CHUNK, |index, total| {
        let count = total.len();
        let parts = sums.chunks(len).map(|part| &part[index * CHUNK..][..count]);
        for (number, part) in parts.enumerate() {
            match number {
                0 => total.copy_from_slice(part),
                _ => total.iter_mut().zip(part).for_each(|(t, p)| *t += p),
            }
        }
    });
}

/// Gradient of the bias, `(O,)`: the sum of `grad_output` over all pixels, in float64.
pub fn backward_bias(out_channels: usize, grad_output: &[f32]) -> Vec<f32> {
    // Shares of a fixed length, whose sums are added in their order.
    const SHARE: usize = 4096;
    if out_channels == 0 {
        return Vec::new();
    }
    let shares = grad_output.len().div_ceil(SHARE * out_channels);
    let mut sums = vec![0.0_f64; shares.max(1) * out_channels];
    parallel::assemble(|| {
        parallel::for_each_chunk(&mut sums, out_channels, |index, sums| {
            let rest = &grad_output[index * SHARE * out_channels..];
            for pixel in rest.chunks_exact(out_channels).take(SHARE) {
                for (sum, &g) in sums.iter_mut().zip(pixel) {
                    *sum += f64::from(g);
                }
            }
        });
    });
    let total = |o: usize| sums[o..].iter().step_by(out_channels).sum::<f64>() as f32;
    (0..out_channels).map(total).collect()
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
            let grad = values(conv.output_len(), 2);
            let (weight, bias) = reference::backward_weight(&conv, &input, &grad);
            assert!(
                close(&backward_weight(&conv, &input, &grad, DIRECT), &weight, 1e-5),
                "{conv:?}"
            );
            assert!(close(&backward_bias(conv.out_channels, &grad), &bias, 1e-5), "{conv:?}");
        }
    }

    /// Many pixels: several shares and blocks, which end inside an image and at a ragged end; taps one
    /// by one, kernel rows at once, pixels without lines, groups.
    fn many_pixels() -> Vec<Conv2d> {
        let conv = |x, w, stride, by, groups| {
            Conv2d::new(x, w, (stride, stride), Padding::symmetric(by, by), (1, 1), groups).unwrap()
        };
        vec![
            conv((3, 40, 41, 9), (3, 3, 9, 20), 1, 1, 1),
            conv((2, 97, 96, 3), (7, 7, 3, 17), 2, 3, 1),
            conv((3, 41, 43, 16), (1, 1, 16, 140), 1, 0, 1),
            conv((2, 50, 47, 12), (3, 3, 6, 8), 1, 1, 2),
        ]
    }

    #[test]
    fn shares_of_many_pixels_add_up_to_the_naive_sum() {
        for conv in many_pixels() {
            let input = values(conv.input_len(), 1);
            let grad = values(conv.output_len(), 2);
            let (weight, bias) = reference::backward_weight(&conv, &input, &grad);
            assert!(
                close(&backward_weight(&conv, &input, &grad, DIRECT), &weight, 1e-5),
                "{conv:?}"
            );
            assert!(close(&backward_bias(conv.out_channels, &grad), &bias, 1e-5), "{conv:?}");
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        for conv in many_pixels() {
            let input = values(conv.input_len(), 1);
            let grad = values(conv.output_len(), 2);
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                pool.unwrap().install(|| {
                    (
                        backward_weight(&conv, &input, &grad, DIRECT),
                        backward_bias(conv.out_channels, &grad),
                    )
                })
            };
            let one = run(1);
            for threads in [2, 3, 8] {
                assert!(one == run(threads), "{threads} threads, {conv:?}");
            }
        }
    }
}
