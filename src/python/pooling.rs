//! Max and average pooling, sliding and adaptive.

use numpy::{Element, PyArray4, PyArrayMethods, PyReadonlyArray4};
use pyo3::prelude::*;

use super::{compute, overwritten, overwritten_pair, shape4, slice, wrap};
use crate::layers::avg_pool::{self, Divisor};
use crate::layers::max_pool::{self, Place};
use crate::layers::windows::{Pool2d, Sliding};
use crate::parallel::lead;
use crate::rows::{Rows, RowsMut};
use crate::{Error, Result};

type Pair = (usize, usize);
type Input<'py> = PyReadonlyArray4<'py, f32>;
type Output<'py> = Bound<'py, PyArray4<f32>>;
type Indices<'py> = Bound<'py, PyArray4<i32>>;

/// The layer whose output has the shape of `grad_output`.
fn adaptive(grad_output: &Input<'_>, input_size: Pair) -> Result<Pool2d> {
    let (batch, rows, cols, channels) = shape4(grad_output);
    Pool2d::adaptive((batch, input_size.0, input_size.1, channels), (rows, cols))
}

/// The layer over an input of `input_size`, whose output must have the shape of `grad_output`.
fn sliding(grad_output: &Input<'_>, input_size: Pair, sliding: Sliding) -> Result<Pool2d> {
    let (batch, _, _, channels) = shape4(grad_output);
    let pool = Pool2d::sliding((batch, input_size.0, input_size.1, channels), sliding)?;
    check(&pool, "grad_output", shape4(grad_output))?;
    Ok(pool)
}

fn check(pool: &Pool2d, argument: &'static str, got: (usize, usize, usize, usize)) -> Result<()> {
    let expected = pool.output_shape();
    match expected == got {
        true => Ok(()),
        false => Err(Error::shape(
            argument,
            format!("shape {expected:?} (N, H, W, C)"),
            format!("{got:?}"),
        )),
    }
}

pub(super) fn divisor(count_include_pad: bool, divisor_override: Option<i64>) -> Result<Divisor> {
    match divisor_override {
        Some(0) => Err(Error::value("divisor_override", "a number other than 0", "0")),
        Some(divisor) => Ok(Divisor::Fixed(divisor as f64)),
        None if count_include_pad => Ok(Divisor::PaddedWindow),
        None => Ok(Divisor::Pixels),
    }
}

/// Where the maxima are: in bytes, if windows are small enough.
#[derive(FromPyObject)]
enum Places<'py> {
    Narrow(PyReadonlyArray4<'py, u8>),
    Wide(PyReadonlyArray4<'py, i32>),
}

fn maximum<'py>(py: Python<'py>, pool: &Pool2d, input: &Input<'py>) -> PyResult<Output<'py>> {
    let x = Rows::dense(slice(input, "input")?, pool.channels);
    overwritten(py, pool.output_shape(), |output| {
        lead(|| max_pool::forward_into(pool, x, RowsMut::dense(output, pool.channels)))
    })
}

fn maximum_and<'py, P: Place + Element>(
    py: Python<'py>,
    pool: &Pool2d,
    input: &Input<'py>,
) -> PyResult<(Output<'py>, Bound<'py, PyArray4<P>>)> {
    let x = Rows::dense(slice(input, "input")?, pool.channels);
    overwritten_pair(py, pool.output_shape(), |output, places| {
        let output = RowsMut::dense(output, pool.channels);
        lead(|| max_pool::train_forward_into(pool, x, output, places))
    })
}

fn maximum_with_places<'py>(
    py: Python<'py>,
    pool: &Pool2d,
    input: &Input<'py>,
) -> PyResult<(Output<'py>, Bound<'py, PyAny>)> {
    if u8::suffices(pool) {
        let (output, places) = maximum_and::<u8>(py, pool, input)?;
        return Ok((output, places.into_any()));
    }
    let (output, places) = maximum_and::<i32>(py, pool, input)?;
    Ok((output, places.into_any()))
}

fn maximum_with_indices<'py>(
    py: Python<'py>,
    pool: &Pool2d,
    input: &Input<'py>,
) -> PyResult<(Output<'py>, Indices<'py>)> {
    let (output, places) = maximum_and::<i32>(py, pool, input)?;
    let places = places.try_readonly()?;
    let p = slice(&places, "places")?;
    let indices = compute(py, || Ok(max_pool::indices(pool, p)))?;
    Ok((output, wrap(py, indices, pool.output_shape())?))
}

fn gradient_at<'py, P: Place + Element>(
    py: Python<'py>,
    pool: &Pool2d,
    grad_output: &Input<'py>,
    places: &PyReadonlyArray4<'py, P>,
) -> PyResult<Output<'py>> {
    check(pool, "places", shape4(places))?;
    let (g, p) = (slice(grad_output, "grad_output")?, slice(places, "places")?);
    overwritten(py, pool.input_shape(), |grad_input| {
        lead(|| max_pool::train_backward_into(pool, g, p, grad_input))
    })
}

fn maximum_backward<'py>(
    py: Python<'py>,
    pool: &Pool2d,
    grad_output: &Input<'py>,
    places: &Places<'py>,
) -> PyResult<Output<'py>> {
    match places {
        Places::Narrow(places) => gradient_at(py, pool, grad_output, places),
        Places::Wide(places) => gradient_at(py, pool, grad_output, places),
    }
}

fn average<'py>(
    py: Python<'py>,
    pool: &Pool2d,
    divisor: Divisor,
    input: &Input<'py>,
) -> PyResult<Output<'py>> {
    let x = Rows::dense(slice(input, "input")?, pool.channels);
    overwritten(py, pool.output_shape(), |output| {
        let output = RowsMut::dense(output, pool.channels);
        lead(|| avg_pool::forward_into(pool, divisor, x, output))
    })
}

fn average_backward<'py>(
    py: Python<'py>,
    pool: &Pool2d,
    divisor: Divisor,
    grad_output: &Input<'py>,
) -> PyResult<Output<'py>> {
    let g = slice(grad_output, "grad_output")?;
    overwritten(py, pool.input_shape(), |grad_input| {
        lead(|| avg_pool::backward_into(pool, divisor, g, grad_input))
    })
}

/// Max pooling of (N, H, W, C).
#[pyfunction]
fn max_pool2d<'py>(
    py: Python<'py>,
    input: Input<'py>,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    ceil_mode: bool,
) -> PyResult<Output<'py>> {
    let sliding = Sliding { kernel, stride, padding, dilation, ceil_mode };
    maximum(py, &Pool2d::sliding(shape4(&input), sliding)?, &input)
}

/// [`max_pool2d`], and the place of each maximum among the pixels under its window.
#[pyfunction]
fn max_pool2d_with_places<'py>(
    py: Python<'py>,
    input: Input<'py>,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    ceil_mode: bool,
) -> PyResult<(Output<'py>, Bound<'py, PyAny>)> {
    let sliding = Sliding { kernel, stride, padding, dilation, ceil_mode };
    maximum_with_places(py, &Pool2d::sliding(shape4(&input), sliding)?, &input)
}

/// [`max_pool2d`], and the index `row * W + column` of each maximum.
#[pyfunction]
fn max_pool2d_with_indices<'py>(
    py: Python<'py>,
    input: Input<'py>,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    ceil_mode: bool,
) -> PyResult<(Output<'py>, Indices<'py>)> {
    let sliding = Sliding { kernel, stride, padding, dilation, ceil_mode };
    maximum_with_indices(py, &Pool2d::sliding(shape4(&input), sliding)?, &input)
}

/// Max pooling to `output_size` windows.
#[pyfunction]
fn adaptive_max_pool2d<'py>(
    py: Python<'py>,
    input: Input<'py>,
    output_size: Pair,
) -> PyResult<Output<'py>> {
    maximum(py, &Pool2d::adaptive(shape4(&input), output_size)?, &input)
}

/// [`adaptive_max_pool2d`], and the place of each maximum among the pixels under its window.
#[pyfunction]
fn adaptive_max_pool2d_with_places<'py>(
    py: Python<'py>,
    input: Input<'py>,
    output_size: Pair,
) -> PyResult<(Output<'py>, Bound<'py, PyAny>)> {
    maximum_with_places(py, &Pool2d::adaptive(shape4(&input), output_size)?, &input)
}

/// [`adaptive_max_pool2d`], and the index `row * W + column` of each maximum.
#[pyfunction]
fn adaptive_max_pool2d_with_indices<'py>(
    py: Python<'py>,
    input: Input<'py>,
    output_size: Pair,
) -> PyResult<(Output<'py>, Indices<'py>)> {
    maximum_with_indices(py, &Pool2d::adaptive(shape4(&input), output_size)?, &input)
}

/// Gradient of the input of [`max_pool2d_with_places`]; `input_size` is (H, W).
#[pyfunction]
fn max_pool2d_backward<'py>(
    py: Python<'py>,
    grad_output: Input<'py>,
    places: Places<'py>,
    input_size: Pair,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    ceil_mode: bool,
) -> PyResult<Output<'py>> {
    let windows = Sliding { kernel, stride, padding, dilation, ceil_mode };
    maximum_backward(py, &sliding(&grad_output, input_size, windows)?, &grad_output, &places)
}

/// Gradient of the input of [`adaptive_max_pool2d_with_places`]; `input_size` is (H, W).
#[pyfunction]
fn adaptive_max_pool2d_backward<'py>(
    py: Python<'py>,
    grad_output: Input<'py>,
    places: Places<'py>,
    input_size: Pair,
) -> PyResult<Output<'py>> {
    maximum_backward(py, &adaptive(&grad_output, input_size)?, &grad_output, &places)
}

/// Average pooling of (N, H, W, C).
#[pyfunction]
fn avg_pool2d<'py>(
    py: Python<'py>,
    input: Input<'py>,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: Option<i64>,
) -> PyResult<Output<'py>> {
    let windows = Sliding { kernel, stride, padding, dilation: (1, 1), ceil_mode };
    let divisor = divisor(count_include_pad, divisor_override)?;
    average(py, &Pool2d::sliding(shape4(&input), windows)?, divisor, &input)
}

/// Gradient of the input of [`avg_pool2d`]; `input_size` is (H, W).
#[pyfunction]
fn avg_pool2d_backward<'py>(
    py: Python<'py>,
    grad_output: Input<'py>,
    input_size: Pair,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: Option<i64>,
) -> PyResult<Output<'py>> {
    let windows = Sliding { kernel, stride, padding, dilation: (1, 1), ceil_mode };
    let divisor = divisor(count_include_pad, divisor_override)?;
    average_backward(py, &sliding(&grad_output, input_size, windows)?, divisor, &grad_output)
}

/// Average pooling to `output_size` windows.
#[pyfunction]
fn adaptive_avg_pool2d<'py>(
    py: Python<'py>,
    input: Input<'py>,
    output_size: Pair,
) -> PyResult<Output<'py>> {
    average(py, &Pool2d::adaptive(shape4(&input), output_size)?, Divisor::Pixels, &input)
}

/// Gradient of the input of [`adaptive_avg_pool2d`]; `input_size` is (H, W).
#[pyfunction]
fn adaptive_avg_pool2d_backward<'py>(
    py: Python<'py>,
    grad_output: Input<'py>,
    input_size: Pair,
) -> PyResult<Output<'py>> {
    average_backward(py, &adaptive(&grad_output, input_size)?, Divisor::Pixels, &grad_output)
}

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(max_pool2d, m)?)?;
    m.add_function(wrap_pyfunction!(max_pool2d_with_places, m)?)?;
    m.add_function(wrap_pyfunction!(max_pool2d_with_indices, m)?)?;
    m.add_function(wrap_pyfunction!(max_pool2d_backward, m)?)?;
    m.add_function(wrap_pyfunction!(adaptive_max_pool2d, m)?)?;
    m.add_function(wrap_pyfunction!(adaptive_max_pool2d_with_places, m)?)?;
    m.add_function(wrap_pyfunction!(adaptive_max_pool2d_with_indices, m)?)?;
    m.add_function(wrap_pyfunction!(adaptive_max_pool2d_backward, m)?)?;
    m.add_function(wrap_pyfunction!(avg_pool2d, m)?)?;
    m.add_function(wrap_pyfunction!(avg_pool2d_backward, m)?)?;
    m.add_function(wrap_pyfunction!(adaptive_avg_pool2d, m)?)?;
    m.add_function(wrap_pyfunction!(adaptive_avg_pool2d_backward, m)?)?;
    Ok(())
}
