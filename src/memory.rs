//! Memory: refusing results that none can hold, and keeping what kernels work in.
//!
//! An allocation that fails ends the process, and with it a notebook. How large a result becomes is
//! in the hands of the caller (two long lists of boxes, a padding, a number of bins), so kernels ask
//! here before they allocate.
//!
//! Kernels that pack weights and make tiles on every call of training would spend more time on fresh
//! pages from the system than on their work: [`Scratch`] is memory that stays with the process.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

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

/// Floats kept between calls, all buffers together: 128 MiB.
const KEPT: usize = 32 << 20;

/// Buffers nobody uses at the moment.
static SPARE: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// Floats to work with. They hold whatever the last user left, and go back to be used again.
#[derive(Debug)]
pub struct Scratch {
    memory: Vec<f32>,
    len: usize,
}

impl Scratch {
    /// `len` floats of any value.
    pub fn new(len: usize) -> Scratch {
        // Never waits: the lock may have been held by another thread when this process was forked.
        let spare = SPARE.try_lock().ok().and_then(|mut spare| {
            let fitting = |index: &usize| spare[*index].len() >= len;
            let best = (0..spare.len()).filter(fitting).min_by_key(|&index| spare[index].len())?;
            Some(spare.swap_remove(best))
        });
        Scratch { memory: spare.unwrap_or_else(|| vec![0.0; len]), len }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Ok(mut spare) = SPARE.try_lock() else { return };
        spare.push(std::mem::take(&mut self.memory));
        // Larger buffers serve more layers, but none that is larger than all that may be kept.
        spare.sort_by_key(Vec::len);
        while spare.last().is_some_and(|last| last.len() > KEPT) {
            spare.pop();
        }
        while spare.iter().map(Vec::len).sum::<usize>() > KEPT {
            spare.remove(0);
        }
    }
}

impl Deref for Scratch {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.memory[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_has_the_length_asked_for_and_is_nobody_elses() {
        for len in [0, 1, 1000, 10, 3000] {
            let (mut a, mut b) = (Scratch::new(len), Scratch::new(len));
            assert_eq!((a.len(), b.len()), (len, len));
            a.fill(1.0);
            b.fill(2.0);
            assert!(a.iter().all(|&x| x == 1.0) && b.iter().all(|&x| x == 2.0));
        }
        drop(Scratch::new(KEPT + 1));
        let kept: usize = SPARE.lock().unwrap().iter().map(Vec::len).sum();
        assert!(kept <= KEPT, "{kept} floats");
    }

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
