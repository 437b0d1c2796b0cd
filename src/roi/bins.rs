//! The loop over bins that the operators share, for maps of either layout.
//!
//! An [`Operator`] says what one bin makes of the pixels under it, for a few channels at a time, as
//! many as stay in registers. This file says in which order bins are visited. Channels are cut into
//! blocks, and all regions are done with one block before the next begins: a large map has more
//! bytes than a cache, its slice of 64 channels is read again and again by overlapping regions.
//!
//! ```text
//! channels last:   for each block of channels, for each region:        (a task takes a few regions)
//!                      for each bin: the bin's channels <- operator
//! channels first:  for each image, for each block of channels:
//!                      copy the block's planes, pixel by pixel          (a task takes a line)
//!                      for each region of the image:                    (a task takes a few)
//!                          for each bin: the bin's channels <- operator
//! ```
//!
//! Where the regions read fewer pixels than the copy would, channels-first maps are read in place,
//! one channel at a time. The arithmetic of a channel is the same in all three.

use std::ops::Range;

use super::regions::{FeatureMap, Region, expect_len};
use crate::Result;
use crate::isa::{self, vectorize};
use crate::parallel;
use crate::rows::{Rows, RowsMut, Tiling};

/// Channels that are done together. 64 floats are four vectors of AVX-512, enough sums to hide the
/// latency of an addition, and the slice of a 37 x 50 map (600 x 800 at stride 16) takes 474 KB.
const BLOCK: usize = 64;
/// Below so many multiplications (some 50 us) threads cost more than they bring.
const ALONE: usize = 500_000;
/// Pixels that a task reads in a block of channels, at least: some 50 us.
const TASK_READS: usize = 16_000;
/// Bins whose channels are transposed together: a cache line of each channel.
const TOGETHER: usize = 16;
/// Neighbouring pixels that are copied plane by plane: 16 KiB, a part of the first-level cache.
const LINE: usize = 64;

/// Which axis is innermost in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// N, H, W, C; results R, oh, ow, C.
    ChannelsLast,
    /// N, C, H, W; results R, C, oh, ow.
    ChannelsFirst,
}

/// What is computed of each bin.
pub(super) trait Operator: Sync {
    /// The values of bin (row, column) of a region for `N` channels from `first` on. `image` has a
    /// row of channels for each pixel.
    fn bin<const N: usize>(
        &self,
        region: usize,
        bin: (usize, usize),
        image: Rows<'_>,
        first: usize,
    ) -> [f32; N];

    /// Pixels that all bins of a region read, those in two bins twice.
    fn reads(&self, region: usize) -> usize;

    /// Rows of the map outside of which a region reads nothing.
    fn rows(&self, region: usize) -> Range<usize>;
}

/// Everything about a call but the operator and the result.
struct Call<'a> {
    map: &'a FeatureMap,
    input: &'a [f32],
    regions: &'a [Region],
    /// Pixels that a region reads, on average.
    reads: usize,
}

/// Writes every element of `output`, the bins of all regions.
pub(super) fn evaluate<O: Operator>(
    operator: &O,
    map: &FeatureMap,
    layout: Layout,
    input: &[f32],
    regions: &[Region],
    output: &mut [f32],
) -> Result<()> {
    map.check_input(input)?;
    map.check_images(regions)?;
    expect_len("output", map.output_len(regions.len())?, output.len())?;
    if output.is_empty() {
        return Ok(());
    }
    let total: usize = (0..regions.len()).map(|region| operator.reads(region)).sum();
    let call = Call { map, input, regions, reads: total / regions.len() };
    // Whatever is read, a result has to be written.
    with_threads(total.saturating_mul(map.channels).saturating_add(output.len()), || match layout {
        Layout::ChannelsLast => call.channels_last(operator, output),
        Layout::ChannelsFirst if total < call.pixels_in_use(operator) => {
            call.planes(operator, output);
        }
        Layout::ChannelsFirst => call.channels_first(operator, output),
    })
}

/// Runs `loops` with threads at hand if there is enough work for them.
pub(super) fn with_threads(work: usize, loops: impl FnOnce()) -> Result<()> {
    if work < ALONE {
        isa::check_cap()?;
        loops();
        return Ok(());
    }
    parallel::lead(loops)
}

/// Calls `put(channel, values)` for the values of a bin in `count` channels from `first` on, a few
/// channels at a time.
#[inline(always)]
fn each_part<O: Operator>(
    operator: &O,
    region: usize,
    bin: (usize, usize),
    image: Rows<'_>,
    first: usize,
    count: usize,
    mut put: impl FnMut(usize, &[f32]),
) {
    let mut done = 0;
    while done + BLOCK <= count {
        put(done, &operator.bin::<BLOCK>(region, bin, image, first + done));
        done += BLOCK;
    }
    while done + 16 <= count {
        put(done, &operator.bin::<16>(region, bin, image, first + done));
        done += 16;
    }
    while done + 4 <= count {
        put(done, &operator.bin::<4>(region, bin, image, first + done));
        done += 4;
    }
    while done < count {
        put(done, &operator.bin::<1>(region, bin, image, first + done));
        done += 1;
    }
}

/// Regions of a task, of which each reads so many pixels.
pub(super) fn regions_per_task(reads: usize) -> usize {
    (TASK_READS / reads.max(1)).clamp(1, 64)
}

/// Writes the bins of all regions; `image` gives the pixels of a region's map.
pub(super) fn channels_last<'a, O: Operator>(
    operator: &O,
    (rows, cols): (usize, usize),
    regions_per_task: usize,
    image: impl Fn(usize) -> Rows<'a> + Sync,
    output: RowsMut<'_>,
) {
    let bins = rows * cols;
    let rows = bins.saturating_mul(regions_per_task);
    let tiling = Tiling { group: usize::MAX, rows, channels: BLOCK };
    output.for_each_tile(tiling, |mut tile| {
        vectorize(
            #[inline(always)]
            || {
                for index in 0..tile.rows.count() {
                    let at = tile.first_row + index;
                    let (region, bin) = (at / bins, at % bins);
                    let (target, first) = (tile.rows.row_mut(index), tile.first_channel);
                    let (bin, count) = ((bin / cols, bin % cols), target.len());
                    each_part(
                        operator,
                        region,
                        bin,
                        image(region),
                        first,
                        count,
                        #[inline(always)]
                        |at, values| target[at..at + values.len()].copy_from_slice(values),
                    );
                }
            },
        );
    });
}

impl Call<'_> {
    fn regions_per_task(&self) -> usize {
        regions_per_task(self.reads)
    }

    fn channels_last<O: Operator>(&self, operator: &O, output: &mut [f32]) {
        let Call { map, input, regions, .. } = *self;
        let len = map.pixels() * map.channels;
        let image =
            |region: usize| Rows::dense(&input[regions[region].image * len..][..len], map.channels);
        let output = RowsMut::dense(output, map.channels);
        channels_last(operator, map.output, self.regions_per_task(), image, output);
    }

    /// The pixels that a copy of what the regions of every image read would have.
    fn pixels_in_use<O: Operator>(&self, operator: &O) -> usize {
        let lines: usize = (0..self.map.batch).map(|image| self.lines(operator, image).len()).sum();
        lines * self.map.width
    }

    /// The lines of an image between the first and the last that a region reads.
    fn lines<O: Operator>(&self, operator: &O, image: usize) -> Range<usize> {
        let mut lines = 0..0;
        for region in 0..self.regions.len() {
            let rows = operator.rows(region);
            if self.regions[region].image == image && !rows.is_empty() {
                let none = lines.is_empty();
                lines.start = if none { rows.start } else { lines.start.min(rows.start) };
                lines.end = lines.end.max(rows.end);
            }
        }
        lines
    }

    /// Channels first, read in place.
    fn planes<O: Operator>(&self, operator: &O, output: &mut [f32]) {
        let Call { map, input, regions, .. } = *self;
        let (pixels, cols) = (map.pixels(), map.output.1);
        let tiling = Tiling::rows((TASK_READS / self.reads.max(1)).max(1));
        RowsMut::dense(output, map.bins()).for_each_tile(tiling, |mut tile| {
            vectorize(
                #[inline(always)]
                || {
                    for index in 0..tile.rows.count() {
                        let at = tile.first_row + index;
                        let (region, channel) = (at / map.channels, at % map.channels);
                        let plane = regions[region].image * map.channels + channel;
                        let plane = Rows::dense(&input[plane * pixels..][..pixels], 1);
                        for (bin, target) in tile.rows.row_mut(index).iter_mut().enumerate() {
                            let bin = (bin / cols, bin % cols);
                            [*target] = operator.bin::<1>(region, bin, plane, 0);
                        }
                    }
                },
            );
        });
    }

    /// Channels first, read from copies.
    fn channels_first<O: Operator>(&self, operator: &O, output: &mut [f32]) {
        let Call { map, regions, .. } = *self;
        let (bins, cols) = (map.bins(), map.output.1);
        let widest = BLOCK.min(map.channels);
        let mut copy = vec![0.0; map.pixels() * widest];
        let mut output = RowsMut::dense(output, map.channels * bins);
        for image in 0..map.batch {
            let lines = self.lines(operator, image);
            let mut rest = output.reborrow();
            for first in (0..map.channels).step_by(BLOCK) {
                let width = BLOCK.min(map.channels - first);
                let copy = &mut copy[..map.pixels() * width];
                let line = map.width * width;
                let used = &mut copy[lines.start * line..lines.end * line];
                parallel::for_each_chunk(used, line, |index, pixels| {
                    self.interleave(image, first, lines.start + index, width, pixels);
                });
                let (block, later) = rest.split_columns(width * bins);
                rest = later;
                let pixels = Rows::dense(copy, width);
                let tiling = Tiling::rows(self.regions_per_task());
                block.for_each_tile(tiling, |mut tile| {
                    // A line of the result is written at once, not as its bins come along.
                    let mut rows = [[0.0; BLOCK]; TOGETHER];
                    vectorize(
                        #[inline(always)]
                        || {
                            for index in 0..tile.rows.count() {
                                let region = tile.first_row + index;
                                if regions[region].image != image {
                                    continue;
                                }
                                let target = tile.rows.row_mut(index);
                                for start in (0..bins).step_by(TOGETHER) {
                                    let count = TOGETHER.min(bins - start);
                                    for (i, row) in rows[..count].iter_mut().enumerate() {
                                        let bin = ((start + i) / cols, (start + i) % cols);
                                        each_part(
                                            operator,
                                            region,
                                            bin,
                                            pixels,
                                            0,
                                            width,
                                            #[inline(always)]
                                            |at, values| {
                                                row[at..at + values.len()].copy_from_slice(values);
                                            },
                                        );
                                    }
                                    scatter(&rows[..count], target, bins, start, width);
                                }
                            }
                        },
                    );
                });
            }
        }
    }

    /// Copies `width` channels from `first` on of one line of an image, pixel by pixel.
    fn interleave(&self, image: usize, first: usize, line: usize, width: usize, to: &mut [f32]) {
        let map = self.map;
        vectorize(
            #[inline(always)]
            || {
                for (part, pixels) in to.chunks_mut(LINE * width).enumerate() {
                    for channel in 0..width {
                        let plane = image * map.channels + first + channel;
                        let at = (plane * map.height + line) * map.width + part * LINE;
                        let values = &self.input[at..][..pixels.len() / width];
                        for i in 0..values.len() {
                            pixels[i * width + channel] = values[i];
                        }
                    }
                }
            },
        );
    }
}

/// Writes the rows of a few bins from `start` on into `target`, one channel of all bins after the
/// other.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "two indices into a matrix and its transpose")]
fn scatter(rows: &[[f32; BLOCK]], target: &mut [f32], bins: usize, start: usize, width: usize) {
    for channel in 0..width {
        let values = &mut target[channel * bins + start..][..rows.len()];
        for i in 0..values.len() {
            values[i] = rows[i][channel];
        }
    }
}
