//! From the RPN's answer to proposals (ProposalCreator).
//!
//! ```text
//! decode every anchor, clip to the image, drop what is too small,
//! keep the `pre_nms` best by score, suppress, keep the `post_nms` best
//! ```
//!
//! That is what comes out, not what is done. Suppression takes boxes by descending score and is over
//! when `post_nms` are kept, mostly long before it has seen them all. So boxes are ranked first and
//! decoded in their order, a few times `post_nms` of them; only if that was not enough, more. Whether
//! a box is kept depends on better ones alone, so the result is the same.

use crate::boxes::{self, BBox, Cutoff, Scalar, Score};
use crate::{Error, Result};

/// Boxes to suppress at first, for each that is to be kept.
const FIRST: usize = 4;
/// By how much that grows where it was not enough.
const GROWTH: usize = 3;

/// Limits and image size.
#[derive(Debug, Clone, Copy)]
pub struct Rule<T> {
    /// Height and width of the image.
    pub size: (f64, f64),
    /// Smallest side a proposal may have.
    pub min_size: f64,
    /// How many boxes enter suppression; `None` for all.
    pub pre_nms: Option<usize>,
    /// How many boxes come out; `None` for all.
    pub post_nms: Option<usize>,
    /// What counts as an overlap.
    pub cutoff: Cutoff<T>,
}

/// Proposed boxes by descending score.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposals<T> {
    /// The boxes, clipped to the image.
    pub boxes: Vec<BBox<T>>,
    /// The anchor each came from.
    pub anchor: Vec<usize>,
}

/// Proposals from one offset and one score for each anchor.
pub fn proposals<T: Scalar, S: Score>(
    loc: &[[T; 4]],
    scores: &[S],
    anchors: &[BBox<T>],
    rule: &Rule<T>,
) -> Result<Proposals<T>> {
    let n = anchors.len();
    if loc.len() != n {
        let expected = format!("shape ({n}, 4), one row for each anchor");
        return Err(Error::shape("loc", expected, format!("({}, 4)", loc.len())));
    }
    if scores.len() != n {
        let expected = format!("shape ({n},), one for each anchor");
        return Err(Error::shape("score", expected, format!("({},)", scores.len())));
    }
    let most = rule.pre_nms.unwrap_or(n).min(n);
    // All of them at once if that is not much more.
    let enough = |goal: usize| if goal.saturating_mul(2) > most { most } else { goal };
    let mut goal = rule.post_nms.map_or(most, |post| enough(post.saturating_mul(FIRST)));
    let order = boxes::rank(scores);
    let mut ranked = order.iter().copied();
    let mut candidates = Candidates { boxes: vec![], anchor: vec![] };
    loop {
        candidates.fill(goal, &mut ranked, loc, anchors, rule);
        let kept = boxes::nms(&candidates.boxes, None::<&[S]>, rule.cutoff, rule.post_nms)?;
        let is_last = goal == most || candidates.boxes.len() < goal;
        if is_last || rule.post_nms.is_some_and(|post| kept.len() == post) {
            return Ok(Proposals {
                boxes: kept.iter().map(|&k| candidates.boxes[k]).collect(),
                anchor: kept.iter().map(|&k| candidates.anchor[k]).collect(),
            });
        }
        goal = enough(goal.saturating_mul(GROWTH));
    }
}

/// The best boxes that are large enough, by descending score.
struct Candidates<T> {
    boxes: Vec<BBox<T>>,
    anchor: Vec<usize>,
}

impl<T: Scalar> Candidates<T> {
    /// Takes the next boxes of the ranking until there are `goal` or it ends.
    fn fill(
        &mut self,
        goal: usize,
        ranked: &mut impl Iterator<Item = usize>,
        loc: &[[T; 4]],
        anchors: &[BBox<T>],
        rule: &Rule<T>,
    ) {
        let size = (T::from_f64(rule.size.0), T::from_f64(rule.size.1));
        let min_size = T::from_f64(rule.min_size);
        while self.boxes.len() < goal {
            let Some(i) = ranked.next() else { return };
            let b = boxes::clip_one(&boxes::decode_one(&anchors[i], &loc[i]), size);
            // Written as comparisons that a NaN fails.
            if b[2] - b[0] >= min_size && b[3] - b[1] >= min_size {
                self.boxes.push(b);
                self.anchor.push(i);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Rule<f32> {
        Rule {
            size: (100., 100.),
            min_size: 8.0,
            pre_nms: None,
            post_nms: None,
            cutoff: Cutoff::new(0.7, true, true),
        }
    }

    const ANCHORS: [BBox<f32>; 5] = [
        [0., 0., 20., 20.],
        [1., 0., 20., 20.],    // overlaps the first by 0.95
        [-50., 40., 30., 60.], // clipped to 30 x 20
        [40., 95., 80., 120.], // 5 wide after clipping: too small
        [60., 60., 90., 90.],
    ];

    #[test]
    fn boxes_are_clipped_filtered_ranked_and_suppressed() {
        let scores = [0.1, 0.9, 0.5, 1.0, 0.7];
        let found = proposals(&[[0.0; 4]; 5], &scores, &ANCHORS, &rule()).unwrap();
        assert_eq!(found.anchor, [1, 4, 2]);
        assert_eq!(found.boxes[2], [0., 40., 30., 60.]);
        let limited = Rule { pre_nms: Some(2), ..rule() };
        let found = proposals(&[[0.0; 4]; 5], &scores, &ANCHORS, &limited).unwrap();
        assert_eq!(found.anchor, [1, 4]);
        let limited = Rule { post_nms: Some(1), ..rule() };
        let found = proposals(&[[0.0; 4]; 5], &scores, &ANCHORS, &limited).unwrap();
        assert_eq!(found.anchor, [1]);
    }

    #[test]
    fn stopping_early_changes_nothing() {
        // Boxes in heaps, so that many are suppressed and one helping of candidates is not enough.
        let anchors: Vec<BBox<f32>> = (0..3000)
            .map(|i| {
                let (y, x) = ((i * 37 % 8 * 12) as f32, (i * 53 % 7 * 13) as f32);
                let jitter = (i % 11) as f32 / 8.0;
                [y + jitter, x, y + 12.0, x + 12.0 - jitter]
            })
            .collect();
        let loc = vec![[0.0f32; 4]; anchors.len()];
        let scores: Vec<f32> = (0..3000).map(|i| (i * 7919 % 3001 / 4) as f32).collect();
        let wide: Vec<f64> = scores.iter().map(|&s| f64::from(s)).collect();
        for pre_nms in [None, Some(0), Some(1), Some(40), Some(700), Some(9999)] {
            let all = Rule { pre_nms, ..rule() };
            let all = proposals(&loc, &scores, &anchors, &all).unwrap();
            for post in [0, 1, 2, 5, 30, 50, 56, 3000] {
                let limited = Rule { pre_nms, post_nms: Some(post), ..rule() };
                let found = proposals(&loc, &wide, &anchors, &limited).unwrap();
                let count = post.min(all.anchor.len());
                assert_eq!(found.anchor, all.anchor[..count], "{pre_nms:?} {post}");
                assert_eq!(found.boxes, all.boxes[..count], "{pre_nms:?} {post}");
            }
        }
    }

    #[test]
    fn nan_and_overflow_do_not_get_through() {
        let mut loc = [[0f32; 4]; 5];
        loc[1] = [f32::NAN, 0., 0., 0.];
        loc[4] = [0., 0., 1000., 1000.]; // (-inf, inf) clips to the whole image
        let found = proposals(&loc, &[5f32, 4., 3., 2., 1.], &ANCHORS, &rule()).unwrap();
        assert_eq!(found.anchor, [0, 2, 4]);
        assert_eq!(found.boxes[2], [0., 0., 100., 100.]);
    }

    #[test]
    fn nothing_in_nothing_out_and_lengths_must_agree() {
        assert!(proposals::<f32, f32>(&[], &[], &[], &rule()).unwrap().boxes.is_empty());
        let tiny = Rule { min_size: 1000.0, ..rule() };
        assert!(proposals(&[[0.0; 4]; 5], &[0.0; 5], &ANCHORS, &tiny).unwrap().boxes.is_empty());
        let error = proposals(&[[0.0; 4]; 4], &[0.0; 5], &ANCHORS, &rule()).unwrap_err();
        assert!(error.to_string().starts_with("loc: expected shape (5, 4)"), "{error}");
        let error = proposals(&[[0.0; 4]; 5], &[0.0; 4], &ANCHORS, &rule()).unwrap_err();
        assert!(error.to_string().starts_with("score: expected shape (5,)"), "{error}");
    }
}
