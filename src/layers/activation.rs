//! ReLU, tanh and sigmoid, each with its gradient; and what plans do to single elements.
//!
//! All three gradients are functions of the *output*, so training keeps one array a layer: ReLU's is
//! `g` where `y > 0`, tanh's `g (1 - y^2)`, sigmoid's `g y (1 - y)`.

use super::elementwise::{map, map_into, zip, zip_into};
use super::exponential;
use crate::conv::Activation;
use crate::rows::{Rows, RowsMut};

/// A function of single elements, as a step of a plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Function {
    /// ReLU or a clamp, which other steps can also apply to what they store.
    Clamp(Activation),
    /// [`sigmoid`].
    Sigmoid,
    /// [`tanh`].
    Tanh,
    /// `x * factor + offset`.
    Scale(f32, f32),
}

/// Writes the function of each element of `x` to `output`.
pub fn apply_into(function: Function, x: Rows<'_>, output: RowsMut<'_>) {
    // One loop a function: a choice inside it would keep it from being vectorised.
    match function {
        Function::Clamp(Activation::Identity) => map_into(x, output, |x| x),
        Function::Clamp(Activation::Relu) => map_into(x, output, |x| Activation::Relu.apply(x)),
        Function::Clamp(Activation::Clamp(low, high)) => {
            map_into(x, output, |x| Activation::Clamp(low, high).apply(x))
        }
        Function::Sigmoid => map_into(x, output, exponential::sigmoid),
        Function::Tanh => map_into(x, output, exponential::tanh),
        Function::Scale(factor, offset) => map_into(x, output, |x| x * factor + offset),
    }
}

/// Writes the activation of each sum of two elements to `output`.
pub fn add_into(activation: Activation, x: Rows<'_>, y: Rows<'_>, output: RowsMut<'_>) {
    match activation {
        Activation::Identity => zip_into(x, y, output, |x, y| x + y),
        Activation::Relu => zip_into(x, y, output, |x, y| Activation::Relu.apply(x + y)),
        Activation::Clamp(low, high) => {
            zip_into(x, y, output, |x, y| Activation::Clamp(low, high).apply(x + y))
        }
    }
}

/// Copies rows.
pub fn copy_into(x: Rows<'_>, output: RowsMut<'_>) {
    apply_into(Function::Clamp(Activation::Identity), x, output);
}

/// `max(x, 0)`; a NaN stays one.
pub fn relu(x: &[f32]) -> Vec<f32> {
    map(x, |x| Activation::Relu.apply(x))
}

/// Gradient of [`relu`] from its output `y`; 0 where `y` is 0.
pub fn relu_backward(y: &[f32], grad_output: &[f32]) -> Vec<f32> {
    zip(y, grad_output, |y, g| if y <= 0.0 { 0.0 } else { g })
}

/// Hyperbolic tangent.
pub fn tanh(x: &[f32]) -> Vec<f32> {
    map(x, exponential::tanh)
}

/// Gradient of [`tanh`] from its output `y`.
pub fn tanh_backward(y: &[f32], grad_output: &[f32]) -> Vec<f32> {
    zip(y, grad_output, |y, g| g * (1.0 - y * y))
}

/// `1 / (1 + exp(-x))`.
pub fn sigmoid(x: &[f32]) -> Vec<f32> {
    map(x, exponential::sigmoid)
}

/// Gradient of [`sigmoid`] from its output `y`.
pub fn sigmoid_backward(y: &[f32], grad_output: &[f32]) -> Vec<f32> {
    zip(y, grad_output, |y, g| g * y * (1.0 - y))
}

#[cfg(test)]
mod tests {
    use super::super::testing::numeric_gradient;
    use super::*;
    use crate::conv::reference::{close, values};

    type Function = fn(&[f32]) -> Vec<f32>;
    type Gradient = fn(&[f32], &[f32]) -> Vec<f32>;
    type Exact = fn(f64) -> f64;
    const TABLE: [(Function, Gradient, Exact); 3] = [
        (relu, relu_backward, |x| x.max(0.0)),
        (tanh, tanh_backward, |x| x.tanh()),
        (sigmoid, sigmoid_backward, |x| 1.0 / (1.0 + (-x).exp())),
    ];

    #[test]
    fn values_and_gradients_agree_with_float64() {
        let x: Vec<f32> = values(1000, 1).iter().map(|v| 8.0 * v).collect();
        let g = values(x.len(), 2);
        for (forward, backward, exact) in TABLE {
            let y = forward(&x);
            let expected: Vec<f32> = x.iter().map(|&x| exact(f64::from(x)) as f32).collect();
            assert!(close(&y, &expected, 1e-6));
            let expected: Vec<f32> = x
                .iter()
                .zip(&g)
                .map(|(&x, &g)| g * numeric_gradient(&[x], |x| exact(x[0]))[0])
                .collect();
            assert!(close(&backward(&y, &g), &expected, 1e-5));
        }
    }

    #[test]
    fn far_ends_stay_finite_and_nan_stays_nan() {
        assert_eq!(sigmoid(&[-1000.0, 0.0, 1000.0]), [0.0, 0.5, 1.0]);
        assert_eq!(tanh(&[-1000.0, 0.0, 1000.0]), [-1.0, 0.0, 1.0]);
        assert_eq!(relu(&[f32::NEG_INFINITY, 0.0, f32::INFINITY]), [0.0, 0.0, f32::INFINITY]);
        assert_eq!(relu_backward(&[0.0, 1.0], &[5.0, 5.0]), [0.0, 5.0]);
        for (forward, _, _) in TABLE {
            assert!(forward(&[f32::NAN])[0].is_nan());
        }
    }
}
