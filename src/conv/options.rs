//! What a caller chooses about a layer for speed: how it is rounded, and how its weights are stored.

use crate::gemm::{LONG_SUM, SHORT_SUM, Storage};

/// What may be chosen for speed (part of a plan's key).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Options {
    /// How products may be rounded.
    pub precision: Precision,
    /// How the weights of layers that wait for memory are stored: those with few output pixels,
    /// fully connected ones above all.
    pub storage: Storage,
}

/// How products may be rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Direct sums only.
    Direct,
    /// Winograd where it pays.
    Winograd,
    /// bfloat16 multiplicands (runs as `Winograd` in this version).
    Bf16,
}

impl Precision {
    /// Terms in a part of a direct sum.
    pub(super) fn sum(self) -> usize {
        match self {
            Precision::Direct => SHORT_SUM,
            Precision::Winograd | Precision::Bf16 => LONG_SUM,
        }
    }
}
