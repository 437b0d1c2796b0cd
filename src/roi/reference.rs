//! The definitions of both operators as naive float64 loops, and what their tests run over.

use super::align::Align;
use super::max_pool::{Edges, MaxPool, Rounding};
use super::regions::{FeatureMap, Region};

/// Calls `visit(region, bin row, bin column, channel, output index)` for every output that may be
/// other than 0: a region with a NaN coordinate has none.
fn for_each_output(
    map: &FeatureMap,
    regions: &[Region],
    mut visit: impl FnMut(&Region, usize, usize, usize, usize),
) {
    let mut index = 0;
    for region in regions {
        for row in 0..map.output.0 {
            for col in 0..map.output.1 {
                for channel in 0..map.channels {
                    if !region.is_nowhere() {
                        visit(region, row, col, channel, index);
                    }
                    index += 1;
                }
            }
        }
    }
}

fn offset(map: &FeatureMap, image: usize, pixel: usize, channel: usize) -> usize {
    (image * map.height * map.width + pixel) * map.channels + channel
}

fn rounded(values: Vec<f64>) -> Vec<f32> {
    values.into_iter().map(|v| v as f32).collect()
}

fn outputs(map: &FeatureMap, regions: &[Region]) -> usize {
    regions.len() * map.output.0 * map.output.1 * map.channels
}

/// Whether pixel `p` of an axis belongs to a bin, asked pixel by pixel.
fn in_bin(pool: &MaxPool, p: usize, bin: usize, bins: usize, low: f32, high: f32) -> bool {
    let pixel = |corner: f32| {
        let scaled = match pool.edges {
            Edges::F32 => f64::from(corner * pool.scale as f32),
            Edges::F64 => f64::from(corner) * pool.scale,
        };
        match pool.rounding {
            Rounding::HalfAwayFromZero => scaled.signum() * (scaled.abs() + 0.5).floor(),
            Rounding::HalfToEven => {
                let below = scaled.floor();
                let up = scaled - below > 0.5 || (scaled - below == 0.5 && below % 2.0 != 0.0);
                below + f64::from(u8::from(up))
            }
        }
    };
    let (start, end) = (pixel(low), pixel(high));
    let size = (end - start + 1.0).max(1.0);
    let edge = |count: usize| match pool.edges {
        Edges::F32 => f64::from(count as f32 * (size as f32 / bins as f32)),
        Edges::F64 => count as f64 * (size / bins as f64),
    };
    let p = p as f64 - start;
    edge(bin).floor() <= p && p < edge(bin + 1).ceil()
}

/// RoI max pooling and the pixel of every maximum.
pub fn max_pool(pool: &MaxPool, input: &[f32], regions: &[Region]) -> (Vec<f32>, Vec<i32>) {
    let map = &pool.map;
    let mut output = vec![0.0; outputs(map, regions)];
    let mut argmax = vec![-1; output.len()];
    for_each_output(map, regions, |region, row, col, channel, index| {
        for pixel in 0..map.height * map.width {
            let (y, x) = (pixel / map.width, pixel % map.width);
            let value = input[offset(map, region.image, pixel, channel)];
            if in_bin(pool, y, row, map.output.0, region.y1, region.y2)
                && in_bin(pool, x, col, map.output.1, region.x1, region.x2)
                && (argmax[index] < 0 || value > output[index])
            {
                output[index] = value;
                argmax[index] = pixel as i32;
            }
        }
    });
    (output, argmax)
}

/// Gradient of RoI max pooling.
pub fn max_pool_backward(
    map: &FeatureMap,
    regions: &[Region],
    argmax: &[i32],
    grad_output: &[f32],
) -> Vec<f32> {
    let mut grad_input = vec![0.0_f64; map.input_len()];
    for_each_output(map, regions, |region, _, _, channel, index| {
        if let Ok(pixel) = usize::try_from(argmax[index]) {
            grad_input[offset(map, region.image, pixel, channel)] += f64::from(grad_output[index]);
        }
    });
    rounded(grad_input)
}

/// Calls `visit(input index, output index, weight)` for every product of RoI align.
fn for_each_sample(align: &Align, regions: &[Region], mut visit: impl FnMut(usize, usize, f64)) {
    let map = &align.map;
    let shift = if align.aligned { 0.5 } else { 0.0 };
    let axis = |low: f32, high: f32, bins: usize| {
        let start = f64::from(low) * align.scale - shift;
        let size = f64::from(high) * align.scale - shift - start;
        let step = if align.aligned { size } else { size.max(1.0) } / bins as f64;
        let grid = if align.sampling_ratio > 0 { align.sampling_ratio } else { step.ceil() as i32 };
        (start, step, grid)
    };
    for_each_output(map, regions, |region, row, col, channel, index| {
        let (start_y, step_y, grid_y) = axis(region.y1, region.y2, map.output.0);
        let (start_x, step_x, grid_x) = axis(region.x1, region.x2, map.output.1);
        for i in 0..grid_y {
            for j in 0..grid_x {
                let y = start_y + step_y * (row as f64 + (f64::from(i) + 0.5) / f64::from(grid_y));
                let x = start_x + step_x * (col as f64 + (f64::from(j) + 0.5) / f64::from(grid_x));
                let (height, width) = (map.height as f64, map.width as f64);
                if y < -1.0 || y > height || x < -1.0 || x > width {
                    continue;
                }
                let (y, x) = (y.clamp(0.0, height - 1.0), x.clamp(0.0, width - 1.0));
                for (corner_y, weight_y) in [(y.floor(), 1.0 - y.fract()), (y.ceil(), y.fract())] {
                    for (corner_x, weight_x) in
                        [(x.floor(), 1.0 - x.fract()), (x.ceil(), x.fract())]
                    {
                        let pixel = corner_y as usize * map.width + corner_x as usize;
                        let weight = weight_y * weight_x / f64::from(grid_y * grid_x);
                        visit(offset(map, region.image, pixel, channel), index, weight);
                    }
                }
            }
        }
    });
}

/// RoI align.
pub fn align(align: &Align, input: &[f32], regions: &[Region]) -> Vec<f32> {
    let mut output = vec![0.0_f64; outputs(&align.map, regions)];
    for_each_sample(align, regions, |from, to, weight| {
        output[to] += weight * f64::from(input[from]);
    });
    rounded(output)
}

/// Gradient of RoI align.
pub fn align_backward(align: &Align, regions: &[Region], grad_output: &[f32]) -> Vec<f32> {
    let mut grad_input = vec![0.0_f64; align.map.input_len()];
    for_each_sample(align, regions, |from, to, weight| {
        grad_input[from] += weight * f64::from(grad_output[to]);
    });
    rounded(grad_input)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::bins::Layout;
    use super::*;
    use crate::Result;
    use crate::conv::reference::values;

    /// Maps and grids around every edge: one pixel, one channel, no images, a grid finer than the
    /// map, channels of less than one block, exactly one, and one more.
    pub fn feature_maps() -> Vec<FeatureMap> {
        [
            ((1, 1, 1, 1), (1, 1)),
            ((0, 5, 5, 3), (2, 2)),
            ((2, 6, 8, 3), (2, 3)),
            ((3, 9, 7, 32), (3, 3)),
            ((1, 12, 15, 33), (7, 7)),
            ((2, 3, 4, 70), (5, 4)),
            ((1, 5, 6, 0), (2, 2)),
        ]
        .map(|(input, output)| FeatureMap::new(input, output).expect("legal test geometry"))
        .to_vec()
    }

    /// The result, channels last, of an operator that is run on both layouts and must agree.
    pub fn in_both_layouts(
        map: &FeatureMap,
        regions: usize,
        input: &[f32],
        run: impl Fn(Layout, &[f32], &mut [f32]) -> Result<()>,
    ) -> Vec<f32> {
        let len = regions * map.bins() * map.channels;
        // Elements that are not written are seen.
        let (mut last, mut first) = (vec![f32::NAN; len], vec![f32::NAN; len]);
        run(Layout::ChannelsLast, input, &mut last).unwrap();
        let planes = transposed(input, map.batch, map.pixels(), map.channels);
        run(Layout::ChannelsFirst, &planes, &mut first).unwrap();
        let first = transposed(&first, regions, map.channels, map.bins());
        assert_eq!(last, first, "{map:?}");
        last
    }

    /// Every one of `count` matrices of `rows` x `cols`, transposed.
    pub fn transposed(values: &[f32], count: usize, rows: usize, cols: usize) -> Vec<f32> {
        let at = |index: usize| {
            let (matrix, row, col) = (index / (rows * cols), index % rows, index / rows % cols);
            values[matrix * rows * cols + row * cols + col]
        };
        (0..count * rows * cols).map(at).collect()
    }

    /// Regions inside, across the border, outside, the whole map, one pixel large, and nowhere.
    pub fn regions(map: &FeatureMap, scale: f64, seed: u64) -> Vec<Region> {
        if map.batch == 0 {
            return Vec::new();
        }
        let (height, width) = (map.height as f32, map.width as f32);
        let random = values(4 * 6, seed);
        let placed = random.chunks_exact(4).map(|r| {
            let (x, y) = (r[0] * 0.75 * width + 0.5 * width, r[1] * 0.75 * height + 0.5 * height);
            [x, y, x + (r[2] + 1.0) * 0.5 * width, y + (r[3] + 1.0) * 0.5 * height]
        });
        let fixed = [
            [0.0, 0.0, width, height],
            [width + 3.3, 0.3, width + 5.7, height],
            [0.6, 0.4, 0.6, 0.4],
            [f32::NAN, 0.0, width, height],
            [0.0, 0.0, width, f32::NAN],
        ];
        let images = (0..map.batch).cycle();
        placed
            .chain(fixed)
            .zip(images)
            .map(|(corners, image)| {
                let [x1, y1, x2, y2] = corners.map(|v| v / scale as f32);
                Region { image, x1, y1, x2, y2 }
            })
            .collect()
    }
}
