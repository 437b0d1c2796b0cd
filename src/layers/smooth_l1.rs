//! Smooth L1 loss of single differences: `d^2 / (2 beta)` within `beta` of zero, `|d| - beta / 2`
//! outside. The paper's sigma is `beta = 1 / sigma^2`; `beta = 0` is the plain absolute value.

use super::elementwise::map;

/// Loss of each difference.
pub fn smooth_l1(difference: &[f32], beta: f32) -> Vec<f32> {
    map(difference, |d| {
        let size = d.abs();
        if size < beta { 0.5 * d * d / beta } else { size - 0.5 * beta }
    })
}

/// Derivative at each difference: `d / beta` inside, the sign of `d` outside, 0 at 0.
pub fn smooth_l1_derivative(difference: &[f32], beta: f32) -> Vec<f32> {
    map(difference, |d| {
        if d.abs() < beta {
            d / beta
        } else if d == 0.0 {
            0.0
        } else {
            // Also keeps a NaN one.
            d / d.abs()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::reference::close;

    #[test]
    fn known_values() {
        let d = [0.05, 0.1, 1.0 / 9.0, 0.5, 1.0, 2.0];
        let table: [(f32, [f32; 6]); 2] = [
            (1.0, [0.00125, 0.005, 0.006_173, 0.125, 0.5, 1.5]),
            (3.0, [0.01125, 0.045, 0.055_556, 0.444_444, 0.944_444, 1.944_444]),
        ];
        for (sigma, expected) in table {
            assert!(close(&smooth_l1(&d, 1.0 / (sigma * sigma)), &expected, 1e-6));
        }
    }

    #[test]
    fn the_derivative_is_clipped_and_odd() {
        let d = [-2.0, -1.0, -0.5, 0.0, 0.5, 2.0];
        assert_eq!(smooth_l1_derivative(&d, 1.0), [-1.0, -1.0, -0.5, 0.0, 0.5, 1.0]);
        assert_eq!(smooth_l1_derivative(&d, 0.0), [-1.0, -1.0, -1.0, 0.0, 1.0, 1.0]);
        assert_eq!(smooth_l1(&d, 0.0), [2.0, 1.0, 0.5, 0.0, 0.5, 2.0]);
        assert!(smooth_l1(&[f32::NAN], 1.0)[0].is_nan());
        assert!(smooth_l1_derivative(&[f32::NAN], 1.0)[0].is_nan());
    }
}
