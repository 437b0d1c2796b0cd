//! Bilinear resizing.
//!
//! An output row lies between two input rows, at a fraction of the way from one to the other, and so
//! does a column; a pixel is the mean of four, so weighted. Places are computed in float32, as torch
//! does, where a rounding decides between which two pixels a place lies.
//!
//! Backward, a task owns an input row and collects its share from every output row that lies next
//! to it, in output order.

use super::blocks::{for_each_block, rows_per_task};
use super::gather::{check_resize, step_of};
use crate::Result;
use crate::isa;
use crate::memory::result_len;
use crate::parallel;
use crate::rows::{Rows, RowsMut};

/// A place between two pixels of an axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place {
    /// The pixel before it, and the one behind it.
    pub(crate) pixels: [usize; 2],
    /// Their parts.
    pub(crate) parts: [f32; 2],
}

/// Where the pixels of an axis of `output` lie in one of `size`, the ends of the axes together.
pub(crate) fn half_pixel_places(size: usize, output: usize) -> Vec<Place> {
    places(size, output, step_of(size, output, None), false)
}

/// Where pixels that are `step` apart lie, from the corner or from the centre of the first.
fn places(size: usize, output: usize, step: f32, align_corners: bool) -> Vec<Place> {
    let at = |index: usize| match align_corners {
        _ if size == output => index as f32,
        true => step * index as f32,
        false => (step * (index as f32 + 0.5) - 0.5).max(0.0),
    };
    (0..output).map(|index| Place::new(at(index), size)).collect()
}

/// The geometry of one resizing.
#[derive(Debug, Clone, PartialEq)]
pub struct Bilinear2d {
    input: (usize, usize),
    channels: usize,
    rows: Vec<Place>,
    cols: Vec<Place>,
}

impl Bilinear2d {
    /// Resizing of images of shape (H, W, C) to `output` pixels. `scales` are the factors of rows and
    /// columns where they are not those of the sizes. With `align_corners` the centres of the corner
    /// pixels stay where they are, else the corners of the image.
    pub fn new(
        (height, width, channels): (usize, usize, usize),
        output: (usize, usize),
        scales: (Option<f64>, Option<f64>),
        align_corners: bool,
    ) -> Result<Self> {
        check_resize((height, width), output, channels)?;
        let axis = |size: usize, output: usize, scale: Option<f64>| -> Result<Vec<Place>> {
            result_len::<Place>("size", &[output])?;
            let step = match align_corners {
                true if output > 1 => (size - 1) as f32 / (output - 1) as f32,
                true => 0.0,
                false => step_of(size, output, scale),
            };
            Ok(places(size, output, step, align_corners))
        };
        let (rows, cols) = (axis(height, output.0, scales.0)?, axis(width, output.1, scales.1)?);
        Ok(Bilinear2d { input: (height, width), channels, rows, cols })
    }

    /// Shape of an image of the output, (H, W, C).
    pub fn output_shape(&self) -> (usize, usize, usize) {
        (self.rows.len(), self.cols.len(), self.channels)
    }

    /// Output of a batch, (N, H, W, C).
    pub fn forward(&self, batch: usize, input: &[f32]) -> Result<Vec<f32>> {
        let (rows, cols, channels) = self.output_shape();
        let len = result_len::<f32>("input", &[batch, rows, cols, channels])?;
        assert_eq!(input.len(), batch * self.input_len(), "input length does not match");
        let mut output = vec![0.0; len];
        if len > 0 {
            let output = RowsMut::dense(&mut output, channels);
            self.forward_into(Rows::dense(input, channels), output);
        }
        Ok(output)
    }

    /// [`forward`](Self::forward) of rows with gaps. The batch is that of the rows.
    pub fn forward_into(&self, input: Rows<'_>, output: RowsMut<'_>) {
        let (height, width, channels) = self.output_shape();
        let pixels = self.input.0 * self.input.1;
        assert_eq!((input.channels(), output.channels()), (channels, channels));
        assert_eq!(input.count() * height * width, output.count() * pixels, "rows of one batch");
        for_each_block(output, rows_per_task(channels.saturating_mul(4)), |first, mut output| {
            isa::vectorize(|| {
                for index in 0..output.count() {
                    let place = first + index;
                    let (image, y, x) =
                        (place / (height * width), place / width % height, place % width);
                    let (y, x) = (&self.rows[y], &self.cols[x]);
                    let at = |y: usize, x: usize| input.row(image * pixels + y * self.input.1 + x);
                    let [above, below] = y.pixels;
                    let [left, right] = x.pixels;
                    let corners =
                        [at(above, left), at(above, right), at(below, left), at(below, right)];
                    mean_of_four(corners, y.parts, x.parts, output.row_mut(index));
                }
            });
        });
    }

    /// Gradient of the input, (N, H, W, C).
    pub fn backward(&self, batch: usize, grad_output: &[f32]) -> Vec<f32> {
        let mut grad_input = vec![0.0; batch * self.input_len()];
        self.backward_into(batch, grad_output, &mut grad_input);
        grad_input
    }

    /// [`backward`](Self::backward) into memory of the caller's.
    pub fn backward_into(&self, batch: usize, grad_output: &[f32], grad_input: &mut [f32]) {
        let (height, width, channels) = self.output_shape();
        assert_eq!(grad_output.len(), batch * height * width * channels, "gradient length");
        assert_eq!(grad_input.len(), batch * self.input_len(), "input length");
        if grad_input.is_empty() {
            return;
        }
        let mut readers = vec![Vec::new(); self.input.0];
        for (y, place) in self.rows.iter().enumerate() {
            for (pixel, part) in place.pixels.into_iter().zip(place.parts) {
                readers[pixel].push((y, part));
            }
        }
        parallel::for_each_chunk(grad_input, self.input.1 * channels, |row, sums| {
            sums.fill(0.0);
            let (image, y) = (row / self.input.0, row % self.input.0);
            for &(out_y, down) in &readers[y] {
                let start = (image * height + out_y) * width * channels;
                let gradients = grad_output[start..].chunks_exact(channels);
                for (gradient, place) in gradients.zip(&self.cols) {
                    for (pixel, across) in place.pixels.into_iter().zip(place.parts) {
                        let sums = &mut sums[pixel * channels..][..channels];
                        for (sum, &g) in sums.iter_mut().zip(gradient) {
                            *sum += g * (down * across);
                        }
                    }
                }
            }
        });
    }

    fn input_len(&self) -> usize {
        self.input.0 * self.input.1 * self.channels
    }
}

impl Place {
    /// The place `at >= 0` in an axis of `size` pixels.
    fn new(at: f32, size: usize) -> Self {
        // Conversion saturates, and makes 0 of a NaN.
        let first = (at as usize).min(size - 1);
        let behind = (at - first as f32).clamp(0.0, 1.0);
        Place { pixels: [first, (first + 1).min(size - 1)], parts: [1.0 - behind, behind] }
    }
}

/// Writes the mean of the four corners, (above left, above right, below left, below right).
#[inline(always)]
fn mean_of_four(corners: [&[f32]; 4], down: [f32; 2], across: [f32; 2], output: &mut [f32]) {
    let [a, b, c, d] = corners;
    let above = a.iter().zip(b);
    let below = c.iter().zip(d);
    for (y, ((&a, &b), (&c, &d))) in output.iter_mut().zip(above.zip(below)) {
        let above = a * across[0] + b * across[1];
        let below = c * across[0] + d * across[1];
        *y = above * down[0] + below * down[1];
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::same_for_any_thread_count;
    use super::*;
    use crate::conv::reference::{close, values};

    type Case = ((usize, usize, usize), (usize, usize), (Option<f64>, Option<f64>), bool);

    const CASES: [Case; 9] = [
        ((1, 1, 1), (1, 1), (None, None), false),
        ((1, 1, 2), (3, 2), (None, None), true),
        ((3, 4, 5), (6, 8), (None, None), false),
        ((3, 4, 5), (6, 8), (None, None), true),
        ((7, 6, 17), (3, 4), (None, None), false),
        ((7, 6, 17), (1, 4), (None, None), true),
        ((5, 9, 3), (12, 6), (Some(2.5), Some(0.7)), false),
        ((5, 5, 3), (5, 5), (Some(1.1), Some(1.1)), false),
        ((9, 9, 0), (3, 3), (None, None), false),
    ];

    /// Every (input, output, part) of a resizing in float64, element by element.
    fn parts(case: Case, batch: usize) -> Vec<(usize, usize, f64)> {
        let ((h, w, channels), (height, width), scales, align) = case;
        let along = |index: usize, size: usize, out: usize, scale: Option<f64>| {
            let at = match align {
                _ if size == out => index as f64,
                true if out == 1 => 0.0,
                true => index as f64 * (size - 1) as f64 / (out - 1) as f64,
                false => {
                    let step = scale.map_or(size as f64 / out as f64, |s| 1.0 / s);
                    ((index as f64 + 0.5) * step - 0.5).clamp(0.0, size as f64 - 1.0)
                }
            };
            (0..size).map(move |p| (p, (1.0 - (at - p as f64).abs()).max(0.0)))
        };
        let mut parts = Vec::new();
        for out in 0..batch * height * width * channels {
            let (pixel, c) = (out / channels, out % channels);
            let (n, i, j) = (pixel / (height * width), pixel / width % height, pixel % width);
            for (y, down) in along(i, h, height, scales.0) {
                for (x, across) in along(j, w, width, scales.1) {
                    parts.push((((n * h + y) * w + x) * channels + c, out, down * across));
                }
            }
        }
        parts
    }

    #[test]
    fn agrees_with_the_naive_sums() {
        for case in CASES {
            let resize = Bilinear2d::new(case.0, case.1, case.2, case.3).unwrap();
            for batch in [0, 1, 2] {
                let (height, width, channels) = resize.output_shape();
                let input = values(batch * resize.input_len(), 1);
                let grad = values(batch * height * width * channels, 2);
                let (mut output, mut grad_input) = (vec![0.0; grad.len()], vec![0.0; input.len()]);
                for (i, o, part) in parts(case, batch) {
                    output[o] += f64::from(input[i]) * part;
                    grad_input[i] += f64::from(grad[o]) * part;
                }
                let f32s = |v: Vec<f64>| v.into_iter().map(|v| v as f32).collect::<Vec<_>>();
                let got = resize.forward(batch, &input).unwrap();
                assert!(close(&got, &f32s(output), 2e-6), "{case:?}");
                assert!(close(&resize.backward(batch, &grad), &f32s(grad_input), 2e-6), "{case:?}");
            }
        }
    }

    #[test]
    fn known_values() {
        let twice = |align| {
            let resize = Bilinear2d::new((1, 2, 1), (1, 4), (None, None), align).unwrap();
            resize.forward(1, &[0.0, 3.0]).unwrap()
        };
        assert_eq!(twice(false), [0.0, 0.75, 2.25, 3.0]);
        assert_eq!(twice(true), [0.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let resize = Bilinear2d::new((40, 50, 7), (90, 70), (None, None), false).unwrap();
        let (input, grad) = (values(2 * 40 * 50 * 7, 1), values(2 * 90 * 70 * 7, 2));
        same_for_any_thread_count(|| {
            (resize.forward(2, &input).unwrap(), resize.backward(2, &grad))
        });
    }
}
