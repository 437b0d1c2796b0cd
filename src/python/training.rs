//! Training plans and their passes.

use std::sync::{Arc, Mutex, PoisonError};

use numpy::{
    PyArray, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyReadwriteArrayDyn,
    PyUntypedArrayMethods,
};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::graph::array_shape;
use super::slice;
use crate::graph::{self, Shape};
use crate::{Error, Result};

type Array<'py> = PyReadonlyArrayDyn<'py, f32>;
type Results<'py> = Vec<Bound<'py, PyArrayDyn<f32>>>;

/// A network ready to be trained.
#[pyclass(frozen, module = "oxidet._core")]
pub(super) struct TrainingPlan(pub(super) Arc<graph::TrainingPlan>);

/// What a pass forward has kept for its way back; used once, unless it is copied.
#[pyclass(frozen, module = "oxidet._core")]
struct TrainingPass(Mutex<Option<graph::Pass>>);

#[pymethods]
impl TrainingPlan {
    /// Runs a batch forward: the outputs, what is kept for the way back, and mean and biased
    /// variance of each batch norm, by its number. `masks` are seed and number of each dropout.
    #[expect(clippy::type_complexity, reason = "the three results of one call")]
    fn forward<'py>(
        &self,
        py: Python<'py>,
        inputs: Vec<Array<'py>>,
        constants: Vec<Array<'py>>,
        masks: Vec<(u64, u64)>,
    ) -> PyResult<(Results<'py>, TrainingPass, Vec<(usize, Vec<f32>, Vec<f32>)>)> {
        let batch = inputs.first().and_then(|input| input.shape().first().copied()).unwrap_or(0);
        check_shapes(batch, &inputs, self.0.inputs())?;
        let outputs: Results<'py> = self
            .0
            .outputs()
            .map(|shape| PyArray::zeros(py, array_shape(batch, shape), false))
            .collect();
        let (inputs, constants) = (slices(&inputs)?, slices(&constants)?);
        let pass = write(&outputs, |outputs| {
            Ok(py.detach(|| self.0.forward(batch, &inputs, &constants, &masks, outputs))?)
        })?;
        let statistics = pass.statistics();
        let statistics = statistics.map(|(n, mean, var)| (n, mean.to_vec(), var.to_vec()));
        let statistics = statistics.collect();
        Ok((outputs, TrainingPass(Mutex::new(Some(pass))), statistics))
    }

    /// Bytes that a pass needs for a batch.
    fn memory(&self, batch: usize) -> usize {
        self.0.memory(batch)
    }

    /// Seconds forward and back of each step, in the last pass that went both ways.
    fn seconds(&self) -> Vec<(f64, f64)> {
        self.0.seconds()
    }

    /// Bytes that wait for the next pass.
    fn memory_at_rest(&self) -> usize {
        self.0.memory_at_rest()
    }

    /// Takes over memory that another plan has at rest.
    fn take_memory(&self, other: &TrainingPlan) {
        self.0.take_memory(&other.0);
    }

    /// Of each output, the constants and inputs (by number) that can get a gradient from it.
    fn reached(&self) -> Vec<(Vec<usize>, Vec<usize>)> {
        self.0.reached()
    }

    /// Name, operation and what was drawn into it, of each step.
    fn steps(&self) -> Vec<(String, &'static str, Vec<&'static str>)> {
        let own = |(name, op, fused): (&str, _, &[_])| (name.to_owned(), op, fused.to_vec());
        self.0.steps().map(own).collect()
    }
}

#[pymethods]
impl TrainingPass {
    /// Goes back: adds to `grad_constants` (None where not wanted), and writes `grad_inputs`.
    /// `gradients` are those of the outputs, None for zeros. With `keep` it can be gone again.
    fn backward<'py>(
        &self,
        py: Python<'py>,
        inputs: Vec<Array<'py>>,
        constants: Vec<Array<'py>>,
        gradients: Vec<Option<Array<'py>>>,
        grad_inputs: Vec<Option<PyReadwriteArrayDyn<'py, f32>>>,
        grad_constants: Vec<Option<PyReadwriteArrayDyn<'py, f32>>>,
        keep: bool,
    ) -> PyResult<()> {
        let taken = {
            let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if keep { held.as_ref().map(graph::Pass::copy) } else { held.take() }
        };
        let Some(pass) = taken else {
            return Err(PyRuntimeError::new_err(
                "backward: this pass was gone back through before",
            ));
        };
        let (inputs, constants) = (slices(&inputs)?, slices(&constants)?);
        let gradients: Vec<Option<&[f32]>> = gradients
            .iter()
            .map(|gradient| gradient.as_ref().map(|g| slice(g, "gradient")).transpose())
            .collect::<Result<_>>()?;
        let (mut grad_inputs, mut grad_constants) = (grad_inputs, grad_constants);
        let mut inputs_out = slices_mut(&mut grad_inputs)?;
        let mut sinks = slices_mut(&mut grad_constants)?;
        Ok(py.detach(|| {
            pass.backward(&inputs, &constants, &gradients, &mut inputs_out, &mut sinks)
        })?)
    }
}

fn check_shapes(batch: usize, inputs: &[Array<'_>], shapes: &[Shape]) -> Result<()> {
    let got: Vec<&[usize]> = inputs.iter().map(|input| input.shape()).collect();
    let expected: Vec<Vec<usize>> = shapes.iter().map(|&shape| array_shape(batch, shape)).collect();
    if got == expected {
        return Ok(());
    }
    let (expected, got) = (format!("arrays of shapes {expected:?}"), format!("{got:?}"));
    Err(Error::shape("inputs", expected, got))
}

fn slices<'a>(arrays: &'a [Array<'_>]) -> Result<Vec<&'a [f32]>> {
    arrays.iter().map(|array| slice(array, "array")).collect()
}

fn slices_mut<'a>(
    arrays: &'a mut [Option<PyReadwriteArrayDyn<'_, f32>>],
) -> PyResult<Vec<Option<&'a mut [f32]>>> {
    let mut slices = Vec::new();
    for array in arrays {
        slices.push(match array {
            Some(array) => Some(array.as_slice_mut()?),
            None => None,
        });
    }
    Ok(slices)
}

/// Lets `fill` write into new arrays.
fn write<'py, T>(
    arrays: &[Bound<'py, PyArrayDyn<f32>>],
    fill: impl FnOnce(&mut [&mut [f32]]) -> PyResult<T>,
) -> PyResult<T> {
    let mut borrows = Vec::new();
    for array in arrays {
        borrows.push(array.try_readwrite()?);
    }
    let mut slices = Vec::new();
    for borrow in &mut borrows {
        slices.push(borrow.as_slice_mut()?);
    }
    fill(&mut slices)
}

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<TrainingPlan>()?;
    m.add_class::<TrainingPass>()?;
    Ok(())
}
