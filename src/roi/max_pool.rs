//! RoI max pooling.
//!
//! A region's corners are scaled and rounded to pixels, its size counts both end pixels and is at
//! least one, and bin `p` of `n` on an axis covers pixels `floor(p * size / n)` up to
//! `ceil((p + 1) * size / n)`, so that neighbouring bins may overlap. Two details differ between
//! the implementations in use, and trained weights remember them: how a half is rounded, and in
//! which precision the bin edges are computed ([`Rounding`], [`Edges`]).

use std::ops::Range;

use rayon::prelude::*;

use super::bins::{Layout, Operator, evaluate};
use super::regions::{FeatureMap, Region, check_scale, expect_len};
use super::scatter;
use crate::isa::vectorize;
use crate::rows::Rows;
use crate::{Error, Result};

/// What happens to a scaled corner that lies half-way between two pixels, as every odd multiple of
/// 8 does at scale 1/16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rounding {
    /// 0.5 becomes 1, -0.5 becomes -1: torchvision, and Chainer on a GPU.
    #[default]
    HalfAwayFromZero,
    /// 0.5 becomes 0, 1.5 becomes 2: Chainer on a CPU.
    HalfToEven,
}

/// Precision of the scaling and of the bin edges. With 7 bins a size of 57, 114 or 121 in f32 and
/// of 29, 58, 116 or 123 in f64 makes the last bin end one pixel past the region; all other sizes
/// below 200 give the same bins in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Edges {
    /// torchvision, and Chainer on a GPU.
    #[default]
    F32,
    /// Chainer on a CPU.
    F64,
}

/// RoI max pooling: its geometry and its two conventions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaxPool {
    /// Feature map and grid.
    pub map: FeatureMap,
    /// Feature pixels an image pixel.
    pub scale: f64,
    /// Rounding of the scaled corners.
    pub rounding: Rounding,
    /// Precision of scaling and bin edges.
    pub edges: Edges,
}

/// The pixel ranges of all regions' bins on both axes, clipped to the map.
pub(super) struct Bins {
    output: (usize, usize),
    rows: Vec<Range<usize>>,
    cols: Vec<Range<usize>>,
}

impl Bins {
    /// The bins of every region; `axis(low, high, bins, limit)` gives those along one axis.
    pub fn new<I: Iterator<Item = Range<usize>>>(
        map: &FeatureMap,
        regions: &[Region],
        axis: impl Fn(f32, f32, usize, usize) -> I,
    ) -> Bins {
        let (rows, cols) = map.output;
        // A region that lies nowhere meets a map without pixels.
        let limit = |region: &Region, extent| if region.is_nowhere() { 0 } else { extent };
        Bins {
            output: map.output,
            rows: regions
                .iter()
                .flat_map(|r| axis(r.y1, r.y2, rows, limit(r, map.height)))
                .collect(),
            cols: regions
                .iter()
                .flat_map(|r| axis(r.x1, r.x2, cols, limit(r, map.width)))
                .collect(),
        }
    }

    /// Rows of a bin row.
    #[inline(always)]
    pub fn rows(&self, region: usize, row: usize) -> Range<usize> {
        self.rows[region * self.output.0 + row].clone()
    }

    /// Columns of a bin column.
    #[inline(always)]
    pub fn cols(&self, region: usize, col: usize) -> Range<usize> {
        self.cols[region * self.output.1 + col].clone()
    }

    /// Pixels that the bins of a region read.
    pub fn reads(&self, region: usize) -> usize {
        let rows: usize = (0..self.output.0).map(|row| self.rows(region, row).len()).sum();
        let cols: usize = (0..self.output.1).map(|col| self.cols(region, col).len()).sum();
        rows * cols
    }

    /// The rows between the first and the last of a region.
    pub fn row_range(&self, region: usize) -> Range<usize> {
        self.rows(region, 0).start..self.rows(region, self.output.0 - 1).end
    }
}

impl MaxPool {
    fn bins(&self, regions: &[Region]) -> Bins {
        Bins::new(&self.map, regions, |low, high, bins, limit| {
            let start = self.pixel(low);
            let size = (self.pixel(high) - start + 1).max(1);
            (0..bins).map(move |bin| self.bin(bin, bins, start, size, limit))
        })
    }

    /// The pixel of a corner. Coordinates beyond what an i32 holds stop there, so that sizes and
    /// bin edges cannot overflow an i64.
    pub(super) fn pixel(&self, coordinate: f32) -> i64 {
        let scaled = match self.edges {
            Edges::F32 => f64::from(coordinate * self.scale as f32),
            Edges::F64 => f64::from(coordinate) * self.scale,
        };
        let rounded = match self.rounding {
            Rounding::HalfAwayFromZero => scaled.round(),
            Rounding::HalfToEven => scaled.round_ties_even(),
        };
        i64::from(rounded as i32)
    }

    pub(super) fn bin(
        &self,
        bin: usize,
        bins: usize,
        start: i64,
        size: i64,
        limit: usize,
    ) -> Range<usize> {
        let (low, high) = match self.edges {
            Edges::F32 => {
                let step = size as f32 / bins as f32;
                ((bin as f32 * step).floor() as i64, ((bin + 1) as f32 * step).ceil() as i64)
            }
            Edges::F64 => {
                let step = size as f64 / bins as f64;
                ((bin as f64 * step).floor() as i64, ((bin + 1) as f64 * step).ceil() as i64)
            }
        };
        let clip = |edge: i64| (edge + start).clamp(0, limit as i64) as usize;
        clip(low)..clip(high)
    }

    fn check(&self, input: &[f32], regions: &[Region]) -> Result<usize> {
        check_scale(self.scale)?;
        self.map.check_input(input)?;
        self.map.output_len(regions.len())
    }
}

struct Maximum {
    bins: Bins,
    width: usize,
}

impl Operator for Maximum {
    #[inline(always)]
    fn bin<const N: usize>(
        &self,
        region: usize,
        (row, col): (usize, usize),
        image: Rows<'_>,
        first: usize,
    ) -> [f32; N] {
        let (rows, cols) = (self.bins.rows(region, row), self.bins.cols(region, col));
        if rows.is_empty() || cols.is_empty() {
            return [0.0; N];
        }
        let (values, stride) = (image.as_slice(), image.stride());
        let mut best = [f32::MIN; N];
        for y in rows {
            for x in cols.clone() {
                let pixel = &values[(y * self.width + x) * stride + first..][..N];
                for i in 0..N {
                    best[i] = if pixel[i] > best[i] { pixel[i] } else { best[i] };
                }
            }
        }
        best
    }

    fn reads(&self, region: usize) -> usize {
        self.bins.reads(region)
    }

    fn rows(&self, region: usize) -> Range<usize> {
        self.bins.row_range(region)
    }
}

/// Writes the maximum of every bin, 0 for a bin without pixels. NaN never wins. `output` lies in
/// memory as `input` does.
pub fn max_pool(
    pool: &MaxPool,
    layout: Layout,
    input: &[f32],
    regions: &[Region],
    output: &mut [f32],
) -> Result<()> {
    pool.check(input, regions)?;
    let maximum = Maximum { bins: pool.bins(regions), width: pool.map.width };
    evaluate(&maximum, &pool.map, layout, input, regions, output)
}

/// [`max_pool`], channels last, together with the pixel `y * W + x` each maximum came from: the first in row-major
/// order among equals, -1 for a bin without pixels.
pub fn max_pool_with_argmax(
    pool: &MaxPool,
    input: &[f32],
    regions: &[Region],
) -> Result<(Vec<f32>, Vec<i32>)> {
    let map = &pool.map;
    let mut output = vec![0.0; pool.check(input, regions)?];
    let mut argmax = vec![-1; output.len()];
    if output.is_empty() {
        return Ok((output, argmax));
    }
    map.check_images(regions)?;
    let bins = pool.bins(regions);
    let rows = output
        .par_chunks_mut(map.bin_row_len())
        .zip(argmax.par_chunks_mut(map.bin_row_len()))
        .enumerate();
    rows.for_each(|(index, (row, argmax_row))| {
        let (region, bin_row) = (index / map.output.0, index % map.output.0);
        let image = regions[region].image;
        vectorize(
            #[inline(always)]
            || {
                for bin_col in 0..map.output.1 {
                    let channels = bin_col * map.channels..(bin_col + 1) * map.channels;
                    let (best, argmax) = (&mut row[channels.clone()], &mut argmax_row[channels]);
                    let (rows, cols) = (bins.rows(region, bin_row), bins.cols(region, bin_col));
                    if !rows.is_empty() && !cols.is_empty() {
                        best.fill(f32::MIN);
                    }
                    for y in rows {
                        for x in cols.clone() {
                            let here = (y * map.width + x) as i32;
                            let values = map.pixel(input, image, y, x);
                            for i in 0..values.len() {
                                let better = values[i] > best[i];
                                best[i] = if better { values[i] } else { best[i] };
                                argmax[i] = if better { here } else { argmax[i] };
                            }
                        }
                    }
                }
            },
        );
    });
    Ok((output, argmax))
}

/// Gradient of the input: every bin's gradient goes to the pixel its maximum came from.
pub fn max_pool_backward(
    map: &FeatureMap,
    regions: &[Region],
    argmax: &[i32],
    grad_output: &[f32],
) -> Result<Vec<f32>> {
    let outputs = map.output_len(regions.len())?;
    expect_len("argmax", outputs, argmax.len())?;
    expect_len("grad_output", outputs, grad_output.len())?;
    map.check_images(regions)?;
    let pixels = (map.height * map.width) as i32;
    let largest = vectorize(|| argmax.iter().fold(-1, |most, &at| most.max(at)));
    if largest >= pixels {
        return Err(Error::value("argmax", format!("pixels below {pixels}"), largest.to_string()));
    }
    let bins = map.bins();
    Ok(scatter::by_channel_blocks(map, regions, |region, channels, plane| {
        for bin in region * bins..(region + 1) * bins {
            let block = bin * map.channels + channels.start..bin * map.channels + channels.end;
            let sources = argmax[block.clone()].iter().zip(&grad_output[block]);
            for (channel, (&at, gradient)) in sources.enumerate() {
                if let Ok(pixel) = usize::try_from(at) {
                    plane[pixel * channels.len() + channel] += gradient;
                }
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::super::reference::tests::{feature_maps, in_both_layouts, regions};
    use super::*;
    use crate::conv::reference::{close, values};

    fn pools() -> impl Iterator<Item = MaxPool> {
        let conventions = [
            (Rounding::HalfAwayFromZero, Edges::F32),
            (Rounding::HalfToEven, Edges::F64),
            (Rounding::HalfToEven, Edges::F32),
            (Rounding::HalfAwayFromZero, Edges::F64),
        ];
        feature_maps().into_iter().flat_map(move |map| {
            conventions.into_iter().flat_map(move |(rounding, edges)| {
                [1.0, 0.25, 0.1].map(|scale| MaxPool { map, scale, rounding, edges })
            })
        })
    }

    #[test]
    fn agrees_with_the_naive_maximum_and_its_gradient() {
        for (seed, pool) in (1..).zip(pools()) {
            let input = values(pool.map.input_len(), seed);
            let regions = regions(&pool.map, pool.scale, seed);
            let (expected, expected_at) = reference::max_pool(&pool, &input, &regions);
            let (got, at) = max_pool_with_argmax(&pool, &input, &regions).unwrap();
            assert_eq!((&got, &at), (&expected, &expected_at), "{pool:?}");
            let run = |layout, input: &[f32], output: &mut [f32]| {
                max_pool(&pool, layout, input, &regions, output)
            };
            let alone = in_both_layouts(&pool.map, regions.len(), &input, run);
            assert_eq!(alone, got, "{pool:?}");

            let grad = values(got.len(), seed + 1);
            let expected = reference::max_pool_backward(&pool.map, &regions, &at, &grad);
            let got = max_pool_backward(&pool.map, &regions, &at, &grad).unwrap();
            assert!(close(&got, &expected, 1e-6), "{pool:?}");
        }
    }

    fn one_axis(edges: Edges, limit: usize) -> MaxPool {
        let map = FeatureMap::new((1, limit, 1, 1), (7, 1)).unwrap();
        MaxPool { map, scale: 1.0, rounding: Rounding::default(), edges }
    }

    #[test]
    fn the_last_bin_overshoots_at_the_known_sizes_only() {
        for (edges, overshooting) in
            [(Edges::F32, &[57_i64, 114, 121][..]), (Edges::F64, &[29, 58, 116, 123])]
        {
            let pool = one_axis(edges, 300);
            for size in 1..200 {
                let expected = size + i64::from(overshooting.contains(&size));
                assert_eq!(pool.bin(6, 7, 0, size, 300).end as i64, expected, "{edges:?} {size}");
            }
        }
    }

    #[test]
    fn halves_round_by_the_chosen_rule() {
        let mut pool = one_axis(Edges::F32, 8);
        pool.scale = 1.0 / 16.0;
        let corners = [8.0, 24.0, 40.0, -8.0];
        assert_eq!(corners.map(|c| pool.pixel(c)), [1, 2, 3, -1]);
        pool.rounding = Rounding::HalfToEven;
        assert_eq!(corners.map(|c| pool.pixel(c)), [0, 2, 2, 0]);
    }

    #[test]
    fn ties_go_to_the_first_pixel_and_nan_never_wins() {
        let map = FeatureMap::new((1, 2, 2, 1), (1, 1)).unwrap();
        let pool =
            MaxPool { map, scale: 1.0, rounding: Rounding::default(), edges: Edges::default() };
        let whole = [Region { image: 0, x1: 0.0, y1: 0.0, x2: 1.0, y2: 1.0 }];
        let run = |input: [f32; 4]| max_pool_with_argmax(&pool, &input, &whole).unwrap();
        assert_eq!(run([1.0, 3.0, 3.0, 2.0]), (vec![3.0], vec![1]));
        assert_eq!(run([f32::NAN, 1.0, f32::NAN, 0.0]), (vec![1.0], vec![1]));
        assert_eq!(run([f32::NAN; 4]), (vec![f32::MIN], vec![-1]));
    }

    #[test]
    fn coordinates_of_any_size_are_harmless() {
        let map = FeatureMap::new((1, 4, 4, 1), (3, 3)).unwrap();
        for edges in [Edges::F32, Edges::F64] {
            let pool = MaxPool { map, scale: 1.0, rounding: Rounding::default(), edges };
            let far = Region { image: 0, x1: f32::MIN, y1: f32::MIN, x2: f32::MAX, y2: f32::MAX };
            let back = Region { x1: f32::MAX, x2: f32::MIN, ..far };
            let input = values(16, 3);
            let mut got = [f32::NAN; 18];
            max_pool(&pool, Layout::ChannelsLast, &input, &[far, back], &mut got).unwrap();
            let most = input.iter().copied().fold(f32::MIN, f32::max);
            assert_eq!(got[4], most);
            assert!(got[9..].iter().all(|&v| v == 0.0));
        }
    }
}
