//! Losses of dense detectors: of boxes and of single logits. Arrays come converted.

use numpy::{Element, PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use super::boxes::rows;
use super::{filled, slice};
use crate::boxes::{self, BoxLoss, Scalar};
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

fn losses<'py, T: Scalar + Element>(
    py: Python<'py>,
    kind: &str,
    a: &PyReadonlyArray2<'py, T>,
    b: &PyReadonlyArray2<'py, T>,
    eps: f64,
) -> PyResult<Bound<'py, PyArray1<T>>> {
    let (what, a, b) = (named(kind)?, rows(a, "boxes1")?, rows(b, "boxes2")?);
    filled(py, [a.len()], |out| boxes::box_loss(what, a, b, eps, out))
}

/// Loss of each box of `a` against its partner in `b`: (R,).
#[pyfunction]
fn box_loss_f32<'py>(
    py: Python<'py>,
    kind: &str,
    a: PyReadonlyArray2<'py, f32>,
    b: PyReadonlyArray2<'py, f32>,
    eps: f64,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    losses(py, kind, &a, &b, eps)
}

/// [`box_loss_f32`] of float64.
#[pyfunction]
fn box_loss_f64<'py>(
    py: Python<'py>,
    kind: &str,
    a: PyReadonlyArray2<'py, f64>,
    b: PyReadonlyArray2<'py, f64>,
    eps: f64,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    losses(py, kind, &a, &b, eps)
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

fn focal<'py, T: Scalar + Element>(
    py: Python<'py>,
    inputs: &PyReadonlyArray1<'py, T>,
    targets: &PyReadonlyArray1<'py, T>,
    focal: Focal,
) -> PyResult<Bound<'py, PyArray1<T>>> {
    let (inputs, targets) = (slice(inputs, "inputs")?, slice(targets, "targets")?);
    filled(py, [inputs.len()], |out| sigmoid_focal(focal, inputs, targets, out))
}

/// Focal loss of each logit: (R,).
#[pyfunction]
fn sigmoid_focal_f32<'py>(
    py: Python<'py>,
    inputs: PyReadonlyArray1<'py, f32>,
    targets: PyReadonlyArray1<'py, f32>,
    alpha: f64,
    gamma: f64,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    focal(py, &inputs, &targets, Focal { alpha, gamma })
}

/// [`sigmoid_focal_f32`] of float64.
#[pyfunction]
fn sigmoid_focal_f64<'py>(
    py: Python<'py>,
    inputs: PyReadonlyArray1<'py, f64>,
    targets: PyReadonlyArray1<'py, f64>,
    alpha: f64,
    gamma: f64,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    focal(py, &inputs, &targets, Focal { alpha, gamma })
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
    m.add_function(wrap_pyfunction!(box_loss_f32, m)?)?;
    m.add_function(wrap_pyfunction!(box_loss_f64, m)?)?;
    m.add_function(wrap_pyfunction!(box_loss_backward, m)?)?;
    m.add_function(wrap_pyfunction!(sigmoid_focal_f32, m)?)?;
    m.add_function(wrap_pyfunction!(sigmoid_focal_f64, m)?)?;
    m.add_function(wrap_pyfunction!(sigmoid_focal_gradient, m)?)?;
    Ok(())
}
