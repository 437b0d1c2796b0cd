//! RoI align over a feature pyramid: every region is pooled from one of several maps.
//!
//! Regions of all levels go through one loop, and the result is written once, in the order of the
//! regions. Which level suits a region follows from its size ([`LevelRule`]).

use std::ops::Range;

use super::align::{Align, Footprints, PIXELS_OF_A_BIN, spread_back};
use super::bins::{Operator, channels_last, regions_per_task, with_threads};
use super::regions::{FeatureMap, Region, expect_len};
use super::taps::Taps;
use crate::boxes::BBox;
use crate::memory::result_len;
use crate::rows::{Rows, RowsMut};
use crate::{Error, Result};

/// Keeps a region of exactly a level's size in that level.
const EPS: f32 = 1e-6;

/// The level of a region by its area: Feature Pyramid Networks, equation 1.
#[derive(Debug, Clone, Copy)]
pub struct LevelRule {
    /// First and last level.
    pub levels: (f32, f32),
    /// Side of the square that belongs to the canonical level,
    pub canonical_scale: f32,
    /// which this is.
    pub canonical_level: f32,
}

impl LevelRule {
    /// Level of a box from the first one, or -1 where its area is negative or a coordinate NaN.
    pub fn level(&self, b: &BBox<f32>) -> i64 {
        let size = ((b[2] - b[0]) * (b[3] - b[1])).sqrt();
        let level = self.canonical_level + (size / self.canonical_scale).log2() + EPS;
        let (first, last) = self.levels;
        // As numpy.clip: the upper limit counts where it is below the lower one. NaN stays NaN.
        let level = level.floor();
        let level = if level < first { first } else { level };
        let level = if level > last { last } else { level };
        if level.is_nan() { -1 } else { (level - first) as i64 }
    }
}

/// One map of the pyramid.
#[derive(Debug, Clone, Copy)]
pub struct Level {
    /// Its extents and the grid, which is the same for all.
    pub map: FeatureMap,
    /// Feature pixels an image pixel.
    pub scale: f64,
}

/// RoI align over several maps, without alignment of pixel centres.
pub struct PyramidAlign<'a> {
    levels: &'a [Level],
    regions: &'a [Region],
    /// The level of each region, if it has one.
    level_of: Vec<Option<usize>>,
    footprints: Footprints,
}

impl<'a> PyramidAlign<'a> {
    /// Checks the maps, of which there is one at least, and where the regions lie. `level_of` holds
    /// a level for each region, negative for none.
    pub fn new(
        levels: &'a [Level],
        sampling_ratio: i32,
        regions: &'a [Region],
        level_of: &[i64],
    ) -> Result<Self> {
        let Some(Level { map: first, .. }) = levels.first() else {
            return Err(Error::shape("input", "at least one map", "none"));
        };
        for Level { map, .. } in levels {
            let same = [map.batch, map.channels, map.output.0, map.output.1]
                == [first.batch, first.channels, first.output.0, first.output.1];
            if !same {
                let expected = format!("{} images of {} channels", first.batch, first.channels);
                let got = format!("{} of {}", map.batch, map.channels);
                return Err(Error::shape("input", expected, got));
            }
            map.check_images(regions)?;
        }
        expect_len("levels", regions.len(), level_of.len())?;
        let in_range = |&level: &i64| {
            usize::try_from(level).map_or(Ok(None), |level| match level < levels.len() {
                true => Ok(Some(level)),
                false => {
                    let expected = format!("a level below {}", levels.len());
                    Err(Error::value("levels", expected, level.to_string()))
                }
            })
        };
        let level_of = level_of.iter().map(in_range).collect::<Result<Vec<_>>>()?;
        let aligns: Vec<Align> = levels
            .iter()
            .map(|&Level { map, scale }| Align { map, scale, sampling_ratio, aligned: false })
            .collect();
        aligns.iter().try_for_each(Align::check_options)?;
        let taps =
            |bins: usize, limit: fn(&FeatureMap) -> usize, ends: fn(&Region) -> (f32, f32)| {
                Taps::on_several_maps(bins, regions, |index| {
                    let align = &aligns[level_of[index]?];
                    Some((align.sampling(), limit(&align.map), ends(&regions[index])))
                })
            };
        let footprints = Footprints {
            rows: taps(first.output.0, |map| map.height, |region| (region.y1, region.y2)),
            cols: taps(first.output.1, |map| map.width, |region| (region.x1, region.x2)),
        };
        Ok(PyramidAlign { levels, regions, level_of, footprints })
    }

    /// Numbers in the result, or an error where memory cannot hold them.
    fn output_len(&self) -> Result<usize> {
        let FeatureMap { channels, output: (rows, cols), .. } = self.levels[0].map;
        result_len::<f32>("output_size", &[self.regions.len(), rows, cols, channels])
    }

    /// Writes the average of every bin's samples, 0 for a region without a level. Inputs and output
    /// are channels last.
    pub fn forward(&self, inputs: &[&[f32]], output: &mut [f32]) -> Result<()> {
        expect_len("input", self.levels.len(), inputs.len())?;
        for (level, input) in self.levels.iter().zip(inputs) {
            level.map.check_input(input)?;
        }
        expect_len("output", self.output_len()?, output.len())?;
        if output.is_empty() {
            return Ok(());
        }
        let total: usize = (0..self.regions.len()).map(|region| self.reads(region)).sum();
        let FeatureMap { channels, output: grid, .. } = self.levels[0].map;
        let image = |region: usize| {
            let level = self.level_of[region].unwrap_or(0);
            let len = self.levels[level].map.pixels() * channels;
            Rows::dense(&inputs[level][self.regions[region].image * len..][..len], channels)
        };
        with_threads(total.saturating_mul(channels).saturating_add(output.len()), || {
            let per_task = regions_per_task(total / self.regions.len());
            channels_last(self, grid, per_task, image, RowsMut::dense(output, channels));
        })
    }

    /// Adds the gradient of the input to `grad_inputs`; all are channels last.
    pub fn backward(&self, grad_output: &[f32], grad_inputs: &mut [&mut [f32]]) -> Result<()> {
        expect_len("grad_output", self.output_len()?, grad_output.len())?;
        expect_len("grad_input", self.levels.len(), grad_inputs.len())?;
        for (level, grad) in self.levels.iter().zip(grad_inputs.iter()) {
            expect_len("grad_input", level.map.input_len(), grad.len())?;
        }
        with_threads(grad_output.len().saturating_mul(PIXELS_OF_A_BIN), || {
            for (number, (level, grad)) in self.levels.iter().zip(grad_inputs).enumerate() {
                let regions = 0..self.regions.len();
                let here: Vec<usize> =
                    regions.filter(|&region| self.level_of[region] == Some(number)).collect();
                let (map, footprints) = (&level.map, &self.footprints);
                spread_back(map, footprints, self.regions, &here, grad_output, grad);
            }
        })
    }
}

impl Operator for PyramidAlign<'_> {
    #[inline(always)]
    fn bin<const N: usize>(
        &self,
        region: usize,
        bin: (usize, usize),
        image: Rows<'_>,
        first: usize,
    ) -> [f32; N] {
        let width = self.level_of[region].map_or(0, |level| self.levels[level].map.width);
        self.footprints.sum(region, bin, width, image, first)
    }

    fn reads(&self, region: usize) -> usize {
        self.footprints.reads(region)
    }

    fn rows(&self, region: usize) -> Range<usize> {
        self.footprints.row_range(region)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Layout, align, align_backward};
    use super::*;
    use crate::conv::reference::{close, values};

    const RULE: LevelRule =
        LevelRule { levels: (2.0, 5.0), canonical_scale: 224.0, canonical_level: 4.0 };

    #[test]
    fn levels_follow_the_size() {
        let side = |side: f32| RULE.level(&[0.0, 0.0, side, side]);
        let sides = [112.0, 111.9, 224.0, 223.99, 448.0, 447.9, 896.0, 0.0, 5000.0];
        assert_eq!(sides.map(side), [1, 0, 2, 1, 3, 2, 3, 0, 3]);
        assert_eq!(RULE.level(&[5.0, 0.0, 0.0, 5.0]), -1);
        assert_eq!(RULE.level(&[f32::NAN, 0.0, 0.0, 5.0]), -1);
    }

    #[test]
    fn a_region_is_pooled_from_its_level() {
        let map = |height, width| FeatureMap::new((2, height, width, 70), (3, 2)).unwrap();
        let levels =
            [Level { map: map(16, 20), scale: 0.5 }, Level { map: map(8, 10), scale: 0.25 }];
        let inputs: Vec<Vec<f32>> =
            (1..).zip(&levels).map(|(seed, level)| values(level.map.input_len(), seed)).collect();
        let regions: Vec<Region> = (0..12)
            .map(|i| {
                let at = i as f32;
                Region { image: i % 2, x1: at, y1: 2.0 * at, x2: 3.0 * at + 5.0, y2: 30.0 }
            })
            .collect();
        let level_of: Vec<i64> = (0..12).map(|i| i % 3 - 1).collect();
        let pyramid = PyramidAlign::new(&levels, 2, &regions, &level_of).unwrap();
        let mut output = vec![f32::NAN; 12 * 6 * 70];
        let views: Vec<&[f32]> = inputs.iter().map(|input| &input[..]).collect();
        pyramid.forward(&views, &mut output).unwrap();
        let mut grads: Vec<Vec<f32>> = inputs.iter().map(|input| vec![0.0; input.len()]).collect();
        let mut targets: Vec<&mut [f32]> = grads.iter_mut().map(|grad| &mut grad[..]).collect();
        let grad = values(output.len(), 9);
        pyramid.backward(&grad, &mut targets).unwrap();
        for (number, &Level { map, scale }) in levels.iter().enumerate() {
            let one = Align { map, scale, sampling_ratio: 2, aligned: false };
            let mut expected_grad = vec![0.0; inputs[number].len()];
            for (i, region) in regions.iter().enumerate() {
                let bins = i * 420..(i + 1) * 420;
                let mut expected = vec![0.0; 420];
                if level_of[i] == number as i64 {
                    let (input, region) = (&inputs[number], &[*region]);
                    align(&one, Layout::ChannelsLast, input, region, &mut expected).unwrap();
                    align_backward(&one, region, &grad[bins.clone()], &mut expected_grad).unwrap();
                    assert_eq!(output[bins], expected);
                } else if level_of[i] < 0 {
                    assert_eq!(output[bins], expected);
                }
            }
            assert!(close(&grads[number], &expected_grad, 1e-6));
        }
    }

    #[test]
    fn levels_that_do_not_exist_are_refused() {
        let map = FeatureMap::new((1, 2, 2, 1), (1, 1)).unwrap();
        let levels = [Level { map, scale: 1.0 }];
        let regions = [Region { image: 0, x1: 0.0, y1: 0.0, x2: 1.0, y2: 1.0 }];
        for (levels, level_of) in [(&levels[..], &[1][..]), (&levels, &[]), (&[], &[0])] {
            assert!(PyramidAlign::new(levels, 1, &regions, level_of).is_err());
        }
    }
}
