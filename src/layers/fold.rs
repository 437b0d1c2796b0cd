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
    let scale = check(out_channels, bias, norm)?;
    let row = weight.len() / out_channels.max(1);
    let folded =
        weight.iter().enumerate().map(|(i, &w)| (f64::from(w) * scale[i / row]) as f32).collect();
    Ok((folded, fold_bias(bias, norm)))
}

/// [`fold`] of a weight `(..., O)`, as the kernels take it, in place; returns the bias.
pub fn fold_packed(
    out_channels: usize,
    weight: &mut [f32],
    bias: Option<&[f32]>,
    norm: &Norm<'_>,
) -> Result<Vec<f32>> {
    let scale = check(out_channels, bias, norm)?;
    for row in weight.chunks_exact_mut(out_channels.max(1)) {
        for (w, &scale) in row.iter_mut().zip(&scale) {
            *w = (f64::from(*w) * scale) as f32;
        }
    }
    Ok(fold_bias(bias, norm))
}

/// The scale of each channel, if there are as many as outputs.
fn check(out_channels: usize, bias: Option<&[f32]>, norm: &Norm<'_>) -> Result<Vec<f64>> {
    let scale = norm.scale();
    if scale.len() != out_channels {
        let expected = format!("{out_channels} channels, as the convolution has outputs");
        return Err(Error::shape("running_mean", expected, scale.len().to_string()));
    }
    if let Some(bias) = bias.filter(|b| b.len() != out_channels) {
        let (expected, got) = (format!("shape ({out_channels},)"), format!("({},)", bias.len()));
        return Err(Error::shape("bias", expected, got));
    }
    Ok(scale)
}

fn fold_bias(bias: Option<&[f32]>, norm: &Norm<'_>) -> Vec<f32> {
    let scaled = norm.scale().into_iter().enumerate();
    let scaled = scaled.map(|(o, scale)| bias.map_or(0.0, |b| f64::from(b[o])) * scale);
    scaled.zip(norm.shift()).map(|(bias, shift)| (bias + shift) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::super::batch_norm::normalize;
    use super::*;
    use crate::conv::reference::{close, values};
    use crate::conv::{Conv2d, Padding, Precision, forward};

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
            let unfolded = normalize(
                &norm,
                &forward(&conv, &input, &packed(&weight), bias, Precision::Direct),
            )
            .unwrap();
            let (w, b) = fold(outputs, &weight, bias, &norm).unwrap();
            let folded = forward(&conv, &input, &packed(&w), Some(&b), Precision::Direct);
            assert!(close(&folded, &unfolded, 1e-5));
            let mut in_place = packed(&weight);
            assert_eq!(fold_packed(outputs, &mut in_place, bias, &norm).unwrap(), b);
            assert_eq!(in_place, packed(&w));
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
