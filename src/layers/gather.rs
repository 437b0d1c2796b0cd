//! Pixels copied from elsewhere in the image: padding, nearest-neighbour resizing, and slices of rows
//! and columns.
//!
//! All of them name, for each output row and column, the input row and column it comes from, or
//! none; what comes from nowhere is one number. So they differ in two lists, and the copying exists
//! once. Channels of that number may stand in front of and behind those of the input.
//!
//! Backward, a task owns an input row and adds up the gradients of its copies in output order.

use super::blocks::{for_each_block, rows_per_task};
use crate::conv::Padding;
use crate::memory::result_len;
use crate::parallel;
use crate::rows::{Rows, RowsMut};
use crate::{Error, Result};

/// Largest accepted extent.
const MAX_EXTENT: usize = i32::MAX as usize;

/// What stands around an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Border {
    /// A number.
    Constant(f32),
    /// The image mirrored at its first and last pixels, which are not repeated.
    Reflect,
    /// The nearest pixel.
    Replicate,
    /// The image again.
    Circular,
}

/// Every `step`-th one of the rows or columns from `first` on, `count` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Every {
    /// The first.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// Distance of two.
    pub step: usize,
}

/// Where each pixel of the output comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Gather2d {
    input: (usize, usize),
    channels: usize,
    /// Channels of `value` in front of and behind those of the input.
    around: (usize, usize),
    /// The input row of each output row.
    rows: Vec<Option<usize>>,
    /// The input column of each output column.
    cols: Vec<Option<usize>>,
    /// What comes from nowhere.
    value: f32,
}

impl Gather2d {
    /// Padding of images of shape (H, W, C); `around` is channels in front and behind.
    pub fn pad(
        (height, width, channels): (usize, usize, usize),
        padding: Padding,
        around: (usize, usize),
        border: Border,
    ) -> Result<Self> {
        let Padding { top, bottom, left, right } = padding;
        if border == Border::Reflect || border == Border::Circular {
            let most = |size: usize| size - usize::from(border == Border::Reflect && size > 0);
            let sides = [("rows", height, top.max(bottom)), ("columns", width, left.max(right))];
            for (what, size, pad) in sides {
                if pad > most(size) {
                    let expected = format!("at most {} for {size} {what}", most(size));
                    return Err(Error::value("pad", expected, pad.to_string()));
                }
            }
        }
        let value = match border {
            Border::Constant(value) => value,
            _ if around != (0, 0) => {
                let got = format!("{around:?}");
                return Err(Error::value("pad", "no channels unless with a constant", got));
            }
            _ if height == 0 || width == 0 => {
                let got = format!("{height} x {width} pixels");
                return Err(Error::shape("input", "at least 1 x 1 pixels", got));
            }
            _ => 0.0,
        };
        let longer = |size: usize, (before, after): (usize, usize)| {
            size.saturating_add(before).saturating_add(after)
        };
        let (tall, wide) = (longer(height, (top, bottom)), longer(width, (left, right)));
        result_len::<f32>("pad", &[tall, wide, longer(channels, around)])?;
        let rows = list("pad", tall, |index| source(index, top, height, border))?;
        let cols = list("pad", wide, |index| source(index, left, width, border))?;
        Ok(Gather2d { input: (height, width), channels, around, rows, cols, value })
    }

    /// Resizing to `output` pixels of the nearest input pixels. `scales` are the factors of rows and
    /// columns where they are not those of the sizes; `centres` measures from the centres of pixels
    /// rather than from their first edges.
    pub fn nearest(
        (height, width, channels): (usize, usize, usize),
        output: (usize, usize),
        scales: (Option<f64>, Option<f64>),
        centres: bool,
    ) -> Result<Self> {
        check_resize((height, width), output, channels)?;
        let axis = |size: usize, output: usize, scale: Option<f64>| {
            let step = step_of(size, output, scale);
            let at = move |index: usize| {
                // What torch does whatever the factor is, where sizes say it plainly.
                if !centres && (output == size || output == 2 * size) {
                    return Some(index * size / output);
                }
                let place = (index as f32 + if centres { 0.5 } else { 0.0 }) * step;
                // Conversion saturates, and makes 0 of a NaN.
                Some((place as usize).min(size - 1))
            };
            list("size", output, at)
        };
        Ok(Gather2d {
            input: (height, width),
            channels,
            around: (0, 0),
            rows: axis(height, output.0, scales.0)?,
            cols: axis(width, output.1, scales.1)?,
            value: 0.0,
        })
    }

    /// Every n-th row and column of a part of the image.
    pub fn slice(
        (height, width, channels): (usize, usize, usize),
        rows: Every,
        cols: Every,
    ) -> Result<Self> {
        let axis = |size: usize, every: Every| {
            let Every { first, count, step } = every;
            let last = count.saturating_sub(1).saturating_mul(step).saturating_add(first);
            if step == 0 || (count > 0 && last >= size) {
                let expected = format!("places from 0 to {}", size as i64 - 1);
                return Err(Error::value("index", expected, format!("{every:?}")));
            }
            list("index", count, |index| Some(first + index * step))
        };
        Ok(Gather2d {
            input: (height, width),
            channels,
            around: (0, 0),
            rows: axis(height, rows)?,
            cols: axis(width, cols)?,
            value: 0.0,
        })
    }

    /// Shape of an image of the output, (H, W, C).
    pub fn output_shape(&self) -> (usize, usize, usize) {
        (self.rows.len(), self.cols.len(), self.around.0 + self.channels + self.around.1)
    }

    /// Whether the output is the input.
    pub fn is_identity(&self) -> bool {
        let same = |places: &[Option<usize>], size: usize| {
            places.len() == size && places.iter().enumerate().all(|(i, &place)| place == Some(i))
        };
        self.around == (0, 0) && same(&self.rows, self.input.0) && same(&self.cols, self.input.1)
    }

    /// The zeros that the output adds around its input, if that is all it does.
    pub fn zero_padding(&self) -> Option<Padding> {
        let sides = |places: &[Option<usize>], size: usize| {
            let before = places.iter().take_while(|place| place.is_none()).count();
            let whole = places.len() >= before + size
                && (0..size).all(|i| places[before + i] == Some(i))
                && places[before + size..].iter().all(Option::is_none);
            (whole && size > 0).then(|| (before, places.len() - before - size))
        };
        let (top, bottom) = sides(&self.rows, self.input.0)?;
        let (left, right) = sides(&self.cols, self.input.1)?;
        // Not -0.0, which no sum of products keeps apart, but then it is not worth a thought.
        let zeros = self.value == 0.0 && self.around == (0, 0);
        zeros.then_some(Padding { top, bottom, left, right })
    }

    /// Output of a batch, (N, H, W, C).
    pub fn forward(&self, batch: usize, input: &[f32]) -> Result<Vec<f32>> {
        let (rows, cols, channels) = self.output_shape();
        let len = result_len::<f32>("input", &[batch, rows, cols, channels])?;
        assert_eq!(input.len(), batch * self.input_len(), "input length does not match");
        let mut output = vec![0.0; len];
        if len > 0 {
            let output = RowsMut::dense(&mut output, channels);
            let pixels = batch * self.input.0 * self.input.1;
            self.forward_into(Rows::new(input, pixels, self.channels, self.channels), output);
        }
        Ok(output)
    }

    /// [`forward`](Self::forward) of rows with gaps. The batch is that of the rows.
    pub fn forward_into(&self, input: Rows<'_>, output: RowsMut<'_>) {
        let (height, width, channels) = self.output_shape();
        let pixels = self.input.0 * self.input.1;
        let (before, behind) = (self.around.0, self.around.0 + self.channels);
        assert_eq!((input.channels(), output.channels()), (self.channels, channels));
        assert_eq!(input.count() * height * width, output.count() * pixels, "rows of one batch");
        for_each_block(output, rows_per_task(channels), |first, mut output| {
            let (mut image, place) = (first / (height * width), first % (height * width));
            let (mut y, mut x) = (place / width, place % width);
            for index in 0..output.count() {
                let row = output.row_mut(index);
                match (self.rows[y], self.cols[x]) {
                    (Some(from_y), Some(from_x)) => {
                        let from = image * pixels + from_y * self.input.1 + from_x;
                        row[..before].fill(self.value);
                        row[before..behind].copy_from_slice(input.row(from));
                        row[behind..].fill(self.value);
                    }
                    _ => row.fill(self.value),
                }
                x += 1;
                if x == width {
                    (x, y) = (0, y + 1);
                }
                if y == height {
                    (y, image) = (0, image + 1);
                }
            }
        });
    }

    /// Gradient of the input, (N, H, W, C): the sum over the copies of each pixel.
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
        if grad_input.is_empty() || grad_output.is_empty() {
            return grad_input.fill(0.0);
        }
        let mut copies = vec![Vec::new(); self.input.0];
        for (y, from) in self.rows.iter().enumerate() {
            from.iter().for_each(|&from| copies[from].push(y));
        }
        let line = self.input.1 * self.channels;
        parallel::for_each_chunk(grad_input, line, |row, sums| {
            sums.fill(0.0);
            let (image, y) = (row / self.input.0, row % self.input.0);
            for &out_y in &copies[y] {
                let start = (image * height + out_y) * width * channels;
                let gradients = grad_output[start..].chunks_exact(channels);
                for (gradient, from) in gradients.zip(&self.cols) {
                    let Some(x) = *from else { continue };
                    let sums = &mut sums[x * self.channels..][..self.channels];
                    for (sum, &g) in sums.iter_mut().zip(&gradient[self.around.0..]) {
                        *sum += g;
                    }
                }
            }
        });
    }

    fn input_len(&self) -> usize {
        self.input.0 * self.input.1 * self.channels
    }
}

/// The place in an axis of `size` that place `index` of the padded axis shows.
fn source(index: usize, before: usize, size: usize, border: Border) -> Option<usize> {
    let place = index as i64 - before as i64;
    let (last, size) = (size as i64 - 1, size as i64);
    let from = match border {
        _ if (0..size).contains(&place) => place,
        Border::Constant(_) => return None,
        Border::Reflect if place < 0 => -place,
        Border::Reflect => 2 * last - place,
        Border::Replicate => place.clamp(0, last),
        Border::Circular => place.rem_euclid(size),
    };
    Some(from as usize)
}

/// Input pixels from one output pixel to the next, in torch's precision.
pub(super) fn step_of(size: usize, output: usize, scale: Option<f64>) -> f32 {
    match scale {
        Some(scale) if scale > 0.0 => (1.0 / scale) as f32,
        _ => size as f32 / output as f32,
    }
}

/// Checks the sizes of a resizing.
pub(super) fn check_resize(
    (height, width): (usize, usize),
    output: (usize, usize),
    channels: usize,
) -> Result<()> {
    if output.0.max(output.1) > MAX_EXTENT || output.0 == 0 || output.1 == 0 {
        let expected = format!("sizes from 1 to {MAX_EXTENT}");
        return Err(Error::value("size", expected, format!("{output:?}")));
    }
    if height == 0 || width == 0 {
        let got = format!("{height} x {width} pixels");
        return Err(Error::shape("input", "at least 1 x 1 pixels", got));
    }
    result_len::<f32>("size", &[output.0, output.1, channels]).map(drop)
}

/// `at` of each of `count` places.
fn list<T>(argument: &'static str, count: usize, at: impl Fn(usize) -> T) -> Result<Vec<T>> {
    Ok((0..result_len::<T>(argument, &[count])?).map(at).collect())
}

#[cfg(test)]
mod tests {
    use super::super::testing::same_for_any_thread_count;
    use super::*;
    use crate::conv::reference::values;

    fn padding(top: usize, bottom: usize, left: usize, right: usize) -> Padding {
        Padding { top, bottom, left, right }
    }

    /// Gathers around every edge: one pixel, no channels, all borders, up and down, strides.
    fn cases() -> Vec<Gather2d> {
        let uneven = padding(1, 0, 2, 3);
        let every = |first, count, step| Every { first, count, step };
        let none = (None, None);
        vec![
            Gather2d::pad((1, 1, 1), padding(0, 0, 0, 0), (0, 0), Border::Constant(0.0)),
            Gather2d::pad((4, 5, 3), uneven, (0, 0), Border::Constant(0.0)),
            Gather2d::pad((4, 5, 3), uneven, (2, 1), Border::Constant(-2.5)),
            Gather2d::pad((4, 5, 17), padding(0, 0, 0, 0), (0, 17), Border::Constant(0.0)),
            Gather2d::pad((0, 5, 2), padding(1, 1, 0, 0), (0, 0), Border::Constant(7.0)),
            Gather2d::pad((4, 5, 0), uneven, (1, 1), Border::Constant(1.0)),
            Gather2d::pad((4, 5, 3), padding(3, 2, 4, 1), (0, 0), Border::Reflect),
            Gather2d::pad((1, 2, 3), padding(7, 2, 4, 1), (0, 0), Border::Replicate),
            Gather2d::pad((4, 5, 3), padding(4, 2, 5, 1), (0, 0), Border::Circular),
            Gather2d::nearest((3, 4, 2), (7, 9), none, false),
            Gather2d::nearest((7, 9, 33), (3, 4), none, true),
            Gather2d::nearest((5, 5, 1), (12, 3), (Some(2.5), Some(0.7)), false),
            Gather2d::slice((7, 8, 3), every(0, 4, 2), every(1, 2, 3)),
            Gather2d::slice((7, 8, 3), every(6, 1, 9), every(0, 0, 1)),
            Gather2d::slice((40, 40, 20), every(0, 20, 2), every(0, 20, 2)),
        ]
        .into_iter()
        .map(|case| case.expect("legal test geometry"))
        .collect()
    }

    /// The input element of each output element, one by one.
    fn sources(case: &Gather2d, batch: usize) -> Vec<Option<usize>> {
        let (height, width, channels) = case.output_shape();
        (0..batch * height * width * channels)
            .map(|e| {
                let (pixel, c) = (e / channels, e % channels);
                let (n, y, x) = (pixel / (height * width), pixel / width % height, pixel % width);
                let (y, x) = (case.rows[y]?, case.cols[x]?);
                let c = c.checked_sub(case.around.0).filter(|&c| c < case.channels)?;
                let ((h, w), channels) = (case.input, case.channels);
                Some(((n * h + y) * w + x) * channels + c)
            })
            .collect()
    }

    #[test]
    fn agrees_with_copying_one_by_one() {
        for case in cases() {
            for batch in [0, 1, 3] {
                let input = values(batch * case.input_len(), 1);
                let from = sources(&case, batch);
                let expected: Vec<f32> =
                    from.iter().map(|at| at.map_or(case.value, |at| input[at])).collect();
                assert_eq!(case.forward(batch, &input).unwrap(), expected, "{case:?}");
                // Small integers: sums are exact in any order.
                let grad: Vec<f32> = (0..expected.len()).map(|i| (i % 37) as f32).collect();
                let mut sums = vec![0.0; input.len()];
                for (at, g) in from.iter().zip(&grad) {
                    at.iter().for_each(|&at| sums[at] += g);
                }
                assert_eq!(case.backward(batch, &grad), sums, "{case:?}");
            }
        }
    }

    #[test]
    fn rows_with_gaps_are_left_alone_between() {
        let every = |count, step| Every { first: 0, count, step };
        let case = Gather2d::slice((3, 2, 2), every(2, 2), every(2, 1)).unwrap();
        let input = values(6 * 5, 1);
        let mut output = vec![9.0; 4 * 3];
        case.forward_into(Rows::new(&input, 6, 2, 5), RowsMut::new(&mut output, 4, 2, 3));
        for (index, from) in [0, 1, 4, 5].into_iter().enumerate() {
            assert_eq!(output[index * 3..index * 3 + 2], input[from * 5..from * 5 + 2]);
            assert_eq!(output[index * 3 + 2], 9.0);
        }
    }

    #[test]
    fn borders_show_the_pixels_that_torch_shows() {
        let around = |border| {
            let pad = Gather2d::pad((1, 3, 1), padding(0, 0, 2, 2), (0, 0), border).unwrap();
            pad.forward(1, &[1.0, 2.0, 3.0]).unwrap()
        };
        assert_eq!(around(Border::Constant(8.0)), [8., 8., 1., 2., 3., 8., 8.]);
        assert_eq!(around(Border::Reflect), [3., 2., 1., 2., 3., 2., 1.]);
        assert_eq!(around(Border::Replicate), [1., 1., 1., 2., 3., 3., 3.]);
        assert_eq!(around(Border::Circular), [2., 3., 1., 2., 3., 1., 2.]);
    }

    #[test]
    fn what_only_adds_zeros_is_recognised() {
        let uneven = padding(1, 0, 2, 3);
        let pad = |border, around| Gather2d::pad((4, 5, 3), uneven, around, border).unwrap();
        assert_eq!(pad(Border::Constant(0.0), (0, 0)).zero_padding(), Some(uneven));
        assert_eq!(pad(Border::Constant(1.0), (0, 0)).zero_padding(), None);
        assert_eq!(pad(Border::Constant(0.0), (0, 1)).zero_padding(), None);
        assert_eq!(pad(Border::Replicate, (0, 0)).zero_padding(), None);
        let identities = cases().iter().filter(|case| case.is_identity()).count();
        assert_eq!(identities, 1);
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let case = Gather2d::nearest((40, 50, 7), (90, 70), (None, None), false).unwrap();
        let (input, grad) = (values(2 * case.input_len(), 1), values(2 * 90 * 70 * 7, 2));
        same_for_any_thread_count(|| (case.forward(2, &input).unwrap(), case.backward(2, &grad)));
    }

    #[test]
    fn bad_arguments_are_named() {
        let pad = |padding, around, border| {
            Gather2d::pad((4, 5, 3), padding, around, border).unwrap_err().to_string()
        };
        let wide = padding(0, 0, 6, 0);
        let message = pad(wide, (0, 0), Border::Circular);
        assert_eq!(message, "pad: expected at most 5 for 5 columns, got 6");
        let message = pad(padding(0, 4, 0, 0), (0, 0), Border::Reflect);
        assert_eq!(message, "pad: expected at most 3 for 4 rows, got 4");
        assert!(
            pad(padding(0, 0, 0, 0), (1, 0), Border::Replicate).starts_with("pad: expected no")
        );
        let huge = padding(usize::MAX / 2, 0, 0, 0);
        assert!(pad(huge, (0, 0), Border::Constant(0.0)).starts_with("pad: expected a result"));
        for size in [(0, 3), (3, usize::MAX)] {
            let message = Gather2d::nearest((4, 5, 3), size, (None, None), false).unwrap_err();
            assert!(message.to_string().starts_with("size: expected"), "{message}");
        }
        assert!(Gather2d::nearest((0, 5, 3), (1, 1), (None, None), false).is_err());
        let every = |first, count, step| Every { first, count, step };
        for rows in [every(0, 3, 2), every(0, 1, 0), every(4, 1, 1)] {
            assert!(Gather2d::slice((4, 5, 3), rows, every(0, 1, 1)).is_err(), "{rows:?}");
        }
    }
}
