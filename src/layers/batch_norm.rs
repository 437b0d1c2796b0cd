//! Batch normalisation over the pixels of a channels-last array, `(..., C)`.
//!
//! Training and evaluation differ only in whose mean and variance they use: [`statistics`] computes
//! those of the batch, [`normalize`] and [`backward`] take any.
//!
//! Sums over pixels run in float64 and in one pass: the variance comes from squares of
//! `x - first pixel`, which do not cancel however far the channel lies from zero. Pixels are split
//! into at most [`PARTS`] parts whose sums are added in order, whatever the number of threads.

use std::ops::Range;

use rayon::prelude::*;

use super::blocks::{for_each_block, rows_per_task};
use super::elementwise::assert_shape;
use crate::conv::Activation;
use crate::isa::{self, Isa, Simd};
use crate::rows::{Rows, RowsMut};
use crate::{Error, Result};

/// Upper limit of the parts a sum over pixels is split into.
const PARTS: usize = 64;
/// Pixels below which a part is not worth a task.
const MIN_PIXELS: usize = 256;
/// Elements of one task of the passes without a sum.
const CHUNK: usize = 16_384;

/// Mean, variance and the affine map of a batch norm; all slices of length C.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    mean: &'a [f32],
    var: &'a [f32],
    weight: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    eps: f64,
}

/// Whose statistics a batch norm used, which decides whether they depend on its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistics {
    /// The batch's own (training).
    Batch,
    /// Running averages (evaluation).
    Running,
}

/// What [`backward`] returns.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// Of the input.
    pub input: Vec<f32>,
    /// Of the weight (gamma), `(C,)`.
    pub weight: Vec<f32>,
    /// Of the bias (beta), `(C,)`.
    pub bias: Vec<f32>,
}

impl<'a> Norm<'a> {
    /// Checks that all slices have one length.
    pub fn new(
        mean: &'a [f32],
        var: &'a [f32],
        weight: Option<&'a [f32]>,
        bias: Option<&'a [f32]>,
        eps: f64,
    ) -> Result<Self> {
        let channels = mean.len();
        for (argument, values) in [("running_var", Some(var)), ("weight", weight), ("bias", bias)] {
            if let Some(values) = values.filter(|v| v.len() != channels) {
                let (expected, got) =
                    (format!("shape ({channels},)"), format!("({},)", values.len()));
                return Err(Error::shape(argument, expected, got));
            }
        }
        Ok(Norm { mean, var, weight, bias, eps })
    }

    fn channels(&self) -> usize {
        self.mean.len()
    }

    fn check(&self, argument: &'static str, len: usize) -> Result<()> {
        match self.channels() {
            0 if len == 0 => Ok(()),
            channels if channels > 0 && len.is_multiple_of(channels) => Ok(()),
            channels => Err(Error::shape(
                argument,
                format!("{channels} channels"),
                format!("{len} elements, which is no multiple"),
            )),
        }
    }

    /// `1 / sqrt(var + eps)` of each channel.
    fn inv_std(&self) -> Vec<f32> {
        self.var.iter().map(|&v| (1.0 / (f64::from(v) + self.eps).sqrt()) as f32).collect()
    }

    /// `weight / sqrt(var + eps)` of each channel.
    pub(super) fn scale(&self) -> Vec<f64> {
        let weight = |c: usize| self.weight.map_or(1.0, |w| f64::from(w[c]));
        let inv_std = |c: usize| 1.0 / (f64::from(self.var[c]) + self.eps).sqrt();
        (0..self.channels()).map(|c| weight(c) * inv_std(c)).collect()
    }

    /// What the map adds to zero: `bias - mean * weight / sqrt(var + eps)`.
    pub(super) fn shift(&self) -> Vec<f64> {
        let bias = |c: usize| self.bias.map_or(0.0, |b| f64::from(b[c]));
        let scale = self.scale();
        (0..self.channels()).map(|c| bias(c) - f64::from(self.mean[c]) * scale[c]).collect()
    }
}

/// Mean and biased variance of each of `channels` channels over all pixels.
pub fn statistics(channels: usize, input: &[f32]) -> (Vec<f32>, Vec<f32>) {
    if input.is_empty() || channels == 0 {
        return (vec![0.0; channels], vec![0.0; channels]);
    }
    let pixels = input.len() / channels;
    let shift: Vec<f64> = input[..channels].iter().map(|&v| f64::from(v)).collect();
    let (sums, squares) = channel_sums(pixels, channels, |range, sums, squares| {
        let rows = input[range.start * channels..range.end * channels].chunks_exact(channels);
        for row in rows {
            for (((sum, square), &x), &shift) in
                sums.iter_mut().zip(squares.iter_mut()).zip(row).zip(&shift)
            {
                let d = f64::from(x) - shift;
                *sum += d;
                *square += d * d;
            }
        }
    });
    let count = pixels as f64;
    let mean = sums.iter().zip(&shift).map(|(sum, shift)| (sum / count + shift) as f32);
    let var = sums.iter().zip(&squares).map(|(sum, square)| {
        let offset = sum / count;
        // Rounding may leave a tiny negative number; `max` would hide a NaN, `clamp` keeps it.
        (square / count - offset * offset).clamp(0.0, f64::INFINITY) as f32
    });
    (mean.collect(), var.collect())
}

/// `(x - mean) / sqrt(var + eps) * weight + bias`, channel by channel.
pub fn normalize(norm: &Norm<'_>, input: &[f32]) -> Result<Vec<f32>> {
    norm.check("input", input.len())?;
    let mut output = vec![0.0; input.len()];
    let (channels, map) = (norm.channels(), Affine::new(norm));
    let rows = RowsMut::dense(&mut output, channels);
    map.apply_into(Activation::Identity, Rows::dense(input, channels), rows);
    Ok(output)
}

/// The map `(x - mean) * scale + bias` of each channel, ready to be applied many times.
#[derive(Debug, Clone)]
pub struct Affine {
    mean: Vec<f32>,
    scale: Vec<f32>,
    bias: Vec<f32>,
}

impl Affine {
    /// The map that a batch norm with fixed statistics is.
    pub fn new(norm: &Norm<'_>) -> Self {
        Affine {
            mean: norm.mean.to_vec(),
            scale: norm.scale().into_iter().map(|s| s as f32).collect(),
            bias: norm.bias.map_or_else(|| vec![0.0; norm.channels()], <[f32]>::to_vec),
        }
    }

    /// Bytes of the constants.
    pub fn bytes(&self) -> usize {
        3 * size_of_val(&self.mean[..])
    }

    /// Writes the activation of the map of each element to the same place of `output`.
    pub fn apply_into(&self, activation: Activation, input: Rows<'_>, output: RowsMut<'_>) {
        // One loop an activation: a choice inside it would keep it from being vectorised.
        match activation {
            Activation::Identity => self.rows_into(input, output, |y| y),
            Activation::Relu => self.rows_into(input, output, |y| Activation::Relu.apply(y)),
            Activation::Clamp(low, high) => {
                self.rows_into(input, output, |y| Activation::Clamp(low, high).apply(y))
            }
        }
    }

    fn rows_into(&self, input: Rows<'_>, output: RowsMut<'_>, last: impl Fn(f32) -> f32 + Sync) {
        assert_shape(input, &output);
        for_each_block(output, rows_per_task(input.channels()), |first, output| {
            let input = input.rows(first, output.count());
            isa::dispatch(Isa::active(), Normalize { map: self, input, output, last: &last });
        });
    }
}

/// The loop of [`Affine::apply_into`], compiled for the vectors of the CPU.
struct Normalize<'a, F> {
    map: &'a Affine,
    input: Rows<'a>,
    output: RowsMut<'a>,
    last: &'a F,
}

impl<F: Fn(f32) -> f32> isa::Kernel for Normalize<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        let Affine { mean, scale, bias } = self.map;
        for index in 0..self.output.count() {
            let rows = self.output.row_mut(index).iter_mut().zip(self.input.row(index));
            let constants = mean.iter().zip(scale).zip(bias);
            for ((y, &x), ((&mean, &scale), &bias)) in rows.zip(constants) {
                *y = (self.last)((x - mean) * scale + bias);
            }
        }
    }
}

/// Gradients of [`normalize`]. With [`Statistics::Batch`], mean and variance are those of `input`
/// and pass gradient too: `dx = scale * (g - mean(g) - x^ * mean(g x^))`, `x^` being the normalised
/// input; with [`Statistics::Running`] they are constants and `dx = scale * g`.
pub fn backward(
    norm: &Norm<'_>,
    statistics: Statistics,
    input: &[f32],
    grad_output: &[f32],
) -> Result<Gradients> {
    norm.check("input", input.len())?;
    if grad_output.len() != input.len() {
        let expected = format!("{} elements, as the input", input.len());
        let got = format!("{} elements", grad_output.len());
        return Err(Error::shape("grad_output", expected, got));
    }
    let channels = norm.channels();
    let mut grad_input = vec![0.0; input.len()];
    if input.is_empty() {
        let zeros = vec![0.0; channels];
        return Ok(Gradients { input: grad_input, weight: zeros.clone(), bias: zeros });
    }
    let pixels = input.len() / channels;
    let inv_std = norm.inv_std();
    let (sums, products) = channel_sums(pixels, channels, |range, sums, products| {
        let span = range.start * channels..range.end * channels;
        let rows = input[span.clone()].chunks_exact(channels);
        for (x, g) in rows.zip(grad_output[span].chunks_exact(channels)) {
            for c in 0..channels {
                let normalised = (x[c] - norm.mean[c]) * inv_std[c];
                sums[c] += f64::from(g[c]);
                products[c] += f64::from(g[c]) * f64::from(normalised);
            }
        }
    });
    // dx = scale * (g - a - x^ * b); running statistics leave a = b = 0.
    let part = match statistics {
        Statistics::Batch => 1.0 / pixels as f64,
        Statistics::Running => 0.0,
    };
    let f32s = |values: &[f64], factor: f64| -> Vec<f32> {
        values.iter().map(|v| (v * factor) as f32).collect()
    };
    let (scale, a, b) = (f32s(&norm.scale(), 1.0), f32s(&sums, part), f32s(&products, part));
    let chunk = pixels_per_task(channels) * channels;
    grad_input
        .par_chunks_mut(chunk)
        .zip(input.par_chunks(chunk).zip(grad_output.par_chunks(chunk)))
        .for_each(|(dx, (x, g))| {
            let rows = x.chunks_exact(channels).zip(g.chunks_exact(channels));
            for (dx, (x, g)) in dx.chunks_exact_mut(channels).zip(rows) {
                for c in 0..channels {
                    let normalised = (x[c] - norm.mean[c]) * inv_std[c];
                    dx[c] = scale[c] * (g[c] - a[c] - normalised * b[c]);
                }
            }
        });
    Ok(Gradients { input: grad_input, weight: f32s(&products, 1.0), bias: f32s(&sums, 1.0) })
}

fn pixels_per_task(channels: usize) -> usize {
    (CHUNK / channels).max(1)
}

/// Two sums per channel over all pixels; `accumulate` adds a range of pixels to them.
fn channel_sums(
    pixels: usize,
    channels: usize,
    accumulate: impl Fn(Range<usize>, &mut [f64], &mut [f64]) + Sync,
) -> (Vec<f64>, Vec<f64>) {
    let block = pixels.div_ceil(PARTS).max(MIN_PIXELS);
    let parts: Vec<_> = (0..pixels.div_ceil(block))
        .into_par_iter()
        .map(|part| {
            let (mut first, mut second) = (vec![0.0; channels], vec![0.0; channels]);
            let range = part * block..((part + 1) * block).min(pixels);
            accumulate(range, &mut first, &mut second);
            (first, second)
        })
        .collect();
    let mut totals = (vec![0.0; channels], vec![0.0; channels]);
    for (first, second) in parts {
        totals.0.iter_mut().zip(first).for_each(|(total, part)| *total += part);
        totals.1.iter_mut().zip(second).for_each(|(total, part)| *total += part);
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::super::testing::{numeric_gradient, same_for_any_thread_count};
    use super::*;
    use crate::conv::reference::{close, values};

    const EPS: f64 = 1e-5;

    fn f32s(values: Vec<f64>) -> Vec<f32> {
        values.into_iter().map(|v| v as f32).collect()
    }

    /// Two-pass mean and variance in float64.
    fn naive_statistics(channels: usize, input: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let count = (input.len() / channels) as f64;
        let of = |c: usize, f: &dyn Fn(f64) -> f64| {
            input.iter().skip(c).step_by(channels).map(|&x| f(x)).sum::<f64>() / count
        };
        let mean: Vec<f64> = (0..channels).map(|c| of(c, &|x| x)).collect();
        let var = (0..channels).map(|c| of(c, &|x| (x - mean[c]).powi(2))).collect();
        (mean, var)
    }

    #[test]
    fn statistics_agree_with_two_passes_in_float64() {
        let sizes = [(1, 1), (2, 3), (255, 17), (257, 1), (64 * 256 + 5, 3), (40_000, 2)];
        for (pixels, channels) in sizes {
            // Far from zero, where a careless sum of squares would lose everything.
            for offset in [0.0, 1000.0] {
                let input: Vec<f32> =
                    values(pixels * channels, 1).iter().map(|v| v + offset).collect();
                let exact: Vec<f64> = input.iter().map(|&v| f64::from(v)).collect();
                let (mean, var) = naive_statistics(channels, &exact);
                let got = statistics(channels, &input);
                assert!(close(&got.0, &f32s(mean), 1e-6), "{pixels} x {channels}");
                assert!(close(&got.1, &f32s(var), 1e-5), "{pixels} x {channels}");
            }
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for (pixels, channels) in [(3, 1), (5, 3), (9, 2)] {
            let input = values(pixels * channels, 1);
            let grad = values(pixels * channels, 2);
            let (weight, bias) = (values(channels, 3), values(channels, 4));
            for which in [Statistics::Batch, Statistics::Running] {
                let (mean, var) = match which {
                    Statistics::Batch => statistics(channels, &input),
                    Statistics::Running => (values(channels, 5), vec![0.7; channels]),
                };
                let loss = |x: &[f64], w: &[f64], b: &[f64]| -> f64 {
                    let (mean, var) = match which {
                        Statistics::Batch => naive_statistics(channels, x),
                        Statistics::Running => (
                            mean.iter().map(|&v| f64::from(v)).collect(),
                            var.iter().map(|&v| f64::from(v)).collect(),
                        ),
                    };
                    x.iter()
                        .zip(&grad)
                        .enumerate()
                        .map(|(i, (x, &g))| {
                            let c = i % channels;
                            let y = (x - mean[c]) / (var[c] + EPS).sqrt() * w[c] + b[c];
                            f64::from(g) * y
                        })
                        .sum()
                };
                let f64s = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
                let (x, w, b) = (f64s(&input), f64s(&weight), f64s(&bias));
                let norm = Norm::new(&mean, &var, Some(&weight), Some(&bias), EPS).unwrap();
                let got = backward(&norm, which, &input, &grad).unwrap();
                let expected = numeric_gradient(&input, |x| loss(x, &w, &b));
                assert!(close(&got.input, &expected, 1e-4), "{which:?} {pixels} x {channels}");
                let expected = numeric_gradient(&weight, |w| loss(&x, w, &b));
                assert!(close(&got.weight, &expected, 1e-4), "{which:?} {pixels} x {channels}");
                let expected = numeric_gradient(&bias, |b| loss(&x, &w, b));
                assert!(close(&got.bias, &expected, 1e-4), "{which:?} {pixels} x {channels}");
            }
        }
    }

    #[test]
    fn known_values() {
        let x = [1.0, 2.0, 3.0, 6.0];
        let (mean, var) = statistics(1, &x);
        assert_eq!((mean[0], var[0]), (3.0, 3.5));
        let norm = Norm::new(&mean, &var, None, None, EPS).unwrap();
        let y = normalize(&norm, &x).unwrap();
        assert!(close(&y, &[-1.069043, -0.534522, 0.0, 1.603565], 1e-6), "{y:?}");
        let (mean, var) = ([0.3], [1.366_666_7]);
        let norm = Norm::new(&mean, &var, Some(&[1.0]), Some(&[0.0]), EPS).unwrap();
        let y = normalize(&norm, &x).unwrap();
        assert!(close(&y, &[0.598777, 1.454173, 2.309569, 4.875756], 1e-6), "{y:?}");
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let (input, grad) = (values(5000 * 3, 1), values(5000 * 3, 2));
        same_for_any_thread_count(|| {
            let (mean, var) = statistics(3, &input);
            let norm = Norm::new(&mean, &var, None, None, EPS).unwrap();
            let y = normalize(&norm, &input).unwrap();
            (y, backward(&norm, Statistics::Batch, &input, &grad).unwrap())
        });
    }

    #[test]
    fn empty_input_and_mismatched_lengths() {
        let (mean, var) = statistics(3, &[]);
        let norm = Norm::new(&mean, &var, None, None, EPS).unwrap();
        assert!(normalize(&norm, &[]).unwrap().is_empty());
        assert_eq!(backward(&norm, Statistics::Batch, &[], &[]).unwrap().weight, [0.0; 3]);
        let message = normalize(&norm, &[1.0; 4]).unwrap_err().to_string();
        assert!(message.starts_with("input: expected 3 channels"), "{message}");
        let message = Norm::new(&mean, &var[1..], None, None, EPS).unwrap_err().to_string();
        assert!(message.starts_with("running_var: expected shape (3,)"), "{message}");
    }
}
