//! What bins take from one axis: pixels and their weights.
//!
//! The sum over a bin's grid of bilinear samples factors into one sum an axis (see `align`). An
//! axis of a bin is the list of the pixels that its samples read, each once, however many samples
//! read it; the weights carry the division by the number of samples.

use super::regions::Region;

/// Where and how densely a bin is sampled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sampling {
    /// Feature pixels an image pixel.
    pub scale: f32,
    /// Taken off every scaled coordinate.
    pub offset: f32,
    /// Least size of a region, in feature pixels.
    pub least: f32,
    /// Samples of a bin; 0 or less takes as many as the bin has pixels, rounded up.
    pub ratio: i32,
}

/// One of the two axes of a map.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    /// Bins of a region.
    pub bins: usize,
    /// Pixels of the map.
    pub limit: usize,
}

/// A pixel and the weight it has in a bin.
pub(super) type Tap = (u32, f32);

/// What the bins of all regions take from one axis.
pub(super) struct Taps {
    bins: usize,
    /// Of bin `b` of region `r`: `taps[starts[r * bins + b]..starts[r * bins + b + 1]]`.
    starts: Vec<usize>,
    taps: Vec<Tap>,
    /// Whether a region's bins have no samples at all, rather than none inside the map.
    unsampled: Vec<bool>,
}

impl Taps {
    /// The taps of every region; `ends` gives a region's two ends on the axis, in image
    /// coordinates.
    pub fn new(
        sampling: &Sampling,
        axis: Axis,
        regions: &[Region],
        ends: impl Fn(&Region) -> (f32, f32),
    ) -> Taps {
        Self::on_several_maps(axis.bins, regions, |index| {
            Some((*sampling, axis.limit, ends(&regions[index])))
        })
    }

    /// The taps of regions of several maps: `place` gives the sampling, the pixels of the map and a
    /// region's ends; nothing for a region that takes nothing.
    pub fn on_several_maps(
        bins: usize,
        regions: &[Region],
        place: impl Fn(usize) -> Option<(Sampling, usize, (f32, f32))>,
    ) -> Taps {
        let count = regions.len() * bins;
        let mut taps = Taps {
            bins,
            starts: Vec::with_capacity(count + 1),
            taps: Vec::with_capacity(4 * count),
            unsampled: Vec::with_capacity(regions.len()),
        };
        taps.starts.push(0);
        for (index, region) in regions.iter().enumerate() {
            match place(index).filter(|_| !region.is_nowhere()) {
                Some((sampling, limit, ends)) => {
                    taps.push_region(&sampling, Axis { bins, limit }, ends);
                }
                None => taps.push_nowhere(),
            }
        }
        taps
    }

    /// The taps of a bin.
    #[inline(always)]
    pub fn bin(&self, region: usize, bin: usize) -> &[Tap] {
        let at = region * self.bins + bin;
        &self.taps[self.starts[at]..self.starts[at + 1]]
    }

    /// Taps of all bins of a region.
    pub fn region(&self, region: usize) -> &[Tap] {
        &self.taps[self.starts[region * self.bins]..self.starts[(region + 1) * self.bins]]
    }

    /// Whether a region is so small that there are no samples.
    pub fn unsampled(&self, region: usize) -> bool {
        self.unsampled[region]
    }

    /// A region whose samples are all outside the map.
    fn push_nowhere(&mut self) {
        self.unsampled.push(false);
        self.starts.resize(self.starts.len() + self.bins, self.taps.len());
    }

    /// Positions are computed in f32 with the operations in torchvision's order, so that a sample
    /// falls on the same side of an edge.
    fn push_region(&mut self, sampling: &Sampling, axis: Axis, (low, high): (f32, f32)) {
        let start = low * sampling.scale - sampling.offset;
        let size = (high * sampling.scale - sampling.offset) - start;
        let size = size.max(sampling.least);
        let step = size / axis.bins as f32;
        let grid = match sampling.ratio {
            ratio @ 1.. => ratio as u64,
            _ => step.ceil() as u64, // 0 for a size that is not positive
        };
        // What the reference divides by is a product of signed numbers: only a zero makes it zero.
        self.unsampled.push(sampling.ratio <= 0 && step.ceil() == 0.0);
        for bin in 0..axis.bins {
            let origin = start + bin as f32 * step;
            let first = self.taps.len();
            let samples = inside(origin, step / grid as f32, grid, axis.limit);
            for k in 0..samples.end - samples.start {
                // Upwards, also where the ends of a region are exchanged.
                let i = if step < 0.0 { samples.end - 1 - k } else { samples.start + k };
                let position = origin + (i as f32 + 0.5) * step / grid as f32;
                if let Some((pixel, fraction)) = place(position, axis.limit) {
                    self.add(first, pixel, 1.0 - fraction);
                    if pixel + 1 < axis.limit {
                        self.add(first, pixel + 1, fraction);
                    }
                }
            }
            for (_, weight) in &mut self.taps[first..] {
                *weight /= grid as f32;
            }
            self.starts.push(self.taps.len());
        }
    }

    /// Adds to the weight of a pixel in the bin whose taps begin at `first`. Samples go up
    /// the axis, so a pixel that is there already is one of the last two.
    #[inline]
    fn add(&mut self, first: usize, pixel: usize, weight: f32) {
        let pixel = pixel as u32;
        let last = self.taps.len().saturating_sub(2).max(first);
        match self.taps[last..].iter_mut().find(|tap| tap.0 == pixel) {
            Some(tap) => tap.1 += weight,
            None => self.taps.push((pixel, weight)),
        }
    }
}

/// Where a sample at `position` reads: the pixel below it, and how far it is on the way to the
/// next. `None` more than a pixel outside the map, or for NaN.
fn place(position: f32, limit: usize) -> Option<(usize, f32)> {
    if limit == 0 || !(position >= -1.0 && position <= limit as f32) {
        return None;
    }
    let position = position.max(0.0);
    let pixel = (position as usize).min(limit - 1);
    let fraction = if pixel + 1 == limit { 0.0 } else { position - pixel as f32 };
    Some((pixel, fraction))
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
