//! The bindings: borrow the arrays, check them, call a kernel with the GIL released, wrap the
//! result. One file an area; no loops and no unsafe code here.

use numpy::ndarray::{Array, Dimension, IntoDimension};
use numpy::{
    Element, IntoPyArray, PyArray, PyArrayMethods, PyReadonlyArray, PyReadonlyArray4,
    PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyMemoryError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

mod box_losses;
mod boxes;
mod conv;
mod detection;
mod evaluation;
mod graph;
mod layers;
mod nms;
mod optim;
mod pooling;
mod resampling;
mod roi;
mod rpn;
mod runtime;
mod training;

impl From<crate::Error> for PyErr {
    fn from(error: crate::Error) -> PyErr {
        match error {
            crate::Error::Memory { .. } => PyMemoryError::new_err(error.to_string()),
            _ => PyValueError::new_err(error.to_string()),
        }
    }
}

/// Runs a kernel inside our thread pool with the GIL released. (A plan leads its threads from the
/// caller's own: it needs only `detach`.)
fn compute<T: Send>(
    py: Python<'_>,
    kernel: impl FnOnce() -> crate::Result<T> + Send,
) -> PyResult<T> {
    Ok(py.detach(|| crate::parallel::install(kernel))??)
}

/// Runs a kernel whose loops are all [`parallel`](crate::parallel)'s, with the GIL released: this
/// thread leads those of our pool.
fn lead<T: Send>(py: Python<'_>, kernel: impl FnOnce() -> T + Send) -> PyResult<T> {
    Ok(py.detach(|| crate::parallel::lead(kernel))?)
}

/// The elements of a C-contiguous array. The Python side converts before it calls, so a failure
/// here names a mistake of ours rather than of the user's.
fn slice<'a, T: Element, D: Dimension>(
    array: &'a PyReadonlyArray<'_, T, D>,
    argument: &'static str,
) -> crate::Result<&'a [T]> {
    match array.as_slice() {
        Ok(values) if array.is_c_contiguous() => Ok(values),
        _ => Err(crate::Error::shape(argument, "a C-contiguous array", "a strided one")),
    }
}

/// The four extents of an array.
fn shape4<T: Element>(array: &PyReadonlyArray4<'_, T>) -> (usize, usize, usize, usize) {
    array.as_array().dim()
}

/// A kernel's result as a NumPy array of the given shape, without a copy.
fn wrap<'py, T: Element, I: IntoDimension>(
    py: Python<'py>,
    values: Vec<T>,
    shape: I,
) -> PyResult<Bound<'py, PyArray<T, I::Dim>>> {
    match Array::from_shape_vec(shape, values) {
        Ok(array) => Ok(array.into_pyarray(py)),
        Err(error) => Err(PyRuntimeError::new_err(format!(
            "this is a bug in oxidet: a kernel returned an array of the wrong size ({error})"
        ))),
    }
}

/// An array of the given shape that a kernel fills with the GIL released. NumPy allocates it, in
/// huge pages where it is large.
fn filled<'py, T: Element, I: IntoDimension>(
    py: Python<'py>,
    shape: I,
    kernel: impl FnOnce(&mut [T]) -> crate::Result<()> + Send,
) -> PyResult<Bound<'py, PyArray<T, I::Dim>>> {
    let array = PyArray::zeros(py, shape, false);
    let mut borrow = array.try_readwrite()?;
    let values = borrow.as_slice_mut()?;
    py.detach(|| kernel(values))?;
    drop(borrow);
    Ok(array)
}

/// A new array whose contents are whatever was in its memory.
fn empty<'py, T: Element, I: IntoDimension>(
    py: Python<'py>,
    shape: I,
) -> PyResult<Bound<'py, PyArray<T, I::Dim>>> {
    let shape = PyTuple::new(py, shape.into_dimension().slice())?;
    let array = py.import("numpy")?.call_method1("empty", (shape, T::get_dtype(py)))?;
    Ok(array.cast_into()?)
}

/// [`filled`] by a kernel that writes every element, whatever it was.
fn overwritten<'py, T: Element, I: IntoDimension>(
    py: Python<'py>,
    shape: I,
    kernel: impl FnOnce(&mut [T]) -> crate::Result<()> + Send,
) -> PyResult<Bound<'py, PyArray<T, I::Dim>>> {
    let array = empty(py, shape)?;
    let mut borrow = array.try_readwrite()?;
    let values = borrow.as_slice_mut()?;
    py.detach(|| kernel(values))?;
    drop(borrow);
    Ok(array)
}

/// An array made for a shape of type `I`.
type NewArray<'py, T, I> = Bound<'py, PyArray<T, <I as IntoDimension>::Dim>>;

/// Two arrays of one shape, as [`overwritten`].
fn overwritten_pair<'py, T: Element, U: Element, I: IntoDimension + Clone>(
    py: Python<'py>,
    shape: I,
    kernel: impl FnOnce(&mut [T], &mut [U]) -> crate::Result<()> + Send,
) -> PyResult<(NewArray<'py, T, I>, NewArray<'py, U, I>)> {
    let (first, second) = (empty(py, shape.clone())?, empty(py, shape)?);
    let (mut borrow, mut other) = (first.try_readwrite()?, second.try_readwrite()?);
    let (values, others) = (borrow.as_slice_mut()?, other.as_slice_mut()?);
    py.detach(|| kernel(values, others))?;
    drop((borrow, other));
    Ok((first, second))
}

/// The array if kernels can take it as it is: with elements of type `T` in C order. The Python side
/// converts everything else, and then calls again.
fn ready<'py, T: Element, D: Dimension>(
    object: &Bound<'py, PyAny>,
) -> Option<PyReadonlyArray<'py, T, D>> {
    let array = object.cast::<PyArray<T, D>>().ok()?.try_readonly().ok()?;
    // `as_slice` takes Fortran order for contiguous, too.
    (array.is_c_contiguous() && array.as_slice().is_ok()).then_some(array)
}

/// The private extension module `oxidet._core`.
#[pymodule]
#[pyo3(name = "_core")]
fn core_module(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    runtime::register(m)?;
    conv::register(m)?;
    boxes::register(m)?;
    box_losses::register(m)?;
    nms::register(m)?;
    rpn::register(m)?;
    detection::register(m)?;
    evaluation::register(m)?;
    roi::register(m)?;
    pooling::register(m)?;
    resampling::register(m)?;
    layers::register(m)?;
    optim::register(m)?;
    graph::register(m)?;
    training::register(m)?;
    Ok(())
}
