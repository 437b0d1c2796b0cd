//! The mode in which a thread computes with floating-point numbers.
//!
//! A thread starts in the mode of the one that started it, and some libraries have their callers'
//! threads replace subnormal numbers by zero, for speed. A plan's tasks run on the calling thread
//! as well as on threads started earlier, so the result would depend on who ran which. Hence all of
//! them compute in the mode that Rust takes for granted: IEEE 754's, rounded to nearest.

/// IEEE 754's mode on this thread while this lives.
pub(super) struct Ieee {
    before: control::Word,
}

impl Ieee {
    pub(super) fn enter() -> Ieee {
        let before = control::read();
        control::write(control::IEEE);
        Ieee { before }
    }

    /// For the rest of the thread's life.
    pub(super) fn stay() {
        std::mem::forget(Ieee::enter());
    }
}

/// Runs work on the calling thread in the mode that all other threads of ours are in.
pub fn ieee<T>(work: impl FnOnce() -> T) -> T {
    let _mode = Ieee::enter();
    work()
}

impl Drop for Ieee {
    fn drop(&mut self) {
        control::write(self.before);
    }
}

#[cfg(target_arch = "x86_64")]
mod control {
    use std::arch::asm;

    pub(super) type Word = u32;

    /// All exceptions masked, none raised; nothing flushed to zero.
    pub(super) const IEEE: Word = 0x1f80;

    pub(super) fn read() -> Word {
        let mut word = 0;
        // SAFETY: stores the control and status register to `word`.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack, preserves_flags)) };
        word
    }

    pub(super) fn write(word: Word) {
        // SAFETY: a value that was read, or `IEEE`: no reserved bit is set.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const word, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod control {
    use std::arch::asm;

    pub(super) type Word = u64;

    /// No exception trapped; nothing flushed to zero.
    pub(super) const IEEE: Word = 0;

    pub(super) fn read() -> Word {
        let word;
        // SAFETY: reads the control register.
        unsafe { asm!("mrs {}, fpcr", out(reg) word, options(nostack, preserves_flags)) };
        word
    }

    pub(super) fn write(word: Word) {
        // SAFETY: a value that was read, or `IEEE`: no reserved bit is set.
        unsafe { asm!("msr fpcr, {}", in(reg) word, options(nostack, preserves_flags)) };
    }
}

/// Other processors: the mode is left as it is.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod control {
    pub(super) type Word = ();

    pub(super) const IEEE: Word = ();

    pub(super) fn read() -> Word {}

    pub(super) fn write((): Word) {}
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::parallel::{for_each_chunk, install, lead};

    /// Subnormal inputs and results are zero.
    const FLUSH: u32 = 0x8040;

    fn halves() -> Vec<f32> {
        let mut values = vec![f32::MIN_POSITIVE; 10_000];
        for_each_chunk(&mut values, 10, |_, chunk| {
            chunk.iter_mut().for_each(|x| *x = std::hint::black_box(*x) / 2.0);
        });
        values
    }

    #[test]
    fn the_callers_mode_changes_no_result_and_is_restored() {
        let before = control::read();
        control::write(control::IEEE | FLUSH);
        let results = [lead(halves), install(halves), Ok(ieee(halves))];
        let after = control::read();
        control::write(before);
        assert_eq!(after & FLUSH, FLUSH);
        for result in results {
            assert!(result.unwrap().iter().all(|x| x.is_subnormal()));
        }
    }
}
