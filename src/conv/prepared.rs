//! A convolution made ready to run many times: algorithm chosen, weights packed, bias kept.
//!
//! This is what an executable plan holds for each layer. A fully connected layer is the same thing
//! with the whole input as its window.

use super::forward::forward;
use super::geometry::Conv2d;
use crate::rows::{Rows, RowsMut};

/// What is applied to the sums before they are stored: residual first, then the clamp.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a> {
    /// Added to the result: one row per output pixel, O channels.
    pub residual: Option<Rows<'a>>,
    /// Function applied last.
    pub activation: Activation,
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
    /// The function of one value.
    pub fn apply(self, x: f32) -> f32 {
        // Comparisons that NaN fails, so that it comes through.
        let below = |x: f32, low: f32| if x < low { low } else { x };
        match self {
            Activation::Identity => x,
            Activation::Relu => below(x, 0.0),
            Activation::Clamp(low, high) => {
                let x = below(x, low);
                if x > high { high } else { x }
            }
        }
    }
}

/// What may be chosen for speed (part of a plan's key).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Options {
    /// How products may be rounded.
    pub precision: Precision,
    /// How the weights of layers that wait for memory are stored.
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

/// Type of stored weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Storage {
    /// As they are.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

/// A convolution ready to run.
#[derive(Debug)]
pub struct PreparedConv {
    conv: Conv2d,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl PreparedConv {
    /// Chooses the algorithm for `conv` (whose batch does not matter) and packs `weight`
    /// (kh, kw, C / groups, O) for it.
    pub fn new(conv: &Conv2d, weight: &[f32], bias: Option<&[f32]>, _options: Options) -> Self {
        let conv = Conv2d { batch: 1, ..*conv };
        PreparedConv { conv, weight: weight.to_vec(), bias: bias.map(<[f32]>::to_vec) }
    }

    /// The geometry, for one image.
    pub fn geometry(&self) -> &Conv2d {
        &self.conv
    }

    /// Name of the chosen algorithm, as `plan` shows it.
    pub fn algorithm(&self) -> String {
        "im2col".to_owned()
    }

    /// Bytes of packed weights and bias.
    pub fn weight_bytes(&self) -> usize {
        4 * (self.weight.len() + self.bias.as_ref().map_or(0, Vec::len))
    }

    /// Floats of scratch memory that [`run`](Self::run) needs for a batch.
    pub fn scratch_len(&self, _batch: usize) -> usize {
        0
    }

    /// Runs the layer on a batch: `input` has one row per input pixel (N, H, W order) of C
    /// channels, `output` one per output pixel of O channels.
    pub fn run(
        &self,
        batch: usize,
        input: Rows<'_>,
        mut output: RowsMut<'_>,
        epilogue: Epilogue<'_>,
        _scratch: &mut [f32],
    ) {
        let conv = Conv2d { batch, ..self.conv };
        let mut dense = Vec::with_capacity(conv.input_len());
        (0..input.count()).for_each(|i| dense.extend_from_slice(input.row(i)));
        let result = forward(&conv, &dense, &self.weight, self.bias.as_deref());
        for i in 0..output.count() {
            for (j, value) in output.row_mut(i).iter_mut().enumerate() {
                let residual = epilogue.residual.map_or(0.0, |r| r.row(i)[j]);
                *value = epilogue.activation.apply(result[i * conv.out_channels + j] + residual);
            }
        }
    }
}
