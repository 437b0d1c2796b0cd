//! Refusing results that no memory can hold.
//!
//! An allocation that fails ends the process, and with it a notebook. How large a result becomes is
//! in the hands of the caller (two long lists of boxes, a padding, a number of bins), so kernels ask
//! here before they allocate.

use crate::{Error, Result};

/// From this size on a result is first allocated on trial.
const TRIAL_BYTES: usize = 1 << 30;

/// Number of elements of type `T` in a result of the given extents, if memory can hold them.
/// `argument` is what the result's size follows from.
pub fn result_len<T>(argument: &'static str, extents: &[usize]) -> Result<usize> {
    // An axis of length 0 empties the result, but the others must be countable nevertheless.
    let most = extents.iter().try_fold(size_of::<T>(), |n, &extent| n.checked_mul(extent.max(1)));
    let got = || format!("one of shape {extents:?}");
    if most.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
        return Err(Error::value(argument, "a result that can be addressed", got()));
    }
    let len = extents.iter().product();
    if len * size_of::<T>() >= TRIAL_BYTES {
        let mut trial = Vec::<T>::new();
        if trial.try_reserve_exact(len).is_err() {
            return Err(Error::Memory { argument, got: got() });
        }
        // Without a use the compiler may drop the trial and call it a success.
        std::hint::black_box(trial.as_mut_ptr());
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_and_empty_results_are_counted() {
        assert_eq!(result_len::<f32>("x", &[2, 3, 4]).unwrap(), 24);
        assert_eq!(result_len::<f32>("x", &[]).unwrap(), 1);
        assert_eq!(result_len::<f64>("x", &[0, 5]).unwrap(), 0);
    }

    #[test]
    fn what_overflows_and_what_cannot_be_had_is_named() {
        for extents in [&[usize::MAX, 2][..], &[1 << 31, 1 << 31], &[0, 1 << 40, 1 << 40]] {
            let error = result_len::<f32>("x", extents).unwrap_err();
            assert!(matches!(error, Error::Value { argument: "x", .. }), "{error}");
        }
        // 256 TB, more than the address space of a process on the machines of today.
        let error = result_len::<f32>("x", &[1 << 23, 1 << 23]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "x: expected a result that fits into memory, got one of shape [8388608, 8388608]"
        );
    }
}
