//! Folding a batch norm into the convolution before it.
//!
//! In evaluation a batch norm is an affine map per channel, and so is a convolution per output
//! channel; their composition is a convolution with `w' = w * gamma / sqrt(var + eps)` and
//! `b' = (b - mean) * gamma / sqrt(var + eps) + beta`. The arithmetic is float64 and rounds once.

use super::batch_norm::Norm;
use crate::{Error, Result};

/// Weight and bias of the convolution that does both. `weight` is `(O, ...)`, rows of one output
/// channel each; `norm` has O channels.
pub fn fold(
    out_channels: usize,
    weight: &[f32],
    bias: Option<&[f32]>,
    norm: &Norm<'_>,
) -> Result<(Vec<f32>, Vec<f32>)> {
    let (scale, shift) = (norm.scale(), norm.shift());
    if scale.len() != out_channels {
        let expected = format!("{out_channels} channels, as the convolution has outputs");
        return Err(Error::shape("running_mean", expected, scale.len().to_string()));
    }
    if let Some(bias) = bias.filter(|b| b.len() != out_channels) {
        let (expected, got) = (format!("shape ({out_channels},)"), format!("({},)", bias.len()));
        return Err(Error::shape("bias", expected, got));
    }
    let row = weight.len() / out_channels.max(1);
    let folded =
        weight.iter().enumerate().map(|(i, &w)| (f64::from(w) * scale[i / row]) as f32).collect();
    let bias = (0..out_channels)
        .map(|o| {
            let bias = bias.map_or(0.0, |b| f64::from(b[o]));
            (bias * scale[o] + shift[o]) as f32
        })
        .collect();
    Ok((folded, bias))
}

#[cfg(test)]
mod tests {
    use super::super::batch_norm::normalize;
    use super::*;
    use crate::conv::reference::{close, values};
    use crate::conv::{Conv2d, Padding, forward};

    #[test]
    fn folded_equals_unfolded() {
        let (outputs, depth) = (5, 2 * 3 * 3);
        let size = (1, 6, 7, 2);
        let conv =
            Conv2d::new(size, (3, 3, 2, outputs), (1, 1), Padding::symmetric(1, 1), (1, 1), 1)
                .unwrap();
        // (O, kh * kw * C) to the kernels' (kh * kw * C, O).
        let packed = |weight: &[f32]| -> Vec<f32> {
            (0..depth * outputs).map(|i| weight[i % outputs * depth + i / outputs]).collect()
        };
        let weight = values(outputs * depth, 1);
        let input = values(conv.input_len(), 2);
        let (mean, gamma, beta) = (values(outputs, 3), values(outputs, 4), values(outputs, 5));
        let var = [0.1, 1.0, 2.0, 1e-6, 30.0];
        let norm = Norm::new(&mean, &var, Some(&gamma), Some(&beta), 1e-3).unwrap();
        let conv_bias = values(outputs, 6);
        for bias in [None, Some(&conv_bias[..])] {
            let unfolded =
                normalize(&norm, &forward(&conv, &input, &packed(&weight), bias)).unwrap();
            let (w, b) = fold(outputs, &weight, bias, &norm).unwrap();
            let folded = forward(&conv, &input, &packed(&w), Some(&b));
            assert!(close(&folded, &unfolded, 1e-5));
        }
    }

    #[test]
    fn mismatched_channels_are_named() {
        let norm = Norm::new(&[0.0; 2], &[1.0; 2], None, None, 1e-5).unwrap();
        let message = fold(3, &[0.0; 6], None, &norm).unwrap_err().to_string();
        assert!(message.starts_with("running_mean: expected 3 channels"), "{message}");
        let message = fold(2, &[0.0; 6], Some(&[0.0]), &norm).unwrap_err().to_string();
        assert!(message.starts_with("bias: expected shape (2,)"), "{message}");
    }
}
