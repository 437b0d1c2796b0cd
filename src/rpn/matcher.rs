//! From a matrix of qualities, or from boxes, to the object each prediction stands for (torchvision's
//! Matcher).
//!
//! ```text
//! best quality of the prediction >= high    its object
//!                                >= low     BETWEEN
//! else                                      BELOW
//! ```
//!
//! With `low_quality` every prediction that some object has no better one than (all of them on a
//! tie) keeps its own best object whatever the thresholds say.

use super::matching::{Apart, Matching, Maxima, best_of_object};
use crate::boxes::{BBox, Scalar};
use crate::{Error, Result, isa, parallel};

/// A prediction whose best quality is below both thresholds.
pub const BELOW: i64 = -1;
/// A prediction whose best quality is between the thresholds.
pub const BETWEEN: i64 = -2;

/// Predictions of a task: with the results they stay in the first cache from row to row.
const BLOCK: usize = 2048;
/// Qualities that outweigh waking a second thread.
const PAIRS_FOR_THREADS: usize = 1 << 17;

/// Thresholds of the quality.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Quality of a match.
    pub high: f64,
    /// Quality below which there is none.
    pub low: f64,
    /// Whether the best predictions of each object match in any case.
    pub low_quality: bool,
}

/// Index of the matched object, [`BELOW`] or [`BETWEEN`] for every column of the
/// `(objects, predictions)` matrix, neither of which may be 0.
pub fn match_predictions<T: Scalar>(
    quality: &[T],
    (objects, predictions): (usize, usize),
    rule: &Rule,
) -> Result<Vec<i64>> {
    if quality.is_empty() || objects.checked_mul(predictions) != Some(quality.len()) {
        return Err(Error::shape(
            "match_quality_matrix",
            "at least one object and one prediction",
            format!("shape ({objects}, {predictions})"),
        ));
    }
    let (low, high) = (T::from_f64(rule.low), T::from_f64(rule.high));
    let mut parts: Vec<Maxima<T>> = (0..predictions)
        .step_by(BLOCK)
        .map(|first| Maxima::new(BLOCK.min(predictions - first)))
        .collect();
    let fill = |part: usize, maxima: &mut Maxima<T>| {
        let (first, len) = (part * BLOCK, maxima.value.len());
        isa::vectorize(|| {
            for row in quality.chunks_exact(predictions) {
                maxima.add(&row[first..first + len]);
            }
        });
    };
    if quality.len() < PAIRS_FOR_THREADS {
        parts.iter_mut().enumerate().for_each(|(part, maxima)| fill(part, maxima));
    } else {
        parallel::lead(|| {
            parallel::for_each_chunk(&mut parts, 1, |part, maxima| fill(part, &mut maxima[0]));
        })?;
    }
    let columns = parts.iter().flat_map(|part| part.value.iter().zip(&part.object));
    let mut matches: Vec<i64> = columns
        .map(|(&quality, &object)| by_quality(quality, object as usize, low, high))
        .collect();
    if rule.low_quality {
        for (j, row) in quality.chunks_exact(predictions).enumerate() {
            let best = best_of_object(parts.iter(), j);
            // Few parts of a row hold its best quality; a NaN is equal to nothing.
            for (index, part) in parts.iter().enumerate() {
                if Some(part.of_object[j]) == best {
                    let first = index * BLOCK;
                    for (i, &object) in part.object.iter().enumerate() {
                        if Some(row[first + i]) == best {
                            matches[first + i] = i64::from(object);
                        }
                    }
                }
            }
        }
    }
    Ok(matches)
}

/// [`match_predictions`] by IoU as torchvision computes it, without the matrix. Without objects all
/// boxes are [`BELOW`].
pub fn match_boxes<T: Scalar>(
    objects: &[BBox<T>],
    boxes: &[BBox<T>],
    rule: &Rule,
) -> Result<Vec<i64>> {
    if objects.is_empty() {
        return Ok(vec![BELOW; boxes.len()]);
    }
    let (low, high) = (T::from_f64(rule.low), T::from_f64(rule.high));
    let matching = Matching::new(boxes.len(), |i| boxes[i], objects, Apart::Clamped)?;
    let mut matches: Vec<i64> =
        matching.of_boxes().map(|(object, iou)| by_quality(iou, object, low, high)).collect();
    if rule.low_quality {
        matching.mark_best_of_objects(|_| true, |i| matches[i] = matching.object(i) as i64);
    }
    Ok(matches)
}

/// What a prediction of that best quality and object matches; a NaN is of the highest quality.
fn by_quality<T: Scalar>(quality: T, object: usize, low: T, high: T) -> i64 {
    if quality < low {
        BELOW
    } else if quality >= low && quality < high {
        BETWEEN
    } else {
        object as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { high: 0.7, low: 0.3, low_quality: false };

    #[test]
    fn thresholds_ties_and_nan() {
        let nan = f32::NAN;
        let quality = [
            [0.1f32, 0.3, 0.7, 0.9, 0.5, nan, 0.0], //
            [0.2, 0.1, 0.7, 0.95, nan, nan, 0.0],
        ];
        let found = match_predictions(quality.as_flattened(), (2, 7), &RULE).unwrap();
        assert_eq!(found, [BELOW, BETWEEN, 0, 1, 1, 0, BELOW]);
    }

    #[test]
    fn best_predictions_of_an_object_match_in_any_case() {
        let rule = Rule { low_quality: true, ..RULE };
        let quality = [
            [0.1f64, 0.2, 0.0, 0.2, 0.25], // best of object 0: the last one alone
            [0.4, 0.4, 0.0, 0.1, 0.1],     // two on a tie
            [0.0, 0.0, 0.0, 0.0, 0.0],     // reached by none: every prediction
        ];
        let found = match_predictions(&quality.as_flattened()[..10], (2, 5), &rule).unwrap();
        assert_eq!(found, [1, 1, BELOW, BELOW, 0]);
        let found = match_predictions(quality.as_flattened(), (3, 5), &rule).unwrap();
        assert_eq!(found, [1, 1, 0, 0, 0]);
    }

    #[test]
    fn parts_of_the_matrix_make_one_result() {
        let n = 3 * BLOCK + 5;
        for objects in [1, 3, 40] {
            let mut state = 5u64;
            let quality: Vec<f32> = (0..objects * n)
                .map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                    ((state >> 33) % 64) as f32 / 80.0
                })
                .collect();
            let rule = Rule { low_quality: true, ..RULE };
            let found = match_predictions(&quality, (objects, n), &rule).unwrap();
            let best: Vec<f32> =
                quality.chunks(n).map(|row| row.iter().copied().fold(0.0, f32::max)).collect();
            for (i, &got) in found.iter().enumerate() {
                let column: Vec<f32> = (0..objects).map(|j| quality[j * n + i]).collect();
                let most = column.iter().copied().fold(0.0, f32::max);
                let object = column.iter().position(|&q| q == most).unwrap() as i64;
                let expected = match most {
                    _ if column.iter().zip(&best).any(|(a, b)| a == b) => object,
                    q if q < 0.3 => BELOW,
                    q if q < 0.7 => BETWEEN,
                    _ => object,
                };
                assert_eq!(got, expected, "prediction {i} of {objects} objects");
            }
        }
    }

    #[test]
    fn empty_matrices_are_refused() {
        for shape in [(0, 3), (3, 0), (0, 0)] {
            let error = match_predictions::<f32>(&[], shape, &RULE).unwrap_err();
            assert!(error.to_string().starts_with("match_quality_matrix: expected"), "{error}");
        }
    }
}
