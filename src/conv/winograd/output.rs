//! From M to pixels.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::transforms::Transform;
use super::{LINE, Run};
use crate::isa::{Kernel, Simd, finish_streams};
use crate::rows::Rows;

/// The way back of some tiles and output channels: bias, residual and clamp with it.
pub(super) struct OutputTransform<'a, T, const IN: usize, const OUT: usize> {
    pub(super) run: &'a Run<'a>,
    pub(super) tiles: Range<usize>,
    pub(super) channels: Range<usize>,
    pub(super) m: Rows<'a>,
    pub(super) transform: std::marker::PhantomData<T>,
}

impl<T: Transform<IN, OUT>, const IN: usize, const OUT: usize> Kernel
    for OutputTransform<'_, T, IN, OUT>
{
    type Output = ();

    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "see the module above")]
    fn run<S: Simd>(self, simd: S) {
        let run = self.run;
        let conv = &run.layer.conv;
        let bounds = run.epilogue.activation.bounds();
        let (low, high) = (simd.splat(bounds.low), simd.splat(bounds.high));
        let width = run.layer.columns;
        assert!(self.m.count() == IN * IN && self.tiles.len() * width <= self.m.channels());
        // A sum that is not finite times zero is NaN, and so is all that is added to it.
        let mut bad = simd.splat(0.0);
        let m = self.m.as_slice().as_ptr();
        let mut half = [[simd.splat(0.0); IN]; OUT];
        for (index, tile) in self.tiles.enumerate() {
            let (image, row, col) = run.images.origin(tile);
            let first_pixel = (image * conv.output.0 + row) * conv.output.1 + col;
            let rows = OUT.min(conv.output.0 - row);
            let cols = OUT.min(conv.output.1 - col);
            for o in (0..self.channels.len()).step_by(S::LANES) {
                let count = S::LANES.min(self.channels.len() - o);
                let channel = self.channels.start + o;
                // Past the caches go whole lines only.
                let whole = S::LANES == LINE && count == LINE && channel.is_multiple_of(LINE);
                let stream = run.stream && whole;
                for j in 0..IN {
                    let mut column = [simd.splat(0.0); IN];
                    for i in 0..IN {
                        let at = (i * IN + j) * self.m.stride() + index * width + o;
                        // Lanes beyond the channels may hold anything, NaN too.
                        // SAFETY: row `i * IN + j` of M has `width` floats for each tile.
                        column[i] = unsafe {
                            let at = m.add(at);
                            if count == S::LANES {
                                simd.load(at)
                            } else {
                                simd.load_partial(at, count)
                            }
                        };
                    }
                    let column = T::output(simd, column);
                    for i in 0..OUT {
                        half[i][j] = column[i];
                    }
                }
                let start = match run.bias {
                    // SAFETY: the bias is padded to a multiple of the micro-kernel's width.
                    Some(bias) => unsafe { simd.load(bias[channel..].as_ptr()) },
                    None => simd.splat(0.0),
                };
                for i in 0..OUT {
                    let y = T::output(simd, half[i]);
                    for j in 0..OUT {
                        bad = simd.mul_add(y[j], simd.splat(0.0), bad);
                        if i >= rows || j >= cols {
                            continue;
                        }
                        let pixel = first_pixel + i * conv.output.1 + j;
                        let mut sum = simd.add(y[j], start);
                        if let Some(residual) = run.epilogue.residual {
                            let from = residual.row(pixel)[channel..].as_ptr();
                            // SAFETY: a row of the residual has `count` floats from `channel` on.
                            sum = simd.add(sum, unsafe {
                                if count == S::LANES {
                                    simd.load(from)
                                } else {
                                    simd.load_partial(from, count)
                                }
                            });
                        }
                        let sum = simd.at_most(simd.at_least(sum, low), high);
                        // SAFETY: the pixel belongs to this tile and to no other, and a tile's
                        // channels to one task; the row has `count` floats from `channel` on. What
                        // is streamed begins on a line, and is finished below.
                        unsafe {
                            let to = run.output.row_ptr(pixel).add(channel);
                            if stream {
                                simd.stream(to, sum)
                            } else if count == S::LANES {
                                simd.store(to, sum)
                            } else {
                                simd.store_partial(to, sum, count)
                            }
                        }
                    }
                }
            }
        }
        if run.stream {
            finish_streams();
        }
        let mut lanes = [0.0_f32; 16];
        assert!(S::LANES <= lanes.len());
        // SAFETY: `lanes` has room for a vector.
        unsafe { simd.store(lanes.as_mut_ptr(), bad) }
        if lanes.iter().any(|x| x.is_nan()) {
            run.finite.store(false, Relaxed);
        }
    }
}
