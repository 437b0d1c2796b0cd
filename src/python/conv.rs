//! Convolution and matrix products.

use numpy::{
    PyArray1, PyArray2, PyArray4, PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArray4,
    PyReadwriteArray4,
};
use pyo3::prelude::*;

use super::graph::to_precision;
use super::{lead, shape4, slice, wrap};
use crate::conv::{self, Conv2d, Deformable, Padding};
use crate::gemm::{self, MatRef};
use crate::memory::result_len;
use crate::{Error, Result};

type Pair = (usize, usize);
type Quad = (usize, usize, usize, usize);

fn geometry(
    input: Quad,
    weight: Quad,
    stride: Pair,
    (top, bottom, left, right): Quad,
    dilation: Pair,
    groups: usize,
) -> Result<Conv2d> {
    let padding = Padding { top, bottom, left, right };
    Conv2d::new(input, weight, stride, padding, dilation, groups)
}

fn check_grad(conv: &Conv2d, got: Quad) -> Result<()> {
    let expected = (conv.batch, conv.output.0, conv.output.1, conv.out_channels);
    match got == expected {
        true => Ok(()),
        false => Err(Error::shape(
            "grad_output",
            format!("shape {expected:?} (N, H, W, C)"),
            format!("{got:?}"),
        )),
    }
}

/// Convolution: input (N, H, W, C), weight (kh, kw, C / groups, O), bias (O,).
/// `padding` is (top, bottom, left, right).
#[pyfunction]
#[pyo3(signature = (input, weight, bias, stride, padding, dilation, groups, precision="direct"))]
fn conv2d<'py>(
    py: Python<'py>,
    input: PyReadonlyArray4<'py, f32>,
    weight: PyReadonlyArray4<'py, f32>,
    bias: Option<PyReadonlyArray1<'py, f32>>,
    stride: Pair,
    padding: Quad,
    dilation: Pair,
    groups: usize,
    precision: &str,
) -> PyResult<Bound<'py, PyArray4<f32>>> {
    let conv = geometry(shape4(&input), shape4(&weight), stride, padding, dilation, groups)?;
    let (x, w) = (slice(&input, "input")?, slice(&weight, "weight")?);
    let b = bias.as_ref().map(|b| slice(b, "bias")).transpose()?;
    if let Some(b) = b.filter(|b| b.len() != conv.out_channels) {
        let expected = format!("shape ({},)", conv.out_channels);
        return Err(Error::shape("bias", expected, format!("({},)", b.len())).into());
    }
    let precision = to_precision(precision)?;
    let output = lead(py, || conv::forward(&conv, x, w, b, precision))?;
    wrap(py, output, [conv.batch, conv.output.0, conv.output.1, conv.out_channels])
}

/// Gradient of the input of [`conv2d`]; `input_size` is (H, W).
#[pyfunction]
#[pyo3(signature = (grad_output, weight, input_size, stride, padding, dilation, groups, precision="direct"))]
fn conv2d_backward_data<'py>(
    py: Python<'py>,
    grad_output: PyReadonlyArray4<'py, f32>,
    weight: PyReadonlyArray4<'py, f32>,
    input_size: Pair,
    stride: Pair,
    padding: Quad,
    dilation: Pair,
    groups: usize,
    precision: &str,
) -> PyResult<Bound<'py, PyArray4<f32>>> {
    let (kernel, grad) = (shape4(&weight), shape4(&grad_output));
    let input = (grad.0, input_size.0, input_size.1, kernel.2.saturating_mul(groups));
    let conv = geometry(input, kernel, stride, padding, dilation, groups)?;
    check_grad(&conv, grad)?;
    let (g, w) = (slice(&grad_output, "grad_output")?, slice(&weight, "weight")?);
    let precision = to_precision(precision)?;
    let result = lead(py, || conv::backward_data(&conv, g, w, precision))?;
    wrap(py, result, [conv.batch, conv.input.0, conv.input.1, conv.in_channels])
}

/// Gradient of the weight of [`conv2d`]; `kernel_size` is (kh, kw).
#[pyfunction]
#[pyo3(signature = (input, grad_output, kernel_size, stride, padding, dilation, groups, precision="direct"))]
fn conv2d_backward_weight<'py>(
    py: Python<'py>,
    input: PyReadonlyArray4<'py, f32>,
    grad_output: PyReadonlyArray4<'py, f32>,
    kernel_size: Pair,
    stride: Pair,
    padding: Quad,
    dilation: Pair,
    groups: usize,
    precision: &str,
) -> PyResult<Bound<'py, PyArray4<f32>>> {
    let (x, grad) = (shape4(&input), shape4(&grad_output));
    let kernel = (kernel_size.0, kernel_size.1, x.3 / groups.max(1), grad.3);
    let conv = geometry(x, kernel, stride, padding, dilation, groups)?;
    check_grad(&conv, grad)?;
    let (x, g) = (slice(&input, "input")?, slice(&grad_output, "grad_output")?);
    let precision = to_precision(precision)?;
    let result = lead(py, || conv::backward_weight(&conv, x, g, precision))?;
    wrap(py, result, [kernel.0, kernel.1, kernel.2, kernel.3])
}

/// Gradient of the bias of [`conv2d`].
#[pyfunction]
fn conv2d_backward_bias<'py>(
    py: Python<'py>,
    grad_output: PyReadonlyArray4<'py, f32>,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let (channels, g) = (shape4(&grad_output).3, slice(&grad_output, "grad_output")?);
    let result = lead(py, || conv::backward_bias(channels, g))?;
    wrap(py, result, [channels])
}

/// What the functions of deformable convolution are given besides their arrays: the shape of
/// the weight (kh, kw, C / groups, O), stride, padding (rows, columns), dilation, groups, offset
/// groups.
type DeformableOptions = (Quad, Pair, Pair, Pair, usize, usize);

fn deformable(
    input: Quad,
    (weight, stride, padding, dilation, groups, offset_groups): DeformableOptions,
    offset: &PyReadonlyArray4<'_, f32>,
    mask: Option<&PyReadonlyArray4<'_, f32>>,
) -> Result<Deformable> {
    let padding = Padding::symmetric(padding.0, padding.1);
    let conv = Conv2d::new(input, weight, stride, padding, dilation, groups)?;
    Deformable::new(conv, offset_groups, shape4(offset), mask.map(shape4))
}

fn check_columns(deformable: &Deformable, columns: &[f32]) -> Result<()> {
    let (expected, got) = (deformable.columns_len(), columns.len());
    match expected == got {
        true => Ok(()),
        false => Err(Error::shape("columns", format!("{expected} elements"), got.to_string())),
    }
}

/// The columns of a deformable convolution, into `columns` (N, H_out, W_out, kh * kw * C), every
/// element of which is written; input (N, H, W, C), offset (N, H_out, W_out, 2 * samples), mask
/// (N, H_out, W_out, samples).
#[pyfunction]
fn deform_columns<'py>(
    py: Python<'py>,
    input: PyReadonlyArray4<'py, f32>,
    offset: PyReadonlyArray4<'py, f32>,
    mask: Option<PyReadonlyArray4<'py, f32>>,
    mut columns: PyReadwriteArray4<'py, f32>,
    options: DeformableOptions,
) -> PyResult<()> {
    let deformable = deformable(shape4(&input), options, &offset, mask.as_ref())?;
    let (x, o) = (slice(&input, "input")?, slice(&offset, "offset")?);
    let m = mask.as_ref().map(|m| slice(m, "mask")).transpose()?;
    let out = columns
        .as_slice_mut()
        .map_err(|_| Error::shape("columns", "a C-contiguous array", "a strided one"))?;
    check_columns(&deformable, out)?;
    Ok(py.detach(|| deformable.gather(x, o, m, out))?)
}

/// Gradient of the input of [`deform_columns`], which has shape (N, H, W, C).
#[pyfunction]
fn deform_columns_backward_input<'py>(
    py: Python<'py>,
    grad_columns: PyReadonlyArray4<'py, f32>,
    offset: PyReadonlyArray4<'py, f32>,
    mask: Option<PyReadonlyArray4<'py, f32>>,
    input_shape: Quad,
    options: DeformableOptions,
) -> PyResult<Bound<'py, PyArray4<f32>>> {
    let deformable = deformable(input_shape, options, &offset, mask.as_ref())?;
    let (g, o) = (slice(&grad_columns, "grad_columns")?, slice(&offset, "offset")?);
    let m = mask.as_ref().map(|m| slice(m, "mask")).transpose()?;
    check_columns(&deformable, g)?;
    let result = py.detach(|| deformable.input_gradient(o, m, g))?;
    wrap(py, result, [input_shape.0, input_shape.1, input_shape.2, input_shape.3])
}

/// Gradients of offset and mask of [`deform_columns`], (N, H_out, W_out, samples * 3).
#[pyfunction]
fn deform_columns_backward_samples<'py>(
    py: Python<'py>,
    grad_columns: PyReadonlyArray4<'py, f32>,
    input: PyReadonlyArray4<'py, f32>,
    offset: PyReadonlyArray4<'py, f32>,
    mask: Option<PyReadonlyArray4<'py, f32>>,
    options: DeformableOptions,
) -> PyResult<Bound<'py, PyArray4<f32>>> {
    let deformable = deformable(shape4(&input), options, &offset, mask.as_ref())?;
    let (g, x) = (slice(&grad_columns, "grad_columns")?, slice(&input, "input")?);
    let o = slice(&offset, "offset")?;
    let m = mask.as_ref().map(|m| slice(m, "mask")).transpose()?;
    check_columns(&deformable, g)?;
    let result = py.detach(|| deformable.sample_gradient(x, o, m, g))?;
    let (batch, rows, cols, offsets) = shape4(&offset);
    wrap(py, result, [batch, rows, cols, offsets / 2 * 3])
}

/// Matrix product of `a` (or its transpose) and `b` (or its transpose).
#[pyfunction]
fn matmul<'py>(
    py: Python<'py>,
    a: PyReadonlyArray2<'py, f32>,
    b: PyReadonlyArray2<'py, f32>,
    transpose_a: bool,
    transpose_b: bool,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let (m, k) = oriented(&a, transpose_a);
    let (depth, n) = oriented(&b, transpose_b);
    if depth != k {
        let (expected, got) = (format!("{k} rows to multiply with"), format!("{depth}"));
        return Err(Error::shape("b", expected, got).into());
    }
    result_len::<f32>("input", &[m, n])?;
    let lhs = matrix(&a, "a", transpose_a)?;
    let rhs = matrix(&b, "b", transpose_b)?;
    let result = lead(py, || gemm::product(lhs, rhs))?;
    wrap(py, result, [m, n])
}

fn oriented(array: &PyReadonlyArray2<'_, f32>, transpose: bool) -> Pair {
    let view = array.as_array();
    match transpose {
        false => (view.nrows(), view.ncols()),
        true => (view.ncols(), view.nrows()),
    }
}

fn matrix<'a>(
    array: &'a PyReadonlyArray2<'_, f32>,
    argument: &'static str,
    transpose: bool,
) -> Result<MatRef<'a>> {
    let (rows, cols) = oriented(array, false);
    let matrix = MatRef::new(slice(array, argument)?, rows, cols, cols);
    Ok(if transpose { matrix.t() } else { matrix })
}

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(conv2d, m)?)?;
    m.add_function(wrap_pyfunction!(conv2d_backward_data, m)?)?;
    m.add_function(wrap_pyfunction!(conv2d_backward_weight, m)?)?;
    m.add_function(wrap_pyfunction!(conv2d_backward_bias, m)?)?;
    m.add_function(wrap_pyfunction!(deform_columns, m)?)?;
    m.add_function(wrap_pyfunction!(deform_columns_backward_input, m)?)?;
    m.add_function(wrap_pyfunction!(deform_columns_backward_samples, m)?)?;
    m.add_function(wrap_pyfunction!(matmul, m)?)?;
    Ok(())
}
