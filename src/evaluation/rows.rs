//! Boxes of all images, one row each, sorted by class, then image.
//!
//! Both metrics treat classes apart, and within a class a detection meets only the objects of its
//! image. So the rows are sorted once by counting classes; within a class the detections go by
//! score, all images together, and each carries the range of objects it may meet.
//!
//! Fresh memory costs more here than arithmetic (about a nanosecond a byte, for the system to hand
//! it out), so numbers of rows are 32 bits wide.

use std::ops::Range;

use crate::boxes::{BBox, check_length};
use crate::{Error, Result, parallel};

/// Labels reserve a row for every class below them, so an absurd one is refused.
const MAX_CLASSES: i32 = 1 << 20;

/// Boxes of all images, one row each.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, T> {
    /// Four numbers each, in the metric's own order.
    pub boxes: &'a [BBox<T>],
    /// Class, 0 or above.
    pub labels: &'a [i32],
    /// Image the box belongs to.
    pub images: &'a [i32],
}

impl<T> Rows<'_, T> {
    /// Refuses columns of unequal length and labels out of range; the number of classes, that is
    /// the largest label plus one.
    pub(super) fn check(&self, names: [&'static str; 2]) -> Result<usize> {
        let [labels, images] = names;
        if u32::try_from(self.boxes.len()).is_err() {
            let expected = format!("at most {} boxes", u32::MAX);
            return Err(Error::value(labels, expected, self.boxes.len().to_string()));
        }
        check_length(labels, self.labels.len(), self.boxes.len())?;
        check_length(images, self.images.len(), self.boxes.len())?;
        let largest = self.labels.iter().copied().max().unwrap_or(-1);
        match self.labels.iter().position(|l| !(0..MAX_CLASSES).contains(l)) {
            None => Ok((largest + 1) as usize),
            Some(row) => Err(Error::row(
                labels,
                format!("labels from 0 to {}", MAX_CLASSES - 1),
                self.labels[row].to_string(),
                row,
            )),
        }
    }

    /// Row numbers by class, within it by image, within that as they come.
    pub(super) fn by_class(&self, classes: usize) -> ByClass {
        let mut ends = vec![0; classes];
        self.labels.iter().for_each(|&label| ends[label as usize] += 1);
        let mut total = 0;
        for end in &mut ends {
            // Where the class begins; counting it up below makes it the end.
            total += std::mem::replace(end, total);
        }
        let mut rows = vec![0; total];
        let mut place = |row: usize| {
            let next = &mut ends[self.labels[row] as usize];
            rows[*next] = row as u32;
            *next += 1;
        };
        if self.images.is_sorted() {
            (0..total).for_each(&mut place);
        } else {
            let mut order: Vec<usize> = (0..total).collect();
            order.sort_by_key(|&row| self.images[row]);
            order.into_iter().for_each(&mut place);
        }
        ByClass { rows, ends }
    }
}

/// Row numbers sorted by class.
pub(super) struct ByClass {
    rows: Vec<u32>,
    /// One past the last row of every class.
    ends: Vec<usize>,
}

impl ByClass {
    /// The rows of one class, by image.
    pub(super) fn class(&self, class: usize) -> &[u32] {
        let start = if class == 0 { 0 } else { self.ends[class - 1] };
        &self.rows[start..self.ends[class]]
    }
}

/// For every image among `members` (rows by image): the members' places, and those of the objects
/// in that image among `objects` (rows by image).
pub(super) fn for_each_image(
    members: &[u32],
    member_images: &[i32],
    objects: &[u32],
    object_images: &[i32],
    mut visit: impl FnMut(Range<usize>, Range<usize>),
) {
    let image_of_member = |place: usize| member_images[members[place] as usize];
    let image_of_object = |place: usize| object_images[objects[place] as usize];
    let (mut place, mut object) = (0, 0);
    while place < members.len() {
        let (first, image) = (place, image_of_member(place));
        while place < members.len() && image_of_member(place) == image {
            place += 1;
        }
        while object < objects.len() && image_of_object(object) < image {
            object += 1;
        }
        let start = object;
        while object < objects.len() && image_of_object(object) == image {
            object += 1;
        }
        visit(first..place, start..object);
    }
}

/// Where NaN scores go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Nan {
    First,
    Last,
}

/// Places `0..scores.len()` by descending score, equal scores in the order they come.
pub(super) fn by_score(scores: impl Iterator<Item = f64>, nan: Nan) -> impl Iterator<Item = usize> {
    // Numbers whose ascending order is the descending order of the scores: the bits of positive
    // floats ascend with them, those of negative ones descend. Adding 0 makes -0 equal to 0.
    let key = |score: f64| {
        let bits = (score + 0.0).to_bits();
        match (score.is_nan(), nan) {
            (true, Nan::First) => 0,
            (true, Nan::Last) => u64::MAX,
            (false, _) if bits >> 63 == 0 => !(bits | 1 << 63),
            (false, _) => bits,
        }
    };
    let mut keyed: Vec<(u64, u32)> = scores.map(key).zip(0..).collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, place)| place as usize)
}

/// The results of `task(0)`, `task(1)`, ..., computed by the threads that this one leads.
pub(super) fn map_tasks<T: Default + Send>(
    tasks: usize,
    task: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    let mut results: Vec<T> = (0..tasks).map(|_| T::default()).collect();
    parallel::for_each_chunk(&mut results, 1, |number, result| result[0] = task(number));
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_by_class_then_image_then_as_they_come() {
        let labels = [2, 0, 2, 2, 0, 2];
        for (images, expected) in
            [([0, 0, 1, 1, 2, 2], [1, 4, 0, 2, 3, 5]), ([5, 3, 1, 5, 2, 1], [4, 1, 2, 5, 0, 3])]
        {
            let rows = Rows { boxes: &[[0.0f32; 4]; 6], labels: &labels, images: &images };
            let classes = rows.check(["labels", "images"]).unwrap();
            assert_eq!(classes, 3);
            let sorted = rows.by_class(classes + 1);
            assert_eq!(sorted.class(0), &expected[..2], "{images:?}");
            assert_eq!(sorted.class(2), &expected[2..], "{images:?}");
            assert!(sorted.class(1).is_empty() && sorted.class(3).is_empty());
        }
    }

    #[test]
    fn images_meet_their_objects() {
        let (member_images, object_images) = ([1, 1, 4, 6, 6], [0, 1, 2, 4, 4, 7]);
        let mut seen = vec![];
        for_each_image(
            &[0, 1, 2, 3, 4],
            &member_images,
            &[0, 1, 2, 3, 4, 5],
            &object_images,
            |m, o| seen.push((m, o)),
        );
        assert_eq!(seen, [(0..2, 1..2), (2..3, 3..5), (3..5, 5..5)]);
    }

    #[test]
    fn scores_descend_and_ties_keep_their_order() {
        let inf = f64::INFINITY;
        let scores = [1.0, f64::NAN, 3.0, 1.0, -inf, inf, -f64::NAN, 0.0, -0.0, -2.0, -1.0];
        let ranked = |nan| by_score(scores.into_iter(), nan).collect::<Vec<_>>();
        assert_eq!(ranked(Nan::First), [1, 6, 5, 2, 0, 3, 7, 8, 10, 9, 4]);
        assert_eq!(ranked(Nan::Last), [5, 2, 0, 3, 7, 8, 10, 9, 4, 1, 6]);
    }

    #[test]
    fn results_come_in_the_order_of_their_tasks() {
        let squares = |n| parallel::lead(|| map_tasks(n, |task| task * task)).unwrap();
        for n in [0, 1, 100] {
            assert_eq!(squares(n), (0..n).map(|i| i * i).collect::<Vec<_>>());
        }
    }
}
