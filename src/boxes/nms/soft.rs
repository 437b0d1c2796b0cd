//! Suppression that lowers scores instead of dropping boxes: Soft-NMS and Matrix NMS.

use std::ops::Range;

use super::rank::{by_class, rank};
use super::{check_length, overlap};
use crate::boxes::BBox;
use crate::{Error, Result, parallel};

/// Pairs of boxes worth waking another thread for.
const MANY_PAIRS: usize = 1 << 14;
/// Boxes of one task of the matrix.
const CHUNK: usize = 16;

/// What an overlap does to the score below it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decay {
    /// Times `1 - iou`, where the IoU is above `threshold`.
    Linear {
        /// Overlap without effect.
        threshold: f64,
    },
    /// Times `exp(-iou^2 / sigma)`.
    Gaussian {
        /// Width of the bell.
        sigma: f64,
    },
}

impl Decay {
    fn factor(self, iou: f64) -> f64 {
        match self {
            Decay::Linear { threshold } if iou > threshold => 1.0 - iou,
            Decay::Gaussian { sigma } if iou > 0.0 => (-iou * iou / sigma).exp(),
            // No overlap, or NaN.
            _ => 1.0,
        }
    }
}

/// Boxes and their lowered scores, by descending lowered score.
#[derive(Debug, Clone, PartialEq)]
pub struct Rescored {
    /// Index of each box.
    pub index: Vec<usize>,
    /// Its new score.
    pub score: Vec<f64>,
}

/// Soft-NMS (Bodla et al., 2017): again and again the box of the highest score is taken out, and
/// its overlap with those left lowers theirs. Ends when no score is above `floor`; a NaN score
/// never is. Equal scores go by index.
pub fn soft_nms(boxes: &[BBox<f64>], scores: &[f64], decay: Decay, floor: f64) -> Result<Rescored> {
    check_length("scores", scores.len(), boxes.len())?;
    let mut left: Vec<(usize, f64)> =
        scores.iter().copied().enumerate().filter(|&(_, score)| score > floor).collect();
    let mut taken = Rescored { index: vec![], score: vec![] };
    while let Some(best) = highest(&left) {
        let (index, score) = left.swap_remove(best);
        taken.index.push(index);
        taken.score.push(score);
        left.retain_mut(|(i, score)| {
            let factor = decay.factor(overlap(&boxes[index], &boxes[*i]));
            *score *= factor;
            *score > floor
        });
    }
    Ok(taken)
}

fn highest(left: &[(usize, f64)]) -> Option<usize> {
    let before = |a: (usize, f64), b: (usize, f64)| a.1 > b.1 || (a.1 == b.1 && a.0 < b.0);
    (0..left.len()).reduce(|best, next| if before(left[next], left[best]) { next } else { best })
}

/// Matrix NMS (Wang et al., SOLOv2, 2020) on boxes: every score is lowered at once by the worst of
/// the overlaps with higher scores of its class,
///
/// ```text
/// decay_j = min over i above j of f(iou_ij) / f(max over k above i of iou_ki)
/// ```
///
/// The divisor makes up for box i having been lowered itself; where it is 0, i stands for nothing
/// and is passed over. An IoU that is NaN counts as none.
pub fn matrix_nms(
    boxes: &[BBox<f64>],
    scores: &[f64],
    classes: &[i64],
    decay: Decay,
    floor: f64,
) -> Result<Rescored> {
    check_length("scores", scores.len(), boxes.len())?;
    check_length("idxs", classes.len(), boxes.len())?;
    if let Some(row) = scores.iter().position(|s| s.is_nan()) {
        return Err(Error::row("scores", "numbers", "NaN", row));
    }
    let order = rank(scores);
    let ranked: Vec<i64> = order.iter().map(|&i| classes[i]).collect();
    let (ranks, groups) = by_class(&ranked);
    let members: Vec<BBox<f64>> = ranks.iter().map(|&rank| boxes[order[rank]]).collect();
    // Those above member j are the members of its class before it.
    let mut above: Vec<Range<usize>> = Vec::with_capacity(members.len());
    groups.iter().for_each(|group| above.extend(group.clone().map(|j| group.start..j)));
    let ious = |j: usize| above[j].clone().map(move |i| (i, j));

    let compute = || {
        let mut divisors = vec![1.0; members.len()];
        parallel::for_each_chunk(&mut divisors, CHUNK, |chunk, divisors| {
            for (offset, divisor) in divisors.iter_mut().enumerate() {
                let pairs = ious(chunk * CHUNK + offset);
                let iou = pairs.map(|(i, j)| overlap(&members[i], &members[j])).fold(0.0, f64::max);
                *divisor = decay.factor(iou);
            }
        });
        let mut factors = vec![1.0; members.len()];
        parallel::for_each_chunk(&mut factors, CHUNK, |chunk, factors| {
            for (offset, factor) in factors.iter_mut().enumerate() {
                let pairs = ious(chunk * CHUNK + offset).filter(|&(i, _)| divisors[i] > 0.0);
                let decays = pairs
                    .map(|(i, j)| decay.factor(overlap(&members[i], &members[j])) / divisors[i]);
                *factor = decays.fold(1.0, f64::min);
            }
        });
        factors
    };
    let pairs: usize = above.iter().map(Range::len).sum();
    let factors = if pairs < MANY_PAIRS { compute() } else { parallel::lead(compute)? };

    let mut lowered = vec![0.0; boxes.len()];
    for (&rank, factor) in ranks.iter().zip(factors) {
        lowered[order[rank]] = scores[order[rank]] * factor;
    }
    let mut index = rank(&lowered);
    index.retain(|&i| lowered[i] > floor);
    let score = index.iter().map(|&i| lowered[i]).collect();
    Ok(Rescored { index, score })
}

#[cfg(test)]
mod tests {
    use super::*;

    // IoU of the first two 1/3, of the last two 1/3, of the outer two 0.
    const THREE: [BBox<f64>; 3] = [[0., 0., 4., 4.], [0., 2., 4., 6.], [0., 4., 4., 8.]];

    fn assert_close(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        got.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-12, "{a} {b}"));
    }

    #[test]
    fn scores_fall_with_the_overlap() {
        let linear = Decay::Linear { threshold: 0.3 };
        let found = soft_nms(&THREE, &[0.9, 0.8, 0.7], linear, 0.0).unwrap();
        // 0.8 falls to 0.8 * 2/3 below 0.7, which then lowers it once more.
        assert_eq!(found.index, [0, 2, 1]);
        assert_close(&found.score, &[0.9, 0.7, 0.8 * 4.0 / 9.0]);
        let found = soft_nms(&THREE, &[0.9, 0.8, 0.7], linear, 0.5).unwrap();
        assert_eq!(found.index, [0, 2]);
        let none = Decay::Linear { threshold: 0.5 };
        let found = soft_nms(&THREE, &[0.7, 0.7, f64::NAN], none, 0.0).unwrap();
        assert_eq!(found, Rescored { index: vec![0, 1], score: vec![0.7, 0.7] });
    }

    #[test]
    fn the_matrix_makes_up_for_what_was_lowered_itself() {
        let gaussian = Decay::Gaussian { sigma: 0.5 };
        let f = (-1.0_f64 / 9.0 / 0.5).exp();
        let scores = [0.9, 0.8, 0.7];
        let found = matrix_nms(&THREE, &scores, &[0; 3], gaussian, 0.0).unwrap();
        // The third loses nothing: f / f from the second, 1 from the first.
        assert_eq!(found.index, [0, 2, 1]);
        assert_close(&found.score, &[0.9, 0.7, 0.8 * f]);
        let apart = matrix_nms(&THREE, &scores, &[0, 1, 2], gaussian, 0.75).unwrap();
        assert_eq!(apart, Rescored { index: vec![0, 1], score: vec![0.9, 0.8] });
    }

    #[test]
    fn copies_vanish_and_stand_for_nothing() {
        let linear = Decay::Linear { threshold: 0.0 };
        let copies = [THREE[0], THREE[0], THREE[0], THREE[1]];
        let found = matrix_nms(&copies, &[0.9, 0.8, 0.7, 0.6], &[5; 4], linear, 0.0).unwrap();
        assert_eq!(found.index, [0, 3]);
        assert_close(&found.score, &[0.9, 0.4]);
        let error = matrix_nms(&copies, &[0.9, f64::NAN, 0.7, 0.6], &[5; 4], linear, 0.0);
        assert_eq!(error.unwrap_err().to_string(), "scores: expected numbers, got NaN in row 1");
    }
}
