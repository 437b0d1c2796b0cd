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
//! one block for each object.

use crate::boxes::{BBox, Scalar};
use crate::{Result, isa, parallel};

/// Boxes of a block: 5 coordinates and areas, the row and the two results take 32 KB in f32.
const BLOCK: usize = 1024;
/// Partial maxima of a row, as many as the widest vector has lanes.
const LANES: usize = 16;
/// IoUs that outweigh waking a second thread.
const PAIRS_FOR_THREADS: usize = 1 << 17;

/// The best object of every box, by blocks.
pub(super) struct Matching<'a, T> {
    objects: &'a [BBox<T>],
    blocks: Vec<Block<T>>,
}

/// Up to [`BLOCK`] boxes, an array for each coordinate, and what is known about them.
struct Block<T> {
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
    /// Matches every box with the objects, of which there must be one at least. A NaN counts as the
    /// largest IoU, as in `numpy.argmax`.
    pub(super) fn new(
        boxes: impl Iterator<Item = &'a BBox<T>>,
        objects: &'a [BBox<T>],
    ) -> Result<Self> {
        assert!(!objects.is_empty(), "this is a bug in oxidet: matching against no boxes");
        let mut blocks: Vec<Block<T>> = Vec::new();
        let mut boxes = boxes.peekable();
        while boxes.peek().is_some() {
            blocks.push(Block::new(boxes.by_ref().take(BLOCK)));
        }
        let pairs = objects.len() * blocks.iter().map(|b| b.area.len()).sum::<usize>();
        let run = |block: &mut Block<T>| isa::vectorize(|| block.match_with(objects));
        if pairs < PAIRS_FOR_THREADS {
            blocks.iter_mut().for_each(run);
        } else {
            parallel::lead(|| {
                parallel::for_each_chunk(&mut blocks, 1, |_, block| block.iter_mut().for_each(run));
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

    /// Calls `mark` with every box that has the largest IoU some object reaches, if that IoU
    /// `counts`; possibly several times. An object with a NaN reaches none.
    pub(super) fn mark_best_of_objects(
        &self,
        counts: impl Fn(T) -> bool,
        mut mark: impl FnMut(usize),
    ) {
        let mut row = Vec::new();
        for (j, object) in self.objects.iter().enumerate() {
            let best = best_of_object(self.blocks.iter().map(|block| &block.maxima), j);
            let Some(best) = best.filter(|&best| counts(best)) else { continue };
            for (first, block) in self.blocks.iter().enumerate() {
                if block.maxima.of_object[j] == best {
                    row.resize(block.area.len(), T::ZERO);
                    isa::vectorize(|| block.overlap(object, &mut row));
                    let equal = row.iter().enumerate().filter(|&(_, &iou)| iou == best);
                    equal.for_each(|(i, _)| mark(first * BLOCK + i));
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
    fn new<'b>(boxes: impl Iterator<Item = &'b BBox<T>>) -> Self
    where
        T: 'b,
    {
        let column = || Vec::with_capacity(BLOCK);
        let (mut min_0, mut min_1, mut max_0, mut max_1) = (column(), column(), column(), column());
        for b in boxes {
            min_0.push(b[0]);
            min_1.push(b[1]);
            max_0.push(b[2]);
            max_1.push(b[3]);
        }
        let n = min_0.len();
        let area = (0..n).map(|i| (max_0[i] - min_0[i]) * (max_1[i] - min_1[i])).collect();
        Block { min_0, min_1, max_0, max_1, area, maxima: Maxima::new(n) }
    }

    #[inline(always)]
    fn match_with(&mut self, objects: &[BBox<T>]) {
        let mut row = vec![T::ZERO; self.area.len()];
        for object in objects {
            self.overlap(object, &mut row);
            self.maxima.add(&row);
        }
    }

    /// IoU of `b` with every box: NumPy's order of operations in the original tools. A NaN corner
    /// reaches the result through the area, so the plain comparisons of max and min may drop it.
    #[inline(always)]
    fn overlap(&self, b: &BBox<T>, row: &mut [T]) {
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
            let meets = if (top < bottom) & (left < right) { T::ONE } else { T::ZERO };
            let intersection = (bottom - top) * (right - left) * meets;
            row[i] = intersection / (own_area + area[i] - intersection);
        }
    }
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
    use crate::boxes::iou_matrix;

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
    fn naive(boxes: &[BBox<f64>], objects: &[BBox<f64>]) -> (Vec<(usize, f64)>, Vec<usize>) {
        let matrix = iou_matrix(boxes, objects).unwrap();
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
        for (n, objects, odd) in [
            (1, 1, false),
            (LANES - 1, 2, false),
            (LANES, 3, true),
            (LANES + 1, 7, true),
            (BLOCK - 1, 5, false),
            (BLOCK, 5, false),
            (BLOCK + 1, 5, false),
            (3 * BLOCK + 100, 60, true),
        ] {
            let (boxes, objects) = (scattered(n, 1, odd), scattered(objects, 2, false));
            let matching = Matching::new(boxes.iter(), &objects).unwrap();
            let (of_boxes, best) = naive(&boxes, &objects);
            let got: Vec<(usize, f64)> = matching.of_boxes().collect();
            assert_eq!(format!("{got:?}"), format!("{of_boxes:?}"), "{n} boxes");
            let mut marked = vec![];
            matching.mark_best_of_objects(|_| true, |i| marked.push(i));
            marked.sort();
            marked.dedup();
            assert_eq!(marked, best, "{n} boxes");
            matching.mark_best_of_objects(|_| false, |i| panic!("box {i} marked"));
        }
    }

    #[test]
    fn no_boxes_have_no_matches() {
        let objects = [[0f32, 0., 1., 1.]];
        let matching = Matching::new([].iter(), &objects).unwrap();
        assert_eq!(matching.of_boxes().count(), 0);
        matching.mark_best_of_objects(|_| true, |i| panic!("box {i} marked"));
    }
}
