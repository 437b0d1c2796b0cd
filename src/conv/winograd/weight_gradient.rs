//! Gradient of 3 x 3 weights in fewer multiplications.
//!
//! The forward pass is linear in each of its two factors, so its transforms, turned around, carry the
//! gradient of the outputs to that of the weights. Where a tile of outputs is `A' [(G g G') . (B' d B)]
//! A`, the gradient of `g` is
//!
//! ```text
//! G' [ sum over tiles of (A dy A') . (B' d B) ] G         (dy: gradient of the tile, . by element)
//! ```
//!
//! and with many channels the sum is, for each of the `n * n` positions in a tile, a matrix product
//! over tiles:
//!
//! ```text
//! V[p][t][c] = B' d B of tile t             W[p][t][o] = A dy A' of tile t
//! U[p][c][o] = sum over t of V[p][t][c] * W[p][t][o]        (a sum over pixels, as of `gemm`)
//! grad_weight[..][c][o] = G' U[..][c][o] G
//! ```
//!
//! As many multiplications remain as in the forward pass: a quarter for F(4, 3), a fifth for F(6, 3).
//! W is written in the panels that the products read. Two ways to go through memory:
//!
//! - **All tiles at once**, where V and W are small: a task owns a block of U for all positions,
//!   which stays in its cache, and carries it through the transform. U as a whole never exists.
//! - **Chunks of tiles**, where there are many: V and W of a chunk are made by all threads, then
//!   multiplied by all threads, a task adding to its own block of one position of U.
//!
//! Chunks follow from the geometry and each element of U is added up in the order of the tiles, so no
//! bit depends on the number of threads.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::transforms::{self, F2, F4, F6, Transform};
use super::{Images, LINE, Range, TileSize, Winograd};
use crate::conv::geometry::Conv2d;
use crate::gemm::{PackedRows, Pixels, add_product, tile_shape};
use crate::isa::{Isa, Kernel, Simd, dispatch};
use crate::memory::Scratch;
use crate::parallel;
use crate::rows::{Rows, RowsMut, SharedRows, Tile, Tiling, roomy_stride};

/// Tiles of a chunk: enough that U does not go through memory too often, few enough for the rounding
/// of their sum.
const MOST_TILES: usize = 512;
const FEWEST_TILES: usize = 192;
/// Floats of V and W together, beyond the fewest tiles: 8 MiB.
const CHUNK: usize = 2 << 20;
/// Tiles that are transformed by one task.
const TOGETHER: usize = 4;
/// Tasks wanted, so that a few threads finish at about the same time.
const TASKS: usize = 12;

/// Gradient of the weights, into `grad_weight`; false if something is not finite, which would have
/// spread over the taps of a kernel.
pub fn weight_gradient(
    conv: &Conv2d,
    size: TileSize,
    isa: Isa,
    (input, grad_output): (&[f32], &[f32]),
    grad_weight: &mut [f32],
) -> bool {
    match size {
        TileSize::F2 => run::<F2, 4, 2>(conv, size, isa, (input, grad_output), grad_weight),
        TileSize::F4 => run::<F4, 6, 4>(conv, size, isa, (input, grad_output), grad_weight),
        TileSize::F6 => run::<F6, 8, 6>(conv, size, isa, (input, grad_output), grad_weight),
    }
}

/// Tiles of a batch, and of the largest chunk.
pub fn chunks(conv: &Conv2d, size: TileSize) -> (usize, usize) {
    let (rows, cols) = size.tiles(conv.output);
    let tiles = conv.batch * rows * cols;
    let each = size.positions() * (conv.in_channels + conv.out_channels);
    let most = (CHUNK / each).clamp(FEWEST_TILES, MOST_TILES);
    (tiles, tiles.div_ceil(tiles.div_ceil(most).max(1)))
}

fn run<T: Transform<IN, OUT>, const IN: usize, const OUT: usize>(
    conv: &Conv2d,
    size: TileSize,
    isa: Isa,
    (input, grad_output): (&[f32], &[f32]),
    grad_weight: &mut [f32],
) -> bool {
    let (channels, out) = (conv.in_channels, conv.out_channels);
    let (tiles, chunk) = chunks(conv, size);
    let (height, width) = tile_shape(isa);
    let pitch = roomy_stride(channels.next_multiple_of(LINE));
    let zeros = vec![0.0; pitch.max(out.next_multiple_of(width))];
    let input = Rows::dense(input, channels);
    let sum = Sum {
        images: Images { conv, size, input, pitch, zeros: &zeros },
        grad_output: Rows::dense(grad_output, out),
        isa,
        panels: out.div_ceil(width),
    };
    let mut v = Scratch::new(IN * IN * sum.v_stride(chunk) + LINE);
    let mut w = Scratch::new(IN * IN * sum.panels * sum.panel_stride(chunk) + LINE);
    let (v, w) = (aligned(&mut v), aligned(&mut w));
    let finite = AtomicBool::new(true);
    let result = SharedRows::new(RowsMut::dense(grad_weight, out));
    let back = |u: Rows<'_>, rows: Range<usize>, first: (usize, usize)| {
        let (result, finite, transform) = (&result, &finite, std::marker::PhantomData::<T>);
        let back =
            WeightsBack::<T, IN, OUT> { u, rows, first, channels, result, finite, transform };
        dispatch(isa, back);
    };
    if tiles == chunk {
        sum.transform::<T, IN, OUT>(0..tiles, v, w);
        let blocks = [(8, 4), (4, 4), (4, 2), (2, 2), (2, 1)];
        let blocks = blocks.map(|(down, across)| (down * height, across * width));
        let count = |(rows, columns)| channels.div_ceil(rows) * out.div_ceil(columns);
        let block = blocks.into_iter().find(|&block| count(block) >= TASKS);
        let (rows, columns) = block.unwrap_or((2 * height, width));
        let (rows, columns) = (even(channels, rows, 1), even(out, columns, width));
        let down = channels.div_ceil(rows);
        let len = IN * IN * rows * columns;
        let mut scratch = Scratch::new(len * parallel::workers());
        parallel::for_each_with(count((rows, columns)), &mut scratch, len, |u, task| {
            let (c, o) = (task % down * rows, task / down * columns);
            let (rows, columns) = (rows.min(channels - c), columns.min(out - o));
            for (position, u) in u.chunks_exact_mut(rows * columns).take(IN * IN).enumerate() {
                u.fill(0.0);
                let rows = RowsMut::new(u, rows, columns, columns);
                sum.multiply(tiles, position, Tile { first_row: c, first_channel: o, rows }, v, w);
            }
            back(Rows::new(u, IN * IN * rows, columns, columns), 0..rows, (c, o));
        });
        return finite.into_inner();
    }
    let stride = roomy_stride(out);
    let mut u = Scratch::new(IN * IN * channels * stride);
    let tiling = Tiling {
        group: channels,
        rows: even(channels, 8 * height, 1),
        channels: even(out, 4 * width, width),
    };
    for first in (0..tiles).step_by(chunk) {
        let part = first..(first + chunk).min(tiles);
        let count = part.len();
        sum.transform::<T, IN, OUT>(part, v, w);
        let u = RowsMut::new(&mut u, IN * IN * channels, out, stride);
        u.for_each_tile(tiling, |mut tile| {
            if first == 0 {
                (0..tile.rows.count()).for_each(|row| tile.rows.row_mut(row).fill(0.0));
            }
            let position = tile.first_row / channels;
            let first_row = tile.first_row % channels;
            sum.multiply(count, position, Tile { first_row, ..tile }, v, w);
        });
    }
    let (u, each) = (Rows::new(&u, IN * IN * channels, out, stride), channels.div_ceil(TASKS));
    parallel::for_each(channels.div_ceil(each), |_, task| {
        back(u, task * each..((task + 1) * each).min(channels), (0, 0));
    });
    finite.into_inner()
}

/// The length of parts of `len`, multiples of `unit` of nearly equal length, at most `most`.
fn even(len: usize, most: usize, unit: usize) -> usize {
    len.div_ceil(len.div_ceil(most)).next_multiple_of(unit)
}

/// The part of a buffer that begins on a cache line.
fn aligned(buffer: &mut [f32]) -> &mut [f32] {
    let misaligned = buffer.as_ptr().align_offset(4 * LINE).min(LINE);
    &mut buffer[misaligned..]
}

/// A sum over the tiles of a batch.
struct Sum<'a> {
    images: Images<'a>,
    grad_output: Rows<'a>,
    isa: Isa,
    /// Panels of W at each position.
    panels: usize,
}

impl Sum<'_> {
    /// Floats between the rows of positions in V, for so many tiles.
    fn v_stride(&self, tiles: usize) -> usize {
        Winograd::position_stride(tiles * self.images.pitch)
    }

    /// Floats between panels of W.
    fn panel_stride(&self, tiles: usize) -> usize {
        Winograd::position_stride(tiles * tile_shape(self.isa).1)
    }

    /// Makes V and W of some tiles.
    fn transform<T: Transform<IN, OUT>, const IN: usize, const OUT: usize>(
        &self,
        tiles: Range<usize>,
        v: &mut [f32],
        w: &mut [f32],
    ) {
        let (count, pitch, width) = (tiles.len(), self.images.pitch, tile_shape(self.isa).1);
        // Rows are positions here (and panels), tiles of the tiling a few tiles of the image.
        let range = |part: &Tile<'_>, pitch: usize| {
            let first = tiles.start + part.first_channel / pitch;
            first..first + part.rows.channels() / pitch
        };
        let rows = RowsMut::new(v, IN * IN, count * pitch, self.v_stride(count));
        let tiling = Tiling { group: usize::MAX, rows: IN * IN, channels: TOGETHER * pitch };
        rows.for_each_tile(tiling, |part| {
            self.images.transform::<T, IN, OUT>(self.isa, range(&part, pitch), part.rows);
        });
        let rows = IN * IN * self.panels;
        let tiling = Tiling { group: usize::MAX, rows, channels: TOGETHER * width };
        let rows = RowsMut::new(w, rows, count * width, self.panel_stride(count));
        rows.for_each_tile(tiling, |part| {
            let (tiles, transform) = (range(&part, width), std::marker::PhantomData::<T>);
            let Sum { images, grad_output, panels, .. } = *self;
            let w = part.rows;
            let kernel = GradientTransform::<T, IN, OUT> {
                images,
                grad_output,
                tiles,
                panels,
                w,
                transform,
            };
            dispatch(self.isa, kernel);
        });
    }

    /// Adds the products of `tiles` tiles at a position to a block of U.
    fn multiply(&self, tiles: usize, position: usize, u: Tile<'_>, v: &[f32], w: &[f32]) {
        let (conv, width) = (self.images.conv, tile_shape(self.isa).1);
        let v = &v[position * self.v_stride(tiles)..][..tiles * self.images.pitch];
        let seen = Pixels {
            data: &v[u.first_row..],
            rows: u.rows.count(),
            step: self.images.pitch,
            count: tiles,
            lines: &[0],
            unit: 1,
        };
        let (stride, first) = (self.panel_stride(tiles), u.first_channel / width);
        let panels = &w[(position * self.panels + first) * stride..];
        let shape = (tiles, conv.out_channels - u.first_channel);
        let packed = PackedRows::from_panels(self.isa, shape, panels, stride);
        add_product(&seen, &packed, &[0], u.rows);
    }
}

/// From the gradient of the outputs to W.
struct GradientTransform<'a, T, const IN: usize, const OUT: usize> {
    images: Images<'a>,
    grad_output: Rows<'a>,
    tiles: Range<usize>,
    /// Panels at each position.
    panels: usize,
    /// Row `p * panels + panel`: a row of the panel for each tile.
    w: RowsMut<'a>,
    transform: std::marker::PhantomData<T>,
}

// Loops over indices instead of closures, as in `InputTransform`.
impl<T: Transform<IN, OUT>, const IN: usize, const OUT: usize> Kernel
    for GradientTransform<'_, T, IN, OUT>
{
    type Output = ();

    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "see above")]
    fn run<S: Simd>(mut self, simd: S) {
        let Images { conv, zeros, .. } = self.images;
        let ((height, columns), out) = (conv.output, conv.out_channels);
        let (count, stride) = (self.tiles.len(), self.w.stride());
        let width = self.w.channels() / count.max(1);
        let padded = self.panels * width;
        assert!(self.w.count() == IN * IN * self.panels && width.is_multiple_of(S::LANES));
        assert!(padded >= out && zeros.len() >= out && self.grad_output.channels() == out);
        let to = self.w.as_mut_ptr();
        let mut half = [[simd.splat(0.0); OUT]; IN];
        for (index, tile) in self.tiles.clone().enumerate() {
            let (image, row, col) = self.images.origin(tile);
            let mut pixels = [[zeros.as_ptr(); OUT]; OUT];
            for i in 0..OUT.min(height - row) {
                let line = (image * height + row + i) * columns + col;
                for j in 0..OUT.min(columns - col) {
                    pixels[i][j] = self.grad_output.row(line + j).as_ptr();
                }
            }
            for o in (0..padded).step_by(S::LANES) {
                let rest = S::LANES.min(out.saturating_sub(o));
                for j in 0..OUT {
                    let mut column = [simd.splat(0.0); OUT];
                    for i in 0..OUT {
                        let at = pixels[i][j].wrapping_add(o);
                        // SAFETY: pixels, and the row of zeros, have `out` floats, of which `rest`
                        // come from `o` on.
                        column[i] = unsafe {
                            if rest == S::LANES {
                                simd.load(at)
                            } else {
                                simd.load_partial(at, rest)
                            }
                        };
                    }
                    let column = T::gradient(simd, column);
                    for i in 0..IN {
                        half[i][j] = column[i];
                    }
                }
                let (panel, lane) = (o / width, o % width);
                for i in 0..IN {
                    let line = T::gradient(simd, half[i]);
                    for j in 0..IN {
                        let row = (i * IN + j) * self.panels + panel;
                        // SAFETY: the row exists and has `width` floats for each tile, of which
                        // `LANES` come from `lane` on.
                        unsafe {
                            simd.store(to.add(row * stride + index * width + lane), line[j]);
                        }
                    }
                }
            }
        }
    }
}

/// From U to the gradient of the weights.
struct WeightsBack<'a, T, const IN: usize, const OUT: usize> {
    /// A block of U: as many rows for each position.
    u: Rows<'a>,
    /// Those to transform.
    rows: Range<usize>,
    /// Input and output channel of the block's first element.
    first: (usize, usize),
    /// All input channels.
    channels: usize,
    /// Row `tap * C + c`.
    result: &'a SharedRows<'a>,
    finite: &'a AtomicBool,
    transform: std::marker::PhantomData<T>,
}

impl<T: Transform<IN, OUT>, const IN: usize, const OUT: usize> Kernel
    for WeightsBack<'_, T, IN, OUT>
{
    type Output = ();

    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "see above")]
    fn run<S: Simd>(self, simd: S) {
        let (each, columns, stride) =
            (self.u.count() / (IN * IN), self.u.channels(), self.u.stride());
        assert!(self.rows.end <= each);
        let u = self.u.as_slice().as_ptr();
        // A value that is not finite times zero is NaN, and so is all that is added to it.
        let mut bad = simd.splat(0.0);
        let mut half = [[simd.splat(0.0); IN]; 3];
        for row in self.rows {
            for o in (0..columns).step_by(S::LANES) {
                let count = S::LANES.min(columns - o);
                for j in 0..IN {
                    let mut column = [simd.splat(0.0); IN];
                    for i in 0..IN {
                        let at = ((i * IN + j) * each + row) * stride + o;
                        // SAFETY: the row exists and has `count` floats from `o` on.
                        column[i] = unsafe {
                            if count == S::LANES {
                                simd.load(u.add(at))
                            } else {
                                simd.load_partial(u.add(at), count)
                            }
                        };
                    }
                    let column = transforms::weight_gradient::<S, T, IN, OUT>(simd, column);
                    for k in 0..3 {
                        half[k][j] = column[k];
                    }
                }
                for k in 0..3 {
                    let line = transforms::weight_gradient::<S, T, IN, OUT>(simd, half[k]);
                    for l in 0..3 {
                        bad = simd.mul_add(line[l], simd.splat(0.0), bad);
                        let to = (k * 3 + l) * self.channels + self.first.0 + row;
                        let to = self.result.row_ptr(to).wrapping_add(self.first.1 + o);
                        // SAFETY: the row has `count` floats from here; input and output channels
                        // of a block belong to one task.
                        unsafe {
                            if count == S::LANES {
                                simd.store(to, line[l]);
                            } else {
                                simd.store_partial(to, line[l], count);
                            }
                        }
                    }
                }
            }
        }
        let mut lanes = [0.0_f32; 16];
        assert!(S::LANES <= lanes.len());
        // SAFETY: `lanes` has room for a vector.
        unsafe { simd.store(lanes.as_mut_ptr(), bad) }
        if lanes.iter().any(|x| x.is_nan()) {
            self.finite.store(false, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::geometry::Padding;
    use super::super::super::reference::{self, close, values, winograd_cases};
    use super::*;

    const SIZES: [TileSize; 3] = [TileSize::F2, TileSize::F4, TileSize::F6];

    fn conv(input: (usize, usize, usize, usize), out: usize) -> Conv2d {
        let weight = (3, 3, input.3, out);
        Conv2d::new(input, weight, (1, 1), Padding::symmetric(1, 1), (1, 1), 1).unwrap()
    }

    /// More tiles than a chunk has, the last chunk shorter; blocks of channels that are not even.
    fn many_tiles() -> Vec<Conv2d> {
        vec![conv((3, 60, 61, 17), 20), conv((1, 90, 91, 5), 37), conv((2, 50, 49, 120), 4)]
    }

    #[test]
    fn agrees_with_the_naive_sum() {
        for conv in winograd_cases().into_iter().chain(many_tiles()) {
            let (input, grad) = (values(conv.input_len(), 1), values(conv.output_len(), 2));
            let (expected, _) = reference::backward_weight(&conv, &input, &grad);
            for size in SIZES {
                for isa in Isa::available() {
                    let mut got = vec![f32::NAN; conv.weight_len()];
                    assert!(weight_gradient(&conv, size, isa, (&input, &grad), &mut got));
                    assert!(close(&got, &expected, 5e-5), "{size:?} {isa:?} {conv:?}");
                }
            }
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        for conv in many_tiles().into_iter().chain([conv((2, 13, 12, 130), 70)]) {
            let (input, grad) = (values(conv.input_len(), 1), values(conv.output_len(), 2));
            for size in SIZES {
                let run = |threads| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                    let mut got = vec![f32::NAN; conv.weight_len()];
                    pool.unwrap().install(|| {
                        let isa = Isa::active();
                        weight_gradient(&conv, size, isa, (&input, &grad), &mut got);
                    });
                    got
                };
                let one = run(1);
                for threads in [2, 3, 8] {
                    assert!(one == run(threads), "{threads} threads, {size:?} {conv:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_noticed() {
        let conv = conv((1, 9, 8, 17), 18);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            for in_input in [true, false] {
                let (mut input, mut grad) =
                    (values(conv.input_len(), 1), values(conv.output_len(), 2));
                let spoilt = if in_input { &mut input } else { &mut grad };
                let middle = spoilt.len() / 2;
                spoilt[middle] = bad;
                for size in SIZES {
                    let mut got = vec![0.0; conv.weight_len()];
                    let factors = (&input[..], &grad[..]);
                    let finite = weight_gradient(&conv, size, Isa::active(), factors, &mut got);
                    assert!(!finite || got.iter().all(|x| x.is_finite()), "{bad} {size:?}");
                    assert!(bad.is_finite() || !finite, "{bad} {size:?}");
                }
            }
        }
    }
}
