//! Threads and CPU features.

use pyo3::prelude::*;

use crate::{isa::Isa, parallel};

/// Number of threads that kernels use.
#[pyfunction]
fn num_threads() -> PyResult<usize> {
    Ok(parallel::num_threads()?)
}

/// Sets the number of threads for all following kernels.
#[pyfunction]
fn set_num_threads(num_threads: usize) -> PyResult<()> {
    Ok(parallel::set_num_threads(num_threads)?)
}

/// Name of the best instruction set of this CPU: `scalar`, `avx2` or `avx512`.
#[pyfunction]
fn isa() -> &'static str {
    Isa::detect().name()
}

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(num_threads, m)?)?;
    m.add_function(wrap_pyfunction!(set_num_threads, m)?)?;
    m.add_function(wrap_pyfunction!(isa, m)?)?;
    Ok(())
}
