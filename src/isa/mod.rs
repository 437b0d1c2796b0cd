//! Vector instructions: what the CPU has, and kernels written once for all of them.
//!
//! The wheel is built for the x86-64 baseline. At run time [`Isa::active`] is the best instruction
//! set of the CPU, or a lesser one where the environment variable `OXIDET_ISA` caps it. A kernel is
//! written once, over the vector trait [`Simd`], and compiled for each instruction set by the three
//! implementations:
//!
//! | file | token | vector | needs |
//! |---|---|---|---|
//! | `portable` | [`Portable`] | 4 floats | nothing; LLVM uses what the target's baseline has |
//! | `avx2` | [`Avx2`] | 8 floats | AVX2, FMA, F16C |
//! | `avx512` | [`Avx512`] | 16 floats | AVX-512 F, VL, BW, DQ and the above |
//!
//! A token is the proof that the CPU has the instructions: it can only be made by asking the CPU.
//! [`dispatch`] runs a [`Kernel`] with the token of an instruction set, inside a function compiled
//! for it; [`vectorize`] does the same for a plain loop that LLVM vectorises by itself.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
mod simd;

use std::sync::OnceLock;

use crate::{Error, Result};

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use portable::Portable;
pub use simd::{Element, Simd};

/// Environment variable that caps the instruction set.
const CAP: &str = "OXIDET_ISA";

/// An instruction set with kernels of its own, from worst to best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// The target's baseline.
    Scalar,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, VL, BW, DQ.
    Avx512,
}

impl Isa {
    /// All of them, worst first.
    pub const ALL: [Isa; 3] = [Isa::Scalar, Isa::Avx2, Isa::Avx512];

    /// The best instruction set of this CPU.
    pub fn detect() -> Isa {
        static DETECTED: OnceLock<Isa> = OnceLock::new();
        *DETECTED.get_or_init(|| *Self::available().last().unwrap_or(&Isa::Scalar))
    }

    /// Those that this CPU has, worst first.
    pub fn available() -> Vec<Isa> {
        Self::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            Isa::Avx2 => Avx2::new().is_some(),
            Isa::Avx512 => Avx512::new().is_some(),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_available(self) -> bool {
        self == Isa::Scalar
    }

    /// What kernels use: the best the CPU has, capped by `OXIDET_ISA`. An illegal value of the
    /// variable caps nothing here; [`check_cap`] is what reports it.
    pub fn active() -> Isa {
        cap().as_ref().map_or(Isa::Avx512, |&cap| cap).min(Self::detect())
    }

    /// The name that `show_versions` prints and `OXIDET_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }
}

/// Makes what this thread has written with [`Simd::stream`] visible to whoever is told of it next.
pub fn finish_streams() {
    // SAFETY: SSE is part of x86-64; other architectures have no streams.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// The highest instruction set that the environment allows; read once per process.
fn cap() -> &'static Result<Isa> {
    static CAPPED: OnceLock<Result<Isa>> = OnceLock::new();
    CAPPED.get_or_init(|| match std::env::var_os(CAP) {
        Some(value) if !value.is_empty() => parse(&value.to_string_lossy()),
        _ => Ok(Isa::Avx512),
    })
}

fn parse(name: &str) -> Result<Isa> {
    Isa::ALL
        .into_iter()
        .find(|isa| isa.name() == name.trim())
        .ok_or_else(|| Error::value(CAP, "scalar, avx2 or avx512", format!("{name:?}")))
}

/// An error if `OXIDET_ISA` holds something else than the name of an instruction set.
pub fn check_cap() -> Result<()> {
    cap().clone().map(|_| ())
}

/// A computation written over the vector trait.
///
/// Implementations mark `run` as `#[inline(always)]`, so that it is compiled with the instructions
/// of the function it is called from.
pub trait Kernel {
    /// What it computes.
    type Output;

    /// Computes it with the vectors of one instruction set.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs a kernel with the vectors of `isa`.
///
/// # Panics
/// If the CPU does not have `isa`.
pub fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    let missing = "expected an instruction set that the CPU has";
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => Avx512::new().expect(missing).run(kernel),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Avx2::new().expect(missing).run(kernel),
        Isa::Scalar => kernel.run(Portable),
        #[cfg(not(target_arch = "x86_64"))]
        _ => panic!("{missing}"),
    }
}

/// Runs a plain loop compiled for [`Isa::active`]: LLVM vectorises it with what that has. Mark the
/// functions it calls `#[inline(always)]`; what is not inlined stays baseline code.
#[inline(always)]
pub fn vectorize<T>(work: impl FnOnce() -> T) -> T {
    struct Plain<F>(F);
    impl<T, F: FnOnce() -> T> Kernel for Plain<F> {
        type Output = T;
        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> T {
            (self.0)()
        }
    }
    dispatch(Isa::active(), Plain(work))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_from_worst_to_best() {
        assert!(Isa::Scalar < Isa::Avx2 && Isa::Avx2 < Isa::Avx512);
        assert_eq!(Isa::ALL.map(|isa| parse(isa.name()).unwrap()), Isa::ALL);
        assert!(Isa::available().contains(&Isa::Scalar));
        assert!(Isa::active() <= Isa::detect());
    }

    #[test]
    fn an_illegal_cap_is_named() {
        assert_eq!(
            parse("sse9").unwrap_err().to_string(),
            "OXIDET_ISA: expected scalar, avx2 or avx512, got \"sse9\""
        );
    }

    /// Every operation of the trait against plain arithmetic, for one instruction set.
    struct Operations;

    impl Kernel for Operations {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let n = S::LANES;
            let x: Vec<f32> = (0..n).map(|i| i as f32 * 0.75 - 3.0).collect();
            let y: Vec<f32> = (0..n).map(|i| 1.5 - i as f32).collect();
            let check = |got: S::Vector, expected: &dyn Fn(usize) -> f32| {
                let mut values = vec![0.0; n];
                // SAFETY: `values` has one element a lane.
                unsafe { simd.store(values.as_mut_ptr(), got) };
                for (i, value) in values.into_iter().enumerate() {
                    let same = value == expected(i) || (value.is_nan() && expected(i).is_nan());
                    assert!(same, "lane {i}: {value}, expected {}", expected(i));
                }
            };
            // SAFETY: both have one element a lane.
            let (a, b) = unsafe { (simd.load(x.as_ptr()), simd.load(y.as_ptr())) };
            check(simd.add(a, b), &|i| x[i] + y[i]);
            check(simd.sub(a, b), &|i| x[i] - y[i]);
            check(simd.mul(a, b), &|i| x[i] * y[i]);
            // Multiples of 1/4 this small: no rounding, fused or not.
            check(simd.mul_add(a, b, simd.splat(2.0)), &|i| x[i] * y[i] + 2.0);
            check(simd.mul_sub(a, b, simd.splat(2.0)), &|i| x[i] * y[i] - 2.0);
            check(simd.at_least(a, simd.splat(0.0)), &|i| x[i].max(0.0));
            check(simd.at_most(a, simd.splat(1.0)), &|i| x[i].min(1.0));
            let nan = simd.splat(f32::NAN);
            check(simd.at_least(nan, simd.splat(0.0)), &|_| f32::NAN);
            check(simd.at_most(nan, simd.splat(0.0)), &|_| f32::NAN);
            for count in 0..=n {
                // SAFETY: `x` and `z` have at least `count` elements.
                check(unsafe { simd.load_partial(x.as_ptr(), count) }, &|i| {
                    if i < count { x[i] } else { 0.0 }
                });
                let mut z = vec![9.0; n];
                // SAFETY: as above.
                unsafe { simd.store_partial(z.as_mut_ptr(), a, count) };
                assert!((0..n).all(|i| z[i] == if i < count { x[i] } else { 9.0 }));
            }
            let reversed: Vec<i32> = (0..n as i32).rev().map(|i| i + 2 * n as i32).collect();
            // SAFETY: one number a lane.
            let indices = unsafe { simd.load_indices(reversed.as_ptr()) };
            check(simd.permute(a, indices), &|i| x[n - 1 - i]);
            let square: Vec<f32> = (0..n * (n + 1)).map(|i| i as f32).collect();
            let mut turned = vec![-1.0; n * (n + 2)];
            // SAFETY: `n` rows of `n` floats each, `n + 1` and `n + 2` apart.
            unsafe { simd.transpose((square.as_ptr(), n + 1), (turned.as_mut_ptr(), n + 2)) };
            for (index, value) in turned.into_iter().enumerate() {
                let (i, j) = (index % (n + 2), index / (n + 2));
                assert_eq!(value, if i < n { square[i * (n + 1) + j] } else { -1.0 });
            }
            let halves: Vec<half::f16> = x.iter().map(|&v| half::f16::from_f32(v)).collect();
            let brains: Vec<half::bf16> = x.iter().map(|&v| half::bf16::from_f32(v)).collect();
            // SAFETY: both have one element a lane.
            check(unsafe { half::f16::load(simd, halves.as_ptr()) }, &|i| halves[i].to_f32());
            // SAFETY: as above.
            check(unsafe { half::bf16::load(simd, brains.as_ptr()) }, &|i| brains[i].to_f32());
        }
    }

    #[test]
    fn every_instruction_set_computes_the_same() {
        for isa in Isa::available() {
            dispatch(isa, Operations);
        }
    }
}
