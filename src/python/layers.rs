//! Batch norm, activations, softmax, losses, dropout. Arrays may have any shape whose last axis is
//! the channel or class axis.

use numpy::{
    PyArray1, PyArray2, PyArrayDyn, PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArrayDyn,
    PyUntypedArrayMethods,
};
use pyo3::prelude::*;

use super::{compute, overwritten, slice, wrap};
use crate::conv::Activation;
use crate::layers::activation::{self, Function};
use crate::layers::batch_norm::{self as normalization, Affine, Norm, Statistics};
use crate::layers::cross_entropy::{self as losses, Targets};
use crate::layers::response_norm::ResponseNorm;
use crate::layers::{dropout as dropout_kernel, fold, smooth_l1 as huber, softmax as rows};
use crate::parallel::lead;
use crate::rows::{Rows, RowsMut};
use crate::{Error, Result};

const RELU: Function = Function::Clamp(Activation::Relu);

type Vector<'py> = PyReadonlyArray1<'py, f32>;
type Tensor<'py> = PyReadonlyArrayDyn<'py, f32>;
type NewVector<'py> = Bound<'py, PyArray1<f32>>;
type NewTensor<'py> = Bound<'py, PyArrayDyn<f32>>;

/// Runs a kernel over one array and shapes its result alike.
fn alike<'py>(
    py: Python<'py>,
    x: &Tensor<'py>,
    argument: &'static str,
    kernel: impl FnOnce(&[f32]) -> Result<Vec<f32>> + Send,
) -> PyResult<NewTensor<'py>> {
    let values = slice(x, argument)?;
    wrap(py, compute(py, || kernel(values))?, x.shape())
}

/// Runs a kernel over the saved output and the gradient of a function of single elements or rows.
fn gradient<'py>(
    py: Python<'py>,
    output: &Tensor<'py>,
    grad_output: &Tensor<'py>,
    kernel: impl FnOnce(&[f32], &[f32]) -> Vec<f32> + Send,
) -> PyResult<NewTensor<'py>> {
    check_shape("grad_output", output.shape(), grad_output.shape())?;
    let g = slice(grad_output, "grad_output")?;
    alike(py, output, "output", |y| Ok(kernel(y, g)))
}

fn check_shape(argument: &'static str, expected: &[usize], got: &[usize]) -> Result<()> {
    match expected == got {
        true => Ok(()),
        false => Err(Error::shape(argument, format!("shape {expected:?}"), format!("{got:?}"))),
    }
}

/// Extent of the last axis.
fn last(x: &Tensor<'_>) -> usize {
    x.shape().last().copied().unwrap_or(1)
}

fn vector<'a>(x: &'a Option<Vector<'_>>, argument: &'static str) -> Result<Option<&'a [f32]>> {
    x.as_ref().map(|x| slice(x, argument)).transpose()
}

/// Mean and biased variance of each channel.
#[pyfunction]
fn batch_norm_statistics<'py>(
    py: Python<'py>,
    input: Tensor<'py>,
) -> PyResult<(NewVector<'py>, NewVector<'py>)> {
    let (channels, x) = (last(&input), slice(&input, "input")?);
    let (mean, var) = py.detach(|| lead(|| normalization::statistics(channels, x)))?;
    Ok((wrap(py, mean, [channels])?, wrap(py, var, [channels])?))
}

/// `(input - mean) / sqrt(var + eps) * weight + bias`.
#[pyfunction]
fn batch_norm<'py>(
    py: Python<'py>,
    input: Tensor<'py>,
    mean: Vector<'py>,
    var: Vector<'py>,
    weight: Option<Vector<'py>>,
    bias: Option<Vector<'py>>,
    eps: f64,
) -> PyResult<NewTensor<'py>> {
    let (mean, var) = (slice(&mean, "running_mean")?, slice(&var, "running_var")?);
    let (weight, bias) = (vector(&weight, "weight")?, vector(&bias, "bias")?);
    let norm = Norm::new(mean, var, weight, bias, eps)?;
    check_shape("running_mean", &[last(&input)], &[mean.len()])?;
    let (map, channels) = (Affine::new(&norm), mean.len());
    let x = Rows::dense(slice(&input, "input")?, channels);
    overwritten(py, input.shape(), |output| {
        let output = RowsMut::dense(output, channels);
        lead(|| map.apply_into(Activation::Identity, x, output))
    })
}

/// Gradients of input, weight and bias; `training` says whether mean and var are the input's own.
#[pyfunction]
fn batch_norm_backward<'py>(
    py: Python<'py>,
    input: Tensor<'py>,
    grad_output: Tensor<'py>,
    mean: Vector<'py>,
    var: Vector<'py>,
    weight: Option<Vector<'py>>,
    eps: f64,
    training: bool,
) -> PyResult<(NewTensor<'py>, NewVector<'py>, NewVector<'py>)> {
    let (mean, var) = (slice(&mean, "running_mean")?, slice(&var, "running_var")?);
    let norm = Norm::new(mean, var, vector(&weight, "weight")?, None, eps)?;
    check_shape("running_mean", &[last(&input)], &[mean.len()])?;
    check_shape("grad_output", input.shape(), grad_output.shape())?;
    let (x, g) = (slice(&input, "input")?, slice(&grad_output, "grad_output")?);
    let statistics = if training { Statistics::Batch } else { Statistics::Running };
    let mut vectors = None;
    let grad_input = overwritten(py, input.shape(), |dx| {
        vectors = Some(lead(|| normalization::backward_into(&norm, statistics, x, g, dx))??);
        Ok(())
    })?;
    let (weight, bias) = vectors.unwrap_or_default();
    Ok((grad_input, wrap(py, weight, [mean.len()])?, wrap(py, bias, [mean.len()])?))
}

/// Weight (O, ...) and bias (O,) of the convolution that includes the batch norm behind it.
#[pyfunction]
fn fold_batch_norm<'py>(
    py: Python<'py>,
    weight: Tensor<'py>,
    bias: Option<Vector<'py>>,
    mean: Vector<'py>,
    var: Vector<'py>,
    gamma: Option<Vector<'py>>,
    beta: Option<Vector<'py>>,
    eps: f64,
) -> PyResult<(NewTensor<'py>, NewVector<'py>)> {
    let (mean, var) = (slice(&mean, "running_mean")?, slice(&var, "running_var")?);
    let (gamma, beta) = (vector(&gamma, "weight")?, vector(&beta, "bias")?);
    let norm = Norm::new(mean, var, gamma, beta, eps)?;
    let outputs = weight.shape().first().copied().unwrap_or(0);
    let (w, b) = (slice(&weight, "weight")?, vector(&bias, "bias")?);
    let (folded, shift) = compute(py, || fold::fold(outputs, w, b, &norm))?;
    Ok((wrap(py, folded, weight.shape())?, wrap(py, shift, [outputs])?))
}

/// A function of each element.
fn apply<'py>(
    py: Python<'py>,
    input: &Tensor<'py>,
    function: Function,
) -> PyResult<NewTensor<'py>> {
    let x = Rows::dense(slice(input, "input")?, 1);
    overwritten(py, input.shape(), |y| {
        lead(|| activation::apply_into(function, x, RowsMut::dense(y, 1)))
    })
}

/// Its gradient, from its output.
fn derive<'py>(
    py: Python<'py>,
    output: &Tensor<'py>,
    grad_output: &Tensor<'py>,
    function: Function,
) -> PyResult<NewTensor<'py>> {
    check_shape("grad_output", output.shape(), grad_output.shape())?;
    let (y, g) = (slice(output, "output")?, slice(grad_output, "grad_output")?);
    overwritten(py, output.shape(), |grad_input| {
        lead(|| activation::backward_into(function, y, g, grad_input))
    })
}

/// `max(x, 0)`.
#[pyfunction]
fn relu<'py>(py: Python<'py>, input: Tensor<'py>) -> PyResult<NewTensor<'py>> {
    apply(py, &input, RELU)
}

/// Gradient of [`relu`] from its output.
#[pyfunction]
fn relu_backward<'py>(
    py: Python<'py>,
    output: Tensor<'py>,
    grad_output: Tensor<'py>,
) -> PyResult<NewTensor<'py>> {
    derive(py, &output, &grad_output, RELU)
}

/// Hyperbolic tangent.
#[pyfunction]
fn tanh<'py>(py: Python<'py>, input: Tensor<'py>) -> PyResult<NewTensor<'py>> {
    apply(py, &input, Function::Tanh)
}

/// Gradient of [`tanh`] from its output.
#[pyfunction]
fn tanh_backward<'py>(
    py: Python<'py>,
    output: Tensor<'py>,
    grad_output: Tensor<'py>,
) -> PyResult<NewTensor<'py>> {
    derive(py, &output, &grad_output, Function::Tanh)
}

/// `1 / (1 + exp(-x))`.
#[pyfunction]
fn sigmoid<'py>(py: Python<'py>, input: Tensor<'py>) -> PyResult<NewTensor<'py>> {
    apply(py, &input, Function::Sigmoid)
}

/// Gradient of [`sigmoid`] from its output.
#[pyfunction]
fn sigmoid_backward<'py>(
    py: Python<'py>,
    output: Tensor<'py>,
    grad_output: Tensor<'py>,
) -> PyResult<NewTensor<'py>> {
    derive(py, &output, &grad_output, Function::Sigmoid)
}

/// Local response normalisation over the last axis.
#[pyfunction]
fn local_response_norm<'py>(
    py: Python<'py>,
    input: Tensor<'py>,
    size: usize,
    alpha: f64,
    beta: f64,
    k: f64,
) -> PyResult<NewTensor<'py>> {
    let (norm, channels) = (ResponseNorm::new(size, alpha, beta, k)?, last(&input));
    alike(py, &input, "input", |x| Ok(norm.forward(channels, x)))
}

/// Gradient of [`local_response_norm`] from its input.
#[pyfunction]
fn local_response_norm_backward<'py>(
    py: Python<'py>,
    input: Tensor<'py>,
    grad_output: Tensor<'py>,
    size: usize,
    alpha: f64,
    beta: f64,
    k: f64,
) -> PyResult<NewTensor<'py>> {
    let (norm, channels) = (ResponseNorm::new(size, alpha, beta, k)?, last(&input));
    gradient(py, &input, &grad_output, |x, g| norm.backward(channels, x, g))
}

/// Softmax over the last axis.
#[pyfunction]
fn softmax<'py>(py: Python<'py>, input: Tensor<'py>) -> PyResult<NewTensor<'py>> {
    let classes = last(&input);
    alike(py, &input, "input", |x| Ok(rows::softmax(classes, x)))
}

/// Gradient of [`softmax`] from its output.
#[pyfunction]
fn softmax_backward<'py>(
    py: Python<'py>,
    output: Tensor<'py>,
    grad_output: Tensor<'py>,
) -> PyResult<NewTensor<'py>> {
    let classes = last(&output);
    gradient(py, &output, &grad_output, |y, g| rows::softmax_backward(classes, y, g))
}

/// Log-softmax over the last axis.
#[pyfunction]
fn log_softmax<'py>(py: Python<'py>, input: Tensor<'py>) -> PyResult<NewTensor<'py>> {
    let classes = last(&input);
    alike(py, &input, "input", |x| Ok(rows::log_softmax(classes, x)))
}

/// Gradient of [`log_softmax`] from its output.
#[pyfunction]
fn log_softmax_backward<'py>(
    py: Python<'py>,
    output: Tensor<'py>,
    grad_output: Tensor<'py>,
) -> PyResult<NewTensor<'py>> {
    let classes = last(&output);
    gradient(py, &output, &grad_output, |y, g| rows::log_softmax_backward(classes, y, g))
}

/// The rows and classes of (N, K) scores.
fn shape2(rows: &PyReadonlyArray2<'_, f32>) -> (usize, usize) {
    rows.as_array().dim()
}

/// Loss of each row of logits (N, K), and the sum of the class weights of the rows that count.
#[pyfunction]
fn cross_entropy<'py>(
    py: Python<'py>,
    input: PyReadonlyArray2<'py, f32>,
    target: PyReadonlyArray1<'py, i64>,
    weight: Option<Vector<'py>>,
    ignore_index: i64,
    label_smoothing: f64,
) -> PyResult<(NewVector<'py>, f64)> {
    let (count, classes) = shape2(&input);
    check_shape("target", &[count], target.shape())?;
    let labels = slice(&target, "target")?;
    let targets = Targets::new(classes, labels, vector(&weight, "weight")?, ignore_index)?;
    let x = slice(&input, "input")?;
    let losses = compute(py, || Ok(losses::cross_entropy(&targets, x, label_smoothing)))?;
    Ok((wrap(py, losses, [count])?, targets.total_weight()))
}

/// Gradient of the logits; `factors` (N,) holds the gradient of each row's loss.
#[pyfunction]
fn cross_entropy_backward<'py>(
    py: Python<'py>,
    input: PyReadonlyArray2<'py, f32>,
    target: PyReadonlyArray1<'py, i64>,
    weight: Option<Vector<'py>>,
    ignore_index: i64,
    label_smoothing: f64,
    factors: Vector<'py>,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let (count, classes) = shape2(&input);
    check_shape("target", &[count], target.shape())?;
    check_shape("grad_output", &[count], factors.shape())?;
    let labels = slice(&target, "target")?;
    let targets = Targets::new(classes, labels, vector(&weight, "weight")?, ignore_index)?;
    let (x, f) = (slice(&input, "input")?, slice(&factors, "grad_output")?);
    let kernel = || Ok(losses::cross_entropy_backward(&targets, x, label_smoothing, f));
    wrap(py, compute(py, kernel)?, [count, classes])
}

/// Loss of each row of log-probabilities (N, K), and the sum of the class weights of the rows that
/// count.
#[pyfunction]
fn nll_loss<'py>(
    py: Python<'py>,
    input: PyReadonlyArray2<'py, f32>,
    target: PyReadonlyArray1<'py, i64>,
    weight: Option<Vector<'py>>,
    ignore_index: i64,
) -> PyResult<(NewVector<'py>, f64)> {
    let (count, classes) = shape2(&input);
    check_shape("target", &[count], target.shape())?;
    let labels = slice(&target, "target")?;
    let targets = Targets::new(classes, labels, vector(&weight, "weight")?, ignore_index)?;
    let x = slice(&input, "input")?;
    let losses = compute(py, || Ok(losses::nll(&targets, x)))?;
    Ok((wrap(py, losses, [count])?, targets.total_weight()))
}

/// Gradient of the log-probabilities; `factors` (N,) holds the gradient of each row's loss.
#[pyfunction]
fn nll_loss_backward<'py>(
    py: Python<'py>,
    classes: usize,
    target: PyReadonlyArray1<'py, i64>,
    weight: Option<Vector<'py>>,
    ignore_index: i64,
    factors: Vector<'py>,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let (count, labels) = (target.len(), slice(&target, "target")?);
    check_shape("grad_output", &[count], factors.shape())?;
    let targets = Targets::new(classes, labels, vector(&weight, "weight")?, ignore_index)?;
    let f = slice(&factors, "grad_output")?;
    let result = compute(py, || Ok(losses::nll_backward(&targets, f)))?;
    wrap(py, result, [count, classes])
}

/// Smooth L1 loss of each difference.
#[pyfunction]
fn smooth_l1<'py>(py: Python<'py>, difference: Tensor<'py>, beta: f32) -> PyResult<NewTensor<'py>> {
    alike(py, &difference, "difference", |d| Ok(huber::smooth_l1(d, beta)))
}

/// Derivative of [`smooth_l1`] at each difference.
#[pyfunction]
fn smooth_l1_derivative<'py>(
    py: Python<'py>,
    difference: Tensor<'py>,
    beta: f32,
) -> PyResult<NewTensor<'py>> {
    alike(py, &difference, "difference", |d| Ok(huber::smooth_l1_derivative(d, beta)))
}

/// Dropout by the mask number `mask` under `seed`; its own gradient with the same arguments.
#[pyfunction]
fn dropout<'py>(
    py: Python<'py>,
    input: Tensor<'py>,
    p: f64,
    seed: u64,
    mask: u64,
) -> PyResult<NewTensor<'py>> {
    if !(0.0..=1.0).contains(&p) {
        return Err(Error::value("p", "a probability from 0 to 1", p.to_string()).into());
    }
    alike(py, &input, "input", |x| Ok(dropout_kernel::dropout(x, p, seed, mask)))
}

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(batch_norm_statistics, m)?)?;
    m.add_function(wrap_pyfunction!(batch_norm, m)?)?;
    m.add_function(wrap_pyfunction!(batch_norm_backward, m)?)?;
    m.add_function(wrap_pyfunction!(fold_batch_norm, m)?)?;
    m.add_function(wrap_pyfunction!(relu, m)?)?;
    m.add_function(wrap_pyfunction!(relu_backward, m)?)?;
    m.add_function(wrap_pyfunction!(tanh, m)?)?;
    m.add_function(wrap_pyfunction!(tanh_backward, m)?)?;
    m.add_function(wrap_pyfunction!(sigmoid, m)?)?;
    m.add_function(wrap_pyfunction!(sigmoid_backward, m)?)?;
    m.add_function(wrap_pyfunction!(local_response_norm, m)?)?;
    m.add_function(wrap_pyfunction!(local_response_norm_backward, m)?)?;
    m.add_function(wrap_pyfunction!(softmax, m)?)?;
    m.add_function(wrap_pyfunction!(softmax_backward, m)?)?;
    m.add_function(wrap_pyfunction!(log_softmax, m)?)?;
    m.add_function(wrap_pyfunction!(log_softmax_backward, m)?)?;
    m.add_function(wrap_pyfunction!(cross_entropy, m)?)?;
    m.add_function(wrap_pyfunction!(cross_entropy_backward, m)?)?;
    m.add_function(wrap_pyfunction!(nll_loss, m)?)?;
    m.add_function(wrap_pyfunction!(nll_loss_backward, m)?)?;
    m.add_function(wrap_pyfunction!(smooth_l1, m)?)?;
    m.add_function(wrap_pyfunction!(smooth_l1_derivative, m)?)?;
    m.add_function(wrap_pyfunction!(dropout, m)?)?;
    Ok(())
}
