//! Graphs, plans and the cache of packed layers. A builder keeps the arrays of weights that its
//! operations refer to until it is dropped; a plan keeps none of them.

use numpy::ndarray::Dimension;
use numpy::{
    PyArray, PyArray1, PyArrayDyn, PyArrayMethods, PyReadonlyArray, PyReadonlyArray1,
    PyReadonlyArray2, PyReadonlyArray4, PyReadonlyArrayDyn, PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use std::sync::Arc;

use super::pooling::divisor;
use super::resampling::{Scales, to_border};
use super::training::TrainingPlan;
use super::{compute, shape4, slice};
use crate::conv::{Activation, Options, Padding, Precision, Storage};
use crate::graph::{
    self, Constant, ConvArgs, Graph, Key, Norm, RandomDrop, Shape, StepInfo, TrainNorm, Value,
};
use crate::layers::activation::Function;
use crate::layers::gather::Every;
use crate::layers::response_norm::ResponseNorm;
use crate::layers::windows::Sliding;
use crate::{Error, Result};

type Pair = (usize, usize);
type Triple = (usize, usize, usize);
type Quad = (usize, usize, usize, usize);
type Vector<'py> = PyReadonlyArray1<'py, f32>;

/// The cache of packed layers of one module.
#[pyclass(frozen, module = "oxidet._core")]
struct PackedWeights(graph::PackedWeights);

#[pymethods]
impl PackedWeights {
    #[new]
    fn new() -> Self {
        PackedWeights(graph::PackedWeights::new())
    }

    /// Number of packed layers that some plan uses.
    fn __len__(&self) -> usize {
        self.0.len()
    }

    /// Their bytes.
    #[getter]
    fn nbytes(&self) -> usize {
        self.0.bytes()
    }
}

/// A graph under construction, and the arrays its operations refer to.
#[pyclass(module = "oxidet._core")]
struct GraphBuilder {
    graph: Graph,
    constants: Vec<Py<PyArrayDyn<f32>>>,
}

impl GraphBuilder {
    fn keep<D: Dimension>(&mut self, array: &PyReadonlyArray<'_, f32, D>) -> Constant {
        let array: &Bound<'_, PyArray<f32, D>> = array;
        self.constants.push(array.to_dyn().clone().unbind());
        self.graph.constant(array.len())
    }

    fn arrays<'py>(&self, py: Python<'py>) -> PyResult<Vec<PyReadonlyArrayDyn<'py, f32>>> {
        self.constants.iter().map(|array| Ok(array.bind(py).try_readonly()?)).collect()
    }

    fn keep_optional(&mut self, array: &Option<Vector<'_>>) -> Option<Constant> {
        array.as_ref().map(|array| self.keep(array))
    }
}

#[pymethods]
impl GraphBuilder {
    #[new]
    fn new() -> Self {
        GraphBuilder { graph: Graph::new(), constants: Vec::new() }
    }

    /// An input of shape (C, H, W) or (F,).
    fn input(&mut self, shape: Vec<usize>) -> PyResult<Value> {
        Ok(self.graph.input(to_shape(&shape)?)?)
    }

    /// Shape of a value without the batch.
    fn shape<'py>(&self, py: Python<'py>, value: Value) -> PyResult<Bound<'py, PyAny>> {
        extents(py, self.graph.shape(value)?)
    }

    /// Convolution with a weight (kh, kw, C / groups, O); `padding` is (top, bottom, left, right).
    fn conv2d(
        &mut self,
        input: Value,
        weight: PyReadonlyArray4<'_, f32>,
        bias: Option<Vector<'_>>,
        stride: Pair,
        padding: Quad,
        dilation: Pair,
        groups: usize,
        key: Key,
        name: &str,
    ) -> PyResult<Value> {
        let (top, bottom, left, right) = padding;
        let padding = Padding { top, bottom, left, right };
        let args = ConvArgs { stride, padding, dilation, groups };
        let (constant, bias) = (self.keep(&weight), self.keep_optional(&bias));
        let shape = shape4(&weight);
        Ok(self.graph.conv2d(input, constant, shape, bias, args, key, name)?)
    }

    /// Fully connected layer with a weight (out, in).
    fn linear(
        &mut self,
        input: Value,
        weight: PyReadonlyArray2<'_, f32>,
        bias: Option<Vector<'_>>,
        key: Key,
        name: &str,
    ) -> PyResult<Value> {
        let (constant, bias) = (self.keep(&weight), self.keep_optional(&bias));
        let shape = weight.as_array().dim();
        Ok(self.graph.linear(input, constant, shape, bias, key, name)?)
    }

    /// Batch norm with fixed statistics.
    fn batch_norm(
        &mut self,
        input: Value,
        mean: Vector<'_>,
        var: Vector<'_>,
        weight: Option<Vector<'_>>,
        bias: Option<Vector<'_>>,
        eps: f64,
        key: Key,
        name: &str,
    ) -> PyResult<Value> {
        let (mean, var) = (self.keep(&mean), self.keep(&var));
        let (weight, bias) = (self.keep_optional(&weight), self.keep_optional(&bias));
        let norm = Norm { mean, var, weight, bias, eps, key, affine: false };
        Ok(self.graph.batch_norm(input, norm, name)?)
    }

    /// "add", "sub", "mul" or "div" of a value and a number for each channel, or "rsub", the
    /// numbers less the value.
    fn channelwise(
        &mut self,
        py: Python<'_>,
        input: Value,
        kind: &str,
        operand: Vector<'_>,
        mut key: Key,
        name: &str,
    ) -> PyResult<Value> {
        let channels = self.graph.shape(input)?.channels();
        let numbers = slice(&operand, "operand")?;
        let each = |f: fn(f32) -> f32| numbers.iter().map(|&v| f(v)).collect();
        let (code, weight, bias): (u64, Vec<f32>, Vec<f32>) = match kind {
            "add" => (1, vec![1.0; channels], each(|v| v)),
            "sub" => (2, vec![1.0; channels], each(|v| -v)),
            "rsub" => (3, vec![-1.0; channels], each(|v| v)),
            "mul" => (4, each(|v| v), vec![0.0; channels]),
            "div" => (5, each(|v| 1.0 / v), vec![0.0; channels]),
            _ => return Err(unknown("kind", "add, sub, rsub, mul or div", kind).into()),
        };
        // One buffer may be added here and multiplied there; no parameter has the serial 0.
        key.push((0, code));
        let mut keep = |values: Vec<f32>| -> PyResult<Constant> {
            Ok(self.keep(&PyArray1::from_vec(py, values).try_readonly()?))
        };
        let (mean, var) = (keep(vec![0.0; channels])?, keep(vec![1.0; channels])?);
        let (weight, bias) = (Some(keep(weight)?), Some(keep(bias)?));
        let norm = Norm { mean, var, weight, bias, eps: 0.0, key, affine: true };
        Ok(self.graph.batch_norm(input, norm, name)?)
    }

    /// "relu", "clamp" (to low and high), "sigmoid" or "tanh".
    fn activation(
        &mut self,
        input: Value,
        kind: &str,
        low: f32,
        high: f32,
        name: &str,
    ) -> PyResult<Value> {
        let function = match kind {
            "relu" => Function::Clamp(Activation::Relu),
            "clamp" => Function::Clamp(Activation::Clamp(low, high)),
            "sigmoid" => Function::Sigmoid,
            "tanh" => Function::Tanh,
            _ => return Err(unknown("kind", "relu, clamp, sigmoid or tanh", kind).into()),
        };
        Ok(self.graph.map(input, function, name)?)
    }

    /// The sum of two values of one shape.
    fn add(&mut self, a: Value, b: Value, name: &str) -> PyResult<Value> {
        Ok(self.graph.add(a, b, name)?)
    }

    /// `input * factor + offset`.
    fn scale(&mut self, input: Value, factor: f32, offset: f32, name: &str) -> PyResult<Value> {
        Ok(self.graph.map(input, Function::Scale(factor, offset), name)?)
    }

    /// `count` channels from `first` on.
    fn channels(
        &mut self,
        input: Value,
        first: usize,
        count: usize,
        name: &str,
    ) -> PyResult<Value> {
        Ok(self.graph.channels(input, first, count, name)?)
    }

    /// Max pooling.
    fn max_pool2d(
        &mut self,
        input: Value,
        kernel_size: Pair,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        ceil_mode: bool,
        name: &str,
    ) -> PyResult<Value> {
        let windows = Sliding { kernel: kernel_size, stride, padding, dilation, ceil_mode };
        Ok(self.graph.max_pool2d(input, windows, name)?)
    }

    /// Average pooling.
    fn avg_pool2d(
        &mut self,
        input: Value,
        kernel_size: Pair,
        stride: Pair,
        padding: Pair,
        ceil_mode: bool,
        count_include_pad: bool,
        divisor_override: Option<i64>,
        name: &str,
    ) -> PyResult<Value> {
        let dilation = (1, 1);
        let windows = Sliding { kernel: kernel_size, stride, padding, dilation, ceil_mode };
        let divisor = divisor(count_include_pad, divisor_override)?;
        Ok(self.graph.avg_pool2d(input, windows, divisor, name)?)
    }

    /// Average pooling to `output_size` windows.
    fn adaptive_avg_pool2d(
        &mut self,
        input: Value,
        output_size: Pair,
        name: &str,
    ) -> PyResult<Value> {
        Ok(self.graph.adaptive_avg_pool2d(input, output_size, name)?)
    }

    /// Max pooling to `output_size` windows.
    fn adaptive_max_pool2d(
        &mut self,
        input: Value,
        output_size: Pair,
        name: &str,
    ) -> PyResult<Value> {
        Ok(self.graph.adaptive_max_pool2d(input, output_size, name)?)
    }

    /// Padding by (top, bottom, left, right) pixels and (in front, behind) channels.
    fn pad(
        &mut self,
        input: Value,
        padding: Quad,
        channels: Pair,
        mode: &str,
        value: f32,
        name: &str,
    ) -> PyResult<Value> {
        let (top, bottom, left, right) = padding;
        let padding = Padding { top, bottom, left, right };
        Ok(self.graph.pad(input, padding, channels, to_border(mode, value)?, name)?)
    }

    /// Rows and columns (first, count, step) of each image.
    fn slice(&mut self, input: Value, rows: Triple, cols: Triple, name: &str) -> PyResult<Value> {
        let every = |(first, count, step): Triple| Every { first, count, step };
        Ok(self.graph.slice(input, every(rows), every(cols), name)?)
    }

    /// Resizing to the nearest pixels.
    fn nearest2d(
        &mut self,
        input: Value,
        output_size: Pair,
        scales: Scales,
        centres: bool,
        name: &str,
    ) -> PyResult<Value> {
        Ok(self.graph.nearest2d(input, output_size, scales, centres, name)?)
    }

    /// Bilinear resizing.
    fn bilinear2d(
        &mut self,
        input: Value,
        output_size: Pair,
        scales: Scales,
        align_corners: bool,
        name: &str,
    ) -> PyResult<Value> {
        Ok(self.graph.bilinear2d(input, output_size, scales, align_corners, name)?)
    }

    /// Local response normalisation.
    fn local_response_norm(
        &mut self,
        input: Value,
        size: usize,
        alpha: f64,
        beta: f64,
        k: f64,
        name: &str,
    ) -> PyResult<Value> {
        Ok(self.graph.response_norm(input, ResponseNorm::new(size, alpha, beta, k)?, name)?)
    }

    /// The channels of several values, one after the other.
    fn concat(&mut self, inputs: Vec<Value>, name: &str) -> PyResult<Value> {
        Ok(self.graph.concat(&inputs, name)?)
    }

    /// (C, H, W) to (C * H * W,).
    fn flatten(&mut self, input: Value, name: &str) -> PyResult<Value> {
        Ok(self.graph.flatten(input, name)?)
    }

    /// Softmax over the channels, or its logarithm.
    fn softmax(&mut self, input: Value, log: bool, name: &str) -> PyResult<Value> {
        Ok(self.graph.softmax(input, log, name)?)
    }

    /// Dropout, which does nothing in evaluation.
    fn dropout(&mut self, input: Value, name: &str) -> PyResult<Value> {
        Ok(self.graph.dropout(input, name)?)
    }

    /// A batch norm by the statistics of the batch (without `running`), or by fixed ones with
    /// factors that are trained; `number` tells it from others.
    fn train_norm(
        &mut self,
        input: Value,
        running: Option<(Vector<'_>, Vector<'_>)>,
        weight: Option<Vector<'_>>,
        bias: Option<Vector<'_>>,
        eps: f64,
        number: usize,
        name: &str,
    ) -> PyResult<Value> {
        let running = running.map(|(mean, var)| (self.keep(&mean), self.keep(&var)));
        let (weight, bias) = (self.keep_optional(&weight), self.keep_optional(&bias));
        let (residual, activation) = (false, Activation::Identity);
        let norm = TrainNorm { number, weight, bias, running, eps, residual, activation };
        Ok(self.graph.train_norm(input, norm, name)?)
    }

    /// Dropout in training, of elements or whole channels.
    fn random_drop(
        &mut self,
        input: Value,
        p: f64,
        number: usize,
        channels: bool,
        name: &str,
    ) -> PyResult<Value> {
        Ok(self.graph.random_drop(input, RandomDrop { p, number, channels }, name)?)
    }

    /// The arrays that operations refer to, by number.
    fn constants(&self, py: Python<'_>) -> Vec<Py<PyArrayDyn<f32>>> {
        self.constants.iter().map(|array| array.clone_ref(py)).collect()
    }

    /// The training plan that computes `outputs` and the gradients of the inputs and constants that
    /// are marked.
    fn compile_training(
        &self,
        py: Python<'_>,
        outputs: Vec<Value>,
        trained: Vec<bool>,
        inputs: Vec<bool>,
        precision: &str,
        packed: &Bound<'_, PackedWeights>,
    ) -> PyResult<TrainingPlan> {
        let precision = to_precision(precision)?;
        let arrays = self.arrays(py)?;
        let constants: Vec<&[f32]> =
            arrays.iter().map(|array| slice(array, "weight")).collect::<Result<_>>()?;
        let (graph, cache) = (&self.graph, &packed.get().0);
        let wanted = (&trained[..], &inputs[..]);
        let plan =
            compute(py, || graph.compile_training(&outputs, wanted, &constants, precision, cache))?;
        Ok(TrainingPlan(Arc::new(plan)))
    }

    /// The plan that computes `outputs`.
    fn compile(
        &self,
        py: Python<'_>,
        outputs: Vec<Value>,
        precision: &str,
        storage: &str,
        packed: &Bound<'_, PackedWeights>,
    ) -> PyResult<Plan> {
        let options =
            Options { precision: to_precision(precision)?, storage: to_storage(storage)? };
        let arrays = self.arrays(py)?;
        let constants: Vec<&[f32]> =
            arrays.iter().map(|array| slice(array, "weight")).collect::<Result<_>>()?;
        let (graph, cache) = (&self.graph, &packed.get().0);
        let plan = compute(py, || graph.compile(&outputs, &constants, options, cache))?;
        Ok(Plan(plan))
    }
}

/// A network ready to run.
#[pyclass(frozen, module = "oxidet._core")]
struct Plan(graph::Plan);

impl Plan {
    /// The batch size and the elements of the inputs, (N, H, W, C) or (N, F) each.
    fn batch<'a>(
        &self,
        inputs: &'a [PyReadonlyArrayDyn<'_, f32>],
    ) -> Result<(usize, Vec<&'a [f32]>)> {
        let batch = inputs.first().and_then(|input| input.shape().first().copied()).unwrap_or(0);
        let got: Vec<&[usize]> = inputs.iter().map(|input| input.shape()).collect();
        let expected: Vec<Vec<usize>> =
            self.0.inputs().iter().map(|&shape| array_shape(batch, shape)).collect();
        if got != expected {
            let (expected, got) = (format!("arrays of shapes {expected:?}"), format!("{got:?}"));
            return Err(Error::shape("inputs", expected, got));
        }
        let slices = inputs.iter().map(|input| slice(input, "inputs")).collect::<Result<_>>()?;
        Ok((batch, slices))
    }
}

#[pymethods]
impl Plan {
    /// Runs the plan on one batch.
    fn run<'py>(
        &self,
        py: Python<'py>,
        inputs: Vec<PyReadonlyArrayDyn<'py, f32>>,
    ) -> PyResult<Vec<Bound<'py, PyArrayDyn<f32>>>> {
        let (batch, slices) = self.batch(&inputs)?;
        self.0.output_lens(batch)?;
        let shapes = self.0.outputs().iter().map(|&shape| array_shape(batch, shape));
        // NumPy's own memory: it asks for large pages where an array is large, which spares most of
        // the time that the first writing of fresh memory takes.
        let outputs: Vec<_> = shapes.map(|shape| PyArrayDyn::zeros(py, shape, false)).collect();
        let mut borrows = outputs
            .iter()
            .map(|array| array.try_readwrite())
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let mut targets = borrows
            .iter_mut()
            .map(|borrow| borrow.as_slice_mut())
            .collect::<std::result::Result<Vec<_>, _>>()?;
        py.detach(|| self.0.run_into(batch, &slices, &mut targets))?;
        drop(borrows);
        Ok(outputs)
    }

    /// What the plan does, step by step.
    fn steps<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        self.0.steps().map(|step| describe(py, step)).collect()
    }

    /// Seconds that each step took in each of `repeats` runs.
    fn profile(
        &self,
        py: Python<'_>,
        inputs: Vec<PyReadonlyArrayDyn<'_, f32>>,
        repeats: usize,
    ) -> PyResult<Vec<Vec<f64>>> {
        let (batch, slices) = self.batch(&inputs)?;
        Ok(py.detach(|| self.0.profile(batch, &slices, repeats))?)
    }

    /// Bytes of weights, and of arena and scratch memory for a batch.
    fn memory<'py>(&self, py: Python<'py>, batch: usize) -> PyResult<Bound<'py, PyDict>> {
        let memory = compute(py, || Ok(self.0.memory(batch)))?;
        let dict = PyDict::new(py);
        dict.set_item("weights", memory.weights)?;
        dict.set_item("arena", memory.arena)?;
        dict.set_item("scratch", memory.scratch)?;
        Ok(dict)
    }
}

fn describe<'py>(py: Python<'py>, step: &StepInfo) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("name", &step.name)?;
    dict.set_item("op", step.op)?;
    dict.set_item("algorithm", &step.algorithm)?;
    dict.set_item("fused", &step.fused)?;
    dict.set_item("in_shape", extents(py, step.in_shape)?)?;
    dict.set_item("out_shape", extents(py, step.out_shape)?)?;
    dict.set_item("macs", step.macs)?;
    dict.set_item("weight_bytes", step.weight_bytes)?;
    dict.set_item("output_bytes", step.output_bytes)?;
    Ok(dict)
}

/// A shape as a tuple, C, H, W or F.
fn extents(py: Python<'_>, shape: Shape) -> PyResult<Bound<'_, PyAny>> {
    match shape {
        Shape::Image { channels, height, width } => {
            Ok((channels, height, width).into_pyobject(py)?.into_any())
        }
        Shape::Vector(features) => Ok((features,).into_pyobject(py)?.into_any()),
    }
}

/// The shape of the array that holds a batch.
pub(super) fn array_shape(batch: usize, shape: Shape) -> Vec<usize> {
    match shape {
        Shape::Image { channels, height, width } => vec![batch, height, width, channels],
        Shape::Vector(features) => vec![batch, features],
    }
}

fn to_shape(shape: &[usize]) -> PyResult<Shape> {
    match *shape {
        [channels, height, width] => Ok(Shape::Image { channels, height, width }),
        [features] => Ok(Shape::Vector(features)),
        _ => {
            Err(PyValueError::new_err(format!("shape: expected (C, H, W) or (F,), got {shape:?}")))
        }
    }
}

pub(super) fn to_precision(name: &str) -> Result<Precision> {
    match name {
        "direct" => Ok(Precision::Direct),
        "winograd" => Ok(Precision::Winograd),
        "bf16" => Ok(Precision::Bf16),
        _ => Err(unknown("precision", "direct, winograd or bf16", name)),
    }
}

fn to_storage(name: &str) -> Result<Storage> {
    match name {
        "f32" => Ok(Storage::F32),
        "f16" => Ok(Storage::F16),
        "bf16" => Ok(Storage::Bf16),
        _ => Err(unknown("storage", "f32, f16 or bf16", name)),
    }
}

fn unknown(argument: &'static str, expected: &str, got: &str) -> Error {
    Error::value(argument, expected, format!("{got:?}"))
}

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<GraphBuilder>()?;
    m.add_class::<PackedWeights>()?;
    m.add_class::<Plan>()?;
    Ok(())
}
