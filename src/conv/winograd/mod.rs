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
//!
//! | file | what it holds |
//! |---|---|
//! | `transforms` | the transforms along one axis, for each size of tile |
//! | `weights` | from weights to U, and back |
//! | `input` | from pixels to V |
//! | `output` | from M to pixels |
//! | `weight_gradient` | the gradient of the weights, by the same transforms |
//!
//! Inside the kernels of these files are loops over indices instead of `array::from_fn`, `map` and
//! closures, which are compiled without the caller's instructions and not always inlined; every
//! addition of two vectors would then be a call.

mod input;
mod output;
mod transforms;
mod weight_gradient;
mod weights;

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use super::direct::Direct;
use super::epilogue::Epilogue;
use super::geometry::Conv2d;
use crate::gemm::{Bounds, Finish, Keep, LONG_SUM, Lhs, PackedMatrix, Source, Storage};
use crate::isa::{Isa, dispatch};
use crate::parallel;
use crate::rows::{Rows, RowsMut, SharedRows, Tiling, roomy_stride};
use input::Images;
use output::OutputTransform;
use transforms::{F2, F4, F6, Transform};
pub(super) use weight_gradient::weight_gradient;
use weights::{original, pack_panel};

/// V up to this many floats (6 MiB) is made as a whole.
const SHARED_INPUT: usize = 3 << 19;
/// Floats of V in one chunk: 1 MiB.
const CHUNK_INPUT: usize = 256 * 1024;
/// Floats of M in one block of output channels: 256 KiB.
const BLOCK_OUTPUT: usize = 64 * 1024;
/// Vectors of transformed values start on cache lines.
const LINE: usize = 16;

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
        let stream = output.outgrow_caches() && output.are_on_lines();
        let run = Run {
            layer: self,
            images,
            stream,
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

/// One run of a layer.
struct Run<'a> {
    layer: &'a Winograd,
    images: Images<'a>,
    output: SharedRows<'a>,
    /// Whether the result is written past the caches; rows begin on a cache line then.
    stream: bool,
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
        let nothing = Finish { bias: None, residual: None, bounds: Bounds::NONE, stream: false };
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

#[cfg(test)]
mod tests {
    use super::super::epilogue::Activation;
    use super::super::geometry::Padding;
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
