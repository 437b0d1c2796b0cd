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

use super::matching::{Apart, Matching};
use crate::boxes::{BBox, Scalar, check_ground_truth, encode_one};
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
    /// Anchors labelled 1, ascending.
    pub positive: Vec<usize>,
    /// Anchors labelled 0, ascending.
    pub negative: Vec<usize>,
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
    let inside = inside_image(anchors, rule.size);
    let mut targets = Targets {
        loc: vec![[T::ZERO; 4]; anchors.len()],
        label: vec![-1; anchors.len()],
        positive: vec![],
        negative: Vec::with_capacity(inside.len()),
    };
    if objects.is_empty() {
        inside.iter().for_each(|&i| targets.label[i] = 0);
        targets.negative = inside;
        return Ok(targets);
    }
    let matching = Matching::new(inside.len(), |i| anchors[inside[i]], objects, Apart::Masked)?;
    let mut own_best = vec![false; inside.len()];
    let counts = |best: T| rule.unreached || best > T::ZERO;
    matching.mark_best_of_objects(counts, |i| own_best[i] = true);
    let (positive, negative) = (T::from_f64(rule.positive), T::from_f64(rule.negative));
    for ((&i, own_best), (object, iou)) in inside.iter().zip(own_best).zip(matching.of_boxes()) {
        targets.loc[i] = encode_one(&anchors[i], &objects[object]);
        if iou >= positive || own_best {
            targets.label[i] = 1;
            targets.positive.push(i);
        } else if iou < negative {
            targets.label[i] = 0;
            targets.negative.push(i);
        }
    }
    Ok(targets)
}

/// Indices of the boxes that do not leave the image; those with a NaN are not among them.
fn inside_image<T: Scalar>(boxes: &[BBox<T>], size: (f64, f64)) -> Vec<usize> {
    let (height, width) = (T::from_f64(size.0), T::from_f64(size.1));
    let mut inside = vec![0; boxes.len()];
    let mut count = 0;
    for (i, b) in boxes.iter().enumerate() {
        // Which anchors stay inside follows no pattern that a processor could foresee, so every
        // index is written, and the next one over it where it does not belong.
        inside[count] = i;
        let is_inside = (b[0] >= T::ZERO) & (b[1] >= T::ZERO) & (b[2] <= height) & (b[3] <= width);
        count += usize::from(is_inside);
    }
    inside.truncate(count);
    inside
}

#[cfg(test)]
mod tests {
    use super::super::anchors::{Axes, anchor_base, shifted_anchors};
    use super::*;

    const RULE: Rule = Rule { size: (600., 800.), positive: 0.7, negative: 0.3, unreached: true };

    fn paper_anchors() -> Vec<BBox<f32>> {
        let base = anchor_base(16.0, &[0.5, 1.0, 2.0], &[8.0, 16.0, 32.0]).unwrap();
        let base: Vec<BBox<f64>> = base.iter().map(|b| b.map(f64::from)).collect();
        shifted_anchors(&base, (16.0, 16.0), (37, 50), Axes::YX).unwrap()
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
        assert_eq!((targets.positive, targets.negative), (vec![0, 1, 5], vec![3]));
        assert_eq!(targets.loc[0], [0.0; 4]);
        assert_eq!(targets.loc[4], [0.0; 4]);
        assert_eq!(targets.loc[5], encode_one(&anchors[5], &objects[1]));
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
