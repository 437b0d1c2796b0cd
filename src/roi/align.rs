//! RoI align.
//!
//! Every bin averages a grid of bilinear samples. A bilinear weight is a product of a row weight
//! and a column weight, and so is the rule that a sample beyond the map counts as zero. The sum
//! over a bin's grid therefore factors: first add up, on each axis alone, what every pixel of the
//! bin's [`Footprints`] receives from all samples, then
//!
//! ```text
//! bin = sum over rows y of the footprint    row_weight[y]
//!           * sum over columns x            column_weight[x] * input[y, x]
//! ```
//!
//! which visits each pixel once however dense the samples are; the textbook form visits four pixels
//! a sample. The weights already carry the division by the number of samples.

use rayon::prelude::*;

use super::regions::{FeatureMap, Region, check_scale, expect_len};
use super::scatter;
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

/// What the bins of a region take from one axis: bin `b` spans pixels from `bins[b].0` on with
/// weights `weights[bins[b].1..bins[b + 1].1]`.
struct Footprints {
    bins: Vec<(usize, usize)>,
    weights: Vec<f32>,
}

impl Footprints {
    /// First pixel and weights of a bin.
    fn bin(&self, bin: usize) -> (usize, &[f32]) {
        let (first, at) = self.bins[bin];
        let end = self.bins.get(bin + 1).map_or(self.weights.len(), |&(_, at)| at);
        (first, &self.weights[at..end])
    }
}

impl Align {
    /// Footprints of the region from `low` to `high` (image coordinates) on an axis of `limit`
    /// pixels. Positions are computed in f32 with the operations in torchvision's order, so that
    /// a sample falls on the same side of an edge.
    fn footprints(&self, low: f32, high: f32, bins: usize, limit: usize) -> Footprints {
        let (scale, offset) = (self.scale as f32, if self.aligned { 0.5 } else { 0.0 });
        let start = low * scale - offset;
        let size = (high * scale - offset) - start;
        let size = if self.aligned { size } else { size.max(1.0) };
        let step = size / bins as f32;
        let grid = match self.sampling_ratio {
            ratio @ 1.. => ratio as u64,
            _ => step.ceil() as u64, // 0 for a size that is not positive
        };
        let mut footprints =
            Footprints { bins: Vec::with_capacity(bins), weights: Vec::with_capacity(2 * bins) };
        let mut taps = Vec::new();
        for bin in 0..bins {
            let origin = start + bin as f32 * step;
            taps.clear();
            taps.extend(
                inside(origin, step / grid as f32, grid, limit)
                    .map(|i| origin + (i as f32 + 0.5) * step / grid as f32)
                    .filter_map(|position| tap(position, limit)),
            );
            footprints.push(&taps, grid, limit);
        }
        footprints
    }

    fn axes(&self, region: &Region) -> (Footprints, Footprints) {
        let (rows, cols) = self.map.output;
        (
            self.footprints(region.y1, region.y2, rows, self.map.height),
            self.footprints(region.x1, region.x2, cols, self.map.width),
        )
    }

    fn check(&self, regions: &[Region]) -> Result<usize> {
        check_scale(self.scale)?;
        if self.sampling_ratio > MAX_SAMPLES {
            let expected = format!("at most {MAX_SAMPLES}");
            let got = self.sampling_ratio.to_string();
            return Err(Error::value("sampling_ratio", expected, got));
        }
        self.map.output_len(regions.len())
    }
}

impl Footprints {
    /// Appends the bin whose samples have the given taps.
    fn push(&mut self, taps: &[Tap], grid: u64, limit: usize) {
        let at = self.weights.len();
        let first = taps.iter().map(|tap| tap.pixel).min().unwrap_or(0);
        let end = taps.iter().map(|tap| tap.pixel + 2).max().unwrap_or(0).min(limit);
        self.bins.push((first, at));
        self.weights.resize(at + end.saturating_sub(first), 0.0);
        let weights = &mut self.weights[at..];
        for tap in taps {
            weights[tap.pixel - first] += 1.0 - tap.fraction;
            if let Some(next) = weights.get_mut(tap.pixel + 1 - first) {
                *next += tap.fraction;
            }
        }
        weights.iter_mut().for_each(|weight| *weight /= grid as f32);
    }
}

/// A sample on one axis: between `pixel` and the next, `fraction` of the way.
struct Tap {
    pixel: usize,
    fraction: f32,
}

/// Where a sample at `position` reads; `None` more than a pixel outside the map, or for NaN.
fn tap(position: f32, limit: usize) -> Option<Tap> {
    if limit == 0 || !(position >= -1.0 && position <= limit as f32) {
        return None;
    }
    let position = position.max(0.0);
    let pixel = (position as usize).min(limit - 1);
    let fraction = if pixel + 1 == limit { 0.0 } else { position - pixel as f32 };
    Some(Tap { pixel, fraction })
}

/// The samples of a bin that may reach the map, with a margin. A region millions of pixels wide has
/// millions of samples, nearly all of them outside.
fn inside(origin: f32, distance: f32, grid: u64, limit: usize) -> std::ops::Range<u64> {
    if distance == 0.0 || distance.is_nan() {
        return 0..grid;
    }
    let index = |edge: f64| (edge - f64::from(origin)) / f64::from(distance);
    let (a, b) = (index(-1.0), index(limit as f64));
    let low = (a.min(b) - 2.0).max(0.0) as u64;
    let high = (a.max(b) + 2.0).max(0.0) as u64;
    low.min(grid)..high.min(grid)
}

/// The average of every bin's samples; 0 for a bin without samples.
pub fn align(align: &Align, input: &[f32], regions: &[Region]) -> Result<Vec<f32>> {
    let map = &align.map;
    let mut output = vec![0.0; align.check(regions)?];
    map.check_input(input)?;
    if output.is_empty() {
        return Ok(output);
    }
    let axes: Vec<_> = regions.par_iter().map(|region| align.axes(region)).collect();
    output.par_chunks_mut(map.bin_row_len()).enumerate().for_each(|(index, bins)| {
        let (region, bin_row) = (index / map.output.0, index % map.output.0);
        let (image, (rows, cols)) = (regions[region].image, &axes[region]);
        let (first_row, row_weights) = rows.bin(bin_row);
        for (bin_col, bin) in bins.chunks_exact_mut(map.channels).enumerate() {
            let (first_col, col_weights) = cols.bin(bin_col);
            for (y, row_weight) in (first_row..).zip(row_weights) {
                for (x, col_weight) in (first_col..).zip(col_weights) {
                    let weight = row_weight * col_weight;
                    for (sum, value) in bin.iter_mut().zip(map.pixel(input, image, y, x)) {
                        *sum += weight * value;
                    }
                }
            }
        }
    });
    Ok(output)
}

/// Gradient of the input: every bin's gradient, spread over its footprint.
pub fn align_backward(align: &Align, regions: &[Region], grad_output: &[f32]) -> Result<Vec<f32>> {
    let map = &align.map;
    expect_len("grad_output", align.check(regions)?, grad_output.len())?;
    let axes: Vec<_> = regions.par_iter().map(|region| align.axes(region)).collect();
    Ok(scatter::by_channel_blocks(map, regions, |region, channels, plane| {
        let (rows, cols) = &axes[region];
        for bin in 0..map.output.0 * map.output.1 {
            let (first_row, row_weights) = rows.bin(bin / map.output.1);
            let (first_col, col_weights) = cols.bin(bin % map.output.1);
            let at = (region * map.output.0 * map.output.1 + bin) * map.channels;
            let gradient = &grad_output[at + channels.start..at + channels.end];
            for (y, row_weight) in (first_row..).zip(row_weights) {
                for (x, col_weight) in (first_col..).zip(col_weights) {
                    let weight = row_weight * col_weight;
                    let pixel = (y * map.width + x) * channels.len();
                    let target = &mut plane[pixel..pixel + channels.len()];
                    for (sum, gradient) in target.iter_mut().zip(gradient) {
                        *sum += weight * gradient;
                    }
                }
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::super::reference::tests::{feature_maps, regions};
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
                let got = align(&options, &input, &regions).unwrap();
                assert!(close(&got, &expected, 1e-5), "{options:?}");

                let grad = values(got.len(), seed + 1);
                let expected = reference::align_backward(&options, &regions, &grad);
                let got = align_backward(&options, &regions, &grad).unwrap();
                assert!(close(&got, &expected, 1e-5), "{options:?}");
            }
        }
    }

    fn constant(sampling_ratio: i32, aligned: bool, [x1, y1, x2, y2]: [f32; 4]) -> f32 {
        let map = FeatureMap::new((1, 4, 4, 1), (1, 1)).unwrap();
        let options = Align { map, scale: 1.0, sampling_ratio, aligned };
        align(&options, &[1.0; 16], &[Region { image: 0, x1, y1, x2, y2 }]).unwrap()[0]
    }

    #[test]
    fn a_sampling_ratio_without_bounds_is_refused() {
        let map = FeatureMap::new((1, 4, 4, 1), (1, 1)).unwrap();
        let options = |sampling_ratio| Align { map, scale: 1.0, sampling_ratio, aligned: false };
        let message = align(&options(MAX_SAMPLES + 1), &[1.0; 16], &[]).unwrap_err().to_string();
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
