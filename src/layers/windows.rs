//! Which input pixels a pooled pixel sees.
//!
//! Sliding and adaptive pooling differ only in their windows, and a window is a product of one
//! interval of rows and one of columns. So both kinds are reduced to a list of [`Window`]s per axis,
//! and each pooling kernel exists once, for any list.

use std::ops::Range;

use super::blocks::{for_each_block, for_each_block_with, rows_per_task};
use crate::isa::{self, Isa, Simd};
use crate::memory::result_len;
use crate::rows::{Rows, RowsMut};
use crate::{Error, Result};

/// One pooling window along one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First position, padding included (negative inside the leading padding).
    pub begin: i64,
    /// One past the last position, padding included but nothing beyond it.
    pub end: i64,
    /// First tap that is a pixel.
    pub first: usize,
    /// Number of taps that are pixels; 0 where a dilated window falls between them.
    pub taps: usize,
    /// Distance between taps.
    pub step: usize,
}

impl Window {
    /// The pixels under the window.
    pub fn positions(self) -> impl Iterator<Item = usize> {
        (0..self.taps).map(move |tap| self.first + tap * self.step)
    }

    /// Positions the window spans, padding included.
    pub fn extent(self) -> usize {
        (self.end - self.begin) as usize
    }
}

/// The windows that can cover a pixel of `range`. Both ends of successive windows never decrease,
/// so they are consecutive.
pub fn touching(windows: &[Window], range: Range<usize>) -> Range<usize> {
    let first = windows.partition_point(|w| w.end <= range.start as i64);
    let end = windows.partition_point(|w| w.begin < range.end as i64);
    first..end.max(first)
}

/// Arguments of pooling with a sliding window; pairs are (rows, columns).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sliding {
    /// Extent of the window.
    pub kernel: (usize, usize),
    /// Step of the window.
    pub stride: (usize, usize),
    /// Positions added at both ends of each axis.
    pub padding: (usize, usize),
    /// Distance of neighbouring taps.
    pub dilation: (usize, usize),
    /// Whether a last window that hangs over the end counts.
    pub ceil_mode: bool,
}

/// The geometry of one pooling layer: everything but the numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool2d {
    /// Images in the batch.
    pub batch: usize,
    /// Input rows and columns.
    pub input: (usize, usize),
    /// Channels, C.
    pub channels: usize,
    /// One window for each output row.
    pub rows: Vec<Window>,
    /// One window for each output column.
    pub cols: Vec<Window>,
}

impl Pool2d {
    /// Windows of fixed size, for an input of shape (N, H, W, C).
    pub fn sliding(input: (usize, usize, usize, usize), sliding: Sliding) -> Result<Self> {
        let Sliding { kernel, stride, padding, dilation, ceil_mode } = sliding;
        for (argument, (rows, cols)) in
            [("kernel_size", kernel), ("stride", stride), ("dilation", dilation)]
        {
            if rows == 0 || cols == 0 {
                let got = format!("({rows}, {cols})");
                return Err(Error::value(argument, "positive integers", got));
            }
        }
        for (argument, (rows, cols)) in [
            ("kernel_size", kernel),
            ("stride", stride),
            ("padding", padding),
            ("dilation", dilation),
        ] {
            if rows.max(cols) > MAX_EXTENT {
                let got = format!("({rows}, {cols})");
                return Err(Error::value(argument, format!("at most {MAX_EXTENT}"), got));
            }
        }
        let most = (kernel.0 / 2, kernel.1 / 2);
        if padding.0 > most.0 || padding.1 > most.1 {
            // More would leave windows that see padding only.
            let expected = format!("at most half of kernel_size, {most:?}");
            return Err(Error::value("padding", expected, format!("{padding:?}")));
        }
        Self::new(
            input,
            sliding_axis(input.1, kernel.0, stride.0, padding.0, dilation.0, ceil_mode)?,
            sliding_axis(input.2, kernel.1, stride.1, padding.1, dilation.1, ceil_mode)?,
            || format!("at least one window of {kernel:?} with padding {padding:?}"),
        )
    }

    /// `output` windows that share the input evenly: window i covers
    /// `floor(i * size / output) .. ceil((i + 1) * size / output)`.
    pub fn adaptive(input: (usize, usize, usize, usize), output: (usize, usize)) -> Result<Self> {
        if output.0.max(output.1) > MAX_EXTENT {
            let got = format!("{output:?}");
            return Err(Error::value("output_size", format!("at most {MAX_EXTENT}"), got));
        }
        result_len::<f32>("output_size", &[input.0, output.0, output.1, input.3])?;
        Self::new(
            input,
            adaptive_axis(input.1, output.0)?,
            adaptive_axis(input.2, output.1)?,
            || "at least 1 x 1 pixels".into(),
        )
    }

    fn new(
        (batch, height, width, channels): (usize, usize, usize, usize),
        rows: Option<Vec<Window>>,
        cols: Option<Vec<Window>>,
        expected: impl Fn() -> String,
    ) -> Result<Self> {
        let fits = height >= 1 && width >= 1 && height.saturating_mul(width) <= MAX_EXTENT;
        match (rows, cols) {
            (Some(rows), Some(cols)) if fits => {
                Ok(Pool2d { batch, input: (height, width), channels, rows, cols })
            }
            _ => Err(Error::shape("input", expected(), format!("{height} x {width} pixels"))),
        }
    }

    /// Shape of the input, (N, H, W, C).
    pub fn input_shape(&self) -> (usize, usize, usize, usize) {
        (self.batch, self.input.0, self.input.1, self.channels)
    }

    /// Shape of the output, (N, H, W, C).
    pub fn output_shape(&self) -> (usize, usize, usize, usize) {
        (self.batch, self.rows.len(), self.cols.len(), self.channels)
    }

    /// Elements of the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.input.0 * self.input.1 * self.channels
    }

    /// Elements of the output.
    pub fn output_len(&self) -> usize {
        self.batch * self.rows.len() * self.cols.len() * self.channels
    }

    /// Elements of one input row.
    pub(super) fn input_row(&self) -> usize {
        self.input.1 * self.channels
    }

    /// Elements of one output row.
    pub(super) fn output_row(&self) -> usize {
        self.cols.len() * self.channels
    }

    /// Lets `kernel` write every output pixel of a batch, in parallel, compiled for the vectors of
    /// this CPU. The batch is that of the rows.
    pub(super) fn for_each_window<K>(&self, input: Rows<'_>, output: RowsMut<'_>, kernel: &K)
    where
        K: WindowKernel + Sync,
    {
        let pixels = self.input.0 * self.input.1;
        let windows = self.rows.len() * self.cols.len();
        assert_eq!(input.count() * windows, output.count() * pixels, "rows of one batch");
        assert_eq!((input.channels(), output.channels()), (self.channels, self.channels));
        if output.count() == 0 {
            return;
        }
        for_each_block(output, self.windows_per_task(), |first, output| {
            isa::dispatch(Isa::active(), Windows { pool: self, input, first, output, kernel });
        });
    }

    /// Pixels under the largest window; all windows of a layer are about as large.
    pub fn taps(&self) -> usize {
        let most = |axis: &[Window]| axis.iter().map(|w| w.taps).max().unwrap_or(0);
        most(&self.rows) * most(&self.cols)
    }

    fn windows_per_task(&self) -> usize {
        // A tap is one or two instructions for a whole vector.
        4 * rows_per_task(self.taps().max(1).saturating_mul(self.channels))
    }

    /// [`for_each_window`](Self::for_each_window) with something else to write for every element of
    /// the output.
    pub(super) fn for_each_window_with<K, T>(
        &self,
        input: Rows<'_>,
        output: RowsMut<'_>,
        others: &mut [T],
        kernel: &K,
    ) where
        K: PairKernel<T> + Sync,
        T: Send,
    {
        let pixels = self.input.0 * self.input.1;
        let windows = self.rows.len() * self.cols.len();
        assert_eq!(input.count() * windows, output.count() * pixels, "rows of one batch");
        assert_eq!((input.channels(), output.channels()), (self.channels, self.channels));
        for_each_block_with(output, others, self.windows_per_task(), |first, output, others| {
            let work = PairWindows { pool: self, input, first, output, others, kernel };
            isa::dispatch(Isa::active(), work);
        });
    }

    /// Checks the lengths of slices against the geometry. A mismatch is a mistake of the caller in
    /// this crate or the bindings, hence a panic.
    pub(super) fn assert_lengths(&self, input: usize, output: usize) {
        assert_eq!(input, self.input_len(), "input length does not match the geometry");
        assert_eq!(output, self.output_len(), "output length does not match the geometry");
    }
}

/// What a pooling does with the pixels under a window.
///
/// Implementations mark `window` as `#[inline(always)]`, so that it is compiled for the vectors of
/// the CPU.
pub(super) trait WindowKernel {
    /// Writes the C channels of an output pixel.
    fn window(&self, taps: &Taps<'_>, output: &mut [f32]);
}

/// A [`WindowKernel`] that writes two numbers for each channel.
pub(super) trait PairKernel<T> {
    /// Writes the C channels of an output pixel, and as many of the others.
    fn window(&self, taps: &Taps<'_>, output: &mut [f32], others: &mut [T]);
}

/// Consecutive windows, from number `first` of the batch on.
struct Windows<'a, K> {
    pool: &'a Pool2d,
    input: Rows<'a>,
    first: usize,
    output: RowsMut<'a>,
    kernel: &'a K,
}

impl<K: WindowKernel> isa::Kernel for Windows<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        for index in 0..self.output.count() {
            let taps = Taps::under(self.pool, self.input, self.first + index);
            self.kernel.window(&taps, self.output.row_mut(index));
        }
    }
}

/// [`Windows`] of a [`PairKernel`].
struct PairWindows<'a, K, T> {
    pool: &'a Pool2d,
    input: Rows<'a>,
    first: usize,
    output: RowsMut<'a>,
    others: &'a mut [T],
    kernel: &'a K,
}

impl<K: PairKernel<T>, T> isa::Kernel for PairWindows<'_, K, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        let rows = self.others.chunks_exact_mut(self.pool.channels).enumerate();
        for (index, others) in rows {
            let taps = Taps::under(self.pool, self.input, self.first + index);
            self.kernel.window(&taps, self.output.row_mut(index), others);
        }
    }
}

/// The pixels under one window of an image.
pub(super) struct Taps<'a> {
    image: Rows<'a>,
    width: usize,
    /// The interval of rows.
    pub rows: Window,
    /// The interval of columns.
    pub cols: Window,
}

impl<'a> Taps<'a> {
    /// Those of window number `window` of the batch.
    #[inline(always)]
    fn under(pool: &Pool2d, input: Rows<'a>, window: usize) -> Taps<'a> {
        let Pool2d { input: (height, width), rows, cols, .. } = pool;
        let (pixels, windows) = (height * width, rows.len() * cols.len());
        let (image, window) = (window / windows, window % windows);
        Taps {
            image: input.rows(image * pixels, pixels),
            width: *width,
            rows: rows[window / cols.len()],
            cols: cols[window % cols.len()],
        }
    }

    /// Calls `visit` for the pixels in row-major order, with `N` channels from `first` on.
    #[inline(always)]
    pub fn for_each<const N: usize>(&self, first: usize, mut visit: impl FnMut(&[f32; N])) {
        let (values, stride) = (self.image.as_slice(), self.image.stride());
        for y in 0..self.rows.taps {
            let line = (self.rows.first + y * self.rows.step) * self.width + self.cols.first;
            for x in 0..self.cols.taps {
                let at = (line + x * self.cols.step) * stride + first;
                if let Some(pixel) = values[at..].first_chunk() {
                    visit(pixel);
                }
            }
        }
    }

    /// `step` folded over the pixels in row-major order, for `N` channels from `first` on: they
    /// stay in registers.
    #[inline(always)]
    pub fn fold<T: Copy, const N: usize>(
        &self,
        first: usize,
        start: T,
        step: impl Fn(T, f32) -> T,
    ) -> [T; N] {
        let mut result = [start; N];
        self.for_each(first, |pixel: &[f32; N]| {
            for (result, &value) in result.iter_mut().zip(pixel) {
                *result = step(*result, value);
            }
        });
        result
    }

    /// Writes `last` of the [`fold`](Self::fold) of every channel: `WIDE` channels at a time, the
    /// rest in blocks of 4 and one by one.
    #[inline(always)]
    pub fn fold_channels<T: Copy, const WIDE: usize>(
        &self,
        output: &mut [f32],
        start: T,
        step: impl Fn(T, f32) -> T + Copy,
        last: impl Fn(T) -> f32 + Copy,
    ) {
        let (wide, rest) = output.as_chunks_mut::<WIDE>();
        let mut first = 0;
        // Loops, as `map` of such arrays is no vector code.
        for block in wide {
            let folded = self.fold::<T, WIDE>(first, start, step);
            for (value, folded) in block.iter_mut().zip(folded) {
                *value = last(folded);
            }
            first += WIDE;
        }
        let (narrow, rest) = rest.as_chunks_mut::<4>();
        for block in narrow {
            let folded = self.fold::<T, 4>(first, start, step);
            for (value, folded) in block.iter_mut().zip(folded) {
                *value = last(folded);
            }
            first += 4;
        }
        for value in rest {
            let [result] = self.fold::<T, 1>(first, start, step);
            *value = last(result);
            first += 1;
        }
    }
}

/// Largest accepted extent; pixels of one image are counted in 32 bits.
const MAX_EXTENT: usize = i32::MAX as usize;

/// Number of sliding windows along an axis, or `None` if there is none.
///
/// In ceil mode a window may hang over the end, and even over both (one window on an input smaller
/// than itself), but it must begin before the trailing padding does.
pub fn pooled_size(
    size: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
    ceil_mode: bool,
) -> Option<usize> {
    let [size, kernel, stride, padding, dilation] =
        [size, kernel, stride, padding, dilation].map(|v| v as i64);
    let room = size + 2 * padding - dilation * (kernel - 1) - 1;
    let steps = if ceil_mode { room + stride - 1 } else { room };
    let mut count = steps.div_euclid(stride) + 1;
    if ceil_mode && (count - 1) * stride >= size + padding {
        count -= 1;
    }
    usize::try_from(count).ok().filter(|&count| count > 0)
}

fn sliding_axis(
    size: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
    ceil_mode: bool,
) -> Result<Option<Vec<Window>>> {
    if size == 0 || size > MAX_EXTENT {
        return Ok(None);
    }
    let Some(count) = pooled_size(size, kernel, stride, padding, dilation, ceil_mode) else {
        return Ok(None);
    };
    let span = ((kernel - 1) * dilation + 1) as i64;
    let window = |index: usize| {
        let begin = (index * stride) as i64 - padding as i64;
        // Taps inside the leading padding are no pixels.
        let skipped = (-begin).max(0).unsigned_abs().div_ceil(dilation as u64) as usize;
        let first = (begin + (skipped * dilation) as i64) as usize;
        let inside = size.saturating_sub(first).div_ceil(dilation);
        Window {
            begin,
            end: (begin + span).min((size + padding) as i64),
            first,
            taps: kernel.saturating_sub(skipped).min(inside),
            step: dilation,
        }
    };
    list("input", count, window).map(Some)
}

fn adaptive_axis(size: usize, output: usize) -> Result<Option<Vec<Window>>> {
    if size == 0 || size > MAX_EXTENT {
        return Ok(None);
    }
    let window = |index: usize| {
        let (begin, end) = (index * size / output, ((index + 1) * size).div_ceil(output));
        Window { begin: begin as i64, end: end as i64, first: begin, taps: end - begin, step: 1 }
    };
    list("output_size", output, window).map(Some)
}

fn list(
    argument: &'static str,
    count: usize,
    window: impl Fn(usize) -> Window,
) -> Result<Vec<Window>> {
    Ok((0..result_len::<Window>(argument, &[count])?).map(window).collect())
}

/// Pooling layers around every edge, with a name to print: one pixel, one channel, an empty batch,
/// ceil windows, padding, dilation, windows larger than the input, adaptive windows that overlap.
#[cfg(test)]
pub(super) fn cases() -> Vec<Pool2d> {
    type Quad = (usize, usize, usize, usize);
    type Pair = (usize, usize);
    let sliding: &[(Quad, Pair, Pair, Pair, Pair, bool)] = &[
        ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0), (1, 1), false),
        ((0, 4, 4, 2), (2, 2), (2, 2), (0, 0), (1, 1), false),
        ((2, 5, 7, 3), (3, 2), (2, 1), (1, 0), (1, 1), false),
        ((1, 6, 6, 1), (3, 3), (2, 2), (0, 0), (1, 1), true),
        ((2, 7, 6, 17), (3, 3), (2, 2), (1, 1), (1, 1), true),
        ((1, 9, 8, 4), (3, 2), (2, 2), (1, 1), (2, 3), false),
        ((1, 2, 2, 3), (3, 3), (2, 2), (0, 0), (1, 1), true),
        ((3, 20, 33, 5), (3, 3), (1, 1), (1, 1), (1, 1), false),
        ((1, 5, 4, 2), (2, 2), (3, 3), (0, 0), (1, 1), true),
        ((1, 3, 3, 2), (2, 2), (1, 1), (1, 1), (4, 4), false),
    ];
    let adaptive: &[(Quad, Pair)] = &[
        ((1, 1, 1, 1), (1, 1)),
        ((2, 5, 7, 3), (1, 1)),
        ((1, 6, 14, 17), (7, 4)),
        ((2, 3, 2, 1), (5, 7)),
        ((0, 3, 2, 1), (2, 2)),
        ((1, 40, 23, 6), (7, 7)),
    ];
    let sliding = sliding.iter().map(|&(input, kernel, stride, padding, dilation, ceil_mode)| {
        Pool2d::sliding(input, Sliding { kernel, stride, padding, dilation, ceil_mode })
    });
    let adaptive = adaptive.iter().map(|&(input, output)| Pool2d::adaptive(input, output));
    sliding.chain(adaptive).map(|pool| pool.expect("legal test geometry")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceil_mode_keeps_a_window_that_begins_on_a_pixel_only() {
        assert_eq!(pooled_size(6, 3, 2, 0, 1, false), Some(2));
        assert_eq!(pooled_size(6, 3, 2, 0, 1, true), Some(3));
        // Ceiling alone would give 3; the third window would begin at 6, behind the input.
        assert_eq!(pooled_size(5, 2, 3, 0, 1, true), Some(2));
        assert_eq!(pooled_size(4, 2, 3, 0, 1, true), Some(2));
        assert_eq!(pooled_size(2, 3, 2, 0, 1, true), Some(1));
        assert_eq!(pooled_size(2, 3, 2, 0, 1, false), None);
        assert_eq!(pooled_size(1, 3, 1, 0, 1, true), None);
    }

    #[test]
    fn taps_are_exactly_the_pixels_under_the_dilated_kernel() {
        for (size, kernel, stride, padding, dilation, ceil_mode) in [
            (6, 3, 2, 1, 1, false),
            (9, 3, 2, 1, 3, false),
            (7, 2, 3, 1, 2, true),
            (3, 2, 1, 1, 4, false),
            (1, 1, 1, 0, 1, true),
        ] {
            let windows =
                sliding_axis(size, kernel, stride, padding, dilation, ceil_mode).unwrap().unwrap();
            for (i, window) in windows.iter().enumerate() {
                let expected: Vec<usize> = (0..kernel)
                    .map(|u| (i * stride + u * dilation) as i64 - padding as i64)
                    .filter(|p| (0..size as i64).contains(p))
                    .map(|p| p as usize)
                    .collect();
                assert_eq!(window.positions().collect::<Vec<_>>(), expected, "{window:?}");
            }
        }
    }

    #[test]
    fn touching_finds_every_window_with_a_tap_in_the_range() {
        for pool in cases() {
            for (windows, size) in [(&pool.rows, pool.input.0), (&pool.cols, pool.input.1)] {
                for start in 0..size {
                    for end in start + 1..=size {
                        let found = touching(windows, start..end);
                        for (i, window) in windows.iter().enumerate() {
                            let covers = window.positions().any(|p| (start..end).contains(&p));
                            assert!(!covers || found.contains(&i), "{window:?} {start}..{end}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn bad_arguments_are_named() {
        let ok = Sliding {
            kernel: (2, 2),
            stride: (2, 2),
            padding: (0, 0),
            dilation: (1, 1),
            ceil_mode: false,
        };
        let refused = |input, sliding| Pool2d::sliding(input, sliding).unwrap_err().to_string();
        let x = (1, 4, 4, 1);
        assert!(refused(x, Sliding { kernel: (0, 2), ..ok }).starts_with("kernel_size: expected"));
        assert!(refused(x, Sliding { stride: (1, 0), ..ok }).starts_with("stride: expected"));
        assert!(refused(x, Sliding { dilation: (0, 1), ..ok }).starts_with("dilation: expected"));
        assert!(refused(x, Sliding { padding: (2, 1), ..ok }).starts_with("padding: expected"));
        assert!(refused(x, Sliding { kernel: (5, 1), ..ok }).starts_with("input: expected"));
        assert!(refused((1, 0, 4, 1), ok).starts_with("input: expected"));
        let huge = usize::MAX / 2;
        assert!(refused(x, Sliding { stride: (huge, 1), ..ok }).starts_with("stride: expected"));
        assert!(Pool2d::adaptive((1, 0, 4, 1), (1, 1)).is_err());
        let message = Pool2d::adaptive((1, 4, 4, 1), (1 << 23, 1 << 23)).unwrap_err().to_string();
        assert!(message.starts_with("output_size: expected a result that fits"), "{message}");
    }
}
