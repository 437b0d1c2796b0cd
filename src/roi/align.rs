//! RoI align.
//!
//! Every bin averages a grid of bilinear samples. A bilinear weight is a product of a row weight
//! and a column weight, and so is the rule that a sample beyond the map counts as zero. The sum
//! over a bin's grid therefore factors: first add up, on each axis alone, what every pixel that the
//! bin's samples read receives from all of them ([`Taps`]), then
//!
//! ```text
//! bin = sum over rows y that are read, columns x that are read:
//!           row_weight[y] * column_weight[x] * input[y, x]
//! ```
//!
//! which visits each pixel once however dense the samples are; the textbook form visits four pixels
//! a sample. The weights already carry the division by the number of samples.

use std::ops::Range;

use super::bins::{Layout, Operator, evaluate, with_threads};
use super::regions::{FeatureMap, Region, check_scale, expect_len};
use super::taps::{Axis, Sampling, Tap, Taps};
use crate::isa::vectorize;
use crate::rows::{Rows, RowsMut, Tile, Tiling};
use crate::{Error, Result};

/// Largest accepted number of samples of a bin on an axis; a thousand times what is of any use.
const MAX_SAMPLES: i32 = 1 << 16;

/// RoI align: its geometry and options.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Align {
    /// Feature map and grid.
    pub map: FeatureMap,
    /// Feature pixels an image pixel.
    pub scale: f64,
    /// Samples of a bin on each axis; 0 or less takes as many as the bin has pixels, rounded up.
    pub sampling_ratio: i32,
    /// Whether pixel centres lie at half-integers (true) or at integers (false, where moreover a
    /// region is at least one pixel wide and high).
    pub aligned: bool,
}

/// What the bins of all regions take from the rows and from the columns of their maps.
pub(super) struct Footprints {
    pub rows: Taps,
    pub cols: Taps,
}

impl Footprints {
    /// The sum of the pixels under a bin by their weights, for `N` channels from `first` on.
    #[inline(always)]
    #[allow(
        clippy::needless_range_loop,
        reason = "one index into two arrays of one length: vectors"
    )]
    pub fn sum<const N: usize>(
        &self,
        region: usize,
        (row, col): (usize, usize),
        width: usize,
        image: Rows<'_>,
        first: usize,
    ) -> [f32; N] {
        let (values, stride) = (image.as_slice(), image.stride());
        let cols = self.cols.bin(region, col);
        let mut sums = [0.0; N];
        for &(y, row_weight) in self.rows.bin(region, row) {
            let line = y as usize * width;
            for &(x, col_weight) in cols {
                let weight = row_weight * col_weight;
                let pixel = &values[(line + x as usize) * stride + first..][..N];
                for i in 0..N {
                    sums[i] += weight * pixel[i];
                }
            }
        }
        sums
    }

    /// Pixels that the bins of a region read.
    pub fn reads(&self, region: usize) -> usize {
        self.rows.region(region).len() * self.cols.region(region).len()
    }

    /// The rows between the first and the last that a region reads.
    pub fn row_range(&self, region: usize) -> Range<usize> {
        let pixels = || self.rows.region(region).iter().map(|&(pixel, _)| pixel as usize);
        pixels().min().unwrap_or(0)..pixels().max().map_or(0, |last| last + 1)
    }
}

impl Align {
    /// The samples of a bin along an axis.
    pub(super) fn sampling(&self) -> Sampling {
        Sampling {
            scale: self.scale as f32,
            offset: if self.aligned { 0.5 } else { 0.0 },
            least: if self.aligned { f32::NEG_INFINITY } else { 1.0 },
            ratio: self.sampling_ratio,
        }
    }

    pub(super) fn footprints(&self, regions: &[Region]) -> Footprints {
        let (rows, cols) = self.map.output;
        let [rows, cols] = [(rows, self.map.height), (cols, self.map.width)]
            .map(|(bins, limit)| Axis { bins, limit });
        let sampling = self.sampling();
        Footprints {
            rows: Taps::new(&sampling, rows, regions, |region| (region.y1, region.y2)),
            cols: Taps::new(&sampling, cols, regions, |region| (region.x1, region.x2)),
        }
    }

    pub(super) fn check_options(&self) -> Result<()> {
        check_scale(self.scale)?;
        if self.sampling_ratio > MAX_SAMPLES {
            let expected = format!("at most {MAX_SAMPLES}");
            let got = self.sampling_ratio.to_string();
            return Err(Error::value("sampling_ratio", expected, got));
        }
        Ok(())
    }
}

struct Average {
    footprints: Footprints,
    width: usize,
}

impl Operator for Average {
    #[inline(always)]
    fn bin<const N: usize>(
        &self,
        region: usize,
        bin: (usize, usize),
        image: Rows<'_>,
        first: usize,
    ) -> [f32; N] {
        self.footprints.sum(region, bin, self.width, image, first)
    }

    fn reads(&self, region: usize) -> usize {
        self.footprints.reads(region)
    }

    fn rows(&self, region: usize) -> Range<usize> {
        self.footprints.row_range(region)
    }
}

/// Writes the average of every bin's samples, 0 for a bin without samples. `output` lies in memory
/// as `input` does.
pub fn align(
    align: &Align,
    layout: Layout,
    input: &[f32],
    regions: &[Region],
    output: &mut [f32],
) -> Result<()> {
    align.check_options()?;
    let average = Average { footprints: align.footprints(regions), width: align.map.width };
    evaluate(&average, &align.map, layout, input, regions, output)
}

/// Gradient of the input, channels last: every bin's gradient, spread over its footprint. Adds to
/// `grad_input`.
pub fn align_backward(
    align: &Align,
    regions: &[Region],
    grad_output: &[f32],
    grad_input: &mut [f32],
) -> Result<()> {
    let map = &align.map;
    align.check_options()?;
    expect_len("grad_output", map.output_len(regions.len())?, grad_output.len())?;
    expect_len("grad_input", map.input_len(), grad_input.len())?;
    map.check_images(regions)?;
    let footprints = align.footprints(regions);
    let all: Vec<usize> = (0..regions.len()).collect();
    let work = regions.len() * map.bins() * map.channels;
    with_threads(work.saturating_mul(PIXELS_OF_A_BIN), || {
        spread_back(map, &footprints, regions, &all, grad_output, grad_input);
    })
}

/// Pixels under a bin, more or less.
pub(super) const PIXELS_OF_A_BIN: usize = 9;
/// Rows of a map that a task adds to.
const BAND: usize = 4;
/// Channels that it adds to.
const CHANNELS: usize = 256;

/// Adds the gradients of the bins of the regions `here` to that of their map.
///
/// A task owns some rows of the map and goes through all regions that reach into them, so no two
/// tasks add to the same number, and a number is the sum over regions and bins in their order.
pub(super) fn spread_back(
    map: &FeatureMap,
    footprints: &Footprints,
    regions: &[Region],
    here: &[usize],
    grad_output: &[f32],
    grad_input: &mut [f32],
) {
    if map.pixels() == 0 || map.channels == 0 {
        return;
    }
    let mut by_image = vec![vec![]; map.batch];
    for &region in here {
        by_image[regions[region].image].push((region, footprints.row_range(region)));
    }
    let tiling = Tiling { group: map.pixels(), rows: BAND * map.width, channels: CHANNELS };
    RowsMut::dense(grad_input, map.channels).for_each_tile(tiling, |mut tile| {
        let (image, pixel) = (tile.first_row / map.pixels(), tile.first_row % map.pixels());
        let band = pixel / map.width..(pixel + tile.rows.count()) / map.width;
        let reaching = by_image[image]
            .iter()
            .filter(|(_, rows)| rows.start < band.end && band.start < rows.end);
        vectorize(
            #[inline(always)]
            || {
                for &(region, _) in reaching {
                    add_region(map, footprints, region, &band, grad_output, &mut tile);
                }
            },
        );
    });
}

/// Adds the gradients of a region's bins to the rows `band` of the map.
#[inline(always)]
fn add_region(
    map: &FeatureMap,
    footprints: &Footprints,
    region: usize,
    band: &Range<usize>,
    grad_output: &[f32],
    tile: &mut Tile<'_>,
) {
    let (rows, cols) = map.output;
    for row in 0..rows {
        let in_band = |&&(y, _): &&Tap| band.contains(&(y as usize));
        let taps = footprints.rows.bin(region, row);
        if !taps.iter().any(|tap| in_band(&tap)) {
            continue;
        }
        for col in 0..cols {
            let at = ((region * rows + row) * cols + col) * map.channels + tile.first_channel;
            let gradient = &grad_output[at..at + tile.rows.channels()];
            for &(y, row_weight) in taps.iter().filter(in_band) {
                let line = (y as usize - band.start) * map.width;
                for &(x, col_weight) in footprints.cols.bin(region, col) {
                    let weight = row_weight * col_weight;
                    let target = tile.rows.row_mut(line + x as usize);
                    for i in 0..target.len() {
                        target[i] += weight * gradient[i];
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::super::reference::tests::{feature_maps, in_both_layouts, regions};
    use super::*;
    use crate::conv::reference::{close, values};

    #[test]
    fn agrees_with_naive_sampling_and_its_gradient() {
        for (seed, map) in (1..).zip(feature_maps()) {
            for (sampling_ratio, aligned, scale) in [
                (-1, false, 1.0),
                (0, true, 0.25),
                (1, false, 0.5),
                (2, true, 1.0),
                (2, false, 0.1),
                (5, true, 0.3),
            ] {
                let options = Align { map, scale, sampling_ratio, aligned };
                let input = values(map.input_len(), seed);
                let regions = regions(&map, scale, seed);
                let expected = reference::align(&options, &input, &regions);
                let got = in_both_layouts(&map, regions.len(), &input, |layout, input, output| {
                    align(&options, layout, input, &regions, output)
                });
                assert!(close(&got, &expected, 1e-5), "{options:?}");

                let grad = values(got.len(), seed + 1);
                let expected = reference::align_backward(&options, &regions, &grad);
                let mut got = vec![0.0; input.len()];
                align_backward(&options, &regions, &grad, &mut got).unwrap();
                assert!(close(&got, &expected, 1e-5), "{options:?}");
            }
        }
    }

    fn constant(sampling_ratio: i32, aligned: bool, [x1, y1, x2, y2]: [f32; 4]) -> f32 {
        let map = FeatureMap::new((1, 4, 4, 1), (1, 1)).unwrap();
        let options = Align { map, scale: 1.0, sampling_ratio, aligned };
        let mut output = [f32::NAN];
        let regions = [Region { image: 0, x1, y1, x2, y2 }];
        align(&options, Layout::ChannelsLast, &[1.0; 16], &regions, &mut output).unwrap();
        output[0]
    }

    #[test]
    fn a_sampling_ratio_without_bounds_is_refused() {
        let map = FeatureMap::new((1, 4, 4, 1), (1, 1)).unwrap();
        let options = |sampling_ratio| Align { map, scale: 1.0, sampling_ratio, aligned: false };
        let refused =
            align(&options(MAX_SAMPLES + 1), Layout::ChannelsLast, &[1.0; 16], &[], &mut []);
        let message = refused.unwrap_err().to_string();
        assert_eq!(message, "sampling_ratio: expected at most 65536, got 65537");
        assert!((constant(MAX_SAMPLES, false, [0.0, 0.0, 3.0, 3.0]) - 1.0).abs() < 1e-3);
    }

    #[test]
    fn samples_outside_count_in_the_divisor() {
        assert_eq!(constant(2, false, [2.0, 2.0, 4.0, 4.0]), 1.0);
        assert_eq!(constant(2, false, [3.0, 3.0, 5.0, 5.0]), 0.25);
        assert_eq!(constant(2, false, [6.0, 6.0, 9.0, 9.0]), 0.0);
    }

    #[test]
    fn degenerate_regions() {
        let point = [2.0, 2.0, 2.0, 2.0];
        assert_eq!(constant(0, true, point), 0.0);
        assert_eq!(constant(2, true, point), 1.0);
        assert_eq!(constant(0, false, point), 1.0);
        assert_eq!(constant(0, true, [3.0, 3.0, 1.0, 1.0]), 0.0);
        assert_eq!(constant(0, true, [3.0, 1.0, 1.0, 3.0]), 0.0);
        assert_eq!(constant(2, true, [3.0, 3.0, 1.0, 1.0]), 1.0);
    }

    #[test]
    fn coordinates_of_any_size_are_harmless() {
        for far in [1e6, 1e9, 1e30, f32::MAX] {
            for aligned in [false, true] {
                let value = constant(0, aligned, [-far, -far, far, far]);
                assert!((0.0..1.0).contains(&value), "{far} {value}");
                assert_eq!(constant(0, aligned, [far, 0.0, far, 4.0]), 0.0);
            }
        }
    }
}
