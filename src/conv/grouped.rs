//! Convolution of few channels a group: depthwise, with or without a channel multiplier, and the
//! groups of ResNeXt.
//!
//! A matrix product per group would be narrower than the micro-kernel's tile, so here a vector holds
//! neighbouring output channels, whatever group they belong to, and the input is read so that every
//! lane meets a value of its own group. Tap after tap, of up to [`PIXELS`] neighbouring pixels:
//!
//! ```text
//! acc[p] = bias                                          (a vector: LANES output channels)
//! for each tap (u, v), for each k of the C / groups input channels of a group:
//!     w = weights[tap][k]                                 (a vector, packed)
//!     acc[p] += x[pixel p * stride + tap][k] * w          (p in 0..PIXELS)
//! output[p] = clamp(acc[p] + residual)
//! ```
//!
//! What `x[..][k]` is depends on the groups of the vector's lanes:
//!
//! | reading | when | `x[..][k]` |
//! |---|---|---|
//! | in place | one input, one output channel a group | a vector of the input itself |
//! | broadcast | all lanes in one group | one float of a copy of the group's channels, for all lanes |
//! | permuted | the inputs of all lanes fit one vector | that vector, permuted: to lane `o` channel `k` of `o`'s group |
//! | spread | else | a vector of a copy that has been permuted before |
//!
//! Copies are of the input rows of one task and one vector. They have zeros on both sides where
//! padding is of ordinary width; other padding is never touched: taps outside the image are left
//! out, rows for all pixels of a line and columns for the pixels near its ends, one by one.

use std::ops::Range;
use std::sync::Arc;

use super::epilogue::Epilogue;
use super::geometry::Conv2d;
use crate::gemm::Source as Weights;
use crate::isa::{Isa, Kernel, Simd, dispatch};
use crate::parallel;
use crate::rows::{Rows, RowsMut, Tile, Tiling};

/// Pixels whose sums are in registers together: as many as it takes to hide the latency of two
/// chains of additions, and half of AVX2's registers.
const PIXELS: usize = 8;
/// Most lanes of a vector.
const MAX_LANES: usize = 16;
/// Floats of a task's copy of the input: 256 KiB, a quarter of a second-level cache.
const TASK_COPY: usize = 64 * 1024;
/// Multiply-accumulate operations of a task, some ten microseconds.
const TASK_MACS: usize = 400_000;
/// Groups of at least this many output channels fill the micro-kernel's tiles.
const WIDE: usize = 32;

/// Whether this is for `conv`.
pub(super) fn applies(conv: &Conv2d) -> bool {
    conv.groups > 1 && conv.group_out() < WIDE
}

/// Lanes of a vector of `isa`.
fn lanes(isa: Isa) -> usize {
    struct Lanes;
    impl Kernel for Lanes {
        type Output = usize;
        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> usize {
            S::LANES
        }
    }
    dispatch(isa, Lanes)
}

/// How the input meets the lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    InPlace,
    Broadcast,
    Permuted,
    Spread,
}

/// A convolution of few channels a group.
#[derive(Debug)]
pub(super) struct Grouped {
    conv: Conv2d,
    isa: Isa,
    lanes: usize,
    /// For each vector of output channels, for each term of the sum, a vector; lanes beyond the last
    /// channel are zero. Shared by layers of other image sizes.
    weights: Arc<[f32]>,
    /// Output rows and channels of a task.
    task: (usize, usize),
}

impl Grouped {
    /// Packs the weights; `weight` is as in `Direct::new`. There are so few of them that they are
    /// stored as they are.
    pub fn new(conv: &Conv2d, isa: Isa, weight: &Weights<'_>) -> Self {
        let (lanes, depth) = (lanes(isa), conv.depth());
        let mut weights = vec![0.0; conv.out_channels.div_ceil(lanes) * depth * lanes];
        for (index, rows) in weights.chunks_exact_mut((depth * lanes).max(1)).enumerate() {
            let first = index * lanes;
            let count = lanes.min(conv.out_channels - first);
            weight(0, first, RowsMut::new(rows, depth, count, lanes));
        }
        Self::with_weights(conv, isa, weights.into())
    }

    /// The layer for images of another size, on the same weights.
    pub fn resized(&self, conv: &Conv2d) -> Self {
        Self::with_weights(conv, self.isa, self.weights.clone())
    }

    fn with_weights(conv: &Conv2d, isa: Isa, weights: Arc<[f32]>) -> Self {
        let lanes = lanes(isa);
        let mut grouped = Grouped { conv: *conv, isa, lanes, weights, task: (1, lanes) };
        let channels = if grouped.is_depthwise() { conv.out_channels.max(1) } else { lanes };
        let macs = conv.output.1.saturating_mul(conv.depth()).saturating_mul(channels);
        let mut lines = TASK_MACS / macs.max(1);
        if grouped.copies() {
            // Rows that fit beyond those under one kernel.
            let more = (TASK_COPY / grouped.copied_line().max(1)).saturating_sub(grouped.window());
            lines = lines.min(more / conv.stride.0 + 1);
        }
        grouped.task = (lines.clamp(1, conv.output.0.max(1)), channels);
        grouped
    }

    fn is_depthwise(&self) -> bool {
        self.conv.group_in() == 1 && self.conv.group_out() == 1
    }

    /// Whether tasks read copies of the input.
    fn copies(&self) -> bool {
        let out = self.conv.out_channels;
        (0..out).step_by(self.lanes).any(|first| {
            let reading = self.reading(first, self.lanes.min(out - first));
            matches!(reading, Reading::Broadcast | Reading::Spread)
        })
    }

    /// Input rows under a kernel, of those that exist.
    fn window(&self) -> usize {
        (self.conv.dilation.0 * (self.conv.kernel.0 - 1) + 1).min(self.conv.input.0)
    }

    /// Zeros on both sides of a copied row: all of the padding, if that is ordinary.
    fn margins(&self) -> (usize, usize) {
        let (left, right) = (self.conv.padding.left, self.conv.padding.right);
        let ordinary = self.conv.input.1 + self.conv.dilation.1 * self.conv.kernel.1;
        if left + right <= ordinary { (left, right) } else { (0, 0) }
    }

    /// Pixels in a copied row.
    fn copied_width(&self) -> usize {
        self.conv.input.1 + self.margins().0 + self.margins().1
    }

    /// Floats of a copied row, however it is read.
    fn copied_line(&self) -> usize {
        self.copied_width().saturating_mul(self.conv.group_in() * self.lanes)
    }

    /// Floats of scratch memory for one task.
    fn copy_len(&self) -> usize {
        let more = (self.task.0 - 1).saturating_mul(self.conv.stride.0);
        let rows = self.window().saturating_add(more).min(self.conv.input.0);
        if self.copies() { rows * self.copied_line() } else { 0 }
    }

    /// What `plan` calls this.
    pub fn name(&self) -> String {
        let name = if self.conv.group_in() == 1 { "depthwise" } else { "grouped" };
        name.to_string()
    }

    pub fn weight_bytes(&self) -> usize {
        size_of_val(&self.weights[..])
    }

    /// Floats of scratch memory.
    pub fn scratch_len(&self) -> usize {
        self.copy_len() * parallel::workers()
    }

    /// Runs the layer; `bias` has one value an output channel.
    pub fn run(
        &self,
        input: Rows<'_>,
        output: RowsMut<'_>,
        bias: Option<&[f32]>,
        epilogue: &Epilogue<'_>,
        scratch: &mut [f32],
    ) {
        let (height, width) = self.conv.output;
        let tiling =
            Tiling { group: height * width, rows: self.task.0 * width, channels: self.task.1 };
        output.for_each_tile_with(tiling, scratch, self.copy_len(), |copy, tile| {
            let lanes = [[0; MAX_LANES]; MAX_LANES];
            dispatch(self.isa, Task { layer: self, input, bias, epilogue, copy, tile, lanes });
        });
    }

    /// How the `count` channels from `first` on are read.
    fn reading(&self, first: usize, count: usize) -> Reading {
        let (depth, each) = (self.conv.group_in(), self.conv.group_out());
        let groups = (first + count - 1) / each - first / each + 1;
        match groups {
            _ if self.is_depthwise() => Reading::InPlace,
            1 => Reading::Broadcast,
            _ if groups * depth <= self.lanes => Reading::Permuted,
            _ => Reading::Spread,
        }
    }
}

/// Taps whose position `first + tap * dilation` lies in `before..before + size`.
fn clip(
    first: usize,
    before: usize,
    size: usize,
    (taps, dilation): (usize, usize),
) -> Range<usize> {
    let below = |end: usize| end.saturating_sub(first).div_ceil(dilation).min(taps);
    below(before)..below(before + size)
}

/// Positions whose taps all lie in the image: `clip` gives the whole kernel.
fn interior(
    positions: usize,
    stride: usize,
    before: usize,
    size: usize,
    (taps, dilation): (usize, usize),
) -> Range<usize> {
    let start = before.div_ceil(stride).min(positions);
    let room = (before + size).saturating_sub(dilation * (taps - 1));
    start..room.div_ceil(stride).clamp(start, positions)
}

/// An image, or some rows of one, as the sums read it: pixel `(y, x)`, input channel `k` of a group
/// is at `y * line + x * pixel + k * plane`.
#[derive(Debug, Clone, Copy)]
struct View {
    data: *const f32,
    /// The image's row that `data` begins with.
    first_line: usize,
    line: usize,
    pixel: usize,
    plane: usize,
    /// Pixels in a row, and what is still missing of the padding to the left.
    width: usize,
    left: usize,
}

/// A band of output rows, and some or all of its channels.
struct Task<'a> {
    layer: &'a Grouped,
    input: Rows<'a>,
    bias: Option<&'a [f32]>,
    epilogue: &'a Epilogue<'a>,
    copy: &'a mut [f32],
    tile: Tile<'a>,
    /// For channel `k` of a group, where it lies for each lane, seen from channel 0 of the first
    /// lane's group.
    lanes: [[i32; MAX_LANES]; MAX_LANES],
}

/// Ways to read `x` into a vector: the first two for one channel a group.
const IN_PLACE: usize = 0;
const PARTIAL: usize = 1;
const SPREAD: usize = 2;
const BROADCAST: usize = 3;
const PERMUTED: usize = 4;

// Loops over indices instead of closures inside the kernel, as in `winograd`.
impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let conv = &self.layer.conv;
        let (image, first_line, _) = conv.output_position(self.tile.first_row);
        let lines = first_line..first_line + self.tile.rows.count() / conv.output.1;
        let channels = self.tile.first_channel..self.tile.first_channel + self.tile.rows.channels();
        let rows = |line: usize| {
            let (before, taps) = (conv.padding.top, (conv.kernel.0, conv.dilation.0));
            clip(line * conv.stride.0, before, conv.input.0, taps)
        };
        if self.layer.is_depthwise() {
            // Pixels outside, channels inside: the order of the input in memory.
            let view = self.in_place(image);
            let columns = Columns::new(conv, &view);
            for line in lines.clone() {
                let rows = rows(line);
                let mut col = 0;
                while col < conv.output.1 {
                    let (count, cols) = columns.block(col);
                    for first in channels.clone().step_by(S::LANES) {
                        let pixel = (line - first_line) * conv.output.1 + col;
                        let (rows, cols) = (rows.clone(), cols.clone());
                        let block = Block { line, rows, col, cols, pixel, first };
                        let view = View { data: view.data.wrapping_add(first), ..view };
                        if first + S::LANES <= channels.end {
                            self.block::<S, IN_PLACE>(simd, &view, block, count);
                        } else {
                            self.block::<S, PARTIAL>(simd, &view, block, count);
                        }
                    }
                    col += count;
                }
            }
            return;
        }
        for first in channels.clone().step_by(S::LANES) {
            let count = S::LANES.min(channels.end - first);
            let reading = self.layer.reading(first, count);
            let view = match reading {
                Reading::Broadcast => self.copy(simd, image, &lines, first),
                Reading::Permuted => self.permuted(image, first, count),
                Reading::InPlace | Reading::Spread => self.spread::<S>(image, &lines, first),
            };
            let columns = Columns::new(conv, &view);
            for line in lines.clone() {
                let rows = rows(line);
                let mut col = 0;
                while col < conv.output.1 {
                    let (count, cols) = columns.block(col);
                    let pixel = (line - first_line) * conv.output.1 + col;
                    let block = Block { line, rows: rows.clone(), col, cols, pixel, first };
                    match reading {
                        Reading::Broadcast => {
                            self.block::<S, BROADCAST>(simd, &view, block, count);
                        }
                        Reading::Permuted => self.block::<S, PERMUTED>(simd, &view, block, count),
                        _ => self.block::<S, SPREAD>(simd, &view, block, count),
                    }
                    col += count;
                }
            }
        }
    }
}

/// How the pixels of a line are taken: one by one near its ends, in blocks between.
struct Columns<'a> {
    conv: &'a Conv2d,
    /// Of the view.
    width: usize,
    left: usize,
    interior: Range<usize>,
    size: usize,
}

impl<'a> Columns<'a> {
    fn new(conv: &'a Conv2d, view: &View) -> Self {
        let taps = (conv.kernel.1, conv.dilation.1);
        let (width, left) = (view.width, view.left);
        let interior = interior(conv.output.1, conv.stride.1, left, width, taps);
        // Blocks of nearly equal size.
        let blocks = interior.len().div_ceil(PIXELS).max(1);
        let size = interior.len().div_ceil(blocks).max(1);
        Columns { conv, width, left, interior, size }
    }

    /// Pixels of the block that begins at `col`, and their taps inside the view.
    #[inline(always)]
    fn block(&self, col: usize) -> (usize, Range<usize>) {
        let conv = self.conv;
        if self.interior.contains(&col) {
            return (self.size.min(self.interior.end - col), 0..conv.kernel.1);
        }
        let taps = (conv.kernel.1, conv.dilation.1);
        (1, clip(col * conv.stride.1, self.left, self.width, taps))
    }
}

/// Some neighbouring pixels of a line, and the channels of one vector.
struct Block {
    line: usize,
    /// Taps inside the image.
    rows: Range<usize>,
    col: usize,
    /// Taps inside the view.
    cols: Range<usize>,
    /// The first of them in the tile.
    pixel: usize,
    /// First channel.
    first: usize,
}

impl Task<'_> {
    /// The image itself.
    #[inline(always)]
    fn in_place(&self, image: usize) -> View {
        let (conv, stride) = (&self.layer.conv, self.input.stride());
        let (height, width) = conv.input;
        View {
            data: self.input.rows(image * height * width, height * width).as_slice().as_ptr(),
            first_line: 0,
            line: width * stride,
            pixel: stride,
            plane: 0,
            width,
            left: conv.padding.left,
        }
    }

    /// Input rows that output rows `lines` see.
    #[inline(always)]
    fn seen(&self, lines: &Range<usize>) -> Range<usize> {
        let conv = &self.layer.conv;
        let end = (lines.end - 1) * conv.stride.0 + conv.dilation.0 * (conv.kernel.0 - 1) + 1;
        let end = end.saturating_sub(conv.padding.top).min(conv.input.0);
        (lines.start * conv.stride.0).saturating_sub(conv.padding.top).min(end)..end
    }

    /// Copies the channels of the group of channel `first`, as they are.
    #[inline(always)]
    fn copy<S: Simd>(&mut self, simd: S, image: usize, lines: &Range<usize>, first: usize) -> View {
        let (conv, seen) = (&self.layer.conv, self.seen(lines));
        let ((left, right), width, depth) =
            (self.layer.margins(), self.layer.copied_width(), conv.group_in());
        let from = first / conv.group_out() * depth;
        let line = width * depth;
        for (index, y) in seen.clone().enumerate() {
            let to = &mut self.copy[index * line..][..line];
            to[..left * depth].fill(0.0);
            to[line - right * depth..].fill(0.0);
            let pixels = self.input.rows((image * conv.input.0 + y) * conv.input.1, conv.input.1);
            let pixels = pixels.columns(from, depth);
            let (source, stride) = (pixels.as_slice().as_ptr(), pixels.stride());
            for x in 0..conv.input.1 {
                let source = source.wrapping_add(x * stride);
                let to = to[(left + x) * depth..][..depth].as_mut_ptr();
                for k in (0..depth).step_by(S::LANES) {
                    let count = S::LANES.min(depth - k);
                    // SAFETY: both have `depth` floats.
                    unsafe {
                        let value = simd.load_partial(source.wrapping_add(k), count);
                        simd.store_partial(to.wrapping_add(k), value, count);
                    }
                }
            }
        }
        View {
            data: self.copy.as_ptr(),
            first_line: seen.start,
            line,
            pixel: depth,
            plane: 1,
            width,
            left: conv.padding.left - left,
        }
    }

    /// The image from the first channel on that the vector of channels from `first` on needs.
    #[inline(always)]
    fn permuted(&mut self, image: usize, first: usize, count: usize) -> View {
        let (depth, each) = (self.layer.conv.group_in(), self.layer.conv.group_out());
        for (k, lanes) in self.lanes.iter_mut().enumerate().take(depth) {
            for (lane, index) in lanes.iter_mut().enumerate().take(count) {
                *index = (((first + lane) / each - first / each) * depth + k) as i32;
            }
        }
        let view = self.in_place(image);
        View { data: view.data.wrapping_add(first / each * depth), ..view }
    }

    /// Copies the inputs of the vector of channels from `first` on: for each channel `k` of a group
    /// a plane of pixels whose lanes hold channel `k` of their own group.
    #[inline(always)]
    fn spread<S: Simd>(&mut self, image: usize, lines: &Range<usize>, first: usize) -> View {
        let (conv, seen) = (&self.layer.conv, self.seen(lines));
        let ((left, right), width, depth) =
            (self.layer.margins(), self.layer.copied_width(), conv.group_in());
        let count = S::LANES.min(conv.out_channels - first);
        // Channel 0 of each lane's group, relative to that of the first lane. Lanes beyond the
        // channels repeat it; what they compute is not stored.
        let from = first / conv.group_out() * depth;
        let mut channels = [0_usize; MAX_LANES];
        for (lane, channel) in channels.iter_mut().enumerate().take(count) {
            *channel = (first + lane) / conv.group_out() * depth - from;
        }
        let span = channels[count - 1] + depth;
        let (plane, line) = (width * S::LANES, width * S::LANES * depth);
        for (index, y) in seen.clone().enumerate() {
            let pixels = self.input.rows((image * conv.input.0 + y) * conv.input.1, conv.input.1);
            let pixels = pixels.columns(from, span);
            for (k, to) in self.copy[index * line..][..line].chunks_exact_mut(plane).enumerate() {
                to[..left * S::LANES].fill(0.0);
                to[plane - right * S::LANES..].fill(0.0);
                for x in 0..conv.input.1 {
                    let (source, to) = (&pixels.row(x)[k..], &mut to[(left + x) * S::LANES..]);
                    for lane in 0..S::LANES {
                        to[lane] = source[channels[lane]];
                    }
                }
            }
        }
        View {
            data: self.copy.as_ptr(),
            first_line: seen.start,
            line,
            pixel: S::LANES,
            plane,
            width,
            left: conv.padding.left - left,
        }
    }

    /// Computes a block of `count` pixels, several only where all taps lie inside the view.
    #[inline(always)]
    fn block<S: Simd, const READ: usize>(
        &mut self,
        simd: S,
        view: &View,
        block: Block,
        count: usize,
    ) {
        match count {
            1 => self.pixels::<S, READ, 1>(simd, view, block),
            2 => self.pixels::<S, READ, 2>(simd, view, block),
            3 => self.pixels::<S, READ, 3>(simd, view, block),
            4 => self.pixels::<S, READ, 4>(simd, view, block),
            5 => self.pixels::<S, READ, 5>(simd, view, block),
            6 => self.pixels::<S, READ, 6>(simd, view, block),
            7 => self.pixels::<S, READ, 7>(simd, view, block),
            _ => self.pixels::<S, READ, PIXELS>(simd, view, block),
        }
    }

    /// Computes `P` pixels.
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "indices keep the sums in registers")]
    fn pixels<S: Simd, const READ: usize, const P: usize>(
        &mut self,
        simd: S,
        view: &View,
        Block { line, rows, col, cols, pixel, first }: Block,
    ) {
        let (layer, conv) = (self.layer, &self.layer.conv);
        let depth = if READ == IN_PLACE || READ == PARTIAL { 1 } else { conv.group_in() };
        let channels = S::LANES.min(conv.out_channels - first);
        let start = match self.bias {
            // SAFETY: the bias has one value an output channel.
            Some(bias) => unsafe { simd.load_partial(bias[first..].as_ptr(), channels) },
            None => simd.splat(0.0),
        };
        // What one vector of the input holds of all lanes' groups.
        let span =
            ((first + channels - 1) / conv.group_out() - first / conv.group_out() + 1) * depth;
        let mut acc = [start; P];
        let weights = &layer.weights[first * conv.depth()..][..conv.depth() * S::LANES];
        if !rows.is_empty() && !cols.is_empty() {
            let y = line * conv.stride.0 + rows.start * conv.dilation.0 - conv.padding.top;
            let x = col * conv.stride.1 + cols.start * conv.dilation.1 - view.left;
            let at = (y - view.first_line) * view.line + x * view.pixel;
            let mut row = view.data.wrapping_add(at);
            let step = conv.stride.1 * view.pixel;
            let next_tap = conv.dilation.1 * view.pixel;
            for u in rows {
                let mut tap = row;
                let mut w = weights
                    .as_ptr()
                    .wrapping_add((u * conv.kernel.1 + cols.start) * depth * S::LANES);
                for _ in 0..cols.len() {
                    let mut at = tap;
                    for k in 0..depth {
                        // SAFETY: the weights of a tap are `depth` vectors. Clipping keeps taps of
                        // the first pixel inside the view, and the others are in its interior. A
                        // row of indices has one a lane.
                        unsafe {
                            let factor = simd.load(w);
                            let lanes =
                                if READ == PERMUTED { &self.lanes[k] } else { &self.lanes[0] };
                            let lanes = simd.load_indices(lanes.as_ptr());
                            for p in 0..P {
                                let from = at.wrapping_add(p * step);
                                let x = match READ {
                                    PARTIAL => simd.load_partial(from, channels),
                                    BROADCAST => simd.splat(*from),
                                    PERMUTED => simd.permute(simd.load_partial(from, span), lanes),
                                    _ => simd.load(from),
                                };
                                acc[p] = simd.mul_add(x, factor, acc[p]);
                            }
                        }
                        w = w.wrapping_add(S::LANES);
                        at = at.wrapping_add(view.plane);
                    }
                    tap = tap.wrapping_add(next_tap);
                }
                row = row.wrapping_add(conv.dilation.0 * view.line);
            }
        }
        // The loops below are kept so simple that LLVM unrolls them: one index into `acc` that is not
        // a constant, and the sums would live in memory.
        let residual = self.epilogue.residual.map(|residual| {
            let from = residual.rows(self.tile.first_row + pixel, P).columns(first, channels);
            (from.as_slice().as_ptr(), from.stride())
        });
        let offset = first - self.tile.first_channel;
        let stride = self.tile.rows.stride();
        let to = &mut self.tile.rows;
        assert!(pixel + P <= to.count() && offset + channels <= to.channels(), "a tile's end");
        let to = to.as_mut_ptr().wrapping_add(pixel * stride + offset);
        let bounds = self.epilogue.activation.bounds();
        let (low, high) = (simd.splat(bounds.low), simd.splat(bounds.high));
        // SAFETY: residual and output have `P` rows of `channels` floats, asserted above.
        unsafe {
            if channels == S::LANES {
                if let Some((residual, stride)) = residual {
                    for p in 0..P {
                        acc[p] = simd.add(acc[p], simd.load(residual.wrapping_add(p * stride)));
                    }
                }
                for p in 0..P {
                    let y = simd.at_most(simd.at_least(acc[p], low), high);
                    simd.store(to.wrapping_add(p * stride), y);
                }
            } else {
                if let Some((residual, stride)) = residual {
                    for p in 0..P {
                        let x = simd.load_partial(residual.wrapping_add(p * stride), channels);
                        acc[p] = simd.add(acc[p], x);
                    }
                }
                for p in 0..P {
                    let y = simd.at_most(simd.at_least(acc[p], low), high);
                    simd.store_partial(to.wrapping_add(p * stride), y, channels);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipped_taps_are_those_inside_the_image() {
        for (taps, dilation) in [(1, 1), (3, 1), (2, 3), (5, 2)] {
            for (before, size, stride) in [(0, 5, 1), (2, 5, 2), (7, 1, 3), (40, 2, 1), (1, 0, 1)] {
                let inside =
                    |first: usize, tap| (before..before + size).contains(&(first + tap * dilation));
                let positions = 60 / stride;
                let interior = interior(positions, stride, before, size, (taps, dilation));
                for position in 0..positions {
                    let first = position * stride;
                    let clipped = clip(first, before, size, (taps, dilation));
                    for tap in 0..taps {
                        assert_eq!(clipped.contains(&tap), inside(first, tap));
                    }
                    assert_eq!(interior.contains(&position), clipped == (0..taps));
                }
            }
        }
    }
}
