//! Losses of dense detectors: of boxes and of single logits. Arrays come converted.

use numpy::{Ix1, PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use super::boxes::{Number, Perhaps, either, ready_boxes, rows};
use super::{filled, ready, slice};
use crate::boxes::{self, BoxLoss};
use crate::layers::focal::{By, Focal, sigmoid_focal, sigmoid_focal_backward};
use crate::{Error, Result};

fn named(kind: &str) -> Result<BoxLoss> {
    match kind {
        "generalized" => Ok(BoxLoss::Generalized),
        "distance" => Ok(BoxLoss::Distance),
        "complete" => Ok(BoxLoss::Complete),
        _ => Err(Error::value("kind", "generalized, distance or complete", kind)),
    }
}

fn losses<'py, T: Number>(
    py: Python<'py>,
    kind: &str,
    a: &Bound<'py, PyAny>,
    b: &Bound<'py, PyAny>,
    eps: f64,
) -> Perhaps<'py> {
    let (Some(a), Some(b)) = (ready_boxes::<T>(a), ready_boxes::<T>(b)) else { return Ok(None) };
    let (what, a, b) = (named(kind)?, rows(&a, "boxes1")?, rows(&b, "boxes2")?);
    let losses = filled(py, [a.len()], |out| boxes::box_loss(what, a, b, eps, out))?;
    Ok(Some(losses.into_any()))
}

/// Loss of each box of `a` against its partner in `b`: (R,).
#[pyfunction]
fn box_loss<'py>(
    py: Python<'py>,
    kind: &str,
    a: &Bound<'py, PyAny>,
    b: &Bound<'py, PyAny>,
    eps: f64,
) -> Perhaps<'py> {
    either!(losses(py, kind, a, b, eps))
}

/// Gradient of the weighted losses by the corners of both boxes of each pair: (R, 8).
#[pyfunction]
fn box_loss_backward<'py>(
    py: Python<'py>,
    kind: &str,
    a: PyReadonlyArray2<'py, f32>,
    b: PyReadonlyArray2<'py, f32>,
    eps: f64,
    weights: PyReadonlyArray1<'py, f32>,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let (what, a, b) = (named(kind)?, rows(&a, "boxes1")?, rows(&b, "boxes2")?);
    let weights = slice(&weights, "weights")?;
    filled(py, [a.len(), 8], |out| {
        boxes::box_loss_backward(what, a, b, eps, weights, out.as_chunks_mut().0)
    })
}

fn focal<'py, T: Number>(
    py: Python<'py>,
    inputs: &Bound<'py, PyAny>,
    targets: &Bound<'py, PyAny>,
    focal: Focal,
) -> Perhaps<'py> {
    let (Some(inputs), Some(targets)) = (ready::<T, Ix1>(inputs), ready::<T, Ix1>(targets)) else {
        return Ok(None);
    };
    let (inputs, targets) = (slice(&inputs, "inputs")?, slice(&targets, "targets")?);
    let losses = filled(py, [inputs.len()], |out| sigmoid_focal(focal, inputs, targets, out))?;
    Ok(Some(losses.into_any()))
}

/// Focal loss of each logit: (R,).
#[pyfunction]
fn sigmoid_focal_loss<'py>(
    py: Python<'py>,
    inputs: &Bound<'py, PyAny>,
    targets: &Bound<'py, PyAny>,
    alpha: f64,
    gamma: f64,
) -> Perhaps<'py> {
    either!(focal(py, inputs, targets, Focal { alpha, gamma }))
}

/// Derivative of the weighted losses by the logits, or by the targets: (R,).
#[pyfunction]
fn sigmoid_focal_gradient<'py>(
    py: Python<'py>,
    inputs: PyReadonlyArray1<'py, f32>,
    targets: PyReadonlyArray1<'py, f32>,
    alpha: f64,
    gamma: f64,
    weights: PyReadonlyArray1<'py, f32>,
    by_target: bool,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let (inputs, targets) = (slice(&inputs, "inputs")?, slice(&targets, "targets")?);
    let (weights, by) =
        (slice(&weights, "weights")?, if by_target { By::Target } else { By::Input });
    let focal = Focal { alpha, gamma };
    filled(py, [inputs.len()], |out| {
        sigmoid_focal_backward(focal, by, inputs, targets, weights, out)
    })
}

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(box_loss, m)?)?;
    m.add_function(wrap_pyfunction!(box_loss_backward, m)?)?;
    m.add_function(wrap_pyfunction!(sigmoid_focal_loss, m)?)?;
    m.add_function(wrap_pyfunction!(sigmoid_focal_gradient, m)?)?;
    Ok(())
}
