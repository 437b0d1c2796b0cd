//! From weights to U, and back.

use std::ops::Range;

use super::TileSize;
use super::transforms::{self, F2, F4, F6, Transform, original_weight};
use crate::gemm::Source;
use crate::isa::{Isa, Kernel, Simd, dispatch};
use crate::rows::RowsMut;

/// Floats in the widest panel row there is.
const MAX_WIDTH: usize = 32;

/// Writes a panel of transformed weights: output channels `first..`, all positions and input channels.
pub(super) fn pack_panel<T: Transform<IN, OUT>, const IN: usize, const OUT: usize>(
    isa: Isa,
    channels: usize,
    first: usize,
    weight: &Source<'_>,
    mut panel: RowsMut<'_>,
) {
    /// Input channels taken together: their nine taps stay in the first-level cache.
    const CHANNELS: usize = 16;
    let (count, width) = (panel.channels(), panel.stride());
    let mut taps = [0.0; 9 * CHANNELS * MAX_WIDTH];
    assert!(width <= MAX_WIDTH, "panels of {width}");
    for c in (0..channels).step_by(CHANNELS) {
        let rows = CHANNELS.min(channels - c);
        for (tap, to) in taps.chunks_exact_mut(CHANNELS * MAX_WIDTH).enumerate() {
            weight(tap * channels + c, first, RowsMut::new(to, rows, count, MAX_WIDTH));
        }
        let transform = std::marker::PhantomData::<T>;
        let (taps, panel) = (&taps, panel.reborrow());
        let channels = c..c + rows;
        dispatch(isa, WeightTransform::<T, IN, OUT> { taps, channels, panel, transform });
    }
}

/// From weights to U.
struct WeightTransform<'a, T, const IN: usize, const OUT: usize> {
    /// Of each tap 16 rows of [`MAX_WIDTH`] floats, one for each of the channels.
    taps: &'a [f32],
    channels: Range<usize>,
    /// A panel of U, row `p * C + c`.
    panel: RowsMut<'a>,
    transform: std::marker::PhantomData<T>,
}

impl<T: Transform<IN, OUT>, const IN: usize, const OUT: usize> Kernel
    for WeightTransform<'_, T, IN, OUT>
{
    type Output = ();

    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "see the module above")]
    fn run<S: Simd>(mut self, simd: S) {
        let width = self.panel.stride();
        let channels = self.panel.count() / (IN * IN);
        assert!(self.channels.end <= channels && width.is_multiple_of(S::LANES));
        let tap = self.taps.len() / 9;
        let to = self.panel.as_mut_ptr();
        let mut half = [[simd.splat(0.0); 3]; IN];
        for (index, c) in self.channels.enumerate() {
            for o in (0..self.panel.channels()).step_by(S::LANES) {
                for v in 0..3 {
                    let mut column = [simd.splat(0.0); 3];
                    for u in 0..3 {
                        let at = (u * 3 + v) * tap + index * MAX_WIDTH + o;
                        // SAFETY: a row has MAX_WIDTH floats, and `o + LANES` is no more.
                        column[u] = unsafe { simd.load(self.taps[at..].as_ptr()) };
                    }
                    let column = transforms::weights::<S, T, IN, OUT>(simd, column);
                    for i in 0..IN {
                        half[i][v] = column[i];
                    }
                }
                for i in 0..IN {
                    let row = transforms::weights::<S, T, IN, OUT>(simd, half[i]);
                    for j in 0..IN {
                        let k = (i * IN + j) * channels + c;
                        // SAFETY: the panel's row `k` exists; rows are whole vectors wide, the
                        // last one too, since panels are.
                        unsafe { simd.store(to.add(k * width + o), row[j]) }
                    }
                }
            }
        }
    }
}

/// A weight of a pair of channels, from its transformed weights.
pub(super) fn original(
    size: TileSize,
    tap: (usize, usize),
    u: impl Fn(usize, usize) -> f32,
) -> f32 {
    match size {
        TileSize::F2 => original_weight::<F2, 4, 2>(tap, u),
        TileSize::F4 => original_weight::<F4, 6, 4>(tap, u),
        TileSize::F6 => original_weight::<F6, 8, 6>(tap, u),
    }
}
