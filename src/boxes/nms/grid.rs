//! A grid over the plane: which boxes can overlap a given one enough.
//!
//! Let two boxes have IoU `q`, and take one axis, on which their extents are `v` and `w`, have
//! `o` in common and together reach over `u`. Then `o / u >= q`, because the other axis can only
//! make the IoU smaller. The distances of the two lower edges and of the two upper edges add up to
//! `u - o <= (1 - q) u <= (1 / q - 1) w`, so this bounds how far apart the sums `min + max` lie
//! (twice the distance of the centres). At 0.7 the centres are within a fifth of the extent.
//!
//! So boxes lie sorted by the cell of their centre, row by row, and a box meets a few runs of
//! neighbours in memory, one in each row of cells in its reach, instead of all.
//!
//! Nothing depends on where the cells are, only time: a coordinate outside the grid belongs to the
//! outermost cell, and the bounds are widened by more than all roundings together.

use super::Cutoff;
use super::blocks::{Blocks, Candidate, LANES};
use crate::boxes::{BBox, Scalar};

/// Boxes looked at to choose the cells.
const SAMPLE: usize = 256;
/// Boxes that take as long to meet as a row of cells takes to enter.
const ROW_COST: f64 = 24.0;
/// Below this IoU the bound is replaced by "they touch".
const SMALLEST_CUTOFF: f64 = 1e-3;

/// One axis of the grid.
#[derive(Debug)]
struct Axis {
    low: f64,
    /// Cells for a unit of `min + max`.
    scale: f64,
    cells: usize,
    /// Largest extent of any box.
    widest: f64,
}

/// Boxes by cell.
#[derive(Debug)]
pub(super) struct Grid<T> {
    axes: [Axis; 2],
    reach: Reach,
    /// First slot of each cell; cells of a row follow each other.
    starts: Vec<u32>,
    boxes: Blocks<T>,
}

/// How far from a box its partners can be.
#[derive(Debug, Clone, Copy)]
struct Reach {
    /// Largest distance of the sums in units of the extent.
    ratio: f64,
    /// Area from which on roundings are relative to what is rounded.
    smallest: f64,
}

impl Reach {
    fn new<T: Scalar>(cutoff: Cutoff<T>) -> Self {
        // Sixteen roundings of half an epsilon lie between the corners and their IoU.
        let cutoff = cutoff.0.to_f64() * (1.0 - 32.0 * T::EPSILON.to_f64());
        let ratio = if cutoff > SMALLEST_CUTOFF { 1.0 / cutoff - 1.0 } else { f64::INFINITY };
        // An intersection of a thousandth of this is a normal number.
        Reach { ratio, smallest: T::MIN_POSITIVE.to_f64() * 1e6 }
    }

    #[inline(always)]
    fn of(self, extent: f64, widest: f64, area: f64) -> f64 {
        let touching = extent + widest;
        if area >= self.smallest { touching.min(self.ratio * extent) } else { touching }
    }
}

impl Axis {
    /// Chooses the cells' range from sums of a sample, so that a few boxes far out do not stretch
    /// them; the number of cells is still 1.
    fn new(mut sums: Vec<f64>, widest: f64) -> Self {
        sums.sort_unstable_by(f64::total_cmp);
        let quantile = |q: f64| sums[((sums.len() - 1) as f64 * q) as usize];
        let span = quantile(0.95) - quantile(0.05);
        let low = quantile(0.0).max(quantile(0.05) - span);
        let high = quantile(1.0).min(quantile(0.95) + span);
        Axis { low, scale: 1.0 / (high - low), cells: 1, widest }
    }

    /// Cuts the range into cells, if it has any length.
    fn cut(&mut self, cells: usize) {
        if self.scale.is_finite() && self.scale > 0.0 && self.low.is_finite() {
            self.cells = cells;
            self.scale *= cells as f64;
        }
    }

    /// The cell of a sum: never decreasing, which is all that correctness asks of it.
    #[inline(always)]
    fn cell(&self, sum: f64) -> usize {
        (((sum - self.low) * self.scale) as i64).clamp(0, self.cells as i64 - 1) as usize
    }

    /// First and last cell that partners of a box can be in.
    #[inline(always)]
    fn window(&self, reach: Reach, min: f64, max: f64, area: f64) -> (usize, usize) {
        let sum = min + max;
        let reach = reach.of(max - min, self.widest, area);
        // More than the roundings of these very numbers.
        let reach = reach + (sum.abs() + reach) * 1e-14 + f64::MIN_POSITIVE;
        let (low, high) = (sum - reach, sum + reach);
        // Near the largest number sums overflow.
        match (high - low).is_finite() {
            true => (self.cell(low), self.cell(high)),
            false => (0, self.cells - 1),
        }
    }
}

impl<T: Scalar> Grid<T> {
    /// Sorts the candidates, of which there must be some, into cells. Second result: the slot of
    /// each.
    #[inline(always)]
    pub(super) fn new(candidates: &[Candidate<T>], cutoff: Cutoff<T>) -> (Self, Vec<u32>) {
        let reach = Reach::new(cutoff);
        let axes = choose(candidates, reach);
        // Counting sort: how many in each cell, where each cell begins, one by one to their place.
        let mut starts = vec![0_u32; axes[0].cells * axes[1].cells + 1];
        let mut slots = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let [min_0, min_1, max_0, max_1] = wide(&candidate.corners);
            let row = axes[0].cell(min_0 + max_0);
            let cell = row * axes[1].cells + axes[1].cell(min_1 + max_1);
            starts[cell + 1] += 1;
            slots.push(cell as u32);
        }
        for cell in 1..starts.len() {
            starts[cell] += starts[cell - 1];
        }
        let mut next = starts.clone();
        let mut boxes = Blocks::new(candidates.len());
        for (slot, candidate) in slots.iter_mut().zip(candidates) {
            let place = &mut next[*slot as usize];
            *slot = *place;
            *place += 1;
            boxes.put(*slot as usize, candidate);
        }
        (Grid { axes, reach, starts, boxes }, slots)
    }

    /// Whether the box in a slot has been suppressed.
    #[inline(always)]
    pub(super) fn is_suppressed(&self, slot: u32) -> bool {
        self.boxes.is_suppressed(slot as usize)
    }

    /// Suppresses every box that `kept` overlaps.
    #[inline(always)]
    pub(super) fn suppress(&mut self, kept: &Candidate<T>, cutoff: Cutoff<T>) {
        let [min_0, min_1, max_0, max_1] = wide(&kept.corners);
        let area = kept.area.to_f64();
        let (top, bottom) = self.axes[0].window(self.reach, min_0, max_0, area);
        let (left, right) = self.axes[1].window(self.reach, min_1, max_1, area);
        for row in top..=bottom {
            let first = row * self.axes[1].cells;
            let start = self.starts[first + left] as usize;
            let end = self.starts[first + right + 1] as usize;
            self.boxes.suppress(start, end, kept, cutoff);
        }
    }
}

#[inline(always)]
fn wide<T: Scalar>(b: &BBox<T>) -> BBox<f64> {
    [b[0].to_f64(), b[1].to_f64(), b[2].to_f64(), b[3].to_f64()]
}

/// The axes, with so many rows that entering them and meeting boxes in them cost the same, and so
/// many columns that there are two cells for a box.
fn choose<T: Scalar>(candidates: &[Candidate<T>], reach: Reach) -> [Axis; 2] {
    let step = candidates.len().div_ceil(SAMPLE);
    let sample: Vec<BBox<f64>> =
        candidates.iter().step_by(step).map(|candidate| wide(&candidate.corners)).collect();
    let mut axes = [0, 1].map(|axis| {
        let extent = |c: &Candidate<T>| c.corners[axis + 2].to_f64() - c.corners[axis].to_f64();
        let widest = candidates.iter().map(extent).fold(0.0, f64::max);
        Axis::new(sample.iter().map(|b| b[axis] + b[axis + 2]).collect(), widest)
    });
    // How far a middling box looks on each axis, as a part of the range.
    let look = [0, 1].map(|axis| {
        let extents = sample.iter().map(|b| b[axis + 2] - b[axis]);
        let mean = extents.sum::<f64>() / sample.len() as f64;
        reach.of(mean, axes[axis].widest, f64::INFINITY) * axes[axis].scale
    });
    let shape = (look[1] / look[0]).sqrt();
    let rows = (candidates.len() as f64 / ROW_COST).sqrt() * shape;
    // One row if the range or the shape is not a number.
    let rows = (rows as usize).clamp(1, candidates.len().div_ceil(LANES));
    axes[0].cut(rows);
    let columns = 2 * candidates.len() / axes[0].cells;
    axes[1].cut(columns.max(1));
    axes
}
