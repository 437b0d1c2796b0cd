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

use super::algorithm::Algorithm;
use super::backward_depthwise;
use super::geometry::{Axis, Conv2d, Padding};
use super::options::Precision;
use super::winograd::weight_gradient;
use crate::gemm::{MatRef, PackedRows, Pixels, add_product, multiply_once, transpose};
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
/// Weights of a 1 x 1 kernel whose sums make enough tasks without shares of the pixels.
const MANY_WEIGHTS: usize = 1 << 19;
/// Output channels of a group that fill a tile of the product.
const WIDE: usize = 32;
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
    precision: Precision,
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
        if let Algorithm::Winograd(size) = Algorithm::of_weight_gradient(conv, precision) {
            let (isa, factors) = (Isa::active(), (input, grad_output));
            // Infinity and NaN belong to some taps only, which direct sums tell.
            if weight_gradient(conv, size, isa, factors, grad_weight) {
                return;
            }
        }
        if conv.groups > 1 && conv.group_out() < WIDE {
            return of_merged_groups(conv, input, grad_output, grad_weight);
        }
        if conv.is_pointwise() && conv.groups == 1 && conv.weight_len() >= MANY_WEIGHTS {
            return of_pixels(conv, input, grad_output, grad_weight);
        }
        if conv.is_pointwise() && conv.groups == 1 && conv.out_channels > 2 * conv.in_channels {
            return turned(conv, input, grad_output, grad_weight);
        }
        if conv.in_channels < FEW_CHANNELS && conv.groups == 1 && conv.dilation.1 == 1 {
            let padded = pad(conv, input);
            Sum::of_kernel_rows(conv, &padded, grad_output).run(grad_weight);
        } else {
            Sum::of_taps(conv, input, grad_output).run(grad_weight);
        }
    });
}

/// The gradient of a 1 x 1 kernel of so many weights that there is a task for each block of them.
fn of_pixels(conv: &Conv2d, input: &[f32], grad_output: &[f32], grad_weight: &mut [f32]) {
    let (pixels, channels, out) = (conv.output_pixels(), conv.in_channels, conv.out_channels);
    let lhs = MatRef::new(input, pixels, channels, channels).t();
    let source = |pixel: usize, o: usize, mut rows: RowsMut<'_>| {
        let from = Rows::new(&grad_output[pixel * out + o..], rows.count(), rows.channels(), out);
        (0..rows.count()).for_each(|i| rows.row_mut(i).copy_from_slice(from.row(i)));
    };
    multiply_once(Isa::active(), lhs, &source, RowsMut::dense(grad_weight, out));
}

/// The gradient of a 1 x 1 kernel with many more output channels than input channels: the roles of
/// input and gradient exchanged, so that the smaller one is packed.
fn turned(conv: &Conv2d, input: &[f32], grad_output: &[f32], grad_weight: &mut [f32]) {
    let (channels, out) = (conv.in_channels, conv.out_channels);
    let exchanged = Conv2d { in_channels: out, out_channels: channels, ..*conv };
    let mut turned = Scratch::new(grad_weight.len());
    Sum::of_taps(&exchanged, grad_output, input).run(&mut turned);
    let tiling = Tiling { group: usize::MAX, rows: CHANNELS, channels: CHANNELS };
    RowsMut::dense(grad_weight, out).for_each_tile(tiling, |tile| {
        let from = Rows::dense(&turned, channels);
        let from = from.rows(tile.first_channel, tile.rows.channels());
        let from = from.columns(tile.first_row, tile.rows.count());
        transpose(Isa::active(), from, tile.rows);
    });
}

/// The gradient of a convolution of few channels a group, as that of one of fewer and wider groups:
/// products of channels that do not belong together are dropped, but tiles are filled.
fn of_merged_groups(conv: &Conv2d, input: &[f32], grad_output: &[f32], grad_weight: &mut [f32]) {
    let (group_in, group_out) = (conv.group_in(), conv.group_out());
    let fitting = |m: &usize| conv.groups.is_multiple_of(*m) && m * group_out <= WIDE;
    let merged = (1..=conv.groups).rev().find(fitting).unwrap_or(1);
    let wider = Conv2d { groups: conv.groups / merged, ..*conv };
    let mut sums = Scratch::new(wider.weight_len());
    Sum::of_taps(&wider, input, grad_output).run(&mut sums);
    let out = conv.out_channels;
    for (index, row) in grad_weight.chunks_exact_mut(out).enumerate() {
        let (tap, c) = (index / group_in, index % group_in);
        for (group, to) in row.chunks_exact_mut(group_out).enumerate() {
            let from = tap * wider.group_in() + group % merged * group_in + c;
            to.copy_from_slice(&sums[from * out + group * group_out..][..group_out]);
        }
    }
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

    #[test]
    fn fewer_multiplications_agree_with_the_naive_sum() {
        let one = Padding::symmetric(1, 1);
        for (x, out) in [((2, 29, 30, 64), 48), ((3, 17, 18, 33), 70)] {
            let conv = Conv2d::new(x, (3, 3, x.3, out), (1, 1), one, (1, 1), 1).unwrap();
            let fast = Algorithm::of_weight_gradient(&conv, Precision::Winograd);
            assert!(matches!(fast, Algorithm::Winograd(_)), "{conv:?}");
            let mut input = values(conv.input_len(), 1);
            let grad = values(conv.output_len(), 2);
            let (expected, _) = reference::backward_weight(&conv, &input, &grad);
            let got = backward_weight(&conv, &input, &grad, Precision::Winograd);
            assert!(close(&got, &expected, 5e-5), "{conv:?}");
            // In a corner only some taps see it.
            input[0] = f32::INFINITY;
            let (expected, _) = reference::backward_weight(&conv, &input, &grad);
            let got = backward_weight(&conv, &input, &grad, Precision::Winograd);
            assert!(got.iter().any(|x| x.is_finite()));
            assert!(got.iter().zip(&expected).all(|(a, b)| a.is_finite() == b.is_finite()));
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
            // More output channels than twice the input's; groups merged, some and all of them.
            conv((2, 41, 43, 9), (1, 1, 9, 140), 1, 0, 1),
            conv((1, 12, 9, 700), (1, 1, 700, 800), 1, 0, 1),
            conv((2, 21, 20, 36), (3, 3, 3, 60), 1, 1, 12),
            conv((1, 21, 20, 20), (3, 3, 4, 20), 2, 1, 5),
            conv((1, 11, 10, 70), (3, 3, 35, 70), 1, 1, 2),
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
