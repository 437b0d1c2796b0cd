//! From pixels to V.

use std::ops::Range;

use super::super::geometry::Conv2d;
use super::TileSize;
use super::transforms::Transform;
use crate::isa::{Isa, Kernel, Simd, dispatch};
use crate::rows::{Rows, RowsMut};

/// Images cut into tiles.
#[derive(Clone, Copy)]
pub(super) struct Images<'a> {
    pub(super) conv: &'a Conv2d,
    pub(super) size: TileSize,
    pub(super) input: Rows<'a>,
    /// Floats between the rows of V.
    pub(super) pitch: usize,
    /// A row of zeros: what lies outside an image.
    pub(super) zeros: &'a [f32],
}

impl Images<'_> {
    /// Image, and first output row and column of a tile.
    pub(super) fn origin(&self, tile: usize) -> (usize, usize, usize) {
        let (rows, cols) = self.size.tiles(self.conv.output);
        let m = self.size.outputs();
        (tile / (rows * cols), tile / cols % rows * m, tile % cols * m)
    }

    /// V of `tiles`: row `p` of `v` is position `p`.
    pub(super) fn transform<T: Transform<IN, OUT>, const IN: usize, const OUT: usize>(
        &self,
        isa: Isa,
        tiles: Range<usize>,
        v: RowsMut<'_>,
    ) {
        let transform = std::marker::PhantomData::<T>;
        let kernel = InputTransform::<T, IN, OUT> { images: *self, tiles, v, transform };
        dispatch(isa, kernel);
    }
}

/// The kernel of [`Images::transform`].
struct InputTransform<'a, T, const IN: usize, const OUT: usize> {
    images: Images<'a>,
    tiles: Range<usize>,
    v: RowsMut<'a>,
    transform: std::marker::PhantomData<T>,
}

impl<T: Transform<IN, OUT>, const IN: usize, const OUT: usize> Kernel
    for InputTransform<'_, T, IN, OUT>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let Images { conv, input, pitch, zeros, .. } = self.images;
        let channels = conv.in_channels;
        let full = channels / S::LANES * S::LANES;
        let stride = self.v.stride();
        let mut half = [[simd.splat(0.0); IN]; IN];
        for (index, tile) in self.tiles.clone().enumerate() {
            let (image, row, col) = self.images.origin(tile);
            let mut pixels = [[zeros.as_ptr(); IN]; IN];
            for (i, pixels) in pixels.iter_mut().enumerate() {
                let y = (row + i).wrapping_sub(conv.padding.top);
                if y >= conv.input.0 {
                    continue;
                }
                let line = (image * conv.input.0 + y) * conv.input.1;
                for (j, pixel) in pixels.iter_mut().enumerate() {
                    let x = (col + j).wrapping_sub(conv.padding.left);
                    if x < conv.input.1 {
                        *pixel = input.row(line + x).as_ptr();
                    }
                }
            }
            assert!((index + 1) * pitch <= self.v.channels() && self.v.count() == IN * IN);
            let to = self.v.as_mut_ptr().wrapping_add(index * pitch);
            for c in (0..full).step_by(S::LANES) {
                // SAFETY: `pixels` are rows of `channels` floats (the row of zeros has at least as
                // many), and a row of V has `pitch >= channels` floats for this tile.
                unsafe { self.vector::<S, true>(simd, &pixels, &mut half, (to, stride), c) }
            }
            if full < channels {
                // SAFETY: as above; `pitch` is a multiple of a vector's length.
                unsafe { self.vector::<S, false>(simd, &pixels, &mut half, (to, stride), full) }
            }
        }
    }
}

impl<T: Transform<IN, OUT>, const IN: usize, const OUT: usize> InputTransform<'_, T, IN, OUT> {
    /// Transforms the channels of one tile that a vector holds, from channel `c` on; `half` is
    /// where the tile waits between its two transforms.
    ///
    /// # Safety
    /// - Every pixel has `c + LANES` floats, or `FULL` is false and it has all channels.
    /// - `to` and every `stride` floats further, `IN * IN` times, can take `c + LANES` floats.
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "see the module above")]
    unsafe fn vector<S: Simd, const FULL: bool>(
        &self,
        simd: S,
        pixels: &[[*const f32; IN]; IN],
        half: &mut [[S::Vector; IN]; IN],
        (to, stride): (*mut f32, usize),
        c: usize,
    ) {
        let rest = self.images.conv.in_channels - c;
        for j in 0..IN {
            let mut column = [simd.splat(0.0); IN];
            for i in 0..IN {
                // SAFETY: the caller vouches for the pixels.
                column[i] = unsafe {
                    let at = pixels[i][j].add(c);
                    if FULL { simd.load(at) } else { simd.load_partial(at, rest) }
                };
            }
            let column = T::input(simd, column);
            for i in 0..IN {
                half[i][j] = column[i];
            }
        }
        for i in 0..IN {
            let row = T::input(simd, half[i]);
            for j in 0..IN {
                // SAFETY: the caller vouches for V.
                unsafe { simd.store(to.add((i * IN + j) * stride + c), row[j]) }
            }
        }
    }
}
