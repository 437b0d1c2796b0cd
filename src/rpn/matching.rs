//! Which object each box overlaps most, and which boxes an object overlaps most.
//!
//! Both are maxima of the n x R matrix of IoUs, along its rows and along its columns, and neither
//! needs the matrix. Boxes are taken in blocks; while the corners of a block are in the first cache,
//! every object passes over them:
//!
//! ```text
//! for each block                          independent: one task each
//!     for each object
//!         row = IoU of the object with the block's boxes       (vectors)
//!         largest, object of each box: updated where row is larger
//!         largest of the object in this block
//! for each object
//!     best = largest over the blocks
//!     in the blocks that reach it: compute the row again, mark where it equals best
//! ```
//!
//! The last step is exact equality of numbers computed twice in the same way, and usually visits
//! one block for each object. Neighbouring anchors follow each other, so most blocks lie far from
//! most objects: where the rectangle around a block misses an object, the row is known to be 0.

use crate::boxes::{BBox, Scalar};
use crate::{Result, isa, parallel};

/// Boxes of a block: few enough to lie together, enough to outweigh looking at the block.
const BLOCK: usize = 256;
/// Partial maxima of a row, as many as the widest vector has lanes.
const LANES: usize = 16;
/// IoUs that outweigh waking a second thread.
const PAIRS_FOR_THREADS: usize = 1 << 17;
/// Blocks of a task.
const BLOCKS_PER_TASK: usize = 8;
/// Coordinates whose products are far from overflowing.
const MODERATE: f64 = 1e9;

/// The intersection of boxes that are apart; they differ where a coordinate is infinite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Apart {
    /// chainercv: the product of the extents, times 0.
    Masked,
    /// torchvision: negative extents are 0.
    Clamped,
}

/// The best object of every box, by blocks.
pub(super) struct Matching<'a, T> {
    objects: &'a [BBox<T>],
    blocks: Vec<Block<T>>,
}

/// Up to [`BLOCK`] boxes, an array for each coordinate, and what is known about them.
struct Block<T> {
    apart: Apart,
    /// The rectangle around the boxes if all of them are ordinary: of moderate coordinates and of a
    /// positive area.
    hull: Option<BBox<T>>,
    min_0: Vec<T>,
    min_1: Vec<T>,
    max_0: Vec<T>,
    max_1: Vec<T>,
    area: Vec<T>,
    maxima: Maxima<T>,
}

/// Maxima along both axes of a matrix that comes row by row, a row for each object.
pub(super) struct Maxima<T> {
    /// Largest number of each column; a NaN counts as the largest.
    pub(super) value: Vec<T>,
    /// Row it stands in, the first of equal ones.
    pub(super) object: Vec<u32>,
    /// Largest number of each row.
    pub(super) of_object: Vec<T>,
}

impl<'a, T: Scalar> Matching<'a, T> {
    /// Matches `count` boxes, given by their numbers, with the objects, of which there must be one at
    /// least. A NaN counts as the largest IoU, as in `numpy.argmax`.
    pub(super) fn new(
        count: usize,
        boxes: impl Fn(usize) -> BBox<T> + Sync,
        objects: &'a [BBox<T>],
        apart: Apart,
    ) -> Result<Self> {
        assert!(!objects.is_empty(), "this is a bug in oxidet: matching against no boxes");
        let mut blocks: Vec<Block<T>> = Vec::new();
        blocks.resize_with(count.div_ceil(BLOCK), || Block::empty(apart));
        let run = |index: usize, block: &mut Block<T>| {
            let first = index * BLOCK;
            isa::vectorize(|| {
                block.fill((first..count.min(first + BLOCK)).map(&boxes));
                block.match_with(objects);
            });
        };
        if count.saturating_mul(objects.len()) < PAIRS_FOR_THREADS {
            parallel::ieee(|| blocks.iter_mut().enumerate().for_each(|(i, block)| run(i, block)));
        } else {
            parallel::lead(|| {
                parallel::for_each_chunk(&mut blocks, BLOCKS_PER_TASK, |task, blocks| {
                    let numbered = blocks.iter_mut().enumerate();
                    numbered.for_each(|(i, block)| run(task * BLOCKS_PER_TASK + i, block));
                });
            })?;
        }
        Ok(Matching { objects, blocks })
    }

    /// Best object and IoU of each box in order.
    pub(super) fn of_boxes(&self) -> impl Iterator<Item = (usize, T)> {
        self.blocks.iter().flat_map(|block| {
            let Maxima { value, object, .. } = &block.maxima;
            object.iter().zip(value).map(|(&object, &iou)| (object as usize, iou))
        })
    }

    /// Best object of one box.
    pub(super) fn object(&self, index: usize) -> usize {
        self.blocks[index / BLOCK].maxima.object[index % BLOCK] as usize
    }

    /// Calls `mark` with every box that has the largest IoU some object reaches, if that IoU
    /// `counts`; possibly several times. An object with a NaN reaches none.
    pub(super) fn mark_best_of_objects(
        &self,
        counts: impl Fn(T) -> bool,
        mut mark: impl FnMut(usize),
    ) {
        let mut best = vec![T::ZERO; self.objects.len()];
        for (index, block) in self.blocks.iter().enumerate() {
            for (best, &largest) in best.iter_mut().zip(&block.maxima.of_object) {
                *best = if index == 0 { largest } else { best.maximum(largest) };
            }
        }
        // Equal to nothing.
        best.iter_mut().filter(|best| !counts(**best)).for_each(|b| *b = T::from_f64(f64::NAN));
        let mut row = Vec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            for (j, object) in self.objects.iter().enumerate() {
                if block.maxima.of_object[j] == best[j] {
                    row.resize(block.area.len(), T::ZERO);
                    isa::vectorize(|| block.overlap(object, &mut row));
                    let equal = row.iter().enumerate().filter(|&(_, &iou)| iou == best[j]);
                    equal.for_each(|(i, _)| mark(index * BLOCK + i));
                }
            }
        }
    }
}

/// Largest number of row `j` in all parts of a matrix.
pub(super) fn best_of_object<'a, T: Scalar + 'a>(
    parts: impl Iterator<Item = &'a Maxima<T>>,
    j: usize,
) -> Option<T> {
    parts.map(|part| part.of_object[j]).reduce(Scalar::maximum)
}

impl<T: Scalar> Maxima<T> {
    /// Of a matrix of that many columns and no rows yet.
    pub(super) fn new(columns: usize) -> Self {
        Maxima { value: vec![T::ZERO; columns], object: vec![0; columns], of_object: vec![] }
    }

    /// Takes the next row, which is 0 throughout.
    fn add_zeros(&mut self) {
        // What the columns hold is 0 or larger, or NaN.
        self.of_object.push(T::ZERO);
    }

    /// Takes the next row, as long as there are columns (one at least).
    #[inline(always)]
    pub(super) fn add(&mut self, row: &[T]) {
        let j = self.of_object.len();
        self.of_object.push(largest(row));
        if j == 0 {
            self.value.copy_from_slice(row);
            return;
        }
        let n = row.len();
        let (best, object) = (&mut self.value[..n], &mut self.object[..n]);
        for i in 0..n {
            let (new, old) = (row[i], best[i]);
            let larger = (new > old) | (is_nan(new) & !is_nan(old));
            best[i] = if larger { new } else { old };
            object[i] = if larger { j as u32 } else { object[i] };
        }
    }
}

impl<T: Scalar> Block<T> {
    fn empty(apart: Apart) -> Self {
        let [min_0, min_1, max_0, max_1, area] = [(); 5].map(|()| Vec::new());
        Block { apart, hull: None, min_0, min_1, max_0, max_1, area, maxima: Maxima::new(0) }
    }

    /// Takes the boxes, once.
    #[inline(always)]
    fn fill(&mut self, boxes: impl ExactSizeIterator<Item = BBox<T>>) {
        let n = boxes.len();
        self.maxima = Maxima::new(n);
        let columns =
            [&mut self.min_0, &mut self.min_1, &mut self.max_0, &mut self.max_1, &mut self.area];
        let [min_0, min_1, max_0, max_1, area] = columns.map(|column| {
            column.resize(n, T::ZERO);
            &mut column[..n]
        });
        for (i, b) in boxes.enumerate().take(n) {
            min_0[i] = b[0];
            min_1[i] = b[1];
            max_0[i] = b[2];
            max_1[i] = b[3];
        }
        let mut ordinary = true;
        for i in 0..n {
            let b = [min_0[i], min_1[i], max_0[i], max_1[i]];
            area[i] = (b[2] - b[0]) * (b[3] - b[1]);
            ordinary &= is_ordinary(&b, area[i]);
        }
        // An inverted box may reach out of this rectangle: it overlaps nothing.
        let smallest = |values: &[T]| extreme(values, |x, y| if x < y { x } else { y });
        let largest = |values: &[T]| extreme(values, |x, y| if x > y { x } else { y });
        let hull = || [smallest(min_0), smallest(min_1), largest(max_0), largest(max_1)];
        self.hull = ordinary.then(hull);
    }

    #[inline(always)]
    fn match_with(&mut self, objects: &[BBox<T>]) {
        let mut row = vec![T::ZERO; self.area.len()];
        for object in objects {
            if self.misses(object) {
                self.maxima.add_zeros();
            } else {
                self.overlap(object, &mut row);
                self.maxima.add(&row);
            }
        }
    }

    /// Whether the IoU of the object with every box is 0 for certain.
    #[inline(always)]
    fn misses(&self, b: &BBox<T>) -> bool {
        let Some(hull) = &self.hull else { return false };
        let beside = |axis: usize| (b[axis] >= hull[axis + 2]) | (b[axis + 2] <= hull[axis]);
        is_ordinary(b, (b[2] - b[0]) * (b[3] - b[1])) & (beside(0) | beside(1))
    }

    /// IoU of `b` with every box.
    #[inline(always)]
    fn overlap(&self, b: &BBox<T>, row: &mut [T]) {
        match self.apart {
            Apart::Masked => self.overlap_of::<true>(b, row),
            Apart::Clamped => self.overlap_of::<false>(b, row),
        }
    }

    /// The order of operations is that of the original tools. A NaN corner reaches the result through
    /// the area, so the plain comparisons of max and min may drop it.
    #[inline(always)]
    fn overlap_of<const MASKED: bool>(&self, b: &BBox<T>, row: &mut [T]) {
        let n = row.len();
        let (min_0, min_1) = (&self.min_0[..n], &self.min_1[..n]);
        let (max_0, max_1) = (&self.max_0[..n], &self.max_1[..n]);
        let area = &self.area[..n];
        let own_area = (b[2] - b[0]) * (b[3] - b[1]);
        let [low_0, low_1, high_0, high_1] = *b;
        for i in 0..n {
            // Loaded before they are chosen from: a choice of addresses would be a gather.
            let (y0, x0, y1, x1) = (min_0[i], min_1[i], max_0[i], max_1[i]);
            let top = if low_0 > y0 { low_0 } else { y0 };
            let left = if low_1 > x0 { low_1 } else { x0 };
            let bottom = if high_0 < y1 { high_0 } else { y1 };
            let right = if high_1 < x1 { high_1 } else { x1 };
            let intersection = if MASKED {
                let meets = if (top < bottom) & (left < right) { T::ONE } else { T::ZERO };
                (bottom - top) * (right - left) * meets
            } else {
                let (height, width) = (bottom - top, right - left);
                let height = if height < T::ZERO { T::ZERO } else { height };
                let width = if width < T::ZERO { T::ZERO } else { width };
                height * width
            };
            row[i] = intersection / (own_area + area[i] - intersection);
        }
    }
}

/// The number of a row that is not empty which `choose` prefers to all others.
#[inline(always)]
fn extreme<T: Scalar>(row: &[T], choose: impl Fn(T, T) -> T) -> T {
    let mut lanes = [row[0]; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = choose(chunk[lane], lanes[lane]);
        }
    }
    lanes.iter().chain(rest).fold(row[0], |best, &x| choose(x, best))
}

/// Whether the IoU with a box of the same kind cannot overflow nor be 0 / 0.
#[inline(always)]
fn is_ordinary<T: Scalar>(b: &BBox<T>, area: T) -> bool {
    let (low, high) = (T::from_f64(-MODERATE), T::from_f64(MODERATE));
    let moderate = |x: T| (x >= low) & (x <= high);
    (area > T::ZERO) & moderate(b[0]) & moderate(b[1]) & moderate(b[2]) & moderate(b[3])
}

#[inline(always)]
fn is_nan<T: Scalar>(x: T) -> bool {
    x.partial_cmp(&x).is_none()
}

/// Largest number of a row that is not empty, NaN if there is one.
#[inline(always)]
fn largest<T: Scalar>(row: &[T]) -> T {
    let mut lanes = [row[0]; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            let (new, old) = (chunk[lane], lanes[lane]);
            lanes[lane] = if (new > old) | is_nan(new) { new } else { old };
        }
    }
    let mut best = row[0];
    for &x in rest {
        best = best.maximum(x);
    }
    for x in lanes {
        best = best.maximum(x);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boxes::{Format, Pairwise, pairwise};

    /// Boxes on a coarse grid, so that IoUs tie; some without area, some NaN.
    fn scattered(n: usize, seed: u64, odd: bool) -> Vec<BBox<f64>> {
        let mut state = seed;
        let mut next = |values: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) % values) as f64
        };
        (0..n)
            .map(|i| {
                let (y, x) = (next(12), next(12));
                let b = [y, x, y + 1.0 + next(5), x + 1.0 + next(5)];
                match i % 97 {
                    13 if odd => [y, x, y, x],
                    31 if odd => [f64::NAN, x, y, x],
                    _ => b,
                }
            })
            .collect()
    }

    /// Both maxima from the full matrix.
    fn naive(
        boxes: &[BBox<f64>],
        objects: &[BBox<f64>],
        apart: Apart,
    ) -> (Vec<(usize, f64)>, Vec<usize>) {
        let what = if apart == Apart::Masked { Pairwise::MaskedIou } else { Pairwise::Iou };
        let mut matrix = vec![0.0; boxes.len() * objects.len()];
        pairwise(what, boxes, objects, Format::Corners, &mut matrix).unwrap();
        let rows: Vec<&[f64]> = matrix.chunks(objects.len()).collect();
        let of_boxes = rows
            .iter()
            .map(|row| {
                let nan = row.iter().position(|x| x.is_nan());
                let best = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let index = nan.or_else(|| row.iter().position(|&x| x == best)).unwrap();
                (index, row[index])
            })
            .collect();
        let mut marked: Vec<usize> = vec![];
        for j in 0..objects.len() {
            let best = rows.iter().map(|row| row[j]).fold(0.0, Scalar::maximum);
            marked.extend((0..boxes.len()).filter(|&i| rows[i][j] == best));
        }
        marked.sort();
        marked.dedup();
        (of_boxes, marked)
    }

    #[test]
    fn both_maxima_agree_with_the_matrix_around_a_block() {
        for (n, count, odd) in [
            (1, 1, false),
            (LANES - 1, 2, false),
            (LANES, 3, true),
            (LANES + 1, 7, true),
            (BLOCK - 1, 5, false),
            (BLOCK, 5, false),
            (BLOCK + 1, 5, false),
            (9 * BLOCK + 100, 60, true),
        ] {
            for (apart, far) in
                [(Apart::Masked, false), (Apart::Clamped, false), (Apart::Clamped, true)]
            {
                let mut boxes = scattered(n, 1, odd);
                let objects = scattered(count, 2, far);
                if far {
                    // Blocks that lie apart from each other, so that most objects miss most of them.
                    for (i, b) in boxes.iter_mut().enumerate() {
                        *b = b.map(|x| x + (i / BLOCK) as f64 * 7.0);
                    }
                }
                let matching = Matching::new(n, |i| boxes[i], &objects, apart).unwrap();
                let (of_boxes, best) = naive(&boxes, &objects, apart);
                let got = matching.of_boxes().map(|(object, iou)| (object, iou.abs()));
                let got: Vec<(usize, f64)> = got.collect();
                let expected: Vec<_> = of_boxes.iter().map(|&(j, iou)| (j, iou.abs())).collect();
                assert_eq!(format!("{got:?}"), format!("{expected:?}"), "{n} boxes");
                let mut marked = vec![];
                matching.mark_best_of_objects(|_| true, |i| marked.push(i));
                marked.sort();
                marked.dedup();
                assert_eq!(marked, best, "{n} boxes");
                matching.mark_best_of_objects(|_| false, |i| panic!("box {i} marked"));
            }
        }
    }

    #[test]
    fn no_boxes_have_no_matches() {
        let objects = [[0f32, 0., 1., 1.]];
        let matching = Matching::new(0, |_| [0.0; 4], &objects, Apart::Masked).unwrap();
        assert_eq!(matching.of_boxes().count(), 0);
        matching.mark_best_of_objects(|_| true, |i| panic!("box {i} marked"));
    }
}
