//! Intersection over union: the full matrix, and each box's best partner without the matrix.

use rayon::prelude::*;

use super::{BBox, Columns, Scalar};
use crate::Result;
use crate::memory::result_len;

/// Pairs one task computes: enough to outweigh its start, few enough to share the work.
const PAIRS_PER_TASK: usize = 1 << 14;

/// IoU of every box of `a` with every box of `b`, row-major `(a.len(), b.len())`.
///
/// Touching boxes give 0, an inverted box 0 with everything, two boxes without area NaN (0 / 0),
/// and a NaN corner NaN.
pub fn iou_matrix<T: Scalar>(a: &[BBox<T>], b: &[BBox<T>]) -> Result<Vec<T>> {
    let mut matrix = vec![T::ZERO; result_len::<T>("boxes", &[a.len(), b.len()])?];
    if matrix.is_empty() {
        return Ok(matrix);
    }
    let columns = Columns::new(b);
    let rows_per_task = (PAIRS_PER_TASK / b.len()).max(1);
    matrix.par_chunks_mut(rows_per_task * b.len()).zip(a.par_chunks(rows_per_task)).for_each(
        |(block, boxes)| {
            for (row, one) in block.chunks_exact_mut(b.len()).zip(boxes) {
                row.iter_mut().zip(columns.iou_with(one)).for_each(|(out, iou)| *out = iou);
            }
        },
    );
    Ok(matrix)
}

/// Each box's best partner: `numpy.argmax` and `numpy.max` along the rows of [`iou_matrix`].
#[derive(Debug, Clone, PartialEq)]
pub struct Matches<T> {
    /// Index of the partner; the first of equal ones.
    pub index: Vec<usize>,
    /// IoU with it.
    pub iou: Vec<T>,
}

/// Best partner in `b` for every box of `a`; `b` must not be empty. NaN counts as the largest.
pub fn best_matches<T: Scalar>(a: &[BBox<T>], b: &[BBox<T>]) -> Matches<T> {
    assert!(!b.is_empty(), "this is a bug in oxidet: matching against no boxes");
    let columns = Columns::new(b);
    let (index, iou) = a
        .par_iter()
        .with_min_len((PAIRS_PER_TASK / b.len()).max(1))
        .map(|one| first_largest(columns.iou_with(one)))
        .unzip();
    Matches { index, iou }
}

/// Position and value of the first NaN, else of the first largest number; `(0, 0)` of nothing.
fn first_largest<T: Scalar>(values: impl Iterator<Item = T>) -> (usize, T) {
    let larger = |best: T, x: T| x > best || (x.is_nan() && !best.is_nan());
    values
        .enumerate()
        .reduce(|best, next| if larger(best.1, next.1) { next } else { best })
        .unwrap_or((0, T::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, one pair at a time.
    fn naive(a: &BBox<f64>, b: &BBox<f64>) -> f64 {
        let h = a[2].min(b[2]) - a[0].max(b[0]);
        let w = a[3].min(b[3]) - a[1].max(b[1]);
        let intersection = if h > 0.0 && w > 0.0 { h * w } else { 0.0 };
        let area = |b: &BBox<f64>| (b[2] - b[0]) * (b[3] - b[1]);
        intersection / (area(a) + area(b) - intersection)
    }

    fn scattered(n: usize, seed: u64) -> Vec<BBox<f64>> {
        let mut state = seed;
        let mut next = |scale: f64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f64 / (1u64 << 24) as f64 * scale
        };
        (0..n)
            .map(|_| {
                let (y, x) = (next(100.0), next(100.0));
                [y, x, y + 1.0 + next(60.0), x + 1.0 + next(60.0)]
            })
            .collect()
    }

    #[test]
    fn the_matrix_agrees_with_the_definition_for_sizes_around_a_task() {
        for (n, k) in [(0, 3), (3, 0), (1, 1), (7, 5), (300, 61), (3, 20_000)] {
            let (a, b) = (scattered(n, 1), scattered(k, 2));
            let matrix = iou_matrix(&a, &b).unwrap();
            assert_eq!(matrix.len(), n * k);
            for (i, row) in matrix.chunks(k.max(1)).enumerate() {
                for (j, iou) in row.iter().enumerate() {
                    assert!((iou - naive(&a[i], &b[j])).abs() < 1e-12, "{n}x{k} at {i},{j}");
                }
            }
        }
    }

    #[test]
    fn degenerate_boxes_follow_the_written_rules() {
        let iou = |a: BBox<f32>, b: BBox<f32>| iou_matrix(&[a], &[b]).unwrap()[0];
        let inf = f32::INFINITY;
        assert_eq!(iou([0., 0., 4., 4.], [4., 0., 8., 4.]), 0.0, "touching");
        assert!(iou([1., 1., 1., 1.], [1., 1., 1., 1.]).is_nan(), "two points");
        assert_eq!(iou([1., 1., 1., 1.], [0., 0., 4., 4.]), 0.0, "a point in a box");
        assert!(iou([f32::NAN, 0., 4., 4.], [0., 0., 4., 4.]).is_nan(), "NaN");
        assert!(iou([0., 0., 4., 4.], [0., 0., 4., f32::NAN]).is_nan(), "NaN on the right");
        assert_eq!(iou([0., 0., inf, inf], [0., 0., 4., 4.]), 0.0, "infinite");
        assert_eq!(iou([4., 4., 0., 0.], [4., 4., 0., 0.]), 0.0, "inverted, with itself");
    }

    #[test]
    fn the_best_partner_is_the_argmax_of_the_row() {
        let (a, mut b) = (scattered(200, 3), scattered(9, 4));
        b.push(b[2]); // a tie: the first must win
        let matches = best_matches(&a, &b);
        for (i, row) in iou_matrix(&a, &b).unwrap().chunks(b.len()).enumerate() {
            let best = row.iter().cloned().fold(f64::MIN, f64::max);
            assert_eq!(matches.iou[i], best);
            assert_eq!(matches.index[i], row.iter().position(|&x| x == best).unwrap());
        }
        let nan = [f64::NAN; 4];
        let matches = best_matches(&[a[0]], &[b[0], nan, nan]);
        assert_eq!(matches.index, [1]);
        assert!(matches.iou[0].is_nan());
    }
}
