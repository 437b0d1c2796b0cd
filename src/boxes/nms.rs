//! Greedy non-maximum suppression.
//!
//! Boxes are taken in the order of descending score; one is kept unless it overlaps a box that was
//! kept before. Each candidate is compared with the kept boxes, a block at a time with an early
//! end, which costs (boxes x kept) IoUs at most.
//!
//! The originals disagree on what "overlaps" means: chainercv suppresses at `iou >= threshold` with
//! the threshold rounded to the type of the boxes, torchvision at `iou > threshold` compared in
//! f64. All four combinations are one number: the smallest IoU of the box type that suppresses
//! ([`Cutoff`]). An IoU that is NaN never suppresses.
//!
//! Order is written down as well: NaN scores first, then from high to low, and equal scores by
//! ascending index. The originals leave the last to an unstable sort.

use std::cmp::Ordering;

use rayon::prelude::*;

use super::{BBox, Columns, Scalar, check_length};
use crate::Result;

/// Kept boxes compared before the first look at whether one of them suppresses.
const BLOCK: usize = 64;

/// The smallest IoU that suppresses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cutoff<T>(T);

impl<T: Scalar> Cutoff<T> {
    /// `inclusive`: an IoU equal to the threshold suppresses. `rounded`: the threshold is first
    /// rounded to the type of the boxes. A NaN threshold suppresses nothing.
    pub fn new(threshold: f64, inclusive: bool, rounded: bool) -> Self {
        let nearest = T::from_f64(threshold);
        let bound = if rounded { nearest.to_f64() } else { threshold };
        let suppresses = match inclusive {
            true => nearest.to_f64() >= bound,
            false => nearest.to_f64() > bound,
        };
        Cutoff(if suppresses { nearest } else { nearest.next_up() })
    }
}

/// Indices in the order of descending score: NaN first, equal scores by ascending index.
pub fn rank(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.par_sort_by(|&i, &j| descending(scores[i], scores[j]));
    order
}

fn descending(a: f64, b: f64) -> Ordering {
    b.partial_cmp(&a).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

/// Indices of the boxes that survive, in the order of descending score, `limit` at most. Without
/// scores the boxes are taken in the order they come.
pub fn nms<T: Scalar>(
    boxes: &[BBox<T>],
    scores: Option<&[f64]>,
    cutoff: Cutoff<T>,
    limit: Option<usize>,
) -> Result<Vec<usize>> {
    check_length("scores", scores.map_or(boxes.len(), <[f64]>::len), boxes.len())?;
    let order = scores.map_or_else(|| (0..boxes.len()).collect(), rank);
    Ok(suppress(boxes, order, cutoff, limit))
}

/// [`nms`] within each class; boxes of different classes never meet. All survivors together, in
/// the order of descending score.
pub fn batched_nms<T: Scalar>(
    boxes: &[BBox<T>],
    scores: &[f64],
    classes: &[i64],
    cutoff: Cutoff<T>,
) -> Result<Vec<usize>> {
    check_length("scores", scores.len(), boxes.len())?;
    check_length("idxs", classes.len(), boxes.len())?;
    let order = rank(scores);
    let mut place = vec![0; order.len()];
    order.iter().enumerate().for_each(|(position, &i)| place[i] = position);
    let mut by_class = order.clone();
    by_class.sort_by_key(|&i| classes[i]); // stable: within a class still by rank
    let groups: Vec<&[usize]> = by_class.chunk_by(|&i, &j| classes[i] == classes[j]).collect();
    let mut kept: Vec<usize> = groups
        .into_par_iter()
        .flat_map_iter(|group| suppress(boxes, group.to_vec(), cutoff, None))
        .collect();
    kept.sort_unstable_by_key(|&i| place[i]);
    Ok(kept)
}

/// The greedy pass over boxes in the given order.
fn suppress<T: Scalar>(
    boxes: &[BBox<T>],
    mut order: Vec<usize>,
    cutoff: Cutoff<T>,
    limit: Option<usize>,
) -> Vec<usize> {
    let limit = limit.unwrap_or(usize::MAX);
    let mut kept = Columns::with_capacity(order.len().min(limit));
    order.retain(|&i| {
        let survives = kept.len() < limit && !overlaps(&kept, &boxes[i], cutoff);
        if survives {
            kept.push(&boxes[i]);
        }
        survives
    });
    order
}

fn overlaps<T: Scalar>(kept: &Columns<T>, candidate: &BBox<T>, cutoff: Cutoff<T>) -> bool {
    (0..kept.len()).step_by(BLOCK).any(|start| {
        let end = (start + BLOCK).min(kept.len());
        // No short cut inside a block: that is what lets it run in vector registers.
        kept.iou_between(candidate, start, end).fold(false, |hit, iou| hit | (iou >= cutoff.0))
    })
}

#[cfg(test)]
mod tests {
    use super::super::iou_matrix;
    use super::*;

    const FOUR: [BBox<f32>; 4] =
        [[0., 0., 4., 4.], [1., 1., 5., 5.], [2., 1., 6., 5.], [4., 0., 8., 4.]];

    fn chainercv(threshold: f64) -> Cutoff<f32> {
        Cutoff::new(threshold, true, true)
    }

    fn torchvision(threshold: f64) -> Cutoff<f32> {
        Cutoff::new(threshold, false, false)
    }

    #[test]
    fn table_of_thresholds() {
        let cases: [(f64, &[usize]); 5] = [
            (1.0, &[0, 1, 2, 3]),
            (0.5, &[0, 1, 3]),
            (0.3, &[0, 2, 3]),
            (0.2, &[0, 3]),
            (0.0, &[0]),
        ];
        for (threshold, expected) in cases {
            let kept = nms(&FOUR, None, chainercv(threshold), None).unwrap();
            assert_eq!(kept, expected, "threshold {threshold}");
        }
    }

    #[test]
    fn the_cutoff_is_the_smallest_iou_that_suppresses() {
        let thresholds = [0.0, 0.2, 0.3, 0.5, 0.7, 1.0, f64::from(0.7f32), -1.0, 1e-50, 2.0];
        for t in thresholds {
            let near = t as f32;
            for iou in [near.next_down(), near, near.next_up()] {
                let wide = f64::from(iou);
                let rules = [
                    (true, true, iou >= near),
                    (false, true, iou > near),
                    (true, false, wide >= t),
                    (false, false, wide > t),
                ];
                for (inclusive, rounded, expected) in rules {
                    let got = iou >= Cutoff::<f32>::new(t, inclusive, rounded).0;
                    assert_eq!(got, expected, "{t} {iou} {inclusive} {rounded}");
                }
            }
        }
        assert!(nms(&FOUR, None, chainercv(f64::NAN), None).unwrap().len() == 4);
    }

    #[test]
    fn the_two_rules_differ_where_the_iou_meets_the_threshold() {
        // IoU in f32: 0.2 is 0.200000003, 0.7 is 0.69999999, 0.5 is exact.
        let pairs: [(f64, [BBox<f32>; 2]); 3] = [
            (0.2, [[0., 0., 1., 10.], [0., 0., 1., 2.]]),
            (0.7, [[0., 0., 1., 10.], [0., 0., 1., 7.]]),
            (0.5, [[0., 0., 1., 10.], [0., 0., 1., 5.]]),
        ];
        let kept = |cutoff: fn(f64) -> Cutoff<f32>| {
            pairs.map(|(t, pair)| nms(&pair, None, cutoff(t), None).unwrap().len())
        };
        assert_eq!(kept(torchvision), [1, 2, 2]);
        assert_eq!(kept(chainercv), [1, 1, 1]);
    }

    #[test]
    fn ranking_puts_nan_first_and_keeps_ties_in_order() {
        let inf = f64::INFINITY;
        let scores = [1.0, f64::NAN, 3.0, 1.0, -inf, inf, f64::NAN, 0.0, -0.0];
        assert_eq!(rank(&scores), [1, 6, 5, 2, 0, 3, 7, 8, 4]);
    }

    /// Greedy suppression from the full matrix.
    fn quadratic(boxes: &[BBox<f64>], order: &[usize], cutoff: f64) -> Vec<usize> {
        let iou = iou_matrix(boxes, boxes).unwrap();
        let mut kept: Vec<usize> = vec![];
        for &i in order {
            if kept.iter().all(|&k| iou[k * boxes.len() + i] < cutoff) {
                kept.push(i);
            }
        }
        kept
    }

    fn scattered(n: usize) -> (Vec<BBox<f64>>, Vec<f64>) {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f64 / (1u64 << 24) as f64
        };
        let boxes = (0..n)
            .map(|_| {
                let (y, x) = (400.0 * next(), 400.0 * next());
                [y, x, y + 10.0 + 60.0 * next(), x + 10.0 + 60.0 * next()]
            })
            .collect();
        (boxes, (0..n).map(|_| (20.0 * next()).floor()).collect())
    }

    #[test]
    fn suppression_agrees_with_the_quadratic_definition_around_a_block() {
        for n in [0, 1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 700] {
            let (boxes, scores) = scattered(n);
            let cutoff = Cutoff::new(0.3, true, true);
            let kept = nms(&boxes, Some(&scores), cutoff, None).unwrap();
            assert_eq!(kept, quadratic(&boxes, &rank(&scores), 0.3), "{n} boxes");
            let first = nms(&boxes, Some(&scores), cutoff, Some(5)).unwrap();
            assert_eq!(first, kept[..kept.len().min(5)]);
            assert!(nms(&boxes, Some(&scores), cutoff, Some(0)).unwrap().is_empty());
        }
    }

    #[test]
    fn classes_do_not_meet() {
        let (boxes, scores) = scattered(500);
        let classes: Vec<i64> = (0..500).map(|i| [3, -1, 7][i % 3]).collect();
        let cutoff = Cutoff::new(0.2, false, false);
        let mut expected: Vec<usize> = vec![];
        for class in [3, -1, 7] {
            let members: Vec<usize> =
                rank(&scores).into_iter().filter(|&i| classes[i] == class).collect();
            expected.extend(suppress(&boxes, members, cutoff, None));
        }
        let order = rank(&scores);
        expected.sort_by_key(|i| order.iter().position(|j| j == i));
        assert_eq!(batched_nms(&boxes, &scores, &classes, cutoff).unwrap(), expected);
    }

    #[test]
    fn boxes_of_no_area_and_nan_boxes_survive() {
        let nan = [f32::NAN; 4];
        let boxes = [[1f32; 4], [1.; 4], nan, nan];
        assert_eq!(nms(&boxes, None, chainercv(0.5), None).unwrap(), [0, 1, 2, 3]);
    }

    #[test]
    fn lengths_must_agree() {
        let bad = nms(&FOUR, Some(&[1.0]), chainercv(0.5), None).unwrap_err().to_string();
        assert_eq!(bad, "scores: expected shape (4,), one for each box, got (1,)");
        let bad = batched_nms(&FOUR, &[1.0; 4], &[0; 3], chainercv(0.5)).unwrap_err().to_string();
        assert!(bad.starts_with("idxs: expected"), "{bad}");
    }
}
