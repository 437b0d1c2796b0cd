//! Winograd convolution: 3 x 3 kernels with stride 1 in fewer multiplications.
//!
//! The output is cut into tiles of `m x m` pixels. Each tile needs `n x n` input pixels, `n = m + 2`;
//! both are transformed along both axes (see `transforms`), and in between, for each of the `n * n`
//! positions in a tile, there is a matrix product over channels:
//!
//! ```text
//! V[p][t][c] = transform of input tile t                      (p: position, t: tile, c: channel)
//! M[p][t][o] = sum over c of V[p][t][c] * U[p][c][o]           (U: transformed weights, packed once)
//! output tile t = transform back of M[..][t][o], + bias, + residual, clamped
//! ```
//!
//! `n * n / (m * m * 9)` of the direct multiplications remain: 0.44 for m = 2, 0.25 for 4, 0.2 for 6.
//! The price is rounding (errors around 1e-5 of the largest output), transformed weights that are
//! `n * n / 9` times as large, and waste where `m` does not divide the image.
//!
//! Two ways to go through memory, by how large V is as a whole:
//!
//! - **Chunks**: a task carries a chunk of tiles through all three steps while V and M of the chunk
//!   stay in its cache. U is read once a chunk, from the cache all cores share.
//! - **Shared**: all of V is made first, then tasks take blocks of output channels for all tiles. U
//!   is read once, which is what counts for small images with many channels.
//!
//! Infinity and NaN in an input would spread over all outputs of a tile. The sums show it (something
//! is not finite), and then the layer is run again by direct sums, whose weights are recovered from U.

mod transforms;
mod weight_gradient;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::direct::Direct;
use super::geometry::Conv2d;
use super::prepared::Epilogue;
use crate::gemm::{Bounds, Finish, Keep, LONG_SUM, Lhs, PackedMatrix, Source, Storage};
use crate::isa::{Isa, Kernel, Simd, dispatch};
use crate::parallel;
use crate::rows::{Rows, RowsMut, SharedRows, Tiling, roomy_stride};
use transforms::{F2, F4, F6, Transform, original_weight};
pub(super) use weight_gradient::weight_gradient;

/// V up to this many floats (6 MiB) is made as a whole.
const SHARED_INPUT: usize = 3 << 19;
/// Floats of V in one chunk: 1 MiB.
const CHUNK_INPUT: usize = 256 * 1024;
/// Floats of M in one block of output channels: 256 KiB.
const BLOCK_OUTPUT: usize = 64 * 1024;
/// Vectors of transformed values start on cache lines.
const LINE: usize = 16;
/// Floats in the widest panel row there is.
const MAX_WIDTH: usize = 32;

/// Size of the output tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TileSize {
    /// F(2, 3): 2 x 2 outputs from 4 x 4 inputs.
    F2,
    /// F(4, 3): 4 x 4 outputs from 6 x 6 inputs.
    F4,
    /// F(6, 3): 6 x 6 outputs from 8 x 8 inputs.
    F6,
}

impl TileSize {
    /// Outputs along an axis, m.
    pub fn outputs(self) -> usize {
        match self {
            TileSize::F2 => 2,
            TileSize::F4 => 4,
            TileSize::F6 => 6,
        }
    }

    /// Positions in an input tile, n * n.
    pub fn positions(self) -> usize {
        (self.outputs() + 2).pow(2)
    }

    /// Tiles of an image, along both axes.
    pub fn tiles(self, (height, width): (usize, usize)) -> (usize, usize) {
        (height.div_ceil(self.outputs()), width.div_ceil(self.outputs()))
    }
}

/// A convolution in transformed space.
#[derive(Debug)]
pub(super) struct Winograd {
    conv: Conv2d,
    size: TileSize,
    isa: Isa,
    /// U: row `p * C + c` holds the weights of position `p` and input channel `c`. Shared by layers
    /// of other image sizes.
    weights: Arc<PackedMatrix>,
    /// Output channels of a block.
    columns: usize,
    /// The same layer by direct sums, once it has been needed.
    direct: Mutex<Option<Arc<Direct>>>,
}

/// Whether Winograd's algorithm can compute `conv` at all.
pub(super) fn applies(conv: &Conv2d) -> bool {
    conv.kernel == (3, 3) && conv.stride == (1, 1) && conv.dilation == (1, 1) && conv.groups == 1
}

impl Winograd {
    /// Transforms and packs the weights, for one call or for long; `weight` is as in [`Direct::new`].
    pub fn new(conv: &Conv2d, size: TileSize, isa: Isa, once: bool, weight: &Source<'_>) -> Self {
        assert!(applies(conv), "a convolution that Winograd's algorithm cannot compute: {conv:?}");
        let (channels, out) = (conv.in_channels, conv.out_channels);
        let shape = (size.positions() * channels, out);
        let weights = PackedMatrix::pack_panels(isa, shape, once, &|first, panel| match size {
            TileSize::F2 => pack_panel::<F2, 4, 2>(isa, channels, first, weight, panel),
            TileSize::F4 => pack_panel::<F4, 6, 4>(isa, channels, first, weight, panel),
            TileSize::F6 => pack_panel::<F6, 8, 6>(isa, channels, first, weight, panel),
        });
        let width = weights.tile().1;
        let most = BLOCK_OUTPUT / size.positions() / 28;
        let blocks = out.div_ceil(most.max(width));
        let columns = out.div_ceil(blocks).next_multiple_of(width);
        let weights = Arc::new(weights);
        Winograd { conv: *conv, size, isa, weights, columns, direct: Mutex::default() }
    }

    /// The layer for images of another size, on the same weights.
    pub fn resized(&self, conv: &Conv2d) -> Self {
        let (weights, direct) = (self.weights.clone(), Mutex::default());
        Winograd { conv: *conv, weights, direct, ..*self }
    }

    /// What `plan` calls this.
    pub fn name(&self) -> String {
        format!("winograd f({0}, 3)", self.size.outputs())
    }

    pub fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }

    fn tiles(&self, batch: usize) -> usize {
        let (rows, cols) = self.size.tiles(self.conv.output);
        batch * rows * cols
    }

    /// Floats between the rows of V.
    fn pitch(&self) -> usize {
        roomy_stride(self.conv.in_channels.next_multiple_of(LINE))
    }

    /// Floats between positions of a matrix with `len` floats each: an odd number of cache lines,
    /// so that the same place in all of them falls into different sets.
    fn position_stride(len: usize) -> usize {
        (len.div_ceil(LINE) | 1) * LINE
    }

    /// Floats of V for so many tiles.
    fn input_len(&self, tiles: usize) -> usize {
        Self::position_stride(tiles * self.pitch()) * self.size.positions()
    }

    /// Floats of M for so many tiles and one block of output channels.
    fn output_len(&self, tiles: usize) -> usize {
        Self::position_stride(tiles * self.columns) * self.size.positions()
    }

    /// Whether V is made as a whole, and the number of tiles that are multiplied together.
    fn chunks(&self, batch: usize) -> (bool, usize) {
        let tiles = self.tiles(batch);
        let height = self.weights.tile().0;
        let shared = self.input_len(tiles) <= SHARED_INPUT;
        let most = match shared {
            true => BLOCK_OUTPUT / (self.size.positions() * self.columns),
            false => CHUNK_INPUT / (self.size.positions() * self.pitch()),
        };
        let most = most.max(2 * height).next_multiple_of(height);
        // Chunks of nearly equal height, each a multiple of the micro-kernel's.
        let chunks = tiles.div_ceil(most).max(1);
        (shared, tiles.div_ceil(chunks).next_multiple_of(height).min(tiles.max(1)))
    }

    /// Floats of scratch memory for a batch.
    pub fn scratch_len(&self, batch: usize) -> usize {
        let (shared, chunk) = self.chunks(batch);
        let workers = parallel::workers();
        let output = self.output_len(chunk);
        let inputs = match shared {
            true => self.input_len(self.tiles(batch)),
            false => workers * self.input_len(chunk),
        };
        // Row of zeros, V, M, and what it takes to begin on a cache line.
        self.pitch() + inputs + workers * output + LINE
    }

    pub fn run(
        &self,
        input: Rows<'_>,
        mut output: RowsMut<'_>,
        bias: Option<&[f32]>,
        epilogue: &Epilogue<'_>,
        scratch: &mut [f32],
    ) {
        let finite = match self.size {
            TileSize::F2 => {
                self.run_size::<F2, 4, 2>(input, output.reborrow(), bias, epilogue, scratch)
            }
            TileSize::F4 => {
                self.run_size::<F4, 6, 4>(input, output.reborrow(), bias, epilogue, scratch)
            }
            TileSize::F6 => {
                self.run_size::<F6, 8, 6>(input, output.reborrow(), bias, epilogue, scratch)
            }
        };
        if !finite {
            let direct = self.direct();
            let batch = output.count() / (self.conv.output.0 * self.conv.output.1);
            let mut scratch = vec![0.0; direct.scratch_len(batch)];
            direct.run(input, output, bias, epilogue, &mut scratch);
        }
    }

    /// The layer by direct sums, which the first call makes.
    fn direct(&self) -> Arc<Direct> {
        // Never waits: the lock may have been held by another thread when this process was forked.
        // Those that need the layer at the same moment make it each.
        let kept = self.direct.try_lock().ok().and_then(|kept| kept.clone());
        kept.unwrap_or_else(|| {
            let made = Arc::new(self.to_direct());
            if let Ok(mut kept) = self.direct.try_lock() {
                *kept = Some(made.clone());
            }
            made
        })
    }

    fn to_direct(&self) -> Direct {
        let channels = self.conv.in_channels;
        let side = self.size.outputs() + 2;
        let keep = Keep::Stored(Storage::F32);
        Direct::new(&self.conv, self.isa, keep, LONG_SUM, &|first_term, first, rows| {
            rows.for_each_row(|index, row| {
                let (tap, c) = ((first_term + index) / channels, (first_term + index) % channels);
                for (o, weight) in (first..).zip(row) {
                    *weight = original(self.size, (tap / 3, tap % 3), |i, j| {
                        self.weights.get((i * side + j) * channels + c, o)
                    });
                }
            });
        })
    }

    /// Runs the layer; false if a sum was not finite.
    fn run_size<T: Transform<IN, OUT>, const IN: usize, const OUT: usize>(
        &self,
        input: Rows<'_>,
        output: RowsMut<'_>,
        bias: Option<&[f32]>,
        epilogue: &Epilogue<'_>,
        scratch: &mut [f32],
    ) -> bool {
        let batch = output.count() / (self.conv.output.0 * self.conv.output.1);
        let (tiles, (shared, chunk)) = (self.tiles(batch), self.chunks(batch));
        let misaligned = scratch.as_ptr().align_offset(4 * LINE).min(LINE);
        let (zeros, scratch) = scratch[misaligned..].split_at_mut(self.pitch());
        zeros.fill(0.0);
        let finite = AtomicBool::new(true);
        let images =
            Images { conv: &self.conv, size: self.size, input, pitch: self.pitch(), zeros };
        let run = Run {
            layer: self,
            images,
            output: SharedRows::new(output),
            bias,
            epilogue,
            finite: &finite,
        };
        let out = self.conv.out_channels;
        let blocks = out.div_ceil(self.columns);
        let chunks = tiles.div_ceil(chunk);
        let range = |index: usize| index * chunk..((index + 1) * chunk).min(tiles);
        if shared {
            let (pitch, stride) = (self.pitch(), Self::position_stride(tiles * self.pitch()));
            let (v, m) = scratch.split_at_mut(self.input_len(tiles));
            // A row is a position here, a tile of the tiling a few tiles of the image.
            let tiling = Tiling { group: usize::MAX, rows: IN * IN, channels: 2 * pitch };
            RowsMut::new(v, IN * IN, tiles * pitch, stride).for_each_tile(tiling, |part| {
                let first = part.first_channel / pitch;
                let range = first..first + part.rows.channels() / pitch;
                run.images.transform::<T, IN, OUT>(self.isa, range, part.rows);
            });
            let v = Rows::new(v, IN * IN, tiles * pitch, stride);
            parallel::for_each_with(blocks * chunks, m, self.output_len(chunk), |m, task| {
                let tiles = range(task % chunks);
                let v = v.columns(tiles.start * pitch, tiles.len() * pitch);
                run.multiply_block::<T, IN, OUT>(tiles, task / chunks, v, m);
            });
        } else {
            let len = self.input_len(chunk);
            parallel::for_each_with(chunks, scratch, len + self.output_len(chunk), |part, task| {
                let (v, m) = part.split_at_mut(len);
                let (tiles, row) = (range(task), self.pitch() * range(task).len());
                let stride = Self::position_stride(row);
                let to = RowsMut::new(v, IN * IN, row, stride);
                run.images.transform::<T, IN, OUT>(self.isa, tiles.clone(), to);
                for block in 0..blocks {
                    let v = Rows::new(v, IN * IN, row, stride);
                    run.multiply_block::<T, IN, OUT>(tiles.clone(), block, v, m);
                }
            });
        }
        finite.into_inner()
    }
}

/// Writes a panel of transformed weights: output channels `first..`, all positions and input channels.
fn pack_panel<T: Transform<IN, OUT>, const IN: usize, const OUT: usize>(
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
    #[allow(clippy::needless_range_loop, reason = "see below")]
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
fn original(size: TileSize, tap: (usize, usize), u: impl Fn(usize, usize) -> f32) -> f32 {
    match size {
        TileSize::F2 => original_weight::<F2, 4, 2>(tap, u),
        TileSize::F4 => original_weight::<F4, 6, 4>(tap, u),
        TileSize::F6 => original_weight::<F6, 8, 6>(tap, u),
    }
}

/// Images cut into tiles.
#[derive(Clone, Copy)]
struct Images<'a> {
    conv: &'a Conv2d,
    size: TileSize,
    input: Rows<'a>,
    /// Floats between the rows of V.
    pitch: usize,
    /// A row of zeros: what lies outside an image.
    zeros: &'a [f32],
}

impl Images<'_> {
    /// Image, and first output row and column of a tile.
    fn origin(&self, tile: usize) -> (usize, usize, usize) {
        let (rows, cols) = self.size.tiles(self.conv.output);
        let m = self.size.outputs();
        (tile / (rows * cols), tile / cols % rows * m, tile % cols * m)
    }

    /// V of `tiles`: row `p` of `v` is position `p`.
    fn transform<T: Transform<IN, OUT>, const IN: usize, const OUT: usize>(
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

/// One run of a layer.
struct Run<'a> {
    layer: &'a Winograd,
    images: Images<'a>,
    output: SharedRows<'a>,
    bias: Option<&'a [f32]>,
    epilogue: &'a Epilogue<'a>,
    finite: &'a AtomicBool,
}

impl Run<'_> {
    /// The products of `tiles` with a block of output channels, and the way back.
    fn multiply_block<T: Transform<IN, OUT>, const IN: usize, const OUT: usize>(
        &self,
        tiles: Range<usize>,
        block: usize,
        v: Rows<'_>,
        m: &mut [f32],
    ) {
        let layer = self.layer;
        let (channels, pitch) = (layer.conv.in_channels, layer.pitch());
        let first = block * layer.columns;
        let columns = layer.columns.min(layer.conv.out_channels - first);
        let stride = Winograd::position_stride(tiles.len() * layer.columns);
        let nothing = Finish { bias: None, residual: None, bounds: Bounds::NONE };
        for (position, m) in m.chunks_mut(stride).take(IN * IN).enumerate() {
            let rows = Rows::new(v.row(position), tiles.len(), channels, pitch);
            let m = RowsMut::new(m, tiles.len(), columns, layer.columns);
            layer.weights.multiply(&Lhs::matrix(&rows), (position * channels, first), m, nothing);
        }
        let transform = std::marker::PhantomData::<T>;
        dispatch(
            layer.isa,
            OutputTransform::<T, IN, OUT> {
                run: self,
                tiles,
                channels: first..first + columns,
                m: Rows::new(m, IN * IN, stride, stride),
                transform,
            },
        );
    }
}

/// From pixels to V.
struct InputTransform<'a, T, const IN: usize, const OUT: usize> {
    images: Images<'a>,
    tiles: Range<usize>,
    v: RowsMut<'a>,
    transform: std::marker::PhantomData<T>,
}

// Inside the kernels below: loops over indices instead of `array::from_fn`, `map` and closures, which
// are compiled without the caller's instructions and not always inlined; every addition of two
// vectors would then be a call.

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
    #[allow(clippy::needless_range_loop, reason = "see above")]
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

/// From M to pixels.
struct OutputTransform<'a, T, const IN: usize, const OUT: usize> {
    run: &'a Run<'a>,
    tiles: Range<usize>,
    channels: Range<usize>,
    m: Rows<'a>,
    transform: std::marker::PhantomData<T>,
}

impl<T: Transform<IN, OUT>, const IN: usize, const OUT: usize> Kernel
    for OutputTransform<'_, T, IN, OUT>
{
    type Output = ();

    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "see above")]
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
                        // channels to one task; the row has `count` floats from `channel` on.
                        unsafe {
                            let to = run.output.row_ptr(pixel).add(channel);
                            if count == S::LANES {
                                simd.store(to, sum)
                            } else {
                                simd.store_partial(to, sum, count)
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
            run.finite.store(false, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::geometry::Padding;
    use super::super::prepared::Activation;
    use super::*;

    #[test]
    fn direct_sums_wait_for_nobody_and_are_kept() {
        let sizes = ((1, 9, 8, 4), (3, 3, 4, 5));
        let conv = Conv2d::new(sizes.0, sizes.1, (1, 1), Padding::default(), (1, 1), 1).unwrap();
        let ones = |_: usize, _: usize, rows: RowsMut<'_>| {
            rows.for_each_row(|_, row| row.fill(1.0));
        };
        let layer = Winograd::new(&conv, TileSize::F4, Isa::active(), false, &ones);
        let mut input = vec![1.0; conv.input_len()];
        input[0] = f32::INFINITY;
        // Held by this very thread, the lock would be waited for without end.
        let held = layer.direct.lock().unwrap();
        let mut output = vec![0.0; conv.output_len()];
        layer.run(
            Rows::new(&input, 9 * 8, 4, 4),
            RowsMut::new(&mut output, conv.output_pixels(), 5, 5),
            None,
            &Epilogue { residual: None, activation: Activation::Identity },
            &mut vec![0.0; layer.scratch_len(1)],
        );
        assert_eq!(output[..5], [f32::INFINITY; 5]);
        assert!(output[5..].iter().all(|x| (x - 36.0).abs() < 1e-3), "{output:?}");
        drop(held);
        assert!(Arc::ptr_eq(&layer.direct(), &layer.direct()));
    }
}
