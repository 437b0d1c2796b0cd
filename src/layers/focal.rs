//! Focal loss of single logits ("Focal Loss for Dense Object Detection", Lin et al., 2017):
//! cross-entropy times `(1 - p_t)^gamma`, so that what is already right weighs little.
//!
//! With `p = sigmoid(x)` and a target `t` from 0 to 1, `p_t = p t + (1 - p)(1 - t)`. All arithmetic
//! is in float64; `1 - p` is the sigmoid of `-x`, which keeps the digits that a subtraction loses.

use crate::boxes::Scalar;
use crate::{Error, Result, parallel};

/// Elements that take about 10 microseconds.
const GRAIN: usize = 512;

/// The two parameters.
#[derive(Debug, Clone, Copy)]
pub struct Focal {
    /// Weight of positives, 1 less that of negatives; below 0 there is no such weight.
    pub alpha: f64,
    /// Exponent of the modulating factor.
    pub gamma: f64,
}

/// What gradient and loss have in common, for one logit.
struct Parts {
    p: f64,
    /// `1 - p`
    q: f64,
    cross_entropy: f64,
    /// `1 - p_t`
    miss: f64,
    /// `(1 - p_t)^gamma`
    factor: f64,
    weight: f64,
}

impl Focal {
    fn power(&self, x: f64, exponent: f64) -> f64 {
        match exponent {
            2.0 => x * x,
            1.0 => x,
            0.0 => 1.0,
            _ => x.powf(exponent),
        }
    }

    fn parts(&self, x: f64, t: f64) -> Parts {
        let small = (-x.abs()).exp();
        let (near, far) = (small / (1.0 + small), 1.0 / (1.0 + small));
        let (p, q) = if x < 0.0 { (near, far) } else { (far, near) };
        let miss = p * (1.0 - t) + q * t;
        Parts {
            p,
            q,
            cross_entropy: x.max(0.0) - x * t + small.ln_1p(),
            miss,
            factor: self.power(miss, self.gamma),
            weight: if self.alpha < 0.0 {
                1.0
            } else {
                self.alpha * t + (1.0 - self.alpha) * (1.0 - t)
            },
        }
    }

    fn loss(&self, x: f64, t: f64) -> f64 {
        let parts = self.parts(x, t);
        parts.weight * parts.cross_entropy * parts.factor
    }

    /// Derivative of the factor, given that of `1 - p_t`. Where the factor is 0 the other one
    /// vanishes with it, even if the power alone has no slope there.
    fn factor_slope(&self, parts: &Parts, miss_slope: f64) -> f64 {
        if self.gamma == 0.0 || parts.miss == 0.0 {
            return 0.0;
        }
        self.gamma * self.power(parts.miss, self.gamma - 1.0) * miss_slope
    }

    /// Derivative by the logit.
    fn by_input(&self, x: f64, t: f64) -> f64 {
        let parts = self.parts(x, t);
        let Parts { p, q, cross_entropy, factor, weight, .. } = parts;
        let factor_slope = self.factor_slope(&parts, p * q * (1.0 - 2.0 * t));
        weight * ((p * (1.0 - t) - q * t) * factor + cross_entropy * factor_slope)
    }

    /// Derivative by the target.
    fn by_target(&self, x: f64, t: f64) -> f64 {
        let parts = self.parts(x, t);
        let Parts { p, q, cross_entropy, factor, weight, .. } = parts;
        let weight_slope = if self.alpha < 0.0 { 0.0 } else { 2.0 * self.alpha - 1.0 };
        weight_slope * cross_entropy * factor
            + weight * (-x * factor + cross_entropy * self.factor_slope(&parts, q - p))
    }
}

/// By what to differentiate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The logits.
    Input,
    /// The targets.
    Target,
}

fn check<const N: usize>(inputs: usize, others: [usize; N]) -> Result<()> {
    if others != [inputs; N] {
        return Err(Error::shape("targets", format!("{inputs} numbers"), format!("{others:?}")));
    }
    Ok(())
}

/// Writes the loss of each logit.
pub fn sigmoid_focal<T: Scalar>(
    focal: Focal,
    inputs: &[T],
    targets: &[T],
    losses: &mut [T],
) -> Result<()> {
    check(inputs.len(), [targets.len(), losses.len()])?;
    parallel::fill(losses, GRAIN, |i, loss| {
        *loss = T::from_f64(focal.loss(inputs[i].to_f64(), targets[i].to_f64()));
    })
}

/// Writes the derivative of each loss, times its weight.
pub fn sigmoid_focal_backward<T: Scalar>(
    focal: Focal,
    by: By,
    inputs: &[T],
    targets: &[T],
    weights: &[T],
    gradient: &mut [T],
) -> Result<()> {
    check(inputs.len(), [targets.len(), weights.len(), gradient.len()])?;
    parallel::fill(gradient, GRAIN, |i, out| {
        let (x, t) = (inputs[i].to_f64(), targets[i].to_f64());
        let slope = match by {
            By::Input => focal.by_input(x, t),
            By::Target => focal.by_target(x, t),
        };
        *out = T::from_f64(weights[i].to_f64() * slope);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINTS: [f64; 7] = [-8.0, -2.0, -0.5, 0.0, 0.3, 1.5, 4.0];

    fn settings() -> impl Iterator<Item = Focal> {
        [(0.25, 2.0), (0.25, 0.0), (-1.0, 1.0), (1.0, 0.5), (0.0, 3.5)]
            .into_iter()
            .map(|(alpha, gamma)| Focal { alpha, gamma })
    }

    #[test]
    fn losses_agree_with_the_definition() {
        for focal in settings() {
            for (x, t) in POINTS.into_iter().flat_map(|x| [0.0, 0.4, 1.0].map(|t| (x, t))) {
                let p = 1.0 / (1.0 + (-x).exp());
                let p_t = p * t + (1.0 - p) * (1.0 - t);
                let entropy = -(t * p.ln() + (1.0 - t) * (1.0 - p).ln());
                let weight = focal.alpha * t + (1.0 - focal.alpha) * (1.0 - t);
                let weight = if focal.alpha < 0.0 { 1.0 } else { weight };
                let expected = weight * entropy * (1.0 - p_t).powf(focal.gamma);
                let mut loss = [0.0];
                sigmoid_focal(focal, &[x], &[t], &mut loss).unwrap();
                assert!((loss[0] - expected).abs() < 1e-10, "{focal:?} {x} {t}: {loss:?}");
            }
        }
    }

    #[test]
    fn gradients_are_the_slopes() {
        for focal in settings() {
            for (x, t) in POINTS.into_iter().flat_map(|x| [0.0, 0.4, 1.0].map(|t| (x, t))) {
                for by in [By::Input, By::Target] {
                    let moved = |step: f64| match by {
                        By::Input => focal.loss(x + step, t),
                        By::Target => focal.loss(x, t + step),
                    };
                    let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                    let mut got = [0.0];
                    sigmoid_focal_backward(focal, by, &[x], &[t], &[3.0], &mut got).unwrap();
                    let error = (got[0] - 3.0 * expected).abs() / expected.abs().max(1.0);
                    assert!(error < 1e-5, "{focal:?} {by:?} {x} {t}: {got:?}, {expected}");
                }
            }
        }
    }

    #[test]
    fn extremes_stay_finite() {
        for (x, t, loss, slope) in [(-200.0, 1.0, 50.0, -0.25), (200.0, 1.0, 0.0, 0.0)] {
            for gamma in [0.5, 2.0] {
                let focal = Focal { alpha: 0.25, gamma };
                assert!((focal.loss(x, t) - loss).abs() < 1e-9, "{x}");
                assert!((focal.by_input(x, t) - slope).abs() < 1e-9, "{x}");
            }
        }
    }

    #[test]
    fn different_lengths_are_refused() {
        let focal = Focal { alpha: 0.25, gamma: 2.0 };
        assert!(sigmoid_focal(focal, &[0f32; 3], &[0.0; 2], &mut [0.0; 3]).is_err());
        let (three, mut two) = ([0f32; 3], [0.0; 2]);
        assert!(
            sigmoid_focal_backward(focal, By::Input, &three, &three, &three, &mut two).is_err()
        );
    }
}
