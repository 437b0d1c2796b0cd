//! Suppression and fusion of boxes that overlap.
//!
//! The plain ones look at the arrays themselves, because people call them on a few boxes in loops:
//! what needs no conversion is computed, for everything else they return None and the Python side
//! converts.

use numpy::{Element, PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use super::boxes::{indices, ready_boxes, rows};
use super::{ready, slice, wrap};
use crate::boxes::{self, Confidence, Cutoff, Decay, Fusion, Rescored, Score};
use crate::{Error, Result};

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

/// A way to lower scores by its Python name.
fn decay(method: &str, parameter: f64) -> Decay {
    match method {
        "linear" => Decay::Linear { threshold: parameter },
        _ => Decay::Gaussian { sigma: parameter },
    }
}

/// Indices and their scores.
type Scored<'py> = PyResult<(Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<f64>>)>;

fn scored(py: Python<'_>, found: Rescored) -> Scored<'_> {
    let n = found.score.len();
    Ok((indices(py, found.index)?, wrap(py, found.score, [n])?))
}

/// Soft-NMS: `parameter` is the threshold of "linear", the sigma of "gaussian".
#[pyfunction]
fn soft_nms<'py>(
    py: Python<'py>,
    boxes: PyReadonlyArray2<'py, f64>,
    scores: PyReadonlyArray1<'py, f64>,
    method: &str,
    parameter: f64,
    floor: f64,
) -> Scored<'py> {
    let (boxes, scores) = (rows(&boxes, "boxes")?, slice(&scores, "scores")?);
    let decay = decay(method, parameter);
    let found = py.detach(|| boxes::soft_nms(boxes, scores, decay, floor))?;
    scored(py, found)
}

/// Matrix NMS within each class: `parameter` is the sigma of "gaussian".
#[pyfunction]
fn matrix_nms<'py>(
    py: Python<'py>,
    boxes: PyReadonlyArray2<'py, f64>,
    scores: PyReadonlyArray1<'py, f64>,
    idxs: PyReadonlyArray1<'py, i64>,
    method: &str,
    parameter: f64,
    floor: f64,
) -> Scored<'py> {
    let (boxes, scores) = (rows(&boxes, "boxes")?, slice(&scores, "scores")?);
    let (classes, decay) = (slice(&idxs, "idxs")?, decay(method, parameter));
    let found = py.detach(|| boxes::matrix_nms(boxes, scores, classes, decay, floor))?;
    scored(py, found)
}

/// Boxes, scores, labels.
type Fused<'py> = (Bound<'py, PyArray2<f64>>, Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<i64>>);

/// Weighted boxes fusion. Gives boxes, scores and labels by descending score.
#[pyfunction]
fn fuse_boxes<'py>(
    py: Python<'py>,
    boxes: PyReadonlyArray2<'py, f64>,
    scores: PyReadonlyArray1<'py, f64>,
    labels: PyReadonlyArray1<'py, i64>,
    models: PyReadonlyArray1<'py, i64>,
    weights: PyReadonlyArray1<'py, f64>,
    threshold: f64,
    confidence: &str,
    overflow: bool,
) -> PyResult<Fused<'py>> {
    let confidence = match confidence {
        "max" => Confidence::Highest,
        "box_and_model_avg" => Confidence::MeanOfBoxesAndModels,
        "absent_model_aware_avg" => Confidence::MeanWithAbsent,
        _ => Confidence::Mean,
    };
    let fusion = Fusion { weights: slice(&weights, "weights")?, threshold, confidence, overflow };
    let (boxes, scores) = (rows(&boxes, "boxes")?, slice(&scores, "scores")?);
    let (labels, models) = (slice(&labels, "labels")?, slice(&models, "models")?);
    let fused =
        py.detach(|| boxes::fuse(&boxes::votes(boxes, scores, labels, models)?, &fusion))?;
    let n = fused.len();
    Ok((
        wrap(py, fused.iter().flat_map(|f| f.corners).collect(), [n, 4])?,
        wrap(py, fused.iter().map(|f| f.score).collect(), [n])?,
        wrap(py, fused.iter().map(|f| f.class).collect(), [n])?,
    ))
}

/// The rows of an (R, 5) array.
fn rotated<'a>(boxes: &'a PyReadonlyArray2<'_, f64>, name: &'static str) -> Result<&'a [[f64; 5]]> {
    let (r, columns) = boxes.as_array().dim();
    match columns {
        5 => Ok(slice(boxes, name)?.as_chunks().0),
        _ => Err(Error::shape(name, "shape (R, 5)", format!("({r}, {columns})"))),
    }
}

/// IoU of every rotated box of `a` with every one of `b`: (N, M).
#[pyfunction]
fn rotated_box_iou<'py>(
    py: Python<'py>,
    a: PyReadonlyArray2<'py, f64>,
    b: PyReadonlyArray2<'py, f64>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let (a, b) = (rotated(&a, "boxes1")?, rotated(&b, "boxes2")?);
    let matrix = py.detach(|| boxes::rotated_iou_matrix(a, b))?;
    wrap(py, matrix, [a.len(), b.len()])
}

/// Indices of surviving rotated boxes by descending score.
#[pyfunction]
fn rotated_nms<'py>(
    py: Python<'py>,
    boxes: PyReadonlyArray2<'py, f64>,
    scores: PyReadonlyArray1<'py, f64>,
    threshold: f64,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let (boxes, scores) = (rotated(&boxes, "boxes")?, slice(&scores, "scores")?);
    let cutoff = Cutoff::new(threshold, false, false);
    let kept = py.detach(|| boxes::rotated_nms(boxes, scores, cutoff))?;
    indices(py, kept)
}

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(nms, m)?)?;
    m.add_function(wrap_pyfunction!(batched_nms, m)?)?;
    m.add_function(wrap_pyfunction!(soft_nms, m)?)?;
    m.add_function(wrap_pyfunction!(matrix_nms, m)?)?;
    m.add_function(wrap_pyfunction!(fuse_boxes, m)?)?;
    m.add_function(wrap_pyfunction!(rotated_box_iou, m)?)?;
    m.add_function(wrap_pyfunction!(rotated_nms, m)?)?;
    Ok(())
}
