//! Boxes in blocks of vector width: one box meets all of a block at once.

use super::Cutoff;
use crate::boxes::{BBox, Scalar};

/// Boxes of a block: an AVX-512 register of `f32`.
pub(super) const LANES: usize = 16;

/// Corners and areas. A lane whose area is NaN is empty or suppressed: its IoU with anything is
/// NaN, and that never suppresses.
#[derive(Debug, Clone)]
#[repr(align(64))]
struct Block<T> {
    min_0: [T; LANES],
    min_1: [T; LANES],
    max_0: [T; LANES],
    max_1: [T; LANES],
    area: [T; LANES],
}

/// A list of boxes that disappear as they are suppressed.
#[derive(Debug)]
pub(super) struct Blocks<T>(Vec<Block<T>>);

/// A box that can overlap others by a positive amount.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<T> {
    pub(super) corners: BBox<T>,
    pub(super) area: T,
    /// Place in the order of descending score.
    pub(super) rank: usize,
}

impl<T: Scalar> Candidate<T> {
    /// Nothing unless the sides are above zero and the area neither overflows nor vanishes: the IoU
    /// of such a box with any other is 0 or NaN.
    #[inline(always)]
    pub(super) fn new(b: &BBox<T>, rank: usize) -> Option<Self> {
        let area = (b[2] - b[0]) * (b[3] - b[1]);
        let proper = (b[0] < b[2]) & (b[1] < b[3]) & (area > T::ZERO) & area.is_finite();
        proper.then_some(Candidate { corners: *b, area, rank })
    }
}

impl<T: Scalar> Blocks<T> {
    /// Room for `len` boxes.
    pub(super) fn new(len: usize) -> Self {
        let zero = [T::ZERO; LANES];
        let area = [T::from_f64(f64::NAN); LANES];
        let empty = Block { min_0: zero, min_1: zero, max_0: zero, max_1: zero, area };
        Blocks(vec![empty; len.div_ceil(LANES)])
    }

    /// Puts a box into a slot.
    #[inline(always)]
    pub(super) fn put(&mut self, slot: usize, candidate: &Candidate<T>) {
        let (block, lane) = (&mut self.0[slot / LANES], slot % LANES);
        let [min_0, min_1, max_0, max_1] = candidate.corners;
        block.min_0[lane] = min_0;
        block.min_1[lane] = min_1;
        block.max_0[lane] = max_0;
        block.max_1[lane] = max_1;
        block.area[lane] = candidate.area;
    }

    /// Whether the box in a slot has been suppressed.
    #[inline(always)]
    pub(super) fn is_suppressed(&self, slot: usize) -> bool {
        self.0[slot / LANES].area[slot % LANES].is_nan()
    }

    /// Suppresses every box that `kept` overlaps in the blocks that hold the slots `start..end`.
    ///
    /// Neighbours of these slots in the first and last block are met as well, and so are boxes
    /// that rank above `kept`; neither matters, for what overlaps a kept box does not survive.
    /// (`kept` suppresses itself, too.)
    #[inline(always)]
    pub(super) fn suppress(
        &mut self,
        start: usize,
        end: usize,
        kept: &Candidate<T>,
        cutoff: Cutoff<T>,
    ) {
        if start < end {
            let below = cutoff.below();
            for block in &mut self.0[start / LANES..end.div_ceil(LANES)] {
                block.suppress(&kept.corners, kept.area, cutoff.0, below);
            }
        }
    }
}

impl<T: Scalar> Block<T> {
    /// A quotient that rounds to the cutoff or more exceeds `below`, the number under the cutoff.
    /// So its dividend is at least the rounded product of `below` and the divisor: a comparison
    /// that spares the division of nearly all blocks.
    #[inline(always)]
    fn suppress(&mut self, b: &BBox<T>, area: T, cutoff: T, below: T) {
        let mut intersection = [T::ZERO; LANES];
        let mut union = [T::ZERO; LANES];
        let mut near = false;
        for lane in 0..LANES {
            let extent_0 = smaller(b[2], self.max_0[lane]) - larger(b[0], self.min_0[lane]);
            let extent_1 = smaller(b[3], self.max_1[lane]) - larger(b[1], self.min_1[lane]);
            let common = larger(extent_0, T::ZERO) * larger(extent_1, T::ZERO);
            let joint = area + self.area[lane] - common;
            near |= (common > T::ZERO) & (common >= joint * below);
            intersection[lane] = common;
            union[lane] = joint;
        }
        if near {
            for lane in 0..LANES {
                let overlaps = intersection[lane] / union[lane] >= cutoff;
                let area = self.area[lane];
                self.area[lane] = if overlaps { T::from_f64(f64::NAN) } else { area };
            }
        }
    }
}

/// The larger number, as the vector instruction has it: `y` where one is NaN.
#[inline(always)]
fn larger<T: Scalar>(x: T, y: T) -> T {
    if x > y { x } else { y }
}

/// The smaller number, as the vector instruction has it: `y` where one is NaN.
#[inline(always)]
fn smaller<T: Scalar>(x: T, y: T) -> T {
    if x < y { x } else { y }
}
