//! Deformable convolution: the part that differs from an ordinary one.
//!
//! Every tap of every output pixel reads where an offset moves it to, between pixels, and may weigh
//! what it reads by a mask. Once that is gathered, a row of `groups x kh * kw x C / groups` numbers
//! for each output pixel, what remains is a pointwise convolution with the weights as they are, and
//! its gradients. So this file holds the gathering and its gradient:
//!
//! ```text
//! column[p][group][tap][c] = mask[p][tap] * bilinear(input[.., c], position of tap + offset[p][tap])
//! ```
//!
//! Channels are cut into offset groups (which need not be those of the weights), each with offsets
//! and masks of its own. What lies outside the image counts as zero, as padding does.
//!
//! The gradient of offsets and mask is a sum over channels for each output pixel and tap, and
//! parallel over pixels. That of the input scatters, so a task owns an image and a block of its
//! channels and goes through all pixels in order.

use super::geometry::Conv2d;
use crate::isa::vectorize;
use crate::parallel;
use crate::rows::{RowsMut, Tiling};
use crate::{Error, Result};

/// Channels of a task of the input's gradient.
const BLOCK: usize = 64;

/// A deformable convolution: its geometry, and how many offset groups there are.
#[derive(Debug, Clone, Copy)]
pub struct Deformable {
    conv: Conv2d,
    offset_groups: usize,
}

/// A pixel of the image, and its share in a sample.
#[derive(Clone, Copy)]
struct Corner {
    pixel: usize,
    weight: f32,
    /// Derivatives of the weight by the position.
    slope: (f32, f32),
}

/// Where a sample reads.
struct Sample {
    corners: [Corner; 4],
    count: usize,
}

impl Sample {
    fn corners(&self) -> &[Corner] {
        &self.corners[..self.count]
    }
}

impl Deformable {
    /// Checks the offset groups and the shapes of `offset` (N, H_out, W_out, 2 * groups * kh * kw)
    /// and `mask` (N, H_out, W_out, groups * kh * kw).
    pub fn new(
        conv: Conv2d,
        offset_groups: usize,
        offset: (usize, usize, usize, usize),
        mask: Option<(usize, usize, usize, usize)>,
    ) -> Result<Self> {
        if offset_groups == 0 || !conv.in_channels.is_multiple_of(offset_groups) {
            let expected = format!("offset groups that divide {} channels", conv.in_channels);
            return Err(Error::shape("offset", expected, offset_groups.to_string()));
        }
        let taps = offset_groups * conv.kernel.0 * conv.kernel.1;
        for (argument, depth, got) in [("offset", 2 * taps, Some(offset)), ("mask", taps, mask)] {
            let expected = (conv.batch, conv.output.0, conv.output.1, depth);
            if let Some(got) = got.filter(|&got| got != expected) {
                // As the Python caller sees them.
                let [expected, got] = [expected, got].map(|(n, h, w, c)| (n, c, h, w));
                let expected = format!("shape {expected:?} (N, channels, H_out, W_out)");
                return Err(Error::shape(argument, expected, format!("{got:?}")));
            }
        }
        Ok(Deformable { conv, offset_groups })
    }

    fn taps(&self) -> usize {
        self.conv.kernel.0 * self.conv.kernel.1
    }

    /// Numbers in a row of columns.
    pub fn depth(&self) -> usize {
        self.taps() * self.conv.in_channels
    }

    /// Numbers in all columns.
    pub fn columns_len(&self) -> usize {
        self.conv.output_pixels() * self.depth()
    }

    /// Where tap `tap` of output pixel `pixel` reads, in the image's own pixels. Positions that are
    /// not finite read nothing.
    #[inline(always)]
    fn sample(&self, pixel: usize, tap: usize, offset: &[f32]) -> Sample {
        let Conv2d { input: (height, width), kernel, stride, padding, dilation, .. } = self.conv;
        let (_, out_row, out_col) = self.conv.output_position(pixel);
        let place = |out: usize, stride: usize, before: usize, tap: usize, dilation: usize| {
            ((out * stride) as i64 - before as i64 + (tap * dilation) as i64) as f32
        };
        let y = place(out_row, stride.0, padding.top, tap / kernel.1, dilation.0) + offset[0];
        let x = place(out_col, stride.1, padding.left, tap % kernel.1, dilation.1) + offset[1];
        let nowhere = Corner { pixel: 0, weight: 0.0, slope: (0.0, 0.0) };
        let mut sample = Sample { corners: [nowhere; 4], count: 0 };
        // At -1 exactly nothing is read, but a step inwards would: the slopes are those of the step.
        if !(y >= -1.0 && x >= -1.0 && y < height as f32 && x < width as f32) {
            return sample;
        }
        let (top, left) = (y.floor(), x.floor());
        let (down, right) = (y - top, x - left);
        for (row, share_y, slope_y) in [(top, 1.0 - down, -1.0), (top + 1.0, down, 1.0)] {
            for (col, share_x, slope_x) in [(left, 1.0 - right, -1.0), (left + 1.0, right, 1.0)] {
                if row >= 0.0 && col >= 0.0 && row < height as f32 && col < width as f32 {
                    sample.corners[sample.count] = Corner {
                        pixel: row as usize * width + col as usize,
                        weight: share_y * share_x,
                        slope: (slope_y * share_x, slope_x * share_y),
                    };
                    sample.count += 1;
                }
            }
        }
        sample
    }

    /// Calls `visit(offset group, tap, sample, mask)` for every sample of an output pixel.
    #[inline(always)]
    fn each_sample(
        &self,
        pixel: usize,
        offset: &[f32],
        mask: Option<&[f32]>,
        mut visit: impl FnMut(usize, usize, &Sample, f32),
    ) {
        let taps = self.taps();
        for group in 0..self.offset_groups {
            for tap in 0..taps {
                let at = (pixel * self.offset_groups + group) * taps + tap;
                let sample = self.sample(pixel, tap, &offset[2 * at..2 * at + 2]);
                visit(group, tap, &sample, mask.map_or(1.0, |mask| mask[at]));
            }
        }
    }

    /// Calls `visit(first channel, place in a row of columns, channels)` for the runs of channels
    /// from `from` to `to` that lie together under a tap.
    #[inline(always)]
    fn each_run(
        &self,
        tap: usize,
        from: usize,
        to: usize,
        mut visit: impl FnMut(usize, usize, usize),
    ) {
        let (own, mut channel) = (self.conv.group_in(), from);
        while channel < to {
            let group = channel / own;
            let end = to.min((group + 1) * own);
            let place = (group * self.taps() + tap) * own + channel - group * own;
            visit(channel, place, end - channel);
            channel = end;
        }
    }

    fn image<'a>(&self, input: &'a [f32], pixel: usize) -> &'a [f32] {
        let (image, _, _) = self.conv.output_position(pixel);
        let len = self.conv.input.0 * self.conv.input.1 * self.conv.in_channels;
        &input[image * len..][..len]
    }

    fn assert_lengths(&self, input: &[f32], offset: &[f32], mask: Option<&[f32]>) {
        let samples = self.conv.output_pixels() * self.offset_groups * self.taps();
        assert_eq!(input.len(), self.conv.input_len(), "input length");
        assert_eq!(offset.len(), 2 * samples, "offset length");
        assert!(mask.is_none_or(|mask| mask.len() == samples), "mask length");
    }

    /// The columns `(N, H_out, W_out, groups * kh * kw * C / groups)`.
    pub fn gather(
        &self,
        input: &[f32],
        offset: &[f32],
        mask: Option<&[f32]>,
        columns: &mut [f32],
    ) -> Result<()> {
        self.assert_lengths(input, offset, mask);
        assert_eq!(columns.len(), self.columns_len(), "columns length");
        let (depth, channels) = (self.depth(), self.conv.in_channels);
        if columns.is_empty() {
            return Ok(());
        }
        let (line, own) = (self.conv.output.1, channels / self.offset_groups);
        parallel::lead(|| {
            parallel::for_each_chunk(columns, line * depth, |index, rows| {
                vectorize(
                    #[inline(always)]
                    || {
                        rows.fill(0.0);
                        for (col, row) in rows.chunks_exact_mut(depth).enumerate() {
                            let pixel = index * line + col;
                            let image = self.image(input, pixel);
                            self.each_sample(
                                pixel,
                                offset,
                                mask,
                                #[inline(always)]
                                |group, tap, sample, mask| {
                                    self.each_run(
                                        tap,
                                        group * own,
                                        (group + 1) * own,
                                        #[inline(always)]
                                        |first, place, count| {
                                            for corner in sample.corners() {
                                                let from = corner.pixel * channels + first;
                                                let weight = mask * corner.weight;
                                                let target = &mut row[place..place + count];
                                                add_scaled(target, &image[from..][..count], weight);
                                            }
                                        },
                                    );
                                },
                            );
                        }
                    },
                );
            });
        })
    }

    /// Gradient of the input from that of the columns.
    pub fn input_gradient(
        &self,
        offset: &[f32],
        mask: Option<&[f32]>,
        grad_columns: &[f32],
    ) -> Result<Vec<f32>> {
        assert_eq!(grad_columns.len(), self.columns_len(), "columns length");
        let (depth, channels) = (self.depth(), self.conv.in_channels);
        let mut grad_input = vec![0.0; self.conv.input_len()];
        if grad_input.is_empty() || grad_columns.is_empty() {
            return Ok(grad_input);
        }
        let (pixels, outputs) =
            (self.conv.input.0 * self.conv.input.1, self.conv.output.0 * self.conv.output.1);
        let own = channels / self.offset_groups;
        let tiling = Tiling { group: pixels, rows: pixels, channels: BLOCK };
        let target = RowsMut::dense(&mut grad_input, channels);
        parallel::lead(|| {
            target.for_each_tile(tiling, |mut tile| {
                let (low, high) = (tile.first_channel, tile.first_channel + tile.rows.channels());
                let first = tile.first_row / pixels * outputs;
                vectorize(
                    #[inline(always)]
                    || {
                        for pixel in first..first + outputs {
                            let row = &grad_columns[pixel * depth..][..depth];
                            self.each_sample(
                                pixel,
                                offset,
                                mask,
                                #[inline(always)]
                                |group, tap, sample, mask| {
                                    let from = low.max(group * own);
                                    let to = high.min((group + 1) * own);
                                    self.each_run(
                                        tap,
                                        from,
                                        to,
                                        #[inline(always)]
                                        |channel, place, count| {
                                            for corner in sample.corners() {
                                                let target = tile.rows.row_mut(corner.pixel);
                                                let target = &mut target[channel - low..][..count];
                                                let weight = mask * corner.weight;
                                                add_scaled(target, &row[place..][..count], weight);
                                            }
                                        },
                                    );
                                },
                            );
                        }
                    },
                );
            });
        })?;
        Ok(grad_input)
    }

    /// Gradients by the vertical and horizontal offset and by the mask of every sample, three
    /// numbers each, `(N, H_out, W_out, offset groups, kh * kw, 3)`.
    pub fn sample_gradient(
        &self,
        input: &[f32],
        offset: &[f32],
        mask: Option<&[f32]>,
        grad_columns: &[f32],
    ) -> Result<Vec<f32>> {
        self.assert_lengths(input, offset, mask);
        assert_eq!(grad_columns.len(), self.columns_len(), "columns length");
        let (depth, channels) = (self.depth(), self.conv.in_channels);
        let each = 3 * self.offset_groups * self.taps();
        let mut gradient = vec![0.0; self.conv.output_pixels() * each];
        let (line, own) = (self.conv.output.1, channels / self.offset_groups);
        parallel::lead(|| {
            parallel::for_each_chunk(&mut gradient, line * each, |index, values| {
                vectorize(
                    #[inline(always)]
                    || {
                        for (col, values) in values.chunks_exact_mut(each).enumerate() {
                            let pixel = index * line + col;
                            let image = self.image(input, pixel);
                            let row = &grad_columns[pixel * depth..][..depth];
                            self.each_sample(
                                pixel,
                                offset,
                                mask,
                                #[inline(always)]
                                |group, tap, sample, mask| {
                                    let at = 3 * (group * self.taps() + tap);
                                    let [mut by_y, mut by_x, mut by_mask] = [0.0; 3];
                                    self.each_run(
                                        tap,
                                        group * own,
                                        (group + 1) * own,
                                        #[inline(always)]
                                        |first, place, count| {
                                            for corner in sample.corners() {
                                                let from = corner.pixel * channels + first;
                                                let product = dot(
                                                    &image[from..][..count],
                                                    &row[place..][..count],
                                                );
                                                by_y += corner.slope.0 * product;
                                                by_x += corner.slope.1 * product;
                                                by_mask += corner.weight * product;
                                            }
                                        },
                                    );
                                    values[at] = mask * by_y;
                                    values[at + 1] = mask * by_x;
                                    values[at + 2] = by_mask;
                                },
                            );
                        }
                    },
                );
            });
        })?;
        Ok(gradient)
    }
}

/// `target += weight * values`.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "one index into slices of one length: vectors")]
fn add_scaled(target: &mut [f32], values: &[f32], weight: f32) {
    let values = &values[..target.len()];
    for i in 0..target.len() {
        target[i] += weight * values[i];
    }
}

/// The sum of products, in sixteen partial sums.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "one index into arrays of one length: vectors")]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<16>();
    let (b, b_rest) = b.as_chunks::<16>();
    let mut sums = [0.0; 16];
    for k in 0..a.len() {
        for i in 0..16 {
            sums[i] += a[k][i] * b[k][i];
        }
    }
    for i in 0..a_rest.len() {
        sums[i] += a_rest[i] * b_rest[i];
    }
    let mut total = 0.0;
    for sum in sums {
        total += sum;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::super::Padding;
    use super::super::reference::{close, values};
    use super::*;

    struct Case {
        deformable: Deformable,
        input: Vec<f32>,
        offset: Vec<f32>,
        mask: Vec<f32>,
    }

    fn cases() -> Vec<Case> {
        type Pair = (usize, usize);
        type Geometry = ((usize, usize, usize, usize), Pair, Pair, Pair, Pair, usize, usize);
        let geometries: [Geometry; 5] = [
            ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0), (1, 1), 1, 1),
            ((2, 6, 7, 4), (3, 3), (1, 1), (1, 1), (1, 1), 1, 2),
            ((1, 9, 5, 6), (3, 2), (2, 1), (2, 0), (1, 2), 3, 2),
            ((2, 5, 5, 140), (1, 3), (1, 2), (0, 1), (1, 1), 2, 1),
            ((0, 5, 5, 2), (3, 3), (1, 1), (1, 1), (1, 1), 1, 1),
        ];
        let case = |(input, kernel, stride, padding, dilation, groups, offset_groups): Geometry| {
            let weight = (kernel.0, kernel.1, input.3 / groups, groups);
            let padding = Padding::symmetric(padding.0, padding.1);
            let conv = Conv2d::new(input, weight, stride, padding, dilation, groups).unwrap();
            let samples = conv.output_pixels() * offset_groups * kernel.0 * kernel.1;
            let (rows, cols) = conv.output;
            let shape = (conv.batch, rows, cols, 2 * offset_groups * kernel.0 * kernel.1);
            let deformable = Deformable::new(conv, offset_groups, shape, None).unwrap();
            Case {
                deformable,
                input: values(conv.input_len(), 1),
                offset: values(2 * samples, 2).into_iter().map(|v| 3.0 * v).collect(),
                mask: values(samples, 3),
            }
        };
        geometries.map(case).into()
    }

    /// The definition, in f64: the value of a channel between pixels.
    fn bilinear(case: &Case, image: usize, channel: usize, y: f64, x: f64) -> f64 {
        let Conv2d { input: (height, width), in_channels, .. } = case.deformable.conv;
        let mut sum = 0.0;
        for row in 0..height {
            for col in 0..width {
                let near = |p: f64, q: usize| (1.0 - (p - q as f64).abs()).max(0.0);
                let at = ((image * height + row) * width + col) * in_channels + channel;
                sum += near(y, row) * near(x, col) * f64::from(case.input[at]);
            }
        }
        sum
    }

    fn naive(case: &Case) -> Vec<f32> {
        let Deformable { conv, offset_groups } = case.deformable;
        let taps = conv.kernel.0 * conv.kernel.1;
        let own = conv.in_channels / conv.groups;
        let mut columns = Vec::new();
        for pixel in 0..conv.output_pixels() {
            let (image, out_row, out_col) = conv.output_position(pixel);
            for index in 0..conv.groups * taps * own {
                let (group, tap, channel) = (index / (taps * own), index / own % taps, index % own);
                let channel = group * own + channel;
                let offset_group = channel / (conv.in_channels / offset_groups);
                let at = (pixel * offset_groups + offset_group) * taps + tap;
                let y = (out_row * conv.stride.0 + tap / conv.kernel.1 * conv.dilation.0) as f64
                    - conv.padding.top as f64;
                let x = (out_col * conv.stride.1 + tap % conv.kernel.1 * conv.dilation.1) as f64
                    - conv.padding.left as f64;
                let (y, x) =
                    (y + f64::from(case.offset[2 * at]), x + f64::from(case.offset[2 * at + 1]));
                let value = f64::from(case.mask[at]) * bilinear(case, image, channel, y, x);
                columns.push(value as f32);
            }
        }
        columns
    }

    fn gather(case: &Case) -> Vec<f32> {
        let mut columns = vec![f32::NAN; case.deformable.columns_len()];
        let Case { deformable, input, offset, mask } = case;
        deformable.gather(input, offset, Some(mask), &mut columns).unwrap();
        columns
    }

    fn dot64(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }

    #[test]
    fn columns_agree_with_the_definition() {
        for case in cases() {
            assert!(close(&gather(&case), &naive(&case), 1e-5), "{:?}", case.deformable);
        }
    }

    #[test]
    fn gradients_are_those_of_the_columns() {
        for case in cases() {
            let Case { deformable, input, offset, mask } = &case;
            let columns = gather(&case);
            let grad = values(columns.len(), 4);
            // Columns are linear in the input and in the mask: products with the gradient agree.
            let by_input = deformable.input_gradient(offset, Some(mask), &grad).unwrap();
            let expected = dot64(&columns, &grad);
            assert!((dot64(&by_input, input) - expected).abs() < 1e-3, "{deformable:?}");
            let samples = deformable.sample_gradient(input, offset, Some(mask), &grad).unwrap();
            let by_mask: Vec<f32> = samples.chunks_exact(3).map(|s| s[2]).collect();
            assert!((dot64(&by_mask, mask) - expected).abs() < 1e-3, "{deformable:?}");
        }
    }

    #[test]
    fn offsets_of_any_size_are_harmless() {
        let mut case = cases().swap_remove(1);
        let wild = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e9, -1e9];
        for (offset, value) in case.offset.iter_mut().zip(wild.into_iter().cycle()) {
            *offset = value;
        }
        assert!(gather(&case).iter().all(|&value| value == 0.0));
        let grad = vec![1.0; case.deformable.columns_len()];
        let Case { deformable, input, offset, mask } = &case;
        let back = deformable.input_gradient(offset, Some(mask), &grad).unwrap();
        assert!(back.iter().all(|&value| value == 0.0));
        let back = deformable.sample_gradient(input, offset, Some(mask), &grad).unwrap();
        assert!(back.iter().all(|&value| value == 0.0));
    }
}
