//! PASCAL VOC: which detections are right, and the area under precision over recall.
//!
//! Per class and image, detections are taken by descending score; each points at the object of the
//! class it overlaps most (difficult ones included). Below the IoU threshold it is wrong; at a
//! difficult object it does not count; the first at any other object is right, later ones are wrong.
//! Boxes grow by one on both max edges before the comparison, since VOC's corners are the first and
//! last pixel.
//!
//! Equal scores keep their order (image, then row), where the original leaves it to an unstable
//! sort.

use rayon::prelude::*;

use crate::boxes::{self, BBox, Columns, Scalar, check_length};
use crate::{Error, Result};

/// Labels reserve a row for every class below them, so an absurd one is refused.
const MAX_CLASSES: i64 = 1 << 20;

/// Boxes of all images, one row each.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, T> {
    /// Corners.
    pub boxes: &'a [BBox<T>],
    /// Class, 0 or above.
    pub labels: &'a [i64],
    /// Image the box belongs to.
    pub images: &'a [i64],
}

/// How the detections of one class fared.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClassOutcome {
    /// By descending score: 1 right, 0 wrong, -1 does not count.
    pub outcome: Vec<i8>,
    /// Number of objects that are not difficult; `None` when the class has neither detections
    /// nor objects.
    pub positives: Option<usize>,
}

/// Outcomes for the classes `0..=max(label)`.
pub fn match_detections<T: Scalar>(
    detections: Rows<'_, T>,
    scores: &[f64],
    objects: Rows<'_, T>,
    difficult: &[bool],
    threshold: f64,
) -> Result<Vec<ClassOutcome>> {
    check_length("pred_labels", detections.labels.len(), detections.boxes.len())?;
    check_length("pred_images", detections.images.len(), detections.boxes.len())?;
    check_length("pred_scores", scores.len(), detections.boxes.len())?;
    check_length("gt_labels", objects.labels.len(), objects.boxes.len())?;
    check_length("gt_images", objects.images.len(), objects.boxes.len())?;
    check_length("gt_difficults", difficult.len(), objects.boxes.len())?;
    let classes =
        number_of_classes("pred_labels", detections)?.max(number_of_classes("gt_labels", objects)?);
    let order = boxes::rank(scores);
    let mut by_class: Vec<Vec<usize>> = vec![vec![]; classes];
    order.iter().for_each(|&i| by_class[detections.labels[i] as usize].push(i));
    let mut objects_by_class: Vec<Vec<usize>> = vec![vec![]; classes];
    (0..objects.boxes.len()).for_each(|i| objects_by_class[objects.labels[i] as usize].push(i));
    Ok(by_class
        .into_par_iter()
        .zip(objects_by_class)
        .map(|(members, mut targets)| {
            targets.sort_by_key(|&i| objects.images[i]);
            let seen = !members.is_empty() || !targets.is_empty();
            ClassOutcome {
                positives: seen.then(|| targets.iter().filter(|&&i| !difficult[i]).count()),
                outcome: class_outcome(
                    detections, &members, objects, &targets, difficult, threshold,
                ),
            }
        })
        .collect())
}

fn number_of_classes<T>(argument: &'static str, rows: Rows<'_, T>) -> Result<usize> {
    match rows.labels.iter().position(|l| !(0..MAX_CLASSES).contains(l)) {
        Some(row) => Err(Error::row(
            argument,
            format!("labels from 0 to {}", MAX_CLASSES - 1),
            rows.labels[row].to_string(),
            row,
        )),
        None => Ok(rows.labels.iter().max().map_or(0, |&l| l as usize + 1)),
    }
}

/// Outcomes of `members` (by descending score) against `targets` (by image), in members' order.
fn class_outcome<T: Scalar>(
    detections: Rows<'_, T>,
    members: &[usize],
    objects: Rows<'_, T>,
    targets: &[usize],
    difficult: &[bool],
    threshold: f64,
) -> Vec<i8> {
    let threshold = T::from_f64(threshold);
    let inclusive = |b: &BBox<T>| [b[0], b[1], b[2] + T::ONE, b[3] + T::ONE];
    let image_of = |&place: &usize| detections.images[members[place]];
    let mut outcome = vec![0; members.len()];
    let mut places: Vec<usize> = (0..members.len()).collect();
    places.sort_by_key(image_of); // stable: within an image still by score
    for places in places.chunk_by(|a, b| image_of(a) == image_of(b)) {
        let image = image_of(&places[0]);
        let start = targets.partition_point(|&t| objects.images[t] < image);
        let end = targets.partition_point(|&t| objects.images[t] <= image);
        let targets = &targets[start..end];
        if targets.is_empty() {
            continue; // all wrong
        }
        let candidates: Vec<_> = targets.iter().map(|&t| inclusive(&objects.boxes[t])).collect();
        let candidates = Columns::new(&candidates);
        let mut used = vec![false; targets.len()];
        for &place in places {
            let detection = inclusive(&detections.boxes[members[place]]);
            let (target, iou) = boxes::first_largest(candidates.iou_with(&detection));
            if iou < threshold {
                continue;
            }
            outcome[place] = match difficult[targets[target]] {
                true => -1,
                false => i8::from(!used[target]),
            };
            used[target] = true;
        }
    }
    outcome
}

/// Average precision of one class. NaN precisions count as 0.
///
/// `eleven_points`: mean of the best precision at recalls of at least 0, 0.1, ..., 1 (VOC 2007).
/// Otherwise the area under precision made non-increasing (VOC 2010 and later).
pub fn average_precision(precision: &[f64], recall: &[f64], eleven_points: bool) -> Result<f64> {
    if precision.len() != recall.len() {
        let expected = format!("shape ({},) as prec", precision.len());
        return Err(Error::shape("rec", expected, format!("({},)", recall.len())));
    }
    let number = |p: f64| if p.is_nan() { 0.0 } else { p };
    if eleven_points {
        // The points carry the rounding of i * 0.1, which decides whether a recall of 0.3 or 0.6
        // reaches its point.
        let best = |point: f64| {
            let reached = precision.iter().zip(recall).filter(|&(_, &r)| r >= point);
            reached.map(|(&p, _)| number(p)).fold(0.0, f64::max)
        };
        return Ok((0..11).map(|i| best(f64::from(i) * 0.1) / 11.0).sum());
    }
    let mut envelope = 0.0f64;
    let mut next_recall = 1.0;
    let mut area = 0.0;
    // From the right: (recall step to the next point) times the best precision from there on.
    for (&p, &r) in precision.iter().zip(recall).rev() {
        area += (next_recall - r) * envelope;
        envelope = envelope.max(number(p));
        next_recall = r;
    }
    Ok(area + next_recall * envelope)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example: two images, one class, one difficult object.
    fn example() -> Vec<ClassOutcome> {
        let detections: [BBox<f32>; 5] = [
            [0., 0., 9., 9.],
            [0., 0., 9., 8.],
            [20., 20., 39., 39.],
            [50., 50., 60., 60.],
            [10., 10., 19., 18.],
        ];
        let objects: [BBox<f32>; 4] =
            [[0., 0., 9., 9.], [20., 20., 39., 39.], [10., 10., 19., 19.], [60., 60., 70., 70.]];
        match_detections(
            Rows { boxes: &detections, labels: &[0; 5], images: &[0, 0, 0, 0, 1] },
            &[0.9, 0.8, 0.7, 0.6, 0.85],
            Rows { boxes: &objects, labels: &[0; 4], images: &[0, 0, 1, 1] },
            &[false, true, false, false],
            0.5,
        )
        .unwrap()
    }

    #[test]
    fn the_worked_example() {
        let classes = example();
        assert_eq!(classes.len(), 1);
        assert_eq!(classes[0].positives, Some(3));
        assert_eq!(classes[0].outcome, [1, 1, 0, -1, 0]);
        let precision = [1., 1., 2. / 3., 2. / 3., 0.5];
        let recall = [1. / 3., 2. / 3., 2. / 3., 2. / 3., 2. / 3.];
        let area = average_precision(&precision, &recall, false).unwrap();
        assert!((area - 2. / 3.).abs() < 1e-12, "{area}");
        let eleven = average_precision(&precision, &recall, true).unwrap();
        assert!((eleven - 7. / 11.).abs() < 1e-12, "{eleven}");
    }

    #[test]
    fn classes_without_detections_or_objects() {
        let one = [[0f64, 0., 9., 9.]];
        let classes = match_detections(
            Rows { boxes: &one, labels: &[3], images: &[0] },
            &[0.5],
            Rows { boxes: &one, labels: &[1], images: &[0] },
            &[true],
            0.5,
        )
        .unwrap();
        let positives: Vec<_> = classes.iter().map(|c| c.positives).collect();
        assert_eq!(positives, [None, Some(0), None, Some(0)]);
        assert_eq!(classes[3].outcome, [0]);
        assert_eq!(average_precision(&[], &[], false).unwrap(), 0.0);
        assert_eq!(average_precision(&[], &[], true).unwrap(), 0.0);
    }

    #[test]
    fn rounding_of_the_eleven_points_counts() {
        // 3 * 0.1 lies above 0.3: a recall of 0.3 reaches 0, 0.1 and 0.2 only.
        let ap = average_precision(&[1.0], &[0.3], true).unwrap();
        assert!((ap - 3.0 / 11.0).abs() < 1e-12, "{ap}");
    }

    #[test]
    fn nan_precision_counts_as_nothing() {
        let (precision, recall) = ([f64::NAN, 0.5], [0.0, 1.0]);
        assert_eq!(average_precision(&precision, &recall, false).unwrap(), 0.5);
        let negative = match_detections::<f32>(
            Rows { boxes: &[[0.; 4]], labels: &[-1], images: &[0] },
            &[0.5],
            Rows { boxes: &[], labels: &[], images: &[] },
            &[],
            0.5,
        );
        assert!(negative.unwrap_err().to_string().starts_with("pred_labels: expected labels"));
    }
}
