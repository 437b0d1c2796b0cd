//! tanh and sigmoid of one number without branches or calls, so that loops over them become vector
//! instructions.
//!
//! Both are made of `exp(x) = 2^n exp(r)`, `n` being the nearest integer to `x / ln 2`. `exp(r)`, and
//! tanh near zero, are polynomials with the coefficients of Cephes (Moshier: expf.c, tanhf.c). Results
//! are within four units in the last place.

/// `1.5 * 2^23`: adding it rounds a number of moderate size to an integer, which is then in the low bits.
const ROUND: f32 = 12_582_912.0;

/// ln 2 in two parts, of which the first has so few bits that `n` times it is exact.
const LN2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);

/// Coefficients of `(exp(r) - 1 - r) / r^2`, the highest power first.
const EXP: [f32; 6] = [1.987_569_2e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5];

/// Coefficients of `(tanh(x) - x) / x^3` in `x^2`, the highest power first.
const TANH: [f32; 5] = [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 0.133_314_42, -0.333_332_8];

/// `exp(x)` for `|x| <= 88`, where it is a normal number; NaN stays NaN.
#[inline(always)]
fn exp(x: f32) -> f32 {
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2.0) - n * LN2.1;
    let rest = EXP.iter().fold(0.0, |sum, coefficient| sum * r + coefficient);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    (rest * r * r + r + 1.0) * power
}

/// `1 / (1 + exp(-x))`; 0 where that is no normal number.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    // Comparisons that NaN fails, so that it comes through.
    let inside = if x < -88.0 { -88.0 } else { x };
    let inside = if inside > 88.0 { 88.0 } else { inside };
    let y = 1.0 / (1.0 + exp(-inside));
    if x < -87.0 { 0.0 } else { y }
}

/// Hyperbolic tangent; -0 stays -0.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let square = x * x;
    let near = TANH.iter().fold(0.0, |sum, coefficient| sum * square + coefficient);
    let near = near * square * x + x;
    let size = x.abs();
    let size = if size > 10.0 { 10.0 } else { size };
    let far = (1.0 - 2.0 / (exp(2.0 * size) + 1.0)).copysign(x);
    if x.abs() > 0.625 { far } else { near.copysign(x) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance from the exact value in units of the last place of the nearest float.
    fn ulps(got: f32, exact: f64) -> f64 {
        let near = exact as f32;
        let unit = f64::from(f32::from_bits(near.abs().to_bits() + 1)) - f64::from(near.abs());
        (f64::from(got) - exact).abs() / unit
    }

    #[test]
    fn results_are_within_four_units_in_the_last_place() {
        for step in 0..400_000 {
            let x = (step as f32 - 200_000.0) / 2_300.0;
            let wide = f64::from(x);
            for (name, got, exact) in [
                ("tanh", tanh(x), wide.tanh()),
                ("tanh", tanh(x / 100.0), (f64::from(x / 100.0)).tanh()),
                ("sigmoid", sigmoid(x), 1.0 / (1.0 + (-wide).exp())),
            ] {
                assert!(ulps(got, exact) <= 4.0, "{name} at {x}: {got}, {exact}");
            }
        }
    }

    #[test]
    fn ends_signs_and_nan() {
        for x in [10.0, 88.0, 1e4, f32::MAX, f32::INFINITY] {
            assert_eq!((tanh(x), tanh(-x)), (1.0, -1.0));
        }
        for x in [100.0, 1e4, f32::MAX, f32::INFINITY] {
            assert_eq!((sigmoid(x), sigmoid(-x)), (1.0, 0.0));
        }
        let tiny = f32::from_bits(1);
        assert_eq!([tanh(tiny), tanh(0.0)], [tiny, 0.0]);
        assert!(tanh(-0.0).is_sign_negative() && tanh(f32::NAN).is_nan());
        assert!(sigmoid(f32::NAN).is_nan() && sigmoid(0.0) == 0.5);
    }
}
