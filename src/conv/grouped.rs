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
//! | spread | else | a vector of a copy in which lane `o` holds channel `k` of `o`'s own group |
//!
//! Copies are of the input rows of one task and one vector. They have zeros on both sides where
//! padding is of ordinary width; other padding is never touched: taps outside the image are left
//! out, rows for all pixels of a line and columns for the pixels near its ends, one by one.

use std::ops::Range;
use std::sync::Arc;

use super::geometry::Conv2d;
use super::prepared::Epilogue;
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
        for (index, row) in weights.chunks_exact_mut(lanes).enumerate() {
            let (first, k) = (index / depth * lanes, index % depth);
            let count = lanes.min(conv.out_channels - first);
            weight(k, first, &mut row[..count]);
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
        if !grouped.is_depthwise() {
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
        if self.is_depthwise() { 0 } else { rows * self.copied_line() }
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
            dispatch(self.isa, Task { layer: self, input, bias, epilogue, copy, tile });
        });
    }

    /// How the `count` channels from `first` on are read.
    fn reading(&self, first: usize, count: usize) -> Reading {
        let group = |channel: usize| channel / self.conv.group_out();
        match group(first) == group(first + count - 1) {
            _ if self.is_depthwise() => Reading::InPlace,
            true => Reading::Broadcast,
            false => Reading::Spread,
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
}

/// Ways to read `x` into a vector.
const WHOLE: usize = 0;
const PARTIAL: usize = 1;
const BROADCAST: usize = 2;

// Loops over indices instead of closures inside the kernel, as in `winograd`.
impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let conv = &self.layer.conv;
        let (image, first_line, _) = conv.output_position(self.tile.first_row);
        let lines = first_line..first_line + self.tile.rows.count() / conv.output.1;
        let channels = self.tile.first_channel..self.tile.first_channel + self.tile.rows.channels();
        if self.layer.is_depthwise() {
            // Pixels outside, channels inside: the order of the input in memory.
            let view = self.in_place(image);
            let columns = Columns::new(conv, &view);
            for line in lines.clone() {
                let mut col = 0;
                while col < conv.output.1 {
                    let count = columns.block(col);
                    for first in channels.clone().step_by(S::LANES) {
                        let block = Block { line, rows: &lines, col, count, first };
                        let view = View { data: view.data.wrapping_add(first), ..view };
                        if first + S::LANES <= channels.end {
                            self.block::<S, WHOLE>(simd, &view, block);
                        } else {
                            self.block::<S, PARTIAL>(simd, &view, block);
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
                _ => self.spread(simd, image, &lines, first),
            };
            let columns = Columns::new(conv, &view);
            for line in lines.clone() {
                let mut col = 0;
                while col < conv.output.1 {
                    let count = columns.block(col);
                    let block = Block { line, rows: &lines, col, count, first };
                    if reading == Reading::Broadcast {
                        self.block::<S, BROADCAST>(simd, &view, block);
                    } else {
                        self.block::<S, WHOLE>(simd, &view, block);
                    }
                    col += count;
                }
            }
        }
    }
}

/// How the pixels of a line are taken: one by one near its ends, in blocks between.
struct Columns {
    interior: Range<usize>,
    size: usize,
}

impl Columns {
    fn new(conv: &Conv2d, view: &View) -> Self {
        let taps = (conv.kernel.1, conv.dilation.1);
        let interior = interior(conv.output.1, conv.stride.1, view.left, view.width, taps);
        // Blocks of nearly equal size.
        let blocks = interior.len().div_ceil(PIXELS).max(1);
        Columns { size: interior.len().div_ceil(blocks).max(1), interior }
    }

    /// Pixels of the block that begins at `col`.
    #[inline(always)]
    fn block(&self, col: usize) -> usize {
        if self.interior.contains(&col) { self.size.min(self.interior.end - col) } else { 1 }
    }
}

/// Some neighbouring pixels of a line, and the channels of one vector.
#[derive(Clone, Copy)]
struct Block<'a> {
    line: usize,
    /// Lines of the task.
    rows: &'a Range<usize>,
    col: usize,
    /// Pixels; several only where all taps lie inside the view.
    count: usize,
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
            for x in 0..conv.input.1 {
                let source = &pixels.row(x)[from..from + depth];
                let target = &mut to[(left + x) * depth..][..depth];
                let mut k = 0;
                while k + S::LANES <= depth {
                    // SAFETY: both have `depth` floats.
                    unsafe {
                        let value = simd.load(source.as_ptr().add(k));
                        simd.store(target.as_mut_ptr().add(k), value);
                    }
                    k += S::LANES;
                }
                // SAFETY: as above.
                unsafe {
                    let value = simd.load_partial(source.as_ptr().add(k), depth - k);
                    simd.store_partial(target.as_mut_ptr().add(k), value, depth - k);
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

    /// Copies the inputs of the vector of channels from `first` on: for each channel `k` of a group
    /// a plane of pixels whose lanes hold channel `k` of their own group.
    #[inline(always)]
    fn spread<S: Simd>(
        &mut self,
        simd: S,
        image: usize,
        lines: &Range<usize>,
        first: usize,
    ) -> View {
        let (conv, seen) = (&self.layer.conv, self.seen(lines));
        let ((left, right), width, depth) =
            (self.layer.margins(), self.layer.copied_width(), conv.group_in());
        let count = S::LANES.min(conv.out_channels - first);
        // Channel 0 of each lane's group, relative to that of the first lane.
        let from = first / conv.group_out() * depth;
        let mut channels = [0_i32; MAX_LANES];
        for (lane, channel) in channels.iter_mut().enumerate().take(count) {
            *channel = ((first + lane) / conv.group_out() * depth - from) as i32;
        }
        let span = channels[count - 1] as usize + depth;
        let (plane, line) = (width * S::LANES, width * S::LANES * depth);
        for (index, y) in seen.clone().enumerate() {
            let pixels = self.input.rows((image * conv.input.0 + y) * conv.input.1, conv.input.1);
            for k in 0..depth {
                let to = &mut self.copy[index * line + k * plane..][..plane];
                to[..left * S::LANES].fill(0.0);
                to[plane - right * S::LANES..].fill(0.0);
                let mut shifted = channels;
                for channel in &mut shifted[..count] {
                    *channel += k as i32;
                }
                let to = &mut to[left * S::LANES..];
                if span <= S::LANES {
                    // SAFETY: there are MAX_LANES indices, those of lanes in use below `span`.
                    let indices = unsafe { simd.load_indices(shifted.as_ptr()) };
                    for x in 0..conv.input.1 {
                        let source = &pixels.row(x)[from..from + span];
                        let target = &mut to[x * S::LANES..][..S::LANES];
                        // SAFETY: `source` has `span` floats, `target` LANES.
                        unsafe {
                            let value = if span == S::LANES {
                                simd.load(source.as_ptr())
                            } else {
                                simd.load_partial(source.as_ptr(), span)
                            };
                            simd.store(target.as_mut_ptr(), simd.permute(value, indices));
                        }
                    }
                } else {
                    for x in 0..conv.input.1 {
                        let source = &pixels.row(x)[from..from + span];
                        let target = &mut to[x * S::LANES..][..S::LANES];
                        for lane in 0..count {
                            target[lane] = source[shifted[lane] as usize];
                        }
                        target[count..].fill(0.0);
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

    /// Computes a block of pixels.
    #[inline(always)]
    fn block<S: Simd, const READ: usize>(&mut self, simd: S, view: &View, block: Block<'_>) {
        match block.count {
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
        Block { line, rows: lines, col, first, .. }: Block<'_>,
    ) {
        let (layer, conv) = (self.layer, &self.layer.conv);
        let depth = conv.group_in();
        let channels = S::LANES.min(conv.out_channels - first);
        let rows = clip(
            line * conv.stride.0,
            conv.padding.top,
            conv.input.0,
            (conv.kernel.0, conv.dilation.0),
        );
        let cols =
            clip(col * conv.stride.1, view.left, view.width, (conv.kernel.1, conv.dilation.1));
        let start = match self.bias {
            // SAFETY: the bias has one value an output channel.
            Some(bias) => unsafe { simd.load_partial(bias[first..].as_ptr(), channels) },
            None => simd.splat(0.0),
        };
        let mut acc = [start; P];
        let weights = &layer.weights[first * conv.depth()..][..conv.depth() * S::LANES];
        if !rows.is_empty() && !cols.is_empty() {
            let y = line * conv.stride.0 + rows.start * conv.dilation.0 - conv.padding.top;
            let x = col * conv.stride.1 + cols.start * conv.dilation.1 - view.left;
            let at = (y - view.first_line) * view.line + x * view.pixel;
            let mut row = view.data.wrapping_add(at);
            let step = conv.stride.1 * view.pixel;
            for u in rows {
                let mut tap = row;
                let mut w = weights[(u * conv.kernel.1 + cols.start) * depth * S::LANES..].as_ptr();
                for _ in cols.clone() {
                    let mut at = tap;
                    for _ in 0..depth {
                        // SAFETY: the weights of a tap are `depth` vectors. Clipping keeps taps of
                        // the first pixel inside the view, and the others are in its interior.
                        unsafe {
                            let factor = simd.load(w);
                            for p in 0..P {
                                let from = at.add(p * step);
                                let x = match READ {
                                    WHOLE => simd.load(from),
                                    PARTIAL => simd.load_partial(from, channels),
                                    _ => simd.splat(*from),
                                };
                                acc[p] = simd.mul_add(x, factor, acc[p]);
                            }
                        }
                        w = w.wrapping_add(S::LANES);
                        at = at.wrapping_add(view.plane);
                    }
                    tap = tap.wrapping_add(conv.dilation.1 * view.pixel);
                }
                row = row.wrapping_add(conv.dilation.0 * view.line);
            }
        }
        let bounds = self.epilogue.activation.bounds();
        let (low, high) = (simd.splat(bounds.low), simd.splat(bounds.high));
        let pixel = (line - lines.start) * conv.output.1 + col;
        let offset = first - self.tile.first_channel;
        for p in 0..P {
            let mut sum = acc[p];
            if let Some(residual) = self.epilogue.residual {
                let from = &residual.row(self.tile.first_row + pixel + p)[first..];
                let from = from[..channels].as_ptr();
                // SAFETY: `channels` floats.
                sum = simd.add(sum, unsafe {
                    if channels == S::LANES {
                        simd.load(from)
                    } else {
                        simd.load_partial(from, channels)
                    }
                });
            }
            let sum = simd.at_most(simd.at_least(sum, low), high);
            let to = self.tile.rows.row_mut(pixel + p)[offset..][..channels].as_mut_ptr();
            // SAFETY: `channels` floats.
            unsafe {
                if channels == S::LANES {
                    simd.store(to, sum)
                } else {
                    simd.store_partial(to, sum, channels)
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
