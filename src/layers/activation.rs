//! ReLU, tanh and sigmoid, each with its gradient; and what plans do to single elements.
//!
//! All gradients are functions of the *output*, so training keeps one array a layer: ReLU's is `g`
//! where `y > 0`, tanh's `g (1 - y^2)`, sigmoid's `g y (1 - y)`.

use super::elementwise::{map_into, zip_assign, zip_into};
use super::exponential;
use crate::conv::Activation;
use crate::rows::{Rows, RowsMut};

/// A function of single elements, as a step of a plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Function {
    /// ReLU or a clamp, which other steps can also apply to what they store.
    Clamp(Activation),
    /// The logistic function `1 / (1 + exp(-x))`.
    Sigmoid,
    /// The hyperbolic tangent.
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

/// The function of each element.
pub fn apply(function: Function, x: &[f32]) -> Vec<f32> {
    let mut output = vec![0.0; x.len()];
    apply_into(function, Rows::dense(x, 1), RowsMut::dense(&mut output, 1));
    output
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

/// Writes the gradient of the function's input to `grad_input`, from that of its output `y`. Where
/// `y` is a bound of a clamp, that is 0.
pub fn backward_into(function: Function, y: &[f32], grad_output: &[f32], grad_input: &mut [f32]) {
    let (y, g) = (Rows::dense(y, 1), Rows::dense(grad_output, 1));
    let output = RowsMut::dense(grad_input, 1);
    match function {
        Function::Clamp(Activation::Identity) => map_into(g, output, |g| g),
        Function::Clamp(Activation::Relu) => {
            zip_into(y, g, output, |y, g| if y <= 0.0 { 0.0 } else { g })
        }
        Function::Clamp(Activation::Clamp(low, high)) => {
            zip_into(y, g, output, |y, g| if y <= low || y >= high { 0.0 } else { g })
        }
        Function::Sigmoid => zip_into(y, g, output, |y, g| g * y * (1.0 - y)),
        Function::Tanh => zip_into(y, g, output, |y, g| g * (1.0 - y * y)),
        Function::Scale(factor, _) => map_into(g, output, |g| g * factor),
    }
}

/// Sets a gradient to zero where the activation, which gave `y`, was at one of its limits.
pub fn mask(activation: Activation, y: &[f32], gradient: &mut [f32]) {
    match activation {
        Activation::Identity => {}
        Activation::Relu => zip_assign(gradient, y, |g, y| if y <= 0.0 { 0.0 } else { g }),
        Activation::Clamp(low, high) => {
            zip_assign(gradient, y, |g, y| if y <= low || y >= high { 0.0 } else { g })
        }
    }
}

/// `to += from`.
pub fn add_assign(to: &mut [f32], from: &[f32]) {
    zip_assign(to, from, |to, from| to + from);
}

#[cfg(test)]
mod tests {
    use super::super::testing::numeric_gradient;
    use super::*;
    use crate::conv::reference::{close, values};

    type Exact = fn(f64) -> f64;
    const RELU: Function = Function::Clamp(Activation::Relu);
    const TABLE: [(Function, Exact); 6] = [
        (RELU, |x| x.max(0.0)),
        (Function::Tanh, |x| x.tanh()),
        (Function::Sigmoid, |x| 1.0 / (1.0 + (-x).exp())),
        (Function::Clamp(Activation::Identity), |x| x),
        (Function::Clamp(Activation::Clamp(-1.0, 6.0)), |x| x.clamp(-1.0, 6.0)),
        (Function::Scale(-0.5, 3.0), |x| 3.0 - 0.5 * x),
    ];

    fn gradient(function: Function, y: &[f32], grad_output: &[f32]) -> Vec<f32> {
        let mut grad_input = vec![f32::NAN; y.len()];
        backward_into(function, y, grad_output, &mut grad_input);
        grad_input
    }

    #[test]
    fn values_and_gradients_agree_with_float64() {
        let x: Vec<f32> = values(1000, 1).iter().map(|v| 8.0 * v).collect();
        let g = values(x.len(), 2);
        for (function, exact) in TABLE {
            let y = apply(function, &x);
            let expected: Vec<f32> = x.iter().map(|&x| exact(f64::from(x)) as f32).collect();
            assert!(close(&y, &expected, 1e-6), "{function:?}");
            let expected: Vec<f32> = x
                .iter()
                .zip(&g)
                .map(|(&x, &g)| g * numeric_gradient(&[x], |x| exact(x[0]))[0])
                .collect();
            assert!(close(&gradient(function, &y, &g), &expected, 1e-5), "{function:?}");
        }
    }

    #[test]
    fn far_ends_stay_finite_and_nan_stays_nan() {
        assert_eq!(apply(Function::Sigmoid, &[-1000.0, 0.0, 1000.0]), [0.0, 0.5, 1.0]);
        assert_eq!(apply(Function::Tanh, &[-1000.0, 0.0, 1000.0]), [-1.0, 0.0, 1.0]);
        let ends = [f32::NEG_INFINITY, 0.0, f32::INFINITY];
        assert_eq!(apply(RELU, &ends), [0.0, 0.0, f32::INFINITY]);
        assert_eq!(gradient(RELU, &[0.0, 1.0], &[5.0, 5.0]), [0.0, 5.0]);
        for (function, _) in TABLE {
            assert!(apply(function, &[f32::NAN])[0].is_nan());
        }
    }
}
