//! COCO: average precision over IoU thresholds and ranges of object areas.
//!
//! Every threshold, range of areas and greatest number of detections per image is a metric of its
//! own over the same boxes, and a class has 120 of them. Their common part, per class, is done
//! once: detections by descending score with their rank within the image, and each one's IoU with
//! the objects of its image (`Lineup`). Then, for each range of areas, one walk down the scores
//! serves all thresholds and all numbers of detections:
//!
//! ```text
//! for each detection by score:
//!     right, wrong = two masks, a bit for each threshold     # which objects are taken: masks too
//!     for each number of detections above its rank in the image:
//!         for each threshold: count wrong; where right, note precision and score
//! ```
//!
//! Precision made non-increasing is the best of the later precisions, and among those only one
//! right after a right detection can be best, so the others are not kept. Results are those of
//! pycocotools to the bit: the same comparisons in float64, the same rounding of precision, the
//! same order of ties (image, then row).

use super::rows::{Nan, by_score, for_each_image, map_tasks};
use crate::boxes::{BBox, check_length};
use crate::evaluation::Rows;
use crate::memory::result_len;
use crate::{Error, Result, parallel};

/// Outcomes at all thresholds, a bit each.
type Mask = u16;

/// Most IoU thresholds at a time.
pub const MAX_THRESHOLDS: usize = Mask::BITS as usize;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// IoU from which on a detection may match, at most [`MAX_THRESHOLDS`] of them.
    pub thresholds: &'a [f64],
    /// Recalls at which precision is wanted, ascending.
    pub recalls: &'a [f64],
    /// Smallest and largest area of the objects that count; both belong to the range.
    pub areas: &'a [[f64; 2]],
    /// How many detections of an image and class count.
    pub max_detections: &'a [usize],
}

/// Detections: boxes are `(x, y, width, height)`.
#[derive(Debug, Clone, Copy)]
pub struct Detections<'a> {
    /// Boxes, classes, images.
    pub rows: Rows<'a, f64>,
    /// The higher the surer; NaN comes last.
    pub scores: &'a [f64],
    /// One that matches nothing counts only where its area is in the range.
    pub areas: &'a [f64],
}

/// Objects: boxes are `(x, y, width, height)`.
#[derive(Debug, Clone, Copy)]
pub struct Objects<'a> {
    /// Boxes, classes, images.
    pub rows: Rows<'a, f64>,
    /// Areas; data sets with masks have those of the masks.
    pub areas: &'a [f64],
    /// Whether the box holds many objects: any number of detections may match it, and none counts.
    pub crowded: &'a [bool],
}

/// The curves of the classes `0..classes`, an array `(K, A, M, T, 2 R + 1)`: classes, ranges of
/// areas, numbers of detections, thresholds; and for `R` recalls
///
/// * `R` precisions: the best at this recall or above, 0 if it is not reached,
/// * `R` scores: of the detection at which the recall is reached, or 0,
/// * the recall of all detections.
///
/// All of them are -1 where no object counts.
pub fn evaluate(
    detections: Detections<'_>,
    objects: Objects<'_>,
    classes: usize,
    settings: Settings<'_>,
) -> Result<Vec<f64>> {
    check(&detections, &objects, classes, &settings)?;
    let Settings { thresholds, recalls, areas, max_detections } = settings;
    let ranges = areas.len();
    let each = max_detections.len() * thresholds.len() * (2 * recalls.len() + 1);
    let mut curves = vec![-1.0; result_len::<f64>("labels", &[classes, ranges, each])?];
    let (members, targets) = (detections.rows.by_class(classes), objects.rows.by_class(classes));
    let deepest = max_detections.iter().copied().max().unwrap_or(0);
    parallel::lead(|| {
        let lineups = map_tasks(classes, |class| {
            Lineup::new(&detections, members.class(class), &objects, targets.class(class), deepest)
        });
        parallel::for_each_chunk(&mut curves, each, |index, curves| {
            lineups[index / ranges].walk(&settings, areas[index % ranges], curves);
        });
    })?;
    Ok(curves)
}

fn check(
    detections: &Detections<'_>,
    objects: &Objects<'_>,
    classes: usize,
    settings: &Settings<'_>,
) -> Result<()> {
    let found = detections.rows.check(["pred_labels", "pred_images"])?;
    let known = objects.rows.check(["gt_labels", "gt_images"])?;
    check_length("pred_scores", detections.scores.len(), detections.rows.boxes.len())?;
    check_length("pred_areas", detections.areas.len(), detections.rows.boxes.len())?;
    check_length("gt_areas", objects.areas.len(), objects.rows.boxes.len())?;
    check_length("gt_crowdeds", objects.crowded.len(), objects.rows.boxes.len())?;
    if found.max(known) > classes {
        let expected = format!("labels below {classes}");
        return Err(Error::value("labels", expected, (found.max(known) - 1).to_string()));
    }
    if settings.thresholds.len() > MAX_THRESHOLDS {
        let expected = format!("at most {MAX_THRESHOLDS} thresholds");
        return Err(Error::value(
            "iou_thresholds",
            expected,
            settings.thresholds.len().to_string(),
        ));
    }
    Ok(())
}

/// One detection of a class, among those by descending score.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    score: f64,
    area: f64,
    /// How many detections of its image and class come before it.
    rank: usize,
    /// Its image's objects, places in `Lineup::objects`.
    objects: (usize, usize),
    /// The largest IoU with one of them, NaN if there is one; -inf without objects.
    reach: f64,
}

/// An object of a class.
#[derive(Debug, Clone, Copy)]
struct Target {
    area: f64,
    crowded: bool,
}

/// What all metrics of one class have in common.
#[derive(Debug, Default)]
struct Lineup {
    /// By descending score; the first `deepest` of every image.
    candidates: Vec<Candidate>,
    /// By image.
    objects: Vec<Target>,
    /// The candidates' IoU with the objects of their images, one candidate after the other.
    ious: Vec<f64>,
}

impl Lineup {
    fn new(
        detections: &Detections<'_>,
        members: &[u32],
        objects: &Objects<'_>,
        targets: &[u32],
        deepest: usize,
    ) -> Lineup {
        // Per member: its image's number among those with detections. Per such image: its objects,
        // and how many detections have come.
        let mut image_of = vec![0u32; members.len()];
        let mut images = vec![];
        let (member_images, target_images) = (detections.rows.images, objects.rows.images);
        for_each_image(members, member_images, targets, target_images, |here, there| {
            image_of[here].fill(images.len() as u32);
            images.push((there, 0));
        });
        let target = |&target: &u32| Target {
            area: objects.areas[target as usize],
            crowded: objects.crowded[target as usize],
        };
        let mut lineup = Lineup {
            candidates: Vec::with_capacity(members.len()),
            objects: targets.iter().map(target).collect(),
            ious: vec![],
        };
        let scores = members.iter().map(|&member| detections.scores[member as usize]);
        for place in by_score(scores, Nan::Last) {
            let (there, come) = &mut images[image_of[place] as usize];
            let rank = std::mem::replace(come, *come + 1);
            if rank >= deepest {
                continue;
            }
            let member = members[place] as usize;
            let mut reach = f64::NEG_INFINITY;
            for &target in &targets[there.clone()] {
                let crowded = objects.crowded[target as usize];
                let bbox = &objects.rows.boxes[target as usize];
                let iou = overlap(&detections.rows.boxes[member], bbox, crowded);
                reach = if iou > reach || iou.is_nan() { iou } else { reach };
                lineup.ious.push(iou);
            }
            lineup.candidates.push(Candidate {
                score: detections.scores[member],
                area: detections.areas[member],
                rank,
                objects: (there.start, there.end),
                reach,
            });
        }
        lineup
    }

    /// The curves `(M, T, 2 R + 1)` for objects with areas in `range`; not written if there are
    /// none.
    fn walk(&self, settings: &Settings<'_>, range: [f64; 2], curves: &mut [f64]) {
        let outside = |area: f64| area < range[0] || area > range[1];
        let counts: Vec<bool> =
            self.objects.iter().map(|o| !o.crowded && !outside(o.area)).collect();
        let positives = counts.iter().filter(|&&counts| counts).count();
        if positives == 0 || curves.is_empty() {
            return;
        }
        // A threshold of 1 must let a perfect overlap pass, whatever its rounding.
        let levels: Vec<f64> = settings.thresholds.iter().map(|t| t.min(1.0 - 1e-10)).collect();
        let every = Mask::MAX >> (MAX_THRESHOLDS - levels.len());
        let mut taken: Vec<Mask> = vec![0; self.objects.len()];
        let mut tallies: Vec<Tally> =
            settings.max_detections.iter().map(|_| Tally::new(levels.len())).collect();
        let mut ious = &self.ious[..];
        for candidate in &self.candidates {
            let (start, end) = candidate.objects;
            let own;
            (own, ious) = ious.split_at(end - start);
            let (counts, taken) = (&counts[start..end], &mut taken[start..end]);
            let objects = &self.objects[start..end];
            let mut matched: Mask = 0;
            let mut ignored: Mask = 0;
            for (threshold, &level) in levels.iter().enumerate() {
                if candidate.reach < level {
                    continue;
                }
                let bit = 1 << threshold;
                // Objects that count come before those that do not, however well these fit.
                let free = |o: usize| objects[o].crowded || taken[o] & bit == 0;
                let best =
                    |counting: bool| last_best(own, level, |o| counts[o] == counting && free(o));
                if let Some(object) = best(true).or_else(|| best(false)) {
                    taken[object] |= bit;
                    matched |= bit;
                    ignored |= if counts[object] { 0 } else { bit };
                }
            }
            if outside(candidate.area) {
                ignored |= !matched;
            }
            let (right, wrong) = (matched & !ignored, every & !matched & !ignored);
            for (tally, &most) in tallies.iter_mut().zip(settings.max_detections) {
                if candidate.rank < most {
                    tally.add(right, wrong, candidate.score);
                }
            }
        }
        let each = 2 * settings.recalls.len() + 1;
        let mut curves = curves.chunks_exact_mut(each);
        for tally in tallies {
            for steps in tally.steps {
                if let Some(curve) = curves.next() {
                    write_curve(steps, tally.first_score, positives, settings.recalls, curve);
                }
            }
        }
    }
}

/// IoU of two boxes `(x, y, width, height)`; of a crowd only the part of the detection inside it.
fn overlap(detection: &BBox<f64>, object: &BBox<f64>, crowded: bool) -> f64 {
    let [d, o] = [detection, object];
    let width = (d[2] + d[0]).min(o[2] + o[0]) - d[0].max(o[0]);
    let height = (d[3] + d[1]).min(o[3] + o[1]) - d[1].max(o[1]);
    if width <= 0.0 || height <= 0.0 {
        return 0.0;
    }
    let (intersection, own) = (width * height, d[2] * d[3]);
    let union = if crowded { own } else { own + o[2] * o[3] - intersection };
    intersection / union
}

/// The last of the largest IoUs of at least `level` among the `eligible`. After a NaN every one is
/// larger.
fn last_best(ious: &[f64], level: f64, eligible: impl Fn(usize) -> bool) -> Option<usize> {
    let (mut best, mut found) = (level, None);
    for (object, &iou) in ious.iter().enumerate() {
        let less = iou < best;
        if !less && eligible(object) {
            (best, found) = (iou, Some(object));
        }
    }
    found
}

/// After a right detection.
#[derive(Debug, Clone, Copy)]
struct Step {
    precision: f64,
    score: f64,
}

/// The detections so far that count, for one number of detections.
struct Tally {
    wrong: [u32; MAX_THRESHOLDS],
    /// One for each threshold.
    steps: Vec<Vec<Step>>,
    /// Of the very first detection, if there is one.
    first_score: Option<f64>,
}

impl Tally {
    fn new(thresholds: usize) -> Tally {
        Tally { wrong: [0; MAX_THRESHOLDS], steps: vec![vec![]; thresholds], first_score: None }
    }

    fn add(&mut self, mut right: Mask, wrong: Mask, score: f64) {
        self.first_score.get_or_insert(score);
        for (threshold, count) in self.wrong.iter_mut().enumerate() {
            *count += u32::from(wrong >> threshold & 1);
        }
        while right != 0 {
            let threshold = right.trailing_zeros() as usize;
            let steps = &mut self.steps[threshold];
            let (right_ones, wrong_ones) = ((steps.len() + 1) as f64, self.wrong[threshold]);
            // The epsilon guards against 0 / 0 where it cannot be, but it rounds 1 / 1 down.
            let precision = right_ones / (f64::from(wrong_ones) + right_ones + f64::EPSILON);
            steps.push(Step { precision, score });
            right &= right - 1;
        }
    }
}

/// Precisions and scores at `recalls`, and the last recall, into `curve`.
fn write_curve(
    mut steps: Vec<Step>,
    first_score: Option<f64>,
    positives: usize,
    recalls: &[f64],
    curve: &mut [f64],
) {
    let recall = |step: usize| (step + 1) as f64 / positives as f64;
    let mut best = 0.0f64;
    for step in steps.iter_mut().rev() {
        best = best.max(step.precision);
        step.precision = best;
    }
    curve[2 * recalls.len()] = steps.len().checked_sub(1).map_or(0.0, recall);
    let (precisions, scores) = curve.split_at_mut(recalls.len());
    let mut step = 0;
    for ((wanted, precision), score) in recalls.iter().zip(precisions).zip(scores) {
        while step < steps.len() && recall(step) < *wanted {
            step += 1;
        }
        let reached = steps.get(step);
        *precision = reached.map_or(0.0, |step| step.precision);
        // Any detection reaches a recall of 0.
        let at = if *wanted <= 0.0 { first_score } else { reached.map(|step| step.score) };
        *score = at.unwrap_or(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: [f64; 2] = [0.0, 1e10];

    /// Curves of one class in one range of areas and at one number of detections: of every
    /// threshold the precisions at `recalls`, and the recall.
    fn measure(
        detections: &[(BBox<f64>, f64, i32)],
        objects: &[(BBox<f64>, bool, i32)],
        thresholds: &[f64],
        recalls: &[f64],
        range: [f64; 2],
        most: usize,
    ) -> Vec<(Vec<f64>, f64)> {
        let area = |b: &BBox<f64>| b[2] * b[3];
        let boxes: Vec<_> = detections.iter().map(|d| d.0).collect();
        let images: Vec<_> = detections.iter().map(|d| d.2).collect();
        let scores: Vec<_> = detections.iter().map(|d| d.1).collect();
        let areas: Vec<_> = boxes.iter().map(area).collect();
        let truth: Vec<_> = objects.iter().map(|o| o.0).collect();
        let truth_images: Vec<_> = objects.iter().map(|o| o.2).collect();
        let truth_areas: Vec<_> = truth.iter().map(area).collect();
        let crowded: Vec<_> = objects.iter().map(|o| o.1).collect();
        let (labels, truth_labels) = (vec![0; boxes.len()], vec![0; truth.len()]);
        let curves = evaluate(
            Detections {
                rows: Rows { boxes: &boxes, labels: &labels, images: &images },
                scores: &scores,
                areas: &areas,
            },
            Objects {
                rows: Rows { boxes: &truth, labels: &truth_labels, images: &truth_images },
                areas: &truth_areas,
                crowded: &crowded,
            },
            1,
            Settings { thresholds, recalls, areas: &[range], max_detections: &[most] },
        )
        .unwrap();
        let curve = |c: &[f64]| (c[..recalls.len()].to_vec(), c[2 * recalls.len()]);
        curves.chunks(2 * recalls.len() + 1).map(curve).collect()
    }

    /// Rounded down by the guard against 0 / 0.
    const ONE: f64 = 1.0 - f64::EPSILON;

    #[test]
    fn the_worked_example() {
        // Right at an IoU up to 0.8, wrong, right; one object is never found.
        let detections = [
            ([0., 0., 10., 8.], 0.9, 0),
            ([50., 50., 10., 10.], 0.8, 0),
            ([5., 5., 10., 10.], 0.7, 1),
        ];
        let objects = [
            ([0., 0., 10., 10.], false, 0),
            ([5., 5., 10., 10.], false, 1),
            ([80., 80., 9., 9.], false, 1),
        ];
        let recalls = [0.0, 0.3, 0.5, 0.7];
        let curves = measure(&detections, &objects, &[0.5, 0.9], &recalls, EVERYTHING, 100);
        let half = 2.0 / (1.0 + 2.0 + f64::EPSILON);
        assert_eq!(curves[0], (vec![ONE, ONE, half, 0.0], 2.0 / 3.0));
        let third = 1.0 / (2.0 + 1.0 + f64::EPSILON);
        assert_eq!(curves[1], (vec![third, third, 0.0, 0.0], 1.0 / 3.0));
    }

    #[test]
    fn a_crowd_takes_any_number_of_detections_and_counts_for_none() {
        let crowd = ([0., 0., 100., 100.], true, 0);
        let one = ([200., 0., 10., 10.], false, 0);
        let inside = |x: f64, score| ([x, 0., 10., 10.], score, 0);
        let detections = [inside(0., 0.9), inside(50., 0.8), inside(200., 0.7)];
        let curves = measure(&detections, &[crowd, one], &[0.5], &[1.0], EVERYTHING, 100);
        assert_eq!(curves, [(vec![ONE], 1.0)]);
        // An object that counts comes before a crowd that fits better.
        let around = ([0., 0., 10., 12.], false, 0);
        let curves = measure(&detections[..1], &[crowd, around], &[0.5], &[1.0], EVERYTHING, 100);
        assert_eq!(curves, [(vec![ONE], 1.0)]);
        // Without objects that count there is nothing to measure.
        let curves = measure(&detections, &[crowd], &[0.5], &[1.0], EVERYTHING, 100);
        assert_eq!(curves, [(vec![-1.0], -1.0)]);
    }

    #[test]
    fn what_is_outside_the_range_of_areas_neither_helps_nor_harms() {
        let small = ([0., 0., 10., 10.], false, 0);
        let large = ([100., 0., 50., 50.], false, 0);
        let detections = [
            ([100., 0., 50., 50.], 0.9, 0), // at the large object
            ([300., 0., 60., 60.], 0.8, 0), // large, nowhere
            ([300., 0., 10., 10.], 0.7, 0), // small, nowhere
            ([0., 0., 10., 10.], 0.6, 0),
        ];
        let curves = measure(&detections, &[small, large], &[0.5], &[1.0], [0.0, 100.0], 100);
        assert_eq!(curves, [(vec![1.0 / (1.0 + 1.0 + f64::EPSILON)], 1.0)]);
        // Only the best of an image.
        let curves = measure(&detections, &[small, large], &[0.5], &[1.0], EVERYTHING, 1);
        assert_eq!(curves, [(vec![0.0], 0.5)]);
    }

    #[test]
    fn the_last_of_equal_overlaps_is_taken() {
        let objects = [([0., 0., 10., 10.], false, 0), ([0., 0., 10., 10.], false, 0)];
        let exact = ([0., 0., 10., 10.], 0.5, 0);
        let curves = measure(&[exact, exact, exact], &objects, &[1.0], &[1.0], EVERYTHING, 9);
        assert_eq!(curves, [(vec![2.0 / (2.0 + f64::EPSILON)], 1.0)]);
        assert_eq!(last_best(&[0.6, 0.8, 0.8, 0.7], 0.5, |_| true), Some(2));
        assert_eq!(last_best(&[0.6, 0.8, 0.8, 0.7], 0.9, |_| true), None);
        assert_eq!(last_best(&[0.5, 0.4], 0.5, |object| object != 0), None);
    }

    #[test]
    fn wrong_arguments_are_named() {
        fn rows(labels: &[i32]) -> Rows<'_, f64> {
            Rows { boxes: &[[0.0; 4]], labels, images: &[0] }
        }
        let run = |label: &[i32], areas: &[f64], thresholds: &[f64]| {
            let detections = Detections { rows: rows(label), scores: &[0.5], areas };
            let objects = Objects { rows: rows(&[0]), areas: &[0.0], crowded: &[false] };
            let settings =
                Settings { thresholds, recalls: &[], areas: &[EVERYTHING], max_detections: &[1] };
            evaluate(detections, objects, 2, settings).unwrap_err().to_string()
        };
        assert_eq!(run(&[2], &[0.0], &[0.5]), "labels: expected labels below 2, got 2");
        assert!(run(&[-1], &[0.0], &[0.5]).starts_with("pred_labels: expected labels from 0"));
        assert!(run(&[0], &[], &[0.5]).starts_with("pred_areas: expected shape (1,)"));
        assert!(run(&[0], &[0.0], &[0.5; 17]).starts_with("iou_thresholds: expected at most 16"));
    }
}
