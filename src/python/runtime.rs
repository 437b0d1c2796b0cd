//! Threads and CPU features.

use pyo3::prelude::*;

use super::compute;
use crate::isa::{self, Isa};
use crate::{gemm, parallel};

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

/// Name of the instruction set in use: `scalar`, `avx2` or `avx512`.
#[pyfunction(name = "isa")]
fn isa_name() -> PyResult<&'static str> {
    isa::check_cap()?;
    Ok(Isa::active().name())
}

/// Name of the micro-kernel that plans multiply with.
#[pyfunction]
fn kernels() -> PyResult<String> {
    isa::check_cap()?;
    Ok(gemm::kernel_name(Isa::active()))
}

/// Floating-point operations per second that the micro-kernel reaches on all threads at once, from
/// the first-level cache.
#[pyfunction]
fn peak_flops(py: Python<'_>) -> PyResult<f64> {
    let measure = || rayon::broadcast(|_| gemm::measure_peak(Isa::active()));
    compute(py, || Ok(measure().into_iter().sum()))
}

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(num_threads, m)?)?;
    m.add_function(wrap_pyfunction!(set_num_threads, m)?)?;
    m.add_function(wrap_pyfunction!(isa_name, m)?)?;
    m.add_function(wrap_pyfunction!(kernels, m)?)?;
    m.add_function(wrap_pyfunction!(peak_flops, m)?)?;
    Ok(())
}
