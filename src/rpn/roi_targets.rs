//! What the head should say about each proposal (ProposalTargetCreator, without its sampling).

use super::matching::{Apart, Matching};
use crate::Result;
use crate::boxes::{BBox, Scalar, check_ground_truth};

/// IoU thresholds.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Best IoU that makes a proposal an object.
    pub positive: f64,
    /// Background proposals have a best IoU below this,
    pub negative_hi: f64,
    /// and of at least this.
    pub negative_lo: f64,
}

/// Candidates among the proposals.
#[derive(Debug, Clone, PartialEq)]
pub struct Targets {
    /// Index of the object of the highest IoU, for every proposal; 0 without objects.
    pub assignment: Vec<usize>,
    /// Proposals that may be sampled as objects, ascending.
    pub positive: Vec<usize>,
    /// Proposals that may be sampled as background, ascending.
    pub negative: Vec<usize>,
}

/// Assigns an object to every proposal. Without objects every proposal is background.
pub fn roi_targets<T: Scalar>(
    rois: &[BBox<T>],
    objects: &[BBox<T>],
    rule: &Rule,
) -> Result<Targets> {
    check_ground_truth(objects, "bbox")?;
    let n = rois.len();
    if objects.is_empty() {
        return Ok(Targets {
            assignment: vec![0; n],
            positive: vec![],
            negative: (0..n).collect(),
        });
    }
    let (hi, lo) = (T::from_f64(rule.negative_hi), T::from_f64(rule.negative_lo));
    let positive = T::from_f64(rule.positive);
    let mut targets = Targets {
        assignment: Vec::with_capacity(n),
        positive: vec![],
        negative: Vec::with_capacity(n),
    };
    let matching = Matching::new(n, |i| rois[i], objects, Apart::Masked)?;
    for (i, (object, iou)) in matching.of_boxes().enumerate() {
        targets.assignment.push(object);
        if iou >= positive {
            targets.positive.push(i);
        }
        if iou < hi && iou >= lo {
            targets.negative.push(i);
        }
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { positive: 0.5, negative_hi: 0.5, negative_lo: 0.1 };

    #[test]
    fn proposals_are_sorted_by_their_best_iou() {
        let rois: [BBox<f32>; 5] = [
            [0., 0., 10., 10.],
            [0., 0., 10., 5.],    // exactly 0.5
            [0., 0., 10., 1.],    // exactly f32(0.1)
            [50., 50., 60., 60.], // nothing
            [0., f32::NAN, 1., 1.],
        ];
        let objects = [[90f32, 90., 99., 99.], [0., 0., 10., 10.]];
        let targets = roi_targets(&rois, &objects, &RULE).unwrap();
        assert_eq!(targets.assignment, [1, 1, 1, 0, 0]);
        assert_eq!(targets.positive, [0, 1]);
        assert_eq!(targets.negative, [2]);
    }

    #[test]
    fn without_objects_all_is_background_and_bad_objects_are_named() {
        let targets = roi_targets(&[[0f32, 0., 1., 1.]; 3], &[], &RULE).unwrap();
        assert_eq!((targets.positive, targets.negative), (vec![], vec![0, 1, 2]));
        let error = roi_targets::<f64>(&[], &[[3., 0., 2., 1.]], &RULE).unwrap_err();
        assert_eq!(
            error.to_string(),
            "bbox: expected finite boxes with min < max on both axes, \
             got [3.0, 0.0, 2.0, 1.0] in row 0"
        );
    }
}
