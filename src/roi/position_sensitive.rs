//! Position-sensitive RoI pooling and RoI align (R-FCN): every bin of the grid reads channels of its
//! own.
//!
//! Of `C` input channels, a multiple of the number of bins, bin `(row, col)` of output channel `k`
//! reads channel `(k * rows + row) * cols + col`. So there is one channel to read under each bin,
//! and nothing for vectors to do; a task is a region.

use std::ops::Range;

use super::align::{Align, Footprints};
use super::bins::{Layout, with_threads};
use super::max_pool::{Bins, Edges, MaxPool, Rounding};
use super::regions::{FeatureMap, Region, check_scale, expect_len};
use super::scatter;
use crate::isa::vectorize;
use crate::memory::result_len;
use crate::parallel;
use crate::rows::Rows;
use crate::{Error, Result};

impl FeatureMap {
    /// Output channels of a position-sensitive operator.
    pub fn channels_per_bin(&self) -> Result<usize> {
        let bins = result_len::<f32>("output_size", &[self.output.0, self.output.1])?;
        if !self.channels.is_multiple_of(bins) {
            let expected = format!("channels in a multiple of the {bins} bins of a region");
            return Err(Error::shape("input", expected, self.channels.to_string()));
        }
        Ok(self.channels / bins)
    }

    fn position_sensitive_len(&self, regions: usize) -> Result<usize> {
        let channels = self.channels_per_bin()?;
        result_len::<f32>("output_size", &[regions, self.output.0, self.output.1, channels])
    }
}

/// Writes `value(region, bin, pixels, channel)` of every bin, the channel being the one of
/// `pixels` that the bin reads.
fn evaluate(
    map: &FeatureMap,
    layout: Layout,
    input: &[f32],
    regions: &[Region],
    output: &mut [f32],
    reads: usize,
    value: impl Fn(usize, (usize, usize), Rows<'_>, usize) -> f32 + Sync,
) -> Result<()> {
    map.check_input(input)?;
    map.check_images(regions)?;
    expect_len("output", map.position_sensitive_len(regions.len())?, output.len())?;
    let (bins, pixels, channels) = (map.bins(), map.pixels(), map.channels_per_bin()?);
    // A number at a time costs about as much as a vector.
    with_threads(reads.saturating_mul(16 * channels), || {
        parallel::for_each_chunk(output, map.channels, |region, values| {
            let image = &input[regions[region].image * pixels * map.channels..];
            let image = &image[..pixels * map.channels];
            for (index, target) in values.iter_mut().enumerate() {
                let (bin, channel) = match layout {
                    Layout::ChannelsLast => (index / channels, index % channels),
                    Layout::ChannelsFirst => (index % bins, index / bins),
                };
                let channel = channel * bins + bin;
                let bin = (bin / map.output.1, bin % map.output.1);
                *target = match layout {
                    Layout::ChannelsLast => {
                        value(region, bin, Rows::dense(image, map.channels), channel)
                    }
                    Layout::ChannelsFirst => {
                        let plane = &image[channel * pixels..][..pixels];
                        value(region, bin, Rows::dense(plane, 1), 0)
                    }
                };
            }
        });
    })
}

/// Gradient of the input, channels last. `add(region, bin, gradient, target)` calls
/// `target(pixel, share)` for every pixel that shares the gradient of a bin.
fn backward(
    map: &FeatureMap,
    regions: &[Region],
    grad_output: &[f32],
    add: impl Fn(usize, (usize, usize), f32, &mut dyn FnMut(usize, f32)) + Sync,
) -> Result<Vec<f32>> {
    expect_len("grad_output", map.position_sensitive_len(regions.len())?, grad_output.len())?;
    map.check_images(regions)?;
    let (bins, outputs) = (map.bins(), map.channels_per_bin()?);
    Ok(scatter::by_channel_blocks(map, regions, |region, channels, plane| {
        for channel in channels.clone() {
            let (output, bin) = (channel / bins, channel % bins);
            let gradient = grad_output[(region * bins + bin) * outputs + output];
            let bin = (bin / map.output.1, bin % map.output.1);
            add(region, bin, gradient, &mut |pixel, share| {
                plane[pixel * channels.len() + channel - channels.start] += share;
            });
        }
    }))
}

/// Position-sensitive RoI align; `output` (R, oh, ow, C / (oh * ow)) lies in memory as `input`
/// does. A region so small that adaptive sampling takes no sample of it gives NaN, the average of
/// nothing, as in torchvision.
pub fn ps_align(
    align: &Align,
    layout: Layout,
    input: &[f32],
    regions: &[Region],
    output: &mut [f32],
) -> Result<()> {
    align.check_options()?;
    let (map, footprints) = (&align.map, align.footprints(regions));
    let reads = (0..regions.len()).map(|region| footprints.reads(region)).sum();
    evaluate(map, layout, input, regions, output, reads, |region, bin, pixels, channel| {
        if footprints.unsampled(region) {
            return f32::NAN;
        }
        let [sum] = vectorize(
            #[inline(always)]
            || footprints.sum::<1>(region, bin, map.width, pixels, channel),
        );
        sum
    })
}

/// Gradient of the input of [`ps_align`], channels last. A region without samples has none.
pub fn ps_align_backward(
    align: &Align,
    regions: &[Region],
    grad_output: &[f32],
) -> Result<Vec<f32>> {
    align.check_options()?;
    let (map, footprints) = (&align.map, align.footprints(regions));
    backward(map, regions, grad_output, |region, (row, col), gradient, target| {
        for &(y, row_weight) in footprints.rows.bin(region, row) {
            for &(x, col_weight) in footprints.cols.bin(region, col) {
                let weight = row_weight * col_weight;
                target(y as usize * map.width + x as usize, weight * gradient);
            }
        }
    })
}

impl Footprints {
    fn unsampled(&self, region: usize) -> bool {
        self.rows.unsampled(region) || self.cols.unsampled(region)
    }
}

/// The bins of position-sensitive RoI pooling: corners are rounded as by [`MaxPool`], but the far
/// ones are not part of the region. `cut` pixels are left out at the end of each axis of the map.
fn pool_bins(map: &FeatureMap, scale: f64, regions: &[Region], cut: usize) -> Bins {
    let (rounding, edges) = (Rounding::HalfAwayFromZero, Edges::F32);
    let pool = MaxPool { map: *map, scale, rounding, edges };
    Bins::new(map, regions, |low, high, bins, limit| {
        let start = pool.pixel(low);
        let size = (pool.pixel(high) - start).max(1);
        let limit = limit.saturating_sub(cut);
        (0..bins).map(move |bin| pool.bin(bin, bins, start, size, limit))
    })
}

/// Position-sensitive RoI pooling: the average of every bin, 0 for a bin without pixels. `output`
/// (R, oh, ow, C / (oh * ow)) lies in memory as `input` does. As in torchvision, bins end before the
/// last row and column of the map.
pub fn ps_pool(
    map: &FeatureMap,
    scale: f64,
    layout: Layout,
    input: &[f32],
    regions: &[Region],
    output: &mut [f32],
) -> Result<()> {
    check_scale(scale)?;
    let bins = pool_bins(map, scale, regions, 1);
    let reads = (0..regions.len()).map(|region| bins.reads(region)).sum();
    evaluate(map, layout, input, regions, output, reads, |region, bin, pixels, channel| {
        let (rows, cols) = (bins.rows(region, bin.0), bins.cols(region, bin.1));
        let count = area(&rows, &cols);
        let mut sum = 0.0;
        for y in rows {
            for x in cols.clone() {
                sum += pixels.as_slice()[(y * map.width + x) * pixels.stride() + channel];
            }
        }
        if count == 0 { 0.0 } else { sum / count as f32 }
    })
}

/// Gradient of the input of [`ps_pool`], channels last: that of torchvision, where bins end with the
/// map and their last row and column have a share, too.
pub fn ps_pool_backward(
    map: &FeatureMap,
    scale: f64,
    regions: &[Region],
    grad_output: &[f32],
) -> Result<Vec<f32>> {
    check_scale(scale)?;
    let bins = pool_bins(map, scale, regions, 0);
    backward(map, regions, grad_output, |region, bin, gradient, target| {
        let (rows, cols) = (bins.rows(region, bin.0), bins.cols(region, bin.1));
        let share = gradient / area(&rows, &cols) as f32;
        for y in rows {
            for x in cols.clone() {
                target(y * map.width + x, share);
            }
        }
    })
}

fn area(rows: &Range<usize>, cols: &Range<usize>) -> usize {
    rows.len() * cols.len()
}

#[cfg(test)]
mod tests {
    use super::super::reference;
    use super::super::reference::tests::{regions, transposed};
    use super::*;
    use crate::conv::reference::{close, values};

    fn maps() -> [FeatureMap; 4] {
        [
            ((1, 1, 1, 1), (1, 1)),
            ((2, 6, 8, 18), (2, 3)),
            ((3, 9, 7, 9), (3, 3)),
            ((1, 12, 15, 98), (7, 7)),
        ]
        .map(|(input, output)| FeatureMap::new(input, output).unwrap())
    }

    /// Of the result with all channels under every bin, the channels that belong to the bins.
    fn own_channels(map: &FeatureMap, all: &[f32]) -> Vec<f32> {
        let (bins, outputs) = (map.bins(), map.channels / map.bins());
        let own = |index: usize| {
            let (bin_of_region, output) = (index / outputs, index % outputs);
            all[bin_of_region * map.channels + output * bins + bin_of_region % bins]
        };
        (0..all.len() / bins).map(own).collect()
    }

    fn in_both_layouts(
        map: &FeatureMap,
        input: &[f32],
        regions: usize,
        run: impl Fn(Layout, &[f32], &mut [f32]) -> Result<()>,
    ) -> Vec<f32> {
        let mut last = vec![f32::NAN; regions * map.channels];
        let mut first = last.clone();
        run(Layout::ChannelsLast, input, &mut last).unwrap();
        let planes = transposed(input, map.batch, map.pixels(), map.channels);
        run(Layout::ChannelsFirst, &planes, &mut first).unwrap();
        assert_eq!(last, transposed(&first, regions, map.channels / map.bins(), map.bins()));
        last
    }

    /// Sum of products, in f64.
    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }

    #[test]
    fn align_reads_the_channels_of_its_bin() {
        for (seed, map) in (1..).zip(maps()) {
            for (sampling_ratio, scale) in [(-1, 1.0), (2, 0.25), (3, 0.6)] {
                let align = Align { map, scale, sampling_ratio, aligned: true };
                let input = values(map.input_len(), seed);
                let mut regions = regions(&map, scale, seed);
                regions.retain(|region| region.x1 != region.x2);
                let got = in_both_layouts(&map, &input, regions.len(), |layout, input, output| {
                    ps_align(&align, layout, input, &regions, output)
                });
                let all = reference::align(&align, &input, &regions);
                assert!(close(&got, &own_channels(&map, &all), 1e-5), "{align:?}");

                let grad = values(got.len(), seed + 1);
                let back = ps_align_backward(&align, &regions, &grad).unwrap();
                assert!((dot(&got, &grad) - dot(&input, &back)).abs() < 1e-3, "{align:?}");
            }
        }
    }

    #[test]
    fn pooling_averages_the_channels_of_its_bin() {
        let map = FeatureMap::new((1, 6, 8, 4), (2, 2)).unwrap();
        let planes: Vec<f32> = (0..192).map(|i| i as f32).collect();
        let whole = [Region { image: 0, x1: 0.0, y1: 0.0, x2: 8.0, y2: 6.0 }];
        let mut output = [f32::NAN; 4];
        ps_pool(&map, 1.0, Layout::ChannelsFirst, &planes, &whole, &mut output).unwrap();
        // Rows 0..3 and 3..5, columns 0..4 and 4..7 of four planes.
        assert_eq!(output, [9.5, 61.0, 125.5, 177.0]);
        let grad = ps_pool_backward(&map, 1.0, &whole, &[12.0; 4]).unwrap();
        assert!(grad.iter().filter(|&&share| share == 1.0).count() == 48);
        assert_eq!(grad.iter().sum::<f32>(), 48.0);
    }

    #[test]
    fn the_average_of_no_samples_is_nan() {
        let map = FeatureMap::new((1, 4, 4, 1), (1, 1)).unwrap();
        let align = |sampling_ratio| Align { map, scale: 1.0, sampling_ratio, aligned: true };
        let point = [Region { image: 0, x1: 2.0, y1: 2.0, x2: 2.0, y2: 2.0 }];
        let run = |align: &Align, regions: &[Region]| {
            let mut output = [7.0];
            ps_align(align, Layout::ChannelsLast, &[1.0; 16], regions, &mut output).unwrap();
            output[0]
        };
        assert!(run(&align(0), &point).is_nan());
        assert_eq!(run(&align(2), &point), 1.0);
        // Not even the average of nothing.
        assert_eq!(run(&align(0), &[Region { x1: f32::NAN, ..point[0] }]), 0.0);
        let grad = ps_align_backward(&align(0), &point, &[1.0]).unwrap();
        assert_eq!(grad, [0.0; 16]);
    }

    #[test]
    fn channels_that_do_not_divide_are_refused() {
        let map = FeatureMap::new((1, 4, 4, 5), (2, 2)).unwrap();
        let refused = ps_pool(&map, 1.0, Layout::ChannelsLast, &[0.0; 80], &[], &mut []);
        let expected = "input: expected channels in a multiple of the 4 bins of a region, got 5";
        assert_eq!(refused.unwrap_err().to_string(), expected);
    }
}
