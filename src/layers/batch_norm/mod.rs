//! Batch normalisation over the pixels of a channels-last array, `(..., C)`.
//!
//! Training and evaluation differ only in whose mean and variance they use: [`statistics`] computes
//! those of the batch, [`normalize`] and [`backward_into`] take any. Plans that train use
//! [`train_forward_into`] and [`train_backward_into`], which take the residual connection and the
//! activation behind the batch norm along.
//!
//! All of it waits for memory, so what counts is how often an array passes by: twice forward (sums,
//! then the rest) and twice backward. No sum depends on the number of threads.
//!
//! | file | what it holds |
//! |---|---|
//! | `sums` | two sums for each channel over all pixels |
//! | `forward` | normalisation, with what follows it |
//! | `backward` | the gradients |

mod backward;
mod forward;
mod sums;

pub use backward::{backward_into, train_backward_into};
pub use forward::{Affine, normalize, statistics, train_forward_into};

use crate::rows::Rows;
use crate::{Error, Result};

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
    fn inv_std(&self) -> Vec<f64> {
        self.var.iter().map(|&v| 1.0 / (f64::from(v) + self.eps).sqrt()).collect()
    }

    /// `weight / sqrt(var + eps)` of each channel.
    pub(crate) fn scale(&self) -> Vec<f64> {
        let weight = |c: usize| self.weight.map_or(1.0, |w| f64::from(w[c]));
        self.inv_std().into_iter().enumerate().map(|(c, inv_std)| weight(c) * inv_std).collect()
    }

    /// What the map adds to zero: `bias - mean * weight / sqrt(var + eps)`.
    pub(super) fn shift(&self) -> Vec<f64> {
        let bias = |c: usize| self.bias.map_or(0.0, |b| f64::from(b[c]));
        let scale = self.scale();
        (0..self.channels()).map(|c| bias(c) - f64::from(self.mean[c]) * scale[c]).collect()
    }
}

/// The derivative of an activation, read from its output: `pass(y, g)` is `g` where the activation
/// passed its input on.
struct Gate<'a, F> {
    output: Rows<'a>,
    pass: F,
}

/// Runs `$body` with the [`Gate`] of an activation: a loop of its own for each, since a choice
/// inside it would keep it from being vectorised. Without an activation the output is not read.
macro_rules! with_gate {
    ($activation:expr, $input:expr, $output:expr, |$gate:ident| $body:expr) => {
        match $activation {
            Activation::Identity => {
                let $gate = &Gate { output: $input, pass: |_, g| g };
                $body
            }
            Activation::Relu => {
                let pass = |y, g| if y <= 0.0 { 0.0 } else { g };
                let $gate = &Gate { output: $output, pass };
                $body
            }
            Activation::Clamp(low, high) => {
                let pass = |y, g| if y <= low || y >= high { 0.0 } else { g };
                let $gate = &Gate { output: $output, pass };
                $body
            }
        }
    };
}
use with_gate;

#[cfg(test)]
mod tests {
    use super::super::testing::{numeric_gradient, same_for_any_thread_count};
    use super::*;
    use crate::conv::Activation;
    use crate::conv::reference::{close, values};
    use crate::rows::RowsMut;

    const EPS: f64 = 1e-5;

    /// Gradients of input, weight and bias.
    fn backward(
        norm: &Norm<'_>,
        statistics: Statistics,
        input: &[f32],
        grad_output: &[f32],
    ) -> [Vec<f32>; 3] {
        let mut grad_input = vec![f32::NAN; input.len()];
        let (weight, bias) =
            backward_into(norm, statistics, input, grad_output, &mut grad_input).unwrap();
        [grad_input, weight, bias]
    }

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
                let got = backward(&norm, which, &input, &grad);
                let expected = numeric_gradient(&input, |x| loss(x, &w, &b));
                assert!(close(&got[0], &expected, 1e-4), "{which:?} {pixels} x {channels}");
                let expected = numeric_gradient(&weight, |w| loss(&x, w, &b));
                assert!(close(&got[1], &expected, 1e-4), "{which:?} {pixels} x {channels}");
                let expected = numeric_gradient(&bias, |b| loss(&x, &w, b));
                assert!(close(&got[2], &expected, 1e-4), "{which:?} {pixels} x {channels}");
            }
        }
    }

    const ACTIVATIONS: [Activation; 3] =
        [Activation::Identity, Activation::Relu, Activation::Clamp(-0.2, 0.6)];

    /// Pixels around the edges of steps, blocks and parts, channels around those of vectors.
    const SIZES: [(usize, usize); 9] =
        [(8, 1), (9, 5), (15, 16), (16, 17), (31, 33), (33, 64), (70, 3), (1100, 65), (300, 200)];

    /// A layer in training with all that can follow it, in float64 for `loss = sum of grad * y`.
    struct Layer {
        channels: usize,
        activation: Activation,
        input: Vec<f32>,
        residual: Option<Vec<f32>>,
        weight: Vec<f32>,
        bias: Vec<f32>,
        grad: Vec<f32>,
    }

    /// What it computes.
    #[derive(Debug, PartialEq)]
    struct Results {
        statistics: (Vec<f32>, Vec<f32>),
        output: Vec<f32>,
        input: Vec<f32>,
        residual: Option<Vec<f32>>,
        weight: Vec<f32>,
        bias: Vec<f32>,
    }

    impl Layer {
        fn new(pixels: usize, channels: usize, activation: Activation, residual: bool) -> Layer {
            let count = pixels * channels;
            Layer {
                channels,
                activation,
                input: values(count, 1).iter().map(|v| v + 3.0).collect(),
                residual: residual.then(|| values(count, 6)),
                weight: values(channels, 3),
                bias: values(channels, 4),
                grad: values(count, 2),
            }
        }

        /// By the kernels, over rows `gap` values farther apart than need be.
        fn run(&self, gap: usize) -> Results {
            let (channels, count) = (self.channels, self.input.len() / self.channels);
            let stride = channels + gap;
            let spread = |x: &[f32]| -> Vec<f32> {
                x.chunks(channels)
                    .flat_map(|row| row.iter().copied().chain(vec![7.0; gap]))
                    .collect()
            };
            let gather = |x: &[f32]| -> Vec<f32> {
                assert!(x.chunks(stride).all(|row| row[channels..].iter().all(|&v| v == 7.0)));
                x.chunks(stride).flat_map(|row| &row[..channels]).copied().collect()
            };
            let (x, r) = (spread(&self.input), self.residual.as_deref().map(spread));
            let rows = |x| Rows::new(x, count, channels, stride);
            let (mut y, mut dx) = (spread(&vec![f32::NAN; count * channels]), spread(&self.grad));
            let mut dr = r.is_some().then(|| y.clone());
            let (mean, var) = train_forward_into(
                rows(&x),
                Some(&self.weight),
                Some(&self.bias),
                EPS,
                r.as_deref().map(rows),
                self.activation,
                RowsMut::new(&mut y, count, channels, stride),
            )
            .unwrap();
            let norm = Norm::new(&mean, &var, Some(&self.weight), Some(&self.bias), EPS).unwrap();
            let (weight, bias) = train_backward_into(
                &norm,
                Statistics::Batch,
                self.activation,
                rows(&x),
                rows(&y),
                RowsMut::new(&mut dx, count, channels, stride),
                dr.as_mut().map(|dr| RowsMut::new(dr, count, channels, stride)),
            );
            let (output, input, residual) = (gather(&y), gather(&dx), dr.as_deref().map(gather));
            Results { statistics: (mean, var), output, input, residual, weight, bias }
        }

        /// By the definition, with the formulas of the paper in float64.
        fn naive(&self) -> Results {
            let f64s = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
            let (channels, x) = (self.channels, f64s(&self.input));
            let (mean, var) = naive_statistics(channels, &x);
            let inv_std: Vec<f64> = var.iter().map(|v| 1.0 / (v + EPS).sqrt()).collect();
            let normal = |i: usize| (x[i] - mean[i % channels]) * inv_std[i % channels];
            let w = f64s(&self.weight);
            let sum = |i: usize| {
                let r = self.residual.as_ref().map_or(0.0, |r| f64::from(r[i]));
                normal(i) * w[i % channels] + f64::from(self.bias[i % channels]) + r
            };
            let bounds = self.activation.bounds();
            let (low, high) = (f64::from(bounds.low), f64::from(bounds.high));
            let g: Vec<f64> = (0..x.len())
                .map(|i| if sum(i) > low && sum(i) < high { f64::from(self.grad[i]) } else { 0.0 })
                .collect();
            let total = |of: &dyn Fn(usize) -> f64, c: usize| {
                (c..x.len()).step_by(channels).map(of).sum::<f64>()
            };
            let bias: Vec<f64> = (0..channels).map(|c| total(&|i| g[i], c)).collect();
            let weight: Vec<f64> = (0..channels).map(|c| total(&|i| g[i] * normal(i), c)).collect();
            let count = (x.len() / channels) as f64;
            let input = (0..x.len()).map(|i| {
                let c = i % channels;
                w[c] * inv_std[c] * (g[i] - bias[c] / count - normal(i) * weight[c] / count)
            });
            Results {
                output: (0..x.len()).map(|i| sum(i).clamp(low, high) as f32).collect(),
                input: f32s(input.collect()),
                residual: self.residual.is_some().then(|| f32s(g.clone())),
                statistics: (f32s(mean.clone()), f32s(var.clone())),
                weight: f32s(weight),
                bias: f32s(bias),
            }
        }
    }

    #[test]
    fn training_with_residual_and_activation_agrees_with_float64() {
        for ((pixels, channels), activation) in
            SIZES.into_iter().flat_map(|size| ACTIVATIONS.map(|activation| (size, activation)))
        {
            for residual in [false, true] {
                let layer = Layer::new(pixels, channels, activation, residual);
                let (got, expected) = (layer.run(0), layer.naive());
                let case = format!("{pixels} x {channels} {activation:?} residual {residual}");
                assert!(close(&got.statistics.0, &expected.statistics.0, 1e-6), "{case}");
                assert!(close(&got.statistics.1, &expected.statistics.1, 1e-5), "{case}");
                assert!(close(&got.output, &expected.output, 1e-5), "{case}");
                assert!(close(&got.weight, &expected.weight, 1e-4), "{case}");
                assert!(close(&got.bias, &expected.bias, 1e-5), "{case}");
                assert!(close(&got.input, &expected.input, 1e-4), "{case}");
                match (&got.residual, &expected.residual) {
                    (Some(got), Some(expected)) => assert_eq!(got, expected, "{case}"),
                    (got, expected) => assert_eq!(got, expected, "{case}"),
                }
                assert_eq!(layer.run(3), got, "{case}: rows with gaps");
            }
        }
    }

    #[test]
    fn an_outlier_in_front_costs_no_digits() {
        let (pixels, channels) = (1000, 2);
        let mut input: Vec<f32> = values(pixels * channels, 1).iter().map(|v| v + 1000.0).collect();
        input[..channels].fill(0.0);
        let exact: Vec<f64> = input.iter().map(|&v| f64::from(v)).collect();
        let (mean, var) = naive_statistics(channels, &exact);
        let got = statistics(channels, &input);
        assert!(close(&got.0, &f32s(mean), 1e-6) && close(&got.1, &f32s(var), 1e-5));
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
        for activation in ACTIVATIONS {
            let layer = Layer::new(5000, 65, activation, true);
            same_for_any_thread_count(|| layer.run(0));
        }
        same_for_any_thread_count(|| {
            let (mean, var) = statistics(3, &input);
            let norm = Norm::new(&mean, &var, None, None, EPS).unwrap();
            let y = normalize(&norm, &input).unwrap();
            (y, backward(&norm, Statistics::Batch, &input, &grad))
        });
    }

    #[test]
    fn empty_input_and_mismatched_lengths() {
        let (mean, var) = statistics(3, &[]);
        let norm = Norm::new(&mean, &var, None, None, EPS).unwrap();
        assert!(normalize(&norm, &[]).unwrap().is_empty());
        assert_eq!(backward(&norm, Statistics::Batch, &[], &[])[1], [0.0; 3]);
        let message = normalize(&norm, &[1.0; 4]).unwrap_err().to_string();
        assert!(message.starts_with("input: expected 3 channels"), "{message}");
        let message = Norm::new(&mean, &var[1..], None, None, EPS).unwrap_err().to_string();
        assert!(message.starts_with("running_var: expected shape (3,)"), "{message}");
    }
}
