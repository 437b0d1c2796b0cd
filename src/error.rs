//! The one error type of the kernels: what was wrong, which argument, expected, got.

/// Result of a kernel that can refuse its arguments.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a kernel refused its arguments. Every message names the argument, what was expected and
/// what came; the bindings turn [`Error::Memory`] into a Python `MemoryError` and all others into a
/// `ValueError`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// An array has the wrong rank or extent.
    #[error("{argument}: expected {expected}, got {got}")]
    Shape {
        /// Name of the argument as the Python caller knows it.
        argument: &'static str,
        /// What would have been right.
        expected: String,
        /// What came.
        got: String,
    },
    /// A number is outside its legal range.
    #[error("{argument}: expected {expected}, got {got}")]
    Value {
        /// Name of the argument as the Python caller knows it.
        argument: &'static str,
        /// What would have been right.
        expected: String,
        /// What came.
        got: String,
    },
    /// One row of an array holds an illegal value.
    #[error("{argument}: expected {expected}, got {got} in row {row}")]
    Row {
        /// Name of the argument as the Python caller knows it.
        argument: &'static str,
        /// What every row must satisfy.
        expected: String,
        /// The offending row's content.
        got: String,
        /// Index of the first offending row.
        row: usize,
    },
    /// The result would not fit into memory.
    #[error("{argument}: expected a result that fits into memory, got {got}")]
    Memory {
        /// Name of the argument that the size of the result follows from.
        argument: &'static str,
        /// The shape of the result.
        got: String,
    },
}

impl Error {
    /// A wrong rank or extent.
    pub fn shape(
        argument: &'static str,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Self {
        Error::Shape { argument, expected: expected.into(), got: got.into() }
    }

    /// A number outside its legal range.
    pub fn value(
        argument: &'static str,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Self {
        Error::Value { argument, expected: expected.into(), got: got.into() }
    }

    /// An illegal row of an array.
    pub fn row(
        argument: &'static str,
        expected: impl Into<String>,
        got: impl Into<String>,
        row: usize,
    ) -> Self {
        Error::Row { argument, expected: expected.into(), got: got.into(), row }
    }
}
