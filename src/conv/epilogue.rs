//! What is done to the sums of a layer before they are stored, while they are still in registers.

use crate::gemm::Bounds;
use crate::rows::Rows;

/// What is applied to the sums before they are stored: residual first, then the clamp.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a> {
    /// Added to the result: one row per output pixel, O channels.
    pub residual: Option<Rows<'a>>,
    /// Function applied last.
    pub activation: Activation,
}

impl Epilogue<'_> {
    /// Nothing is applied.
    pub const NONE: Self = Epilogue { residual: None, activation: Activation::Identity };
}

/// Function applied to each value of a result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// The value itself.
    Identity,
    /// `max(x, 0)`; NaN stays NaN.
    Relu,
    /// `min(max(x, low), high)`; NaN stays NaN.
    Clamp(f32, f32),
}

impl Activation {
    /// The function as clamping between two bounds.
    #[inline(always)]
    pub fn bounds(self) -> Bounds {
        match self {
            Activation::Identity => Bounds::NONE,
            Activation::Relu => Bounds { low: 0.0, high: f32::INFINITY },
            Activation::Clamp(low, high) => Bounds { low, high },
        }
    }

    /// The function of one value.
    #[inline(always)]
    pub fn apply(self, x: f32) -> f32 {
        // Comparisons that NaN fails, so that it comes through.
        let Bounds { low, high } = self.bounds();
        let x = if x < low { low } else { x };
        if x > high { high } else { x }
    }
}
