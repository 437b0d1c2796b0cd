//! What the RPN should say about each anchor (AnchorTargetCreator, without its sampling).
//!
//! Only anchors that lie inside the image take part. Of those
//!
//! ```text
//! background   best IoU with any object below `negative`
//! object       best IoU of at least `positive`, or an object's own best anchor (all of them on
//!              a tie), so that every object has one
//! ignored      everything else
//! ```
//!
//! and the target offset leads to the object of the highest IoU. One trap of the original is kept,
//! because trained models contain it: an object that overlaps no inside anchor has best IoU 0, and
//! every anchor that does not touch it equals that best. [`Rule::unreached`] turns it off.

use rayon::prelude::*;

use crate::boxes::{self, BBox, Scalar, check_ground_truth};
use crate::{Error, Result};

/// Thresholds and image size.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Height and width of the image.
    pub size: (f64, f64),
    /// Best IoU that makes an anchor an object.
    pub positive: f64,
    /// Best IoU below which an anchor is background.
    pub negative: f64,
    /// Whether an object that overlaps no inside anchor makes objects of those it does not touch.
    pub unreached: bool,
}

/// Candidates, one row for each anchor.
#[derive(Debug, Clone, PartialEq)]
pub struct Targets<T> {
    /// Offset to the best object; 0 outside the image and where there are no objects.
    pub loc: Vec<[T; 4]>,
    /// 1 object, 0 background, -1 ignored.
    pub label: Vec<i32>,
}

/// Labels and offsets of all anchors. Without objects every inside anchor is background.
pub fn anchor_targets<T: Scalar>(
    anchors: &[BBox<T>],
    objects: &[BBox<T>],
    rule: &Rule,
) -> Result<Targets<T>> {
    if rule.size.0.is_nan() || rule.size.1.is_nan() {
        return Err(Error::value("img_size", "two numbers", format!("{:?}", rule.size)));
    }
    check_ground_truth(objects, "bbox")?;
    let (height, width) = (T::from_f64(rule.size.0), T::from_f64(rule.size.1));
    let is_inside =
        |a: &BBox<T>| a[0] >= T::ZERO && a[1] >= T::ZERO && a[2] <= height && a[3] <= width;
    let inside: Vec<usize> = (0..anchors.len()).filter(|&i| is_inside(&anchors[i])).collect();
    let mut targets =
        Targets { loc: vec![[T::ZERO; 4]; anchors.len()], label: vec![-1; anchors.len()] };
    if objects.is_empty() {
        inside.iter().for_each(|&i| targets.label[i] = 0);
        return Ok(targets);
    }
    let boxes: Vec<BBox<T>> = inside.iter().map(|&i| anchors[i]).collect();
    let iou = boxes::iou_matrix(&boxes, objects)?;
    let best = best_of_each_object(&iou, objects.len());
    let counts = |best: T| rule.unreached || best > T::ZERO;
    let (positive, negative) = (T::from_f64(rule.positive), T::from_f64(rule.negative));
    let candidates: Vec<([T; 4], i32)> = boxes
        .par_iter()
        .zip(iou.par_chunks_exact(objects.len()))
        .with_min_len(256)
        .map(|(anchor, row)| {
            let (object, max) = boxes::first_largest(row.iter().copied());
            let own_best = row.iter().zip(&best).any(|(&iou, &best)| iou == best && counts(best));
            let label = match max >= positive || own_best {
                true => 1,
                false if max < negative => 0,
                false => -1,
            };
            (boxes::encode_one(anchor, &objects[object]), label)
        })
        .collect();
    for (&i, (loc, label)) in inside.iter().zip(candidates) {
        (targets.loc[i], targets.label[i]) = (loc, label);
    }
    Ok(targets)
}

/// Largest IoU in every column.
fn best_of_each_object<T: Scalar>(iou: &[T], objects: usize) -> Vec<T> {
    let mut rows = iou.chunks_exact(objects);
    let mut best = rows.next().map_or(vec![T::ZERO; objects], <[T]>::to_vec);
    for row in rows {
        best.iter_mut().zip(row).for_each(|(best, &iou)| *best = best.maximum(iou));
    }
    best
}

#[cfg(test)]
mod tests {
    use super::super::anchors::{anchor_base, shifted_anchors};
    use super::*;

    const RULE: Rule = Rule { size: (600., 800.), positive: 0.7, negative: 0.3, unreached: true };

    fn paper_anchors() -> Vec<BBox<f32>> {
        let base = anchor_base(16.0, &[0.5, 1.0, 2.0], &[8.0, 16.0, 32.0]).unwrap();
        let base: Vec<BBox<f64>> = base.iter().map(|b| b.map(f64::from)).collect();
        shifted_anchors(&base, 16.0, 37, 50).unwrap()
    }

    fn count(targets: &Targets<f32>, label: i32) -> usize {
        targets.label.iter().filter(|&&l| l == label).count()
    }

    #[test]
    fn without_objects_the_inside_anchors_are_background() {
        let targets = anchor_targets(&paper_anchors(), &[], &RULE).unwrap();
        assert_eq!((count(&targets, 0), count(&targets, 1)), (5834, 0));
        assert!(targets.loc.iter().all(|loc| *loc == [0.0; 4]));
        let nothing = anchor_targets::<f32>(&[], &[[0., 0., 1., 1.]], &RULE).unwrap();
        assert!(nothing.label.is_empty());
    }

    #[test]
    fn an_unreached_object_makes_every_anchor_an_object_unless_told_otherwise() {
        let objects = [[0f32, 0., 4., 4.], [100., 200., 300., 450.]];
        let targets = anchor_targets(&paper_anchors(), &objects, &RULE).unwrap();
        assert_eq!((count(&targets, 0), count(&targets, 1)), (0, 5834));
        let rule = Rule { unreached: false, ..RULE };
        let targets = anchor_targets(&paper_anchors(), &objects, &rule).unwrap();
        let alone = anchor_targets(&paper_anchors(), &objects[1..], &rule).unwrap();
        assert!(targets.label == alone.label);
        assert!(count(&alone, 1) > 0 && count(&alone, 0) > 5000);
    }

    #[test]
    fn labels_follow_thresholds_and_ties() {
        let anchors: [BBox<f32>; 6] = [
            [0., 0., 10., 10.], // the object itself
            [0., 0., 10., 10.], // once more: both are its best
            [0., 0., 10., 20.], // IoU 0.5: ignored
            [20., 20., 30., 30.],
            [-1., 0., 10., 10.], // outside
            [20., 40., 30., 52.],
        ];
        let objects = [[0f32, 0., 10., 10.], [20., 40., 30., 80.]];
        let rule = Rule { size: (30., 100.), ..RULE };
        let targets = anchor_targets(&anchors, &objects, &rule).unwrap();
        assert_eq!(targets.label, [1, 1, -1, 0, -1, 1], "the last is forced at IoU 0.3");
        assert_eq!(targets.loc[0], [0.0; 4]);
        assert_eq!(targets.loc[4], [0.0; 4]);
        assert_eq!(targets.loc[5], boxes::encode_one(&anchors[5], &objects[1]));
    }

    #[test]
    fn a_bad_object_is_named() {
        let objects = [[0f32, 0., 4., 4.], [5., 5., 5., 9.]];
        let error = anchor_targets(&paper_anchors(), &objects, &RULE).unwrap_err();
        assert!(matches!(error, Error::Row { argument: "bbox", row: 1, .. }), "{error}");
        let objects = [[0f32, 0., f32::NAN, 4.]];
        assert!(anchor_targets(&paper_anchors(), &objects, &RULE).is_err());
    }
}
