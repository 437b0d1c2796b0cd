//! PASCAL VOC: which detections are right, and the area under precision over recall.
//!
//! Per class and image, detections are taken by descending score; each points at the object of the
//! class it overlaps most (difficult ones included). Below the IoU threshold it is wrong; at a
//! difficult object it does not count; the first at any other object is right, later ones are wrong.
//! Boxes grow by one on both max edges before the comparison, since VOC's corners are the first and
//! last pixel.
//!
//! Which object a detection points at does not depend on other detections. So that is found image
//! by image, and then one walk down the scores of a class, all its images together, settles who
//! came first.
//!
//! Equal scores keep their order (image, then row), where the original leaves it to an unstable
//! sort. NaN scores come first.

use super::rows::{Nan, by_score, for_each_image, map_tasks};
use crate::boxes::{BBox, Scalar, check_length};
use crate::evaluation::Rows;
use crate::{Error, Result, parallel};

/// Detections for which a second thread is worth waking: some 50 microseconds of work.
const FEW_DETECTIONS: usize = 500;

/// A detection that points at no object.
const NOWHERE: u32 = u32::MAX;

/// How the detections of one class fared.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClassOutcome {
    /// By descending score: 1 right, 0 wrong, -1 does not count.
    pub outcome: Vec<i8>,
    /// Number of objects that are not difficult; `None` when the class has neither detections
    /// nor objects.
    pub positives: Option<usize>,
}

impl ClassOutcome {
    /// Precision and recall after each detection; without positives recall is NaN.
    fn curves(&self) -> (Vec<f64>, Vec<f64>) {
        let positives = self.positives.unwrap_or(0) as f64;
        let (mut right, mut wrong) = (0.0, 0.0);
        let point = |&outcome: &i8| {
            right += f64::from(u8::from(outcome == 1));
            wrong += f64::from(u8::from(outcome == 0));
            (right / (right + wrong), right / positives)
        };
        self.outcome.iter().map(point).unzip()
    }

    /// As [`average_precision`], NaN for a class without objects that count.
    fn average_precision(&self, eleven_points: bool) -> Result<f64> {
        if self.positives.unwrap_or(0) == 0 {
            return Ok(f64::NAN);
        }
        let (precision, recall) = self.curves();
        average_precision(&precision, &recall, eleven_points)
    }
}

/// Detections and objects of all images. Boxes are corners, minima first.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a, T> {
    /// Boxes, classes, images.
    pub detections: Rows<'a, T>,
    /// The higher the surer.
    pub scores: &'a [f64],
    /// Boxes, classes, images.
    pub objects: Rows<'a, T>,
    /// Whether an object counts neither for nor against.
    pub difficult: &'a [bool],
    /// IoU of a right detection.
    pub threshold: f64,
}

impl<T: Scalar> Problem<'_, T> {
    /// Outcomes for the classes `0..=max(label)`.
    pub fn outcomes(&self) -> Result<Vec<ClassOutcome>> {
        self.for_classes(|outcome| outcome)
    }

    /// Average precision of the classes `0..=max(label)`, NaN for those without objects that count.
    pub fn average_precisions(&self, eleven_points: bool) -> Result<Vec<f64>> {
        let average = |outcome: ClassOutcome| outcome.average_precision(eleven_points);
        self.for_classes(|outcome| Some(average(outcome)))?.into_iter().flatten().collect()
    }

    /// What `then` makes of the outcome of every class.
    fn for_classes<R: Default + Send>(
        &self,
        then: impl Fn(ClassOutcome) -> R + Sync,
    ) -> Result<Vec<R>> {
        let Problem { detections, objects, .. } = self;
        let classes = detections
            .check(["pred_labels", "pred_images"])?
            .max(objects.check(["gt_labels", "gt_images"])?);
        check_length("pred_scores", self.scores.len(), detections.boxes.len())?;
        check_length("gt_difficults", self.difficult.len(), objects.boxes.len())?;
        let (members, targets) = (detections.by_class(classes), objects.by_class(classes));
        let class = |class: usize| then(self.outcome(members.class(class), targets.class(class)));
        match detections.boxes.len() < FEW_DETECTIONS {
            true => Ok((0..classes).map(class).collect()),
            false => parallel::lead(|| map_tasks(classes, class)),
        }
    }

    /// Outcome of one class: its detections are `members`, its objects `targets`, both by image.
    fn outcome(&self, members: &[u32], targets: &[u32]) -> ClassOutcome {
        if members.is_empty() && targets.is_empty() {
            return ClassOutcome::default();
        }
        let Problem { detections, objects, .. } = self;
        let threshold = T::from_f64(self.threshold);
        let mut pointed = vec![NOWHERE; members.len()];
        let boxes: Vec<_> =
            targets.iter().map(|&target| Extended::new(&objects.boxes[target as usize])).collect();
        for_each_image(members, detections.images, targets, objects.images, |here, there| {
            for place in here {
                let detection = Extended::new(&detections.boxes[members[place] as usize]);
                if let Some(target) = detection.match_among(&boxes[there.clone()], threshold) {
                    pointed[place] = (there.start + target) as u32;
                }
            }
        });
        let difficult: Vec<bool> = targets.iter().map(|&t| self.difficult[t as usize]).collect();
        let mut used = vec![false; targets.len()];
        let fate = |place: usize| match pointed[place] {
            NOWHERE => 0,
            target if difficult[target as usize] => -1,
            target => i8::from(!std::mem::replace(&mut used[target as usize], true)),
        };
        let scores = members.iter().map(|&member| self.scores[member as usize]);
        ClassOutcome {
            outcome: by_score(scores, Nan::First).map(fate).collect(),
            positives: Some(difficult.iter().filter(|&&difficult| !difficult).count()),
        }
    }
}

/// A box with one added to its maxima, and its area.
struct Extended<T> {
    corners: BBox<T>,
    area: T,
}

impl<T: Scalar> Extended<T> {
    #[inline]
    fn new(b: &BBox<T>) -> Self {
        let corners = [b[0], b[1], b[2] + T::ONE, b[3] + T::ONE];
        Extended { corners, area: (corners[2] - corners[0]) * (corners[3] - corners[1]) }
    }

    /// As [`crate::boxes::iou_matrix`]; most images have so few objects that columns do not pay.
    #[inline]
    fn iou(&self, other: &Self) -> T {
        let (a, b) = (&self.corners, &other.corners);
        let top = if a[0] > b[0] { a[0] } else { b[0] };
        let left = if a[1] > b[1] { a[1] } else { b[1] };
        let bottom = if a[2] < b[2] { a[2] } else { b[2] };
        let right = if a[3] < b[3] { a[3] } else { b[3] };
        let overlap = if (top < bottom) & (left < right) { T::ONE } else { T::ZERO };
        let intersection = (bottom - top) * (right - left) * overlap;
        intersection / (self.area + other.area - intersection)
    }

    /// The object this one points at, the first of those it overlaps most, unless the overlap is
    /// below the threshold. NaN is the largest overlap of all, and not below, as in the original.
    #[inline]
    fn match_among(&self, objects: &[Self], threshold: T) -> Option<usize> {
        let (mut best, mut largest) = (0, self.iou(objects.first()?));
        for (place, object) in objects.iter().enumerate().skip(1) {
            let iou = self.iou(object);
            if iou > largest || (iou.is_nan() && !largest.is_nan()) {
                (best, largest) = (place, iou);
            }
        }
        let below = largest < threshold;
        (!below).then_some(best)
    }
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
        let problem = Problem {
            detections: Rows { boxes: &detections, labels: &[0; 5], images: &[0, 0, 0, 0, 1] },
            scores: &[0.9, 0.8, 0.7, 0.6, 0.85],
            objects: Rows { boxes: &objects, labels: &[0; 4], images: &[0, 0, 1, 1] },
            difficult: &[false, true, false, false],
            threshold: 0.5,
        };
        let [area, eleven] = [false, true].map(|e| problem.average_precisions(e).unwrap()[0]);
        assert!((area - 2. / 3.).abs() < 1e-12 && (eleven - 7. / 11.).abs() < 1e-12);
        problem.outcomes().unwrap()
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
        let problem = Problem {
            detections: Rows { boxes: &one, labels: &[3], images: &[0] },
            scores: &[0.5],
            objects: Rows { boxes: &one, labels: &[1], images: &[0] },
            difficult: &[true],
            threshold: 0.5,
        };
        assert!(problem.average_precisions(false).unwrap().iter().all(|ap| ap.is_nan()));
        let classes = problem.outcomes().unwrap();
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
        let negative = Problem::<f32> {
            detections: Rows { boxes: &[[0.; 4]], labels: &[-1], images: &[0] },
            scores: &[0.5],
            objects: Rows { boxes: &[], labels: &[], images: &[] },
            difficult: &[],
            threshold: 0.5,
        };
        assert!(
            negative
                .outcomes()
                .unwrap_err()
                .to_string()
                .starts_with("pred_labels: expected labels")
        );
    }
}
