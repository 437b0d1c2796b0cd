//! Steps of optimisers over lists of arrays, each of one axis; norms and changes of gradients.

use numpy::{PyReadonlyArray1, PyReadwriteArray1, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::optim::{self, Adam, Arrays, RmsProp, Sgd};
use crate::parallel::lead;
use crate::{Error, Result};

type Changed<'py> = Vec<PyReadwriteArray1<'py, f32>>;
type Read<'py> = Vec<PyReadonlyArray1<'py, f32>>;

/// The elements of arrays to change, which are contiguous.
fn slices_mut<'a>(arrays: &'a mut Changed<'_>) -> PyResult<Vec<&'a mut [f32]>> {
    arrays.iter_mut().map(|array| Ok(array.as_slice_mut()?)).collect()
}

/// The elements of arrays to read.
fn slices<'a>(arrays: &'a Read<'_>) -> PyResult<Vec<&'a [f32]>> {
    arrays.iter().map(|array| Ok(array.as_slice()?)).collect()
}

/// The arrays of each parameter, from lists of one length.
fn arrays<'a, const N: usize>(
    changed: [&'a mut Changed<'_>; N],
    read: &'a Read<'_>,
) -> PyResult<Vec<Arrays<'a, N>>> {
    let read = slices(read)?;
    for list in &changed {
        let lengths = || list.iter().map(|array| array.len());
        if !lengths().eq(read.iter().map(|array| array.len())) {
            let expected = "as many elements in each array as in its gradient";
            let got = format!("lists of {} and {} arrays", list.len(), read.len());
            return Err(Error::shape("params", expected, got).into());
        }
    }
    let mut lists = Vec::with_capacity(N);
    for list in changed {
        lists.push(slices_mut(list)?.into_iter());
    }
    let of_each = |read| {
        let changed = std::array::from_fn(|n| lists[n].next().unwrap_or_default());
        Arrays { changed, read }
    };
    Ok(read.into_iter().map(of_each).collect())
}

/// Runs a step with the GIL released.
fn run<T: Send>(py: Python<'_>, step: impl FnOnce() -> T + Send) -> PyResult<T> {
    Ok(py.detach(|| -> Result<T> { lead(step) })?)
}

/// A step of stochastic gradient descent. `velocities` is empty without momentum; `first` sets them
/// to the gradients.
#[pyfunction]
fn sgd_step<'py>(
    py: Python<'py>,
    mut params: Changed<'py>,
    grads: Read<'py>,
    mut velocities: Changed<'py>,
    lr: f32,
    momentum: f32,
    share: f32,
    weight_decay: f32,
    nesterov: bool,
    maximize: bool,
    first: bool,
) -> PyResult<()> {
    let sgd = Sgd { lr, momentum, share, weight_decay, nesterov, maximize };
    if velocities.is_empty() {
        let arrays = arrays([&mut params], &grads)?;
        return run(py, || sgd.step(arrays));
    }
    let arrays = arrays([&mut params, &mut velocities], &grads)?;
    run(py, || sgd.step_with_momentum(arrays, first))
}

/// A step of Adam or AdamW. `largest` is empty without AMSGrad.
#[pyfunction]
fn adam_step<'py>(
    py: Python<'py>,
    mut params: Changed<'py>,
    grads: Read<'py>,
    mut means: Changed<'py>,
    mut squares: Changed<'py>,
    mut largest: Changed<'py>,
    step_size: f32,
    root: f32,
    share: f32,
    beta2: f32,
    square_share: f32,
    eps: f32,
    weight_decay: f32,
    kept: f32,
    maximize: bool,
) -> PyResult<()> {
    let adam =
        Adam { step_size, root, share, beta2, square_share, eps, weight_decay, kept, maximize };
    if largest.is_empty() {
        let arrays = arrays([&mut params, &mut means, &mut squares], &grads)?;
        return run(py, || adam.step(arrays));
    }
    let arrays = arrays([&mut params, &mut means, &mut squares, &mut largest], &grads)?;
    run(py, || adam.step_with_largest(arrays))
}

/// A step of RMSprop. `means` is empty unless centered, `steps` without momentum.
#[pyfunction]
fn rmsprop_step<'py>(
    py: Python<'py>,
    mut params: Changed<'py>,
    grads: Read<'py>,
    mut squares: Changed<'py>,
    mut means: Changed<'py>,
    mut steps: Changed<'py>,
    lr: f32,
    alpha: f32,
    share: f32,
    eps: f32,
    weight_decay: f32,
    momentum: f32,
    maximize: bool,
    eps_inside: bool,
) -> PyResult<()> {
    let rmsprop = RmsProp { lr, alpha, share, eps, weight_decay, momentum, maximize, eps_inside };
    match (means.is_empty(), steps.is_empty()) {
        (true, true) => {
            let arrays = arrays([&mut params, &mut squares], &grads)?;
            run(py, || rmsprop.step(arrays))
        }
        (false, true) => {
            let arrays = arrays([&mut params, &mut squares, &mut means], &grads)?;
            run(py, || rmsprop.step_centered(arrays))
        }
        (true, false) => {
            let arrays = arrays([&mut params, &mut squares, &mut steps], &grads)?;
            run(py, || rmsprop.step_with_momentum(arrays))
        }
        (false, false) => {
            let arrays = arrays([&mut params, &mut squares, &mut means, &mut steps], &grads)?;
            run(py, || rmsprop.step_centered_with_momentum(arrays))
        }
    }
}

/// Moves each of `averages` by `share` of the way to its value.
#[pyfunction]
fn average_arrays<'py>(
    py: Python<'py>,
    mut averages: Changed<'py>,
    values: Read<'py>,
    share: f32,
) -> PyResult<()> {
    let arrays = arrays([&mut averages], &values)?;
    run(py, || optim::average(arrays, share))
}

/// Adds to each of `sums` its value.
#[pyfunction]
fn add_arrays<'py>(py: Python<'py>, mut sums: Changed<'py>, values: Read<'py>) -> PyResult<()> {
    let arrays = arrays([&mut sums], &values)?;
    run(py, || optim::add(arrays))
}

/// Sum of the squares of all elements, in float64.
#[pyfunction]
fn sum_of_squares(py: Python<'_>, arrays: Read<'_>) -> PyResult<f64> {
    let arrays = slices(&arrays)?;
    run(py, || optim::sum_of_squares(&arrays))
}

/// The largest magnitude of an element.
#[pyfunction]
fn largest_magnitude(py: Python<'_>, arrays: Read<'_>) -> PyResult<f32> {
    let arrays = slices(&arrays)?;
    run(py, || optim::largest(&arrays))
}

/// Multiplies all elements by `factor`.
#[pyfunction]
fn scale_arrays(py: Python<'_>, mut arrays: Changed<'_>, factor: f32) -> PyResult<()> {
    let arrays = slices_mut(&mut arrays)?;
    run(py, || optim::scale(arrays, factor))
}

/// Brings all elements into `-limit .. limit`.
#[pyfunction]
fn clamp_arrays(py: Python<'_>, mut arrays: Changed<'_>, limit: f32) -> PyResult<()> {
    let arrays = slices_mut(&mut arrays)?;
    run(py, || optim::clamp(arrays, limit))
}

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(sgd_step, m)?)?;
    m.add_function(wrap_pyfunction!(adam_step, m)?)?;
    m.add_function(wrap_pyfunction!(rmsprop_step, m)?)?;
    m.add_function(wrap_pyfunction!(average_arrays, m)?)?;
    m.add_function(wrap_pyfunction!(add_arrays, m)?)?;
    m.add_function(wrap_pyfunction!(sum_of_squares, m)?)?;
    m.add_function(wrap_pyfunction!(largest_magnitude, m)?)?;
    m.add_function(wrap_pyfunction!(scale_arrays, m)?)?;
    m.add_function(wrap_pyfunction!(clamp_arrays, m)?)?;
    Ok(())
}
