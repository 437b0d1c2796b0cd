//! Greedy non-maximum suppression.
//!
//! Boxes are taken in the order of descending score; one is kept unless it overlaps a box that was
//! kept before. Each kept box suppresses what it overlaps among the boxes below it, a vector of
//! boxes at a time. The first few meet all others, which is the end of it where most boxes overlap;
//! what is then left over goes into a [grid] and meets only its neighbours.
//!
//! The result is that of the definition for every input, to the last index: the grid leaves out
//! pairs that cannot overlap, whatever the rounding, and the IoU is computed in the order of the
//! original tools.
//!
//! The originals disagree on what "overlaps" means: chainercv suppresses at `iou >= threshold` with
//! the threshold rounded to the type of the boxes, torchvision at `iou > threshold` compared in
//! f64. All four combinations are one number: the smallest IoU of the box type that suppresses
//! ([`Cutoff`]). An IoU that is NaN never suppresses.
//!
//! Order is written down as well: NaN scores first, then from high to low, and equal scores by
//! ascending index. The originals leave the last to an unstable sort.
//!
//! | file | what it holds |
//! |---|---|
//! | `rank` | the order of descending score, boxes by class |
//! | `blocks` | one box against a vector of others |
//! | `grid` | which boxes can overlap at all |
//! | `soft` | Soft-NMS and Matrix NMS, which lower scores |

mod blocks;
mod grid;
mod rank;
mod soft;

use rayon::prelude::*;

use self::blocks::{Blocks, Candidate};
use self::grid::Grid;
pub(crate) use self::rank::by_class;
pub use self::rank::{Score, best, rank};
pub use self::soft::{Decay, Rescored, matrix_nms, soft_nms};
use super::{BBox, Scalar, check_length};
use crate::isa::{self, Isa, Kernel, Simd};
use crate::{Result, parallel};

/// Kept boxes that meet all others before the grid is considered.
const ROUND: usize = 8;
/// So few boxes meet each other without a grid.
const FEW: usize = 192;
/// So many boxes of several classes are worth a second thread.
const MANY: usize = 4096;

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

    /// Whether a box of this IoU with a better one is dropped.
    pub(super) fn suppresses(self, iou: T) -> bool {
        iou >= self.0
    }

    /// The largest number that does not suppress.
    fn below(self) -> T {
        T::ZERO - (T::ZERO - self.0).next_up()
    }
}

/// Indices of the boxes that survive, in the order of descending score, `limit` at most. Without
/// scores the boxes are taken in the order they come.
pub fn nms<T: Scalar, S: Score>(
    boxes: &[BBox<T>],
    scores: Option<&[S]>,
    cutoff: Cutoff<T>,
    limit: Option<usize>,
) -> Result<Vec<usize>> {
    check_length("scores", scores.map_or(boxes.len(), <[S]>::len), boxes.len())?;
    Ok(parallel::ieee(|| {
        let order = scores.map_or_else(|| (0..boxes.len()).collect(), rank);
        suppress(Isa::active(), boxes, order, cutoff, limit)
    }))
}

/// [`nms`] within each class; boxes of different classes never meet. All survivors together, in
/// the order of descending score.
pub fn batched_nms<T: Scalar, S: Score>(
    boxes: &[BBox<T>],
    scores: &[S],
    classes: &[i64],
    cutoff: Cutoff<T>,
) -> Result<Vec<usize>> {
    check_length("scores", scores.len(), boxes.len())?;
    check_length("idxs", classes.len(), boxes.len())?;
    let order = parallel::ieee(|| rank(scores));
    let ranked: Vec<i64> = order.iter().map(|&i| classes[i]).collect();
    let (ranks, groups) = rank::by_class(&ranked);
    // Within a class as over all: ranks below stand for boxes until the end.
    let survivors = |group: std::ops::Range<usize>| {
        let members: Vec<BBox<T>> = ranks[group.clone()].iter().map(|&r| boxes[order[r]]).collect();
        let kept = suppress(Isa::active(), &members, (0..members.len()).collect(), cutoff, None);
        kept.into_iter().map(|k| ranks[group.start + k]).collect::<Vec<usize>>()
    };
    let kept: Vec<Vec<usize>> = match groups.len() > 1 && boxes.len() >= MANY {
        true => parallel::install(|| groups.into_par_iter().map(survivors).collect())?,
        false => parallel::ieee(|| groups.into_iter().map(survivors).collect()),
    };
    let mut survives = vec![false; order.len()];
    kept.iter().flatten().for_each(|&r| survives[r] = true);
    Ok((0..order.len()).filter(|&r| survives[r]).map(|r| order[r]).collect())
}

/// The greedy pass over boxes in the given order.
fn suppress<T: Scalar>(
    isa: Isa,
    boxes: &[BBox<T>],
    mut order: Vec<usize>,
    cutoff: Cutoff<T>,
    limit: Option<usize>,
) -> Vec<usize> {
    let limit = limit.unwrap_or(order.len());
    if cutoff.0 <= T::ZERO {
        return unless_nan(boxes, order, limit);
    }
    if cutoff.0 <= T::ONE {
        let kept = isa::dispatch(isa, Greedy { boxes, order: &order, cutoff, limit });
        return kept.into_iter().map(|rank| order[rank]).collect();
    }
    // No IoU is above 1, not even a rounded one, or the threshold is NaN.
    order.truncate(limit);
    order
}

/// The greedy pass where every IoU suppresses but NaN.
fn unless_nan<T: Scalar>(boxes: &[BBox<T>], mut order: Vec<usize>, limit: usize) -> Vec<usize> {
    let mut kept = vec![];
    order.retain(|&i| {
        let iou_is_nan = |k: &usize| overlap(&boxes[*k], &boxes[i]).is_nan();
        let survives = kept.len() < limit && kept.iter().all(iou_is_nan);
        if survives {
            kept.push(i);
        }
        survives
    });
    order
}

/// IoU of two boxes, with the intersection 0 wherever they do not overlap on both axes.
pub(super) fn overlap<T: Scalar>(a: &BBox<T>, b: &BBox<T>) -> T {
    let larger = |x: T, y: T| if x > y { x } else { y };
    let smaller = |x: T, y: T| if x < y { x } else { y };
    let area = |b: &BBox<T>| (b[2] - b[0]) * (b[3] - b[1]);
    let extent =
        |axis: usize| larger(smaller(a[axis + 2], b[axis + 2]) - larger(a[axis], b[axis]), T::ZERO);
    let intersection = extent(0) * extent(1);
    intersection / (area(a) + area(b) - intersection)
}

/// The greedy pass for a cutoff above 0 and not above 1. Gives ranks, ascending.
struct Greedy<'a, T> {
    boxes: &'a [BBox<T>],
    order: &'a [usize],
    cutoff: Cutoff<T>,
    limit: usize,
}

impl<T: Scalar> Kernel for Greedy<'_, T> {
    type Output = Vec<usize>;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Vec<usize> {
        let Greedy { boxes, order, cutoff, limit } = self;
        let mut candidates = Vec::with_capacity(order.len());
        // Boxes that overlap none, for one reason or another, survive.
        let mut others = vec![];
        for (rank, &i) in order.iter().enumerate() {
            match Candidate::new(&boxes[i], rank) {
                Some(candidate) => candidates.push(candidate),
                None => others.push(rank),
            }
        }
        let mut kept = Vec::with_capacity(limit.min(order.len()));
        loop {
            let before = candidates.len();
            round(&mut candidates, &mut kept, cutoff, limit);
            if candidates.is_empty() || kept.len() == limit {
                break;
            }
            if candidates.len() > FEW && candidates.len() > before / 2 {
                among_neighbours(&candidates, &mut kept, cutoff, limit);
                break;
            }
        }
        if !others.is_empty() {
            kept.extend(others);
            kept.sort_unstable();
            kept.truncate(limit);
        }
        kept
    }
}

/// Lets the first [`ROUND`] survivors (or all, of a few candidates) meet all others and leaves what
/// neither survived nor was suppressed.
#[inline(always)]
fn round<T: Scalar>(
    candidates: &mut Vec<Candidate<T>>,
    kept: &mut Vec<usize>,
    cutoff: Cutoff<T>,
    limit: usize,
) {
    let most = if candidates.len() <= FEW { limit } else { limit.min(kept.len() + ROUND) };
    let mut blocks = Blocks::new(candidates.len());
    for (slot, candidate) in candidates.iter().enumerate() {
        blocks.put(slot, candidate);
    }
    let mut next = 0;
    while next < candidates.len() && kept.len() < most {
        if !blocks.is_suppressed(next) {
            kept.push(candidates[next].rank);
            blocks.suppress(next, candidates.len(), &candidates[next], cutoff);
        }
        next += 1;
    }
    let mut left = 0;
    for slot in next..candidates.len() {
        candidates[left] = candidates[slot];
        left += usize::from(!blocks.is_suppressed(slot));
    }
    candidates.truncate(left);
}

/// Lets every survivor meet its neighbours.
#[inline(always)]
fn among_neighbours<T: Scalar>(
    candidates: &[Candidate<T>],
    kept: &mut Vec<usize>,
    cutoff: Cutoff<T>,
    limit: usize,
) {
    let (mut grid, slots) = Grid::new(candidates, cutoff);
    for (candidate, &slot) in candidates.iter().zip(&slots) {
        if kept.len() == limit {
            return;
        }
        if !grid.is_suppressed(slot) {
            kept.push(candidate.rank);
            grid.suppress(candidate, cutoff);
        }
    }
}

#[cfg(test)]
pub(in crate::boxes) mod tests {
    use super::*;

    const FOUR: [BBox<f32>; 4] =
        [[0., 0., 4., 4.], [1., 1., 5., 5.], [2., 1., 6., 5.], [4., 0., 8., 4.]];

    const UNRANKED: Option<&[f32]> = None;

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
            let kept = nms(&FOUR, UNRANKED, chainercv(threshold), None).unwrap();
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
        assert!(nms(&FOUR, UNRANKED, chainercv(f64::NAN), None).unwrap().len() == 4);
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
            pairs.map(|(t, pair)| nms(&pair, UNRANKED, cutoff(t), None).unwrap().len())
        };
        assert_eq!(kept(torchvision), [1, 2, 2]);
        assert_eq!(kept(chainercv), [1, 1, 1]);
    }

    /// Numbers from 0 to 1 that look random.
    pub(in crate::boxes) struct Random(pub(in crate::boxes) u64);

    impl Random {
        pub(in crate::boxes) fn next(&mut self) -> f64 {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 40) as f64 / (1u64 << 24) as f64
        }

        fn box_at(&mut self, center: [f64; 2], spread: f64, extent: [f64; 2]) -> BBox<f64> {
            let [y, x] = center.map(|c| c + spread * (self.next() - 0.5));
            let [h, w] = extent.map(|e| e * (0.1 + self.next()));
            [y - h / 2.0, x - w / 2.0, y + h / 2.0, x + w / 2.0]
        }
    }

    /// The definition: a box survives unless a survivor above it overlaps it.
    fn quadratic<T: Scalar>(boxes: &[BBox<T>], order: &[usize], cutoff: Cutoff<T>) -> Vec<usize> {
        let mut kept: Vec<usize> = vec![];
        for &i in order {
            if !kept.iter().any(|&k| overlap(&boxes[k], &boxes[i]) >= cutoff.0) {
                kept.push(i);
            }
        }
        kept
    }

    /// Boxes in many arrangements, each a worst case of something.
    fn arrangements(n: usize) -> Vec<(&'static str, Vec<BBox<f64>>)> {
        let mut random = Random(n as u64);
        let mut collect = |f: &mut dyn FnMut(&mut Random, usize) -> BBox<f64>| {
            (0..n).map(|i| f(&mut random, i)).collect::<Vec<_>>()
        };
        let odd = [
            [f64::NAN; 4],
            [5.0, 5.0, 5.0, 5.0],
            [9.0, 9.0, 1.0, 1.0],
            [f64::NEG_INFINITY, 0.0, f64::INFINITY, 9.0],
            [0.0, 0.0, f64::INFINITY, f64::INFINITY],
            [0.0, 1.0, 4.0, f64::NAN],
            [-1e30, -1e30, 1e30, 1e30],
            [1e300, 1e300, 1.7e308, 1.7e308],
            [0.0, 0.0, 1e-30, 1e-30],
            [0.0, 0.0, 1e-22, 1e-22],
        ];
        vec![
            ("uniform", collect(&mut |r, _| r.box_at([300.0; 2], 600.0, [90.0, 50.0]))),
            ("dense", collect(&mut |r, _| r.box_at([50.0; 2], 40.0, [60.0, 60.0]))),
            (
                "clusters",
                collect(&mut |r, i| {
                    r.box_at([(i * 7 % 5 * 100) as f64, (i % 3 * 80) as f64], 9.0, [50.0, 70.0])
                }),
            ),
            (
                "disjoint in a row",
                collect(&mut |_, i| [0.0, 10.0 * i as f64, 5.0, 10.0 * i as f64 + 5.0]),
            ),
            (
                "disjoint on the diagonal",
                collect(&mut |_, i| [0.0, 0.0, 5.0, 5.0].map(|x| x + 10.0 * i as f64)),
            ),
            ("all the same", collect(&mut |_, _| [1.0, 2.0, 3.0, 4.0])),
            (
                "whole numbers",
                collect(&mut |r, _| r.box_at([20.0; 2], 30.0, [12.0, 12.0]).map(f64::round)),
            ),
            (
                "sizes of all scales",
                collect(&mut |r, _| {
                    let size = 1000.0 * (-9.0 * r.next()).exp();
                    r.box_at([300.0; 2], 600.0, [size, size])
                }),
            ),
            (
                "one far out",
                collect(&mut |r, i| {
                    r.box_at([if i == 0 { 1e12 } else { 100.0 }; 2], 300.0, [30.0, 30.0])
                }),
            ),
            ("far from the origin", collect(&mut |r, _| r.box_at([1e7; 2], 200.0, [40.0, 40.0]))),
            ("flat", collect(&mut |r, _| r.box_at([0.0, 300.0], 600.0, [1e-3, 90.0]))),
            ("tiny areas", collect(&mut |r, _| r.box_at([0.0; 2], 2e-19, [6e-20, 6e-20]))),
            ("huge", collect(&mut |r, _| r.box_at([0.0; 2], 5e18, [2e18, 2e18]))),
            (
                "irregular",
                collect(&mut |r, i| match i % 3 {
                    0 => odd[i / 3 % odd.len()],
                    _ => r.box_at([8.0; 2], 16.0, [9.0, 9.0]),
                }),
            ),
        ]
    }

    fn check_all<T: Scalar>(convert: impl Fn(f64) -> T, sizes: &[usize]) {
        let mut failures = vec![];
        for &n in sizes {
            for (name, boxes) in arrangements(n) {
                let boxes: Vec<BBox<T>> = boxes.iter().map(|b| b.map(&convert)).collect();
                let order: Vec<usize> = (0..n).map(|i| i * 7919 % n).collect();
                for threshold in [-1.0, 0.0, 1e-4, 0.05, 0.3, 0.5, 0.7, 0.97, 1.0] {
                    for inclusive in [false, true] {
                        let cutoff = Cutoff::new(threshold, inclusive, inclusive);
                        let expected = quadratic(&boxes, &order, cutoff);
                        for isa in Isa::available() {
                            for limit in [None, Some(0), Some(20), Some(expected.len() / 2)] {
                                let got = suppress(isa, &boxes, order.clone(), cutoff, limit);
                                let most = limit.unwrap_or(n).min(expected.len());
                                if got != expected[..most] {
                                    failures.push(format!(
                                        "{n} {name}, {threshold} {inclusive} {isa:?} {limit:?}"
                                    ));
                                }
                            }
                        }
                    }
                }
            }
        }
        assert!(failures.is_empty(), "{failures:#?}");
    }

    #[test]
    fn every_arrangement_agrees_with_the_definition_in_f32() {
        // 7919 is prime, so each box comes once.
        check_all(|x| x as f32, &[1, 2, blocks::LANES + 1, FEW, FEW + 1, 900]);
    }

    #[test]
    fn every_arrangement_agrees_with_the_definition_in_f64() {
        check_all(|x| x, &[1, 3, blocks::LANES, FEW + 2, 700]);
    }

    #[test]
    fn pairs_on_the_edge_of_the_reach_are_met() {
        // Shifted, shrunk and grown copies whose IoU lies on both sides of the cutoff, among boxes
        // that make the grid fine.
        for threshold in [0.05, 0.3, 0.5, 0.7, 0.9, 0.999] {
            let mut random = Random(5);
            let mut boxes: Vec<BBox<f32>> = vec![];
            for i in 0..400 {
                let b = random.box_at([3000.0; 2], 6000.0, [50.0, 30.0]);
                let [h, w] = [b[2] - b[0], b[3] - b[1]];
                let near = threshold * (1.0 + 1e-6 * (random.next() - 0.5));
                let shift = w * (1.0 - near) / (1.0 + near);
                let other = match i % 4 {
                    0 => [b[0], b[1] + shift, b[2], b[3] + shift],
                    1 => [b[0], b[1], b[0] + h * near, b[3]],
                    2 => [b[0], b[1], b[2], b[1] + w / near],
                    _ => [b[0], b[1] - shift, b[2], b[3] - shift],
                };
                boxes.extend([b, other].map(|b| b.map(|x| x as f32)));
            }
            let order: Vec<usize> = (0..boxes.len()).collect();
            let cutoff = Cutoff::new(threshold, false, false);
            let expected = quadratic(&boxes, &order, cutoff);
            assert!(expected.len() < 795, "{} survive at {threshold}", expected.len());
            assert_eq!(suppress(Isa::active(), &boxes, order, cutoff, None), expected);
        }
    }

    #[test]
    fn classes_do_not_meet() {
        for n in [0, 1, 500, MANY + 500] {
            let mut random = Random(3);
            let boxes: Vec<BBox<f64>> =
                (0..n).map(|_| random.box_at([100.0; 2], 200.0, [60.0, 60.0])).collect();
            let scores: Vec<f32> = (0..n).map(|_| (200.0 * random.next()) as f32).collect();
            let classes: Vec<i64> = (0..n).map(|i| [3, -1, 7][i * 31 % 97 % 3]).collect();
            let cutoff = Cutoff::new(0.2, false, false);
            let order = rank(&scores);
            let mut survives = vec![false; n];
            for class in [3, -1, 7] {
                let members: Vec<usize> =
                    order.iter().copied().filter(|&i| classes[i] == class).collect();
                quadratic(&boxes, &members, cutoff).iter().for_each(|&i| survives[i] = true);
            }
            let expected: Vec<usize> = order.into_iter().filter(|&i| survives[i]).collect();
            assert_eq!(batched_nms(&boxes, &scores, &classes, cutoff).unwrap(), expected);
        }
    }

    #[test]
    fn boxes_of_no_area_and_nan_boxes_survive() {
        let nan = [f32::NAN; 4];
        let boxes = [[1f32; 4], [1.; 4], nan, nan];
        assert_eq!(nms(&boxes, UNRANKED, chainercv(0.5), None).unwrap(), [0, 1, 2, 3]);
    }

    #[test]
    fn lengths_must_agree() {
        let bad = nms(&FOUR, Some(&[1.0_f32]), chainercv(0.5), None).unwrap_err().to_string();
        assert_eq!(bad, "scores: expected shape (4,), one for each box, got (1,)");
        let bad =
            batched_nms(&FOUR, &[1.0_f32; 4], &[0; 3], chainercv(0.5)).unwrap_err().to_string();
        assert!(bad.starts_with("idxs: expected"), "{bad}");
    }
}
