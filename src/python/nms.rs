//! Suppression of boxes that overlap better ones.
//!
//! The functions look at the arrays themselves, because people call them on a few boxes in loops:
//! what needs no conversion is computed, for everything else they return None and the Python side
//! converts.

use numpy::{Element, PyArray1, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use super::boxes::{indices, rows};
use super::{ready, slice};
use crate::boxes::{self, Cutoff, Score};

/// Survivors, or none where the arguments have to be converted first.
type Survivors<'py> = PyResult<Option<Bound<'py, PyArray1<i64>>>>;

/// The first answer of `function::<T, S>(...)`, for the types that boxes and scores may have.
macro_rules! by_type {
    ($function:ident($($argument:expr),*)) => {{
        let mut kept = $function::<f32, f32>($($argument),*)?;
        if kept.is_none() {
            kept = $function::<f64, f64>($($argument),*)?;
        }
        if kept.is_none() {
            kept = $function::<f32, f64>($($argument),*)?;
        }
        if kept.is_none() {
            kept = $function::<f64, f32>($($argument),*)?;
        }
        Ok(kept)
    }};
}

/// Boxes that need no conversion.
fn ready_boxes<'py, T: Element>(boxes: &Bound<'py, PyAny>) -> Option<PyReadonlyArray2<'py, T>> {
    ready(boxes).filter(|array: &PyReadonlyArray2<'py, T>| array.as_array().ncols() == 4)
}

/// One number for each of `n` boxes that needs no conversion.
fn ready_list<'py, T: Element>(
    list: &Bound<'py, PyAny>,
    n: usize,
) -> Option<PyReadonlyArray1<'py, T>> {
    ready(list).filter(|array: &PyReadonlyArray1<'py, T>| array.as_array().len() == n)
}

fn survivors<'py, T: Score + Element, S: Score + Element>(
    py: Python<'py>,
    boxes: &Bound<'py, PyAny>,
    scores: Option<&Bound<'py, PyAny>>,
    (threshold, inclusive, rounded): (f64, bool, bool),
    limit: Option<usize>,
) -> Survivors<'py> {
    let Some(boxes) = ready_boxes::<T>(boxes) else { return Ok(None) };
    let boxes = rows(&boxes, "boxes")?;
    let ranked = scores.is_some();
    let scores = scores.and_then(|scores| ready_list::<S>(scores, boxes.len()));
    if ranked && scores.is_none() {
        return Ok(None);
    }
    let scores = scores.as_ref().map(|s| slice(s, "scores")).transpose()?;
    let cutoff = Cutoff::new(threshold, inclusive, rounded);
    let kept = py.detach(|| boxes::nms(boxes, scores, cutoff, limit))?;
    indices(py, kept).map(Some)
}

/// Indices of surviving boxes by descending score, or in order without scores.
#[pyfunction]
fn nms<'py>(
    py: Python<'py>,
    boxes: &Bound<'py, PyAny>,
    scores: Option<&Bound<'py, PyAny>>,
    threshold: f64,
    inclusive: bool,
    rounded: bool,
    limit: Option<usize>,
) -> Survivors<'py> {
    by_type!(survivors(py, boxes, scores, (threshold, inclusive, rounded), limit))
}

fn class_survivors<'py, T: Score + Element, S: Score + Element>(
    py: Python<'py>,
    boxes: &Bound<'py, PyAny>,
    scores: &Bound<'py, PyAny>,
    idxs: &Bound<'py, PyAny>,
    threshold: f64,
) -> Survivors<'py> {
    let Some(boxes) = ready_boxes::<T>(boxes) else { return Ok(None) };
    let boxes = rows(&boxes, "boxes")?;
    let lists = (ready_list::<S>(scores, boxes.len()), ready_list::<i64>(idxs, boxes.len()));
    let (Some(scores), Some(classes)) = lists else { return Ok(None) };
    let (scores, classes) = (slice(&scores, "scores")?, slice(&classes, "idxs")?);
    let cutoff = Cutoff::new(threshold, false, false);
    let kept = py.detach(|| boxes::batched_nms(boxes, scores, classes, cutoff))?;
    indices(py, kept).map(Some)
}

/// Suppression within each class; survivors of all classes by descending score.
#[pyfunction]
fn batched_nms<'py>(
    py: Python<'py>,
    boxes: &Bound<'py, PyAny>,
    scores: &Bound<'py, PyAny>,
    idxs: &Bound<'py, PyAny>,
    threshold: f64,
) -> Survivors<'py> {
    by_type!(class_survivors(py, boxes, scores, idxs, threshold))
}

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(nms, m)?)?;
    m.add_function(wrap_pyfunction!(batched_nms, m)?)?;
    Ok(())
}
