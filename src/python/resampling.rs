//! Padding and resizing.

use numpy::{PyArray4, PyReadonlyArray4};
use pyo3::prelude::*;

use super::{compute, shape4, slice, wrap};
use crate::conv::Padding;
use crate::layers::bilinear::Bilinear2d;
use crate::layers::gather::{Border, Gather2d};
use crate::{Error, Result};

type Pair = (usize, usize);
type Quad = (usize, usize, usize, usize);
type Input<'py> = PyReadonlyArray4<'py, f32>;
type Output<'py> = Bound<'py, PyArray4<f32>>;

/// Factors of rows and columns, where they are not those of the sizes.
pub(super) type Scales = (Option<f64>, Option<f64>);

pub(super) fn to_border(mode: &str, value: f32) -> Result<Border> {
    match mode {
        "constant" => Ok(Border::Constant(value)),
        "reflect" => Ok(Border::Reflect),
        "replicate" => Ok(Border::Replicate),
        "circular" => Ok(Border::Circular),
        _ => {
            let expected = "constant, reflect, replicate or circular";
            Err(Error::value("mode", expected, format!("{mode:?}")))
        }
    }
}

/// (H, W, C) of a batch.
fn image(input: &Input<'_>) -> (usize, usize, usize) {
    let (_, height, width, channels) = shape4(input);
    (height, width, channels)
}

/// An error unless the gradient has the shape of the output, (H, W, C) without the batch.
fn check(grad_output: &Input<'_>, output: (usize, usize, usize)) -> Result<()> {
    match image(grad_output) {
        got if got == output => Ok(()),
        got => Err(Error::shape(
            "grad_output",
            format!("images of shape {output:?} (H, W, C)"),
            format!("{got:?}"),
        )),
    }
}

fn gather<'py>(py: Python<'py>, geometry: &Gather2d, input: &Input<'py>) -> PyResult<Output<'py>> {
    let (x, batch) = (slice(input, "input")?, shape4(input).0);
    let (height, width, channels) = geometry.output_shape();
    let result = compute(py, || geometry.forward(batch, x))?;
    wrap(py, result, (batch, height, width, channels))
}

fn gather_backward<'py>(
    py: Python<'py>,
    geometry: &Gather2d,
    grad_output: &Input<'py>,
    (height, width, channels): (usize, usize, usize),
) -> PyResult<Output<'py>> {
    check(grad_output, geometry.output_shape())?;
    let (g, batch) = (slice(grad_output, "grad_output")?, shape4(grad_output).0);
    let result = compute(py, || Ok(geometry.backward(batch, g)))?;
    wrap(py, result, (batch, height, width, channels))
}

/// Padding by (top, bottom, left, right) pixels and (in front, behind) channels.
#[pyfunction]
fn pad2d<'py>(
    py: Python<'py>,
    input: Input<'py>,
    padding: Quad,
    channels: Pair,
    mode: &str,
    value: f32,
) -> PyResult<Output<'py>> {
    let (top, bottom, left, right) = padding;
    let (padding, border) = (Padding { top, bottom, left, right }, to_border(mode, value)?);
    gather(py, &Gather2d::pad(image(&input), padding, channels, border)?, &input)
}

/// Gradient of the input of [`pad2d`], whose images have the shape (H, W, C).
#[pyfunction]
fn pad2d_backward<'py>(
    py: Python<'py>,
    grad_output: Input<'py>,
    input_shape: (usize, usize, usize),
    padding: Quad,
    channels: Pair,
    mode: &str,
) -> PyResult<Output<'py>> {
    let (top, bottom, left, right) = padding;
    let (padding, border) = (Padding { top, bottom, left, right }, to_border(mode, 0.0)?);
    let geometry = Gather2d::pad(input_shape, padding, channels, border)?;
    gather_backward(py, &geometry, &grad_output, input_shape)
}

/// Resizing to the nearest pixels.
#[pyfunction]
fn nearest2d<'py>(
    py: Python<'py>,
    input: Input<'py>,
    output_size: Pair,
    scales: Scales,
    centres: bool,
) -> PyResult<Output<'py>> {
    gather(py, &Gather2d::nearest(image(&input), output_size, scales, centres)?, &input)
}

/// Gradient of the input of [`nearest2d`]; `input_size` is (H, W).
#[pyfunction]
fn nearest2d_backward<'py>(
    py: Python<'py>,
    grad_output: Input<'py>,
    input_size: Pair,
    scales: Scales,
    centres: bool,
) -> PyResult<Output<'py>> {
    let (rows, cols, channels) = image(&grad_output);
    let input = (input_size.0, input_size.1, channels);
    let geometry = Gather2d::nearest(input, (rows, cols), scales, centres)?;
    gather_backward(py, &geometry, &grad_output, input)
}

/// Bilinear resizing.
#[pyfunction]
fn bilinear2d<'py>(
    py: Python<'py>,
    input: Input<'py>,
    output_size: Pair,
    scales: Scales,
    align_corners: bool,
) -> PyResult<Output<'py>> {
    let geometry = Bilinear2d::new(image(&input), output_size, scales, align_corners)?;
    let (x, (batch, _, _, channels)) = (slice(&input, "input")?, shape4(&input));
    let result = compute(py, || geometry.forward(batch, x))?;
    wrap(py, result, (batch, output_size.0, output_size.1, channels))
}

/// Gradient of the input of [`bilinear2d`]; `input_size` is (H, W).
#[pyfunction]
fn bilinear2d_backward<'py>(
    py: Python<'py>,
    grad_output: Input<'py>,
    input_size: Pair,
    scales: Scales,
    align_corners: bool,
) -> PyResult<Output<'py>> {
    let (batch, rows, cols, channels) = shape4(&grad_output);
    let (height, width) = input_size;
    let geometry = Bilinear2d::new((height, width, channels), (rows, cols), scales, align_corners)?;
    let g = slice(&grad_output, "grad_output")?;
    let result = compute(py, || Ok(geometry.backward(batch, g)))?;
    wrap(py, result, (batch, height, width, channels))
}

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(pad2d, m)?)?;
    m.add_function(wrap_pyfunction!(pad2d_backward, m)?)?;
    m.add_function(wrap_pyfunction!(nearest2d, m)?)?;
    m.add_function(wrap_pyfunction!(nearest2d_backward, m)?)?;
    m.add_function(wrap_pyfunction!(bilinear2d, m)?)?;
    m.add_function(wrap_pyfunction!(bilinear2d_backward, m)?)?;
    Ok(())
}
