//! From the RPN's answer to proposals (ProposalCreator).
//!
//! ```text
//! decode every anchor, clip to the image, drop what is too small,
//! keep the `pre_nms` best by score, suppress, keep the `post_nms` best
//! ```

use rayon::prelude::*;

use crate::boxes::{self, BBox, Cutoff, Scalar};
use crate::{Error, Result};

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
pub fn proposals<T: Scalar>(
    loc: &[[T; 4]],
    scores: &[f64],
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
    let size = (T::from_f64(rule.size.0), T::from_f64(rule.size.1));
    let min_size = T::from_f64(rule.min_size);
    let large: Vec<(usize, BBox<T>)> = (0..n)
        .into_par_iter()
        .with_min_len(512)
        .map(|i| (i, boxes::clip_one(&boxes::decode_one(&anchors[i], &loc[i]), size)))
        // Written as comparisons that a NaN fails.
        .filter(|(_, b)| b[2] - b[0] >= min_size && b[3] - b[1] >= min_size)
        .collect();
    let large_scores: Vec<f64> = large.iter().map(|&(i, _)| scores[i]).collect();
    let mut order = boxes::rank(&large_scores);
    order.truncate(rule.pre_nms.unwrap_or(usize::MAX));
    let candidates: Vec<BBox<T>> = order.iter().map(|&i| large[i].1).collect();
    let kept = boxes::nms(&candidates, None::<&[f64]>, rule.cutoff, rule.post_nms)?;
    Ok(Proposals {
        boxes: kept.iter().map(|&k| candidates[k]).collect(),
        anchor: kept.iter().map(|&k| large[order[k]].0).collect(),
    })
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
    fn nan_and_overflow_do_not_get_through() {
        let mut loc = [[0f32; 4]; 5];
        loc[1] = [f32::NAN, 0., 0., 0.];
        loc[4] = [0., 0., 1000., 1000.]; // (-inf, inf) clips to the whole image
        let found = proposals(&loc, &[5., 4., 3., 2., 1.], &ANCHORS, &rule()).unwrap();
        assert_eq!(found.anchor, [0, 2, 4]);
        assert_eq!(found.boxes[2], [0., 0., 100., 100.]);
    }

    #[test]
    fn nothing_in_nothing_out_and_lengths_must_agree() {
        assert!(proposals(&[], &[], &[], &rule()).unwrap().boxes.is_empty());
        let tiny = Rule { min_size: 1000.0, ..rule() };
        assert!(proposals(&[[0.0; 4]; 5], &[0.0; 5], &ANCHORS, &tiny).unwrap().boxes.is_empty());
        let error = proposals(&[[0.0; 4]; 4], &[0.0; 5], &ANCHORS, &rule()).unwrap_err();
        assert!(error.to_string().starts_with("loc: expected shape (5, 4)"), "{error}");
        let error = proposals(&[[0.0; 4]; 5], &[0.0; 4], &ANCHORS, &rule()).unwrap_err();
        assert!(error.to_string().starts_with("score: expected shape (5,)"), "{error}");
    }
}
