//! Which vector instructions the CPU has, found once at run time.
//!
//! The wheel is built for the x86-64 baseline; the matrix products pick their kernel from what is
//! found here (the gemm crate performs the same test). [`Isa::detect`] names the best supported set.

use std::sync::OnceLock;

/// An instruction set with kernels of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Baseline code only.
    Scalar,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, with AVX2 and FMA.
    Avx512,
}

impl Isa {
    /// The best instruction set of this CPU; the test runs once per process.
    pub fn detect() -> Isa {
        static DETECTED: OnceLock<Isa> = OnceLock::new();
        *DETECTED.get_or_init(Self::probe)
    }

    #[cfg(target_arch = "x86_64")]
    fn probe() -> Isa {
        let avx2 = std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma");
        match avx2 {
            true if std::is_x86_feature_detected!("avx512f") => Isa::Avx512,
            true => Isa::Avx2,
            false => Isa::Scalar,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn probe() -> Isa {
        Isa::Scalar
    }

    /// The name that `show_versions` prints.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_from_worst_to_best() {
        assert!(Isa::Scalar < Isa::Avx2 && Isa::Avx2 < Isa::Avx512);
        assert!(["scalar", "avx2", "avx512"].contains(&Isa::detect().name()));
    }
}
