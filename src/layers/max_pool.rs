//! Max pooling, sliding or adaptive.
//!
//! ```text
//! for each output pixel:                                   (a task takes a block of them)
//!     for each block of channels:
//!         for each pixel under the window:
//!             best = the larger, channel by channel        (in registers)
//! ```
//!
//! The first maximum in row-major order wins, a NaN wins over every number. Training also records
//! where each maximum was found: its number among the pixels under the window, which fits into a
//! byte almost always. Backward, an input pixel looks at the windows over it and takes the gradient
//! of those whose maximum it was: no two tasks write one pixel, each is written once, and the order
//! of every sum is fixed.

use super::blocks::{for_each_block, rows_per_task, set_lanes};
use super::windows::{PairKernel, Pool2d, Taps, Window, WindowKernel};
use crate::isa::{self, Isa, Simd};
use crate::parallel::for_each_chunk;
use crate::rows::{Rows, RowsMut};

/// Index of a window without pixels (possible under dilation); its value is minus infinity.
pub const NOWHERE: i32 = -1;

/// The number of a pixel among those under a window, in row-major order.
pub trait Place: Copy + Default + PartialEq + Send + Sync + 'static {
    /// Whether there is a number for every pixel under the windows.
    fn suffices(pool: &Pool2d) -> bool;
    /// From the number, which fits.
    fn new(tap: i32) -> Self;
    /// The number.
    fn tap(self) -> usize;
}

impl Place for u8 {
    fn suffices(pool: &Pool2d) -> bool {
        pool.taps() <= 1 << u8::BITS
    }
    #[inline(always)]
    fn new(tap: i32) -> u8 {
        tap as u8
    }
    #[inline(always)]
    fn tap(self) -> usize {
        self.into()
    }
}

/// For windows of more than 256 pixels.
impl Place for i32 {
    fn suffices(_: &Pool2d) -> bool {
        true
    }
    #[inline(always)]
    fn new(tap: i32) -> i32 {
        tap
    }
    #[inline(always)]
    fn tap(self) -> usize {
        self as usize
    }
}

/// Maximum under each window, `(N, H_out, W_out, C)`.
pub fn forward(pool: &Pool2d, input: &[f32]) -> Vec<f32> {
    pool.assert_lengths(input.len(), pool.output_len());
    let mut output = vec![0.0; pool.output_len()];
    if !output.is_empty() {
        let output = RowsMut::dense(&mut output, pool.channels);
        forward_into(pool, Rows::dense(input, pool.channels), output);
    }
    output
}

/// [`forward`] of rows with gaps. The batch is that of the rows, whatever `pool` says.
pub fn forward_into(pool: &Pool2d, input: Rows<'_>, output: RowsMut<'_>) {
    pool.for_each_window(input, output, &Maximum);
}

struct Maximum;

impl WindowKernel for Maximum {
    #[inline(always)]
    fn window(&self, taps: &Taps<'_>, output: &mut [f32]) {
        let larger = |best, v| if wins(v, best) { v } else { best };
        taps.fold_channels::<f32, 32>(output, f32::NEG_INFINITY, larger, |best| best);
    }
}

#[inline(always)]
fn wins(challenger: f32, best: f32) -> bool {
    challenger > best || challenger.is_nan()
}

/// [`forward_into`], which also records the place of each maximum. The batch is that of the rows.
///
/// # Panics
/// If there is not a place for each output, or a window has more pixels than `P` can number.
pub fn train_forward_into<P: Place>(
    pool: &Pool2d,
    input: Rows<'_>,
    output: RowsMut<'_>,
    places: &mut [P],
) {
    assert!(P::suffices(pool), "windows of {} pixels", pool.taps());
    pool.for_each_window_with(input, output, places, &MaximumPlace);
}

struct MaximumPlace;

impl<P: Place> PairKernel<P> for MaximumPlace {
    #[inline(always)]
    fn window(&self, taps: &Taps<'_>, output: &mut [f32], places: &mut [P]) {
        let first = search::<P, 32>(taps, 0, output, places);
        let first = search::<P, 8>(taps, first, output, places);
        search::<P, 1>(taps, first, output, places);
    }
}

/// Searches blocks of `N` channels from `first` on while there are such; returns the next channel.
#[inline(always)]
fn search<P: Place, const N: usize>(
    taps: &Taps<'_>,
    mut first: usize,
    output: &mut [f32],
    places: &mut [P],
) -> usize {
    while first + N <= output.len() {
        // In registers; 32 bits wide, so that one comparison serves both.
        let (mut best, mut place, mut tap) = ([f32::NEG_INFINITY; N], [0_i32; N], 0);
        taps.for_each(first, |pixel: &[f32; N]| {
            for c in 0..N {
                let take = wins(pixel[c], best[c]);
                best[c] = if take { pixel[c] } else { best[c] };
                place[c] = if take { tap } else { place[c] };
            }
            tap += 1;
        });
        set_lanes(output, first, best);
        for (to, place) in places[first..first + N].iter_mut().zip(place) {
            *to = P::new(place);
        }
        first += N;
    }
    first
}

/// Gradient of the input from that of the output and the recorded places; overwrites `grad_input`.
/// The batch is that of the slices.
pub fn train_backward_into<P: Place>(
    pool: &Pool2d,
    grad_output: &[f32],
    places: &[P],
    grad_input: &mut [f32],
) {
    let Pool2d { input: (height, width), channels, ref rows, ref cols, .. } = *pool;
    assert_eq!(places.len(), grad_output.len(), "one place for each gradient");
    assert_eq!(
        grad_input.len() * rows.len() * cols.len(),
        grad_output.len() * height * width,
        "gradients of one batch"
    );
    if grad_input.is_empty() {
        return;
    }
    let covers = [covering(rows, height), covering(cols, width)];
    let output = RowsMut::dense(grad_input, channels);
    for_each_block(output, rows_per_task(4 * channels), |first, output| {
        let covers = covers.each_ref().map(|covers| &covers[..]);
        let work = Gather { pool, covers, grad_output, places, first, output };
        isa::dispatch(Isa::active(), work);
    });
}

/// The windows over a position of an axis, and its number among the pixels of each.
type Covers = Vec<(usize, usize)>;

/// Those of every position.
fn covering(windows: &[Window], size: usize) -> Vec<Covers> {
    let mut covers = vec![Vec::new(); size];
    for (index, window) in windows.iter().enumerate() {
        for (tap, position) in window.positions().enumerate() {
            covers[position].push((index, tap));
        }
    }
    covers
}

/// Consecutive input pixels, from number `first` of the batch on, compiled for the vectors of the
/// CPU.
struct Gather<'a, P> {
    pool: &'a Pool2d,
    /// Of rows and of columns.
    covers: [&'a [Covers]; 2],
    grad_output: &'a [f32],
    places: &'a [P],
    first: usize,
    output: RowsMut<'a>,
}

impl<P: Place> isa::Kernel for Gather<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        let (height, width) = self.pool.input;
        // The windows over a pixel: the first element of each, and the pixel's place in it.
        let mut windows: Vec<(usize, P)> = Vec::new();
        for index in 0..self.output.count() {
            let pixel = self.first + index;
            let (image, y, x) = (pixel / (height * width), pixel / width % height, pixel % width);
            windows.clear();
            for &(row, down) in &self.covers[0][y] {
                let line = (image * self.pool.rows.len() + row) * self.pool.cols.len();
                windows.extend(self.covers[1][x].iter().map(|&(col, across)| {
                    let tap = down * self.pool.cols[col].taps + across;
                    ((line + col) * self.pool.channels, P::new(tap as i32))
                }));
            }
            let output = self.output.row_mut(index);
            let first = gather::<P, 32>(&windows, self.grad_output, self.places, 0, output);
            let first = gather::<P, 8>(&windows, self.grad_output, self.places, first, output);
            gather::<P, 1>(&windows, self.grad_output, self.places, first, output);
        }
    }
}

/// Sums blocks of `N` channels from `first` on while there are such; returns the next channel.
#[inline(always)]
fn gather<P: Place, const N: usize>(
    windows: &[(usize, P)],
    grad_output: &[f32],
    places: &[P],
    mut first: usize,
    output: &mut [f32],
) -> usize {
    while first + N <= output.len() {
        let mut sum = [0.0_f32; N];
        for &(at, place) in windows {
            let (g, p) = (&grad_output[at + first..][..N], &places[at + first..][..N]);
            for c in 0..N {
                sum[c] += if p[c] == place { g[c] } else { 0.0 };
            }
        }
        set_lanes(output, first, sum);
        first += N;
    }
    first
}

/// Recorded places as indices `row * W + column`.
pub fn indices<P: Place>(pool: &Pool2d, places: &[P]) -> Vec<i32> {
    let mut indices = vec![NOWHERE; places.len()];
    if places.is_empty() {
        return indices;
    }
    for_each_chunk(&mut indices, pool.output_row(), |row, indices| {
        let down = pool.rows[row % pool.rows.len()];
        let places = places[row * pool.output_row()..].chunks_exact(pool.channels);
        let pixels = indices.chunks_exact_mut(pool.channels).zip(places);
        for (across, (indices, places)) in pool.cols.iter().zip(pixels) {
            if down.taps * across.taps == 0 {
                continue;
            }
            for (index, place) in indices.iter_mut().zip(places) {
                let (y, x) = (place.tap() / across.taps, place.tap() % across.taps);
                let (row, col) = (down.first + y * down.step, across.first + x * across.step);
                *index = (row * pool.input.1 + col) as i32;
            }
        }
    });
    indices
}

#[cfg(test)]
mod tests {
    use super::super::testing::same_for_any_thread_count;
    use super::super::windows::{Sliding, cases};
    use super::*;
    use crate::conv::reference::{close, values};

    /// Maximum and its index, element by element.
    fn naive(pool: &Pool2d, input: &[f32]) -> (Vec<f32>, Vec<i32>) {
        let (batch, rows, cols, channels) = pool.output_shape();
        let (mut output, mut indices) = (Vec::new(), Vec::new());
        for (n, i, j, c) in (0..batch * rows * cols * channels).map(|e| {
            let pixel = e / channels;
            (pixel / (rows * cols), pixel / cols % rows, pixel % cols, e % channels)
        }) {
            let (mut best, mut index) = (f32::NEG_INFINITY, NOWHERE);
            for y in pool.rows[i].positions() {
                for x in pool.cols[j].positions() {
                    let at = y * pool.input.1 + x;
                    let v = input[(n * pool.input.0 * pool.input.1 + at) * channels + c];
                    if index == NOWHERE || v > best || v.is_nan() {
                        (best, index) = (v, at as i32);
                    }
                }
            }
            output.push(best);
            indices.push(index);
        }
        (output, indices)
    }

    fn with_places<P: Place>(pool: &Pool2d, input: &[f32]) -> (Vec<f32>, Vec<P>) {
        let mut output = vec![f32::NAN; pool.output_len()];
        let mut places = vec![P::default(); pool.output_len()];
        let rows = RowsMut::dense(&mut output, pool.channels);
        train_forward_into(pool, Rows::dense(input, pool.channels), rows, &mut places);
        (output, places)
    }

    fn gradient<P: Place>(pool: &Pool2d, grad: &[f32], places: &[P]) -> Vec<f32> {
        let mut result = vec![f32::NAN; pool.input_len()];
        train_backward_into(pool, grad, places, &mut result);
        result
    }

    #[test]
    fn agrees_with_the_naive_search() {
        for pool in cases() {
            let input = values(pool.input_len(), 1);
            let (expected, expected_indices) = naive(&pool, &input);
            let (wide, places) = with_places::<i32>(&pool, &input);
            assert_eq!(wide, expected, "{pool:?}");
            assert_eq!(indices(&pool, &places), expected_indices, "{pool:?}");
            if u8::suffices(&pool) {
                let (narrow, places) = with_places::<u8>(&pool, &input);
                assert_eq!(narrow, expected, "{pool:?}");
                assert_eq!(indices(&pool, &places), expected_indices, "{pool:?}");
            }
            assert_eq!(forward(&pool, &input), expected, "{pool:?}");
        }
    }

    #[test]
    fn the_gradient_lands_on_the_recorded_pixel() {
        for pool in cases() {
            let input = values(pool.input_len(), 1);
            let grad = values(pool.output_len(), 2);
            let (_, indices) = naive(&pool, &input);
            let mut expected = vec![0.0; pool.input_len()];
            let per_image = pool.rows.len() * pool.output_row();
            for (e, (&g, &at)) in grad.iter().zip(&indices).enumerate() {
                if at != NOWHERE {
                    let plane = e / per_image * pool.input.0 * pool.input.1;
                    expected[(plane + at as usize) * pool.channels + e % pool.channels] += g;
                }
            }
            let got = gradient(&pool, &grad, &with_places::<i32>(&pool, &input).1);
            assert!(close(&got, &expected, 1e-6), "{pool:?}");
            if u8::suffices(&pool) {
                let narrow = gradient(&pool, &grad, &with_places::<u8>(&pool, &input).1);
                assert_eq!(narrow, got, "{pool:?}");
            }
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        for pool in cases() {
            let input = values(pool.input_len(), 1);
            let grad = values(pool.output_len(), 2);
            same_for_any_thread_count(|| {
                let (output, places) = with_places::<i32>(&pool, &input);
                (gradient(&pool, &grad, &places), output, places)
            });
        }
    }

    fn pool(size: usize, kernel: usize, padding: usize, ceil_mode: bool) -> Pool2d {
        let (kernel, padding) = ((kernel, kernel), (padding, padding));
        let sliding = Sliding { kernel, stride: (2, 2), padding, dilation: (1, 1), ceil_mode };
        Pool2d::sliding((1, size, size, 1), sliding).unwrap()
    }

    #[test]
    fn known_values() {
        let counting = |n: usize| (0..n).map(|v| v as f32).collect::<Vec<_>>();
        assert_eq!(forward(&pool(5, 3, 0, false), &counting(25)), [12., 14., 22., 24.]);
        assert_eq!(forward(&pool(6, 3, 0, false), &counting(36)), [14., 16., 26., 28.]);
        assert_eq!(
            forward(&pool(6, 3, 0, true), &counting(36)),
            [14., 16., 17., 26., 28., 29., 32., 34., 35.]
        );
        assert_eq!(
            forward(&pool(6, 3, 1, false), &counting(36)),
            [7., 9., 11., 19., 21., 23., 31., 33., 35.]
        );
    }

    #[test]
    fn the_first_of_equal_values_and_any_nan_win() {
        let pool = pool(2, 2, 0, false);
        let (_, places) = with_places::<u8>(&pool, &[5.0; 4]);
        assert_eq!(gradient(&pool, &[3.0], &places), [3.0, 0.0, 0.0, 0.0]);
        assert_eq!(with_places::<u8>(&pool, &[f32::NEG_INFINITY; 4]).1, [0]);
        let (value, place) = with_places::<u8>(&pool, &[1.0, f32::NAN, 9.0, 0.0]);
        assert!(value[0].is_nan() && place == [1]);
    }

    #[test]
    fn a_byte_numbers_up_to_256_pixels() {
        for (size, narrow) in [(16, true), (17, false)] {
            let pool = Pool2d::adaptive((1, 16, size, 1), (1, 1)).unwrap();
            assert_eq!(u8::suffices(&pool), narrow);
        }
        let pool = Pool2d::adaptive((1, 16, 16, 1), (1, 1)).unwrap();
        let (_, places) = with_places::<u8>(&pool, &(0..256).map(|v| v as f32).collect::<Vec<_>>());
        assert_eq!(places, [255]);
    }
}
