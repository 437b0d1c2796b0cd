//! The three Winograd transforms of a 3 x 3 convolution, in one dimension.
//!
//! `F(m, 3)` computes `m` outputs of a 3-tap filter from `n = m + 2` inputs with `n` products
//! instead of `3 m` (Winograd 1980; Lavin and Gray 2016, section 4):
//!
//! ```text
//! y = A' [(G g) * (B' d)]      d: n inputs, g: 3 weights, y: m outputs, * element by element
//! ```
//!
//! The matrices follow from `n - 1` interpolation points and infinity; the more points, the fewer
//! products and the larger the rounding error. Points used: 0, 1, -1 for m = 2; and also 2, -2 for
//! m = 4; and also 1/2, -1/2 for m = 6. Applying a transform to the columns and then to the rows
//! gives the two-dimensional one.

use crate::isa::Simd;

/// `F(OUT, 3)` with tiles of `IN = OUT + 2`.
pub trait Transform<const IN: usize, const OUT: usize>: Copy + Send + Sync + 'static {
    /// The matrix G.
    const WEIGHTS: [[f64; 3]; IN];
    /// Factor that gives back the middle weight: `(G g)[2] - (G g)[1]` times this.
    const MIDDLE: f64;
    /// `B' d`.
    fn input<S: Simd>(simd: S, d: [S::Vector; IN]) -> [S::Vector; IN];
    /// `A' m`.
    fn output<S: Simd>(simd: S, m: [S::Vector; IN]) -> [S::Vector; OUT];
    /// `A y`: what reaches the products from the outputs' gradients.
    fn gradient<S: Simd>(simd: S, y: [S::Vector; OUT]) -> [S::Vector; IN];
}

/// `G g`.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "closures would be compiled for another CPU")]
pub fn weights<S: Simd, T: Transform<IN, OUT>, const IN: usize, const OUT: usize>(
    simd: S,
    g: [S::Vector; 3],
) -> [S::Vector; IN] {
    let mut u = [simd.splat(0.0); IN];
    for i in 0..IN {
        for k in 0..3 {
            // Known when this is compiled.
            if T::WEIGHTS[i][k] != 0.0 {
                u[i] = simd.mul_add(g[k], simd.splat(T::WEIGHTS[i][k] as f32), u[i]);
            }
        }
    }
    u
}

/// `G' u`: what reaches the weights from the gradients of the transformed ones.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "closures would be compiled for another CPU")]
pub fn weight_gradient<S: Simd, T: Transform<IN, OUT>, const IN: usize, const OUT: usize>(
    simd: S,
    u: [S::Vector; IN],
) -> [S::Vector; 3] {
    let mut g = [simd.splat(0.0); 3];
    for k in 0..3 {
        for i in 0..IN {
            if T::WEIGHTS[i][k] != 0.0 {
                g[k] = simd.mul_add(u[i], simd.splat(T::WEIGHTS[i][k] as f32), g[k]);
            }
        }
    }
    g
}

/// Two outputs from four inputs.
#[derive(Debug, Clone, Copy)]
pub struct F2;

impl Transform<4, 2> for F2 {
    const WEIGHTS: [[f64; 3]; 4] =
        [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];
    const MIDDLE: f64 = -1.0;

    #[inline(always)]
    fn input<S: Simd>(simd: S, [d0, d1, d2, d3]: [S::Vector; 4]) -> [S::Vector; 4] {
        [simd.sub(d0, d2), simd.add(d1, d2), simd.sub(d2, d1), simd.sub(d3, d1)]
    }

    #[inline(always)]
    fn output<S: Simd>(simd: S, [m0, m1, m2, m3]: [S::Vector; 4]) -> [S::Vector; 2] {
        [simd.add(simd.add(m0, m1), m2), simd.add(simd.sub(m1, m2), m3)]
    }

    #[inline(always)]
    fn gradient<S: Simd>(simd: S, [y0, y1]: [S::Vector; 2]) -> [S::Vector; 4] {
        [y0, simd.add(y0, y1), simd.sub(y0, y1), y1]
    }
}

/// Four outputs from six inputs.
#[derive(Debug, Clone, Copy)]
pub struct F4;

impl Transform<6, 4> for F4 {
    const WEIGHTS: [[f64; 3]; 6] = [
        [1.0 / 4.0, 0.0, 0.0],
        [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
        [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
        [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
        [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
        [0.0, 0.0, 1.0],
    ];
    const MIDDLE: f64 = 3.0;

    #[inline(always)]
    fn input<S: Simd>(simd: S, [d0, d1, d2, d3, d4, d5]: [S::Vector; 6]) -> [S::Vector; 6] {
        // Rows 1 and 2, and 3 and 4, differ in the sign of their odd part.
        let even = simd.mul_add(d2, simd.splat(-4.0), d4);
        let odd = simd.mul_add(d1, simd.splat(-4.0), d3);
        let far_even = simd.sub(d4, d2);
        let far_odd = simd.sub(d3, d1);
        [
            simd.mul_add(d0, simd.splat(4.0), simd.mul_add(d2, simd.splat(-5.0), d4)),
            simd.add(even, odd),
            simd.sub(even, odd),
            simd.mul_add(far_odd, simd.splat(2.0), far_even),
            simd.mul_add(far_odd, simd.splat(-2.0), far_even),
            simd.mul_add(d1, simd.splat(4.0), simd.mul_add(d3, simd.splat(-5.0), d5)),
        ]
    }

    #[inline(always)]
    fn output<S: Simd>(simd: S, [m0, m1, m2, m3, m4, m5]: [S::Vector; 6]) -> [S::Vector; 4] {
        let (near_sum, near_difference) = (simd.add(m1, m2), simd.sub(m1, m2));
        let (far_sum, far_difference) = (simd.add(m3, m4), simd.sub(m3, m4));
        [
            simd.add(simd.add(m0, near_sum), far_sum),
            simd.mul_add(far_difference, simd.splat(2.0), near_difference),
            simd.mul_add(far_sum, simd.splat(4.0), near_sum),
            simd.add(simd.mul_add(far_difference, simd.splat(8.0), near_difference), m5),
        ]
    }

    #[inline(always)]
    fn gradient<S: Simd>(simd: S, [y0, y1, y2, y3]: [S::Vector; 4]) -> [S::Vector; 6] {
        let (even, odd) = (simd.add(y0, y2), simd.add(y1, y3));
        let far_even = simd.mul_add(y2, simd.splat(4.0), y0);
        let far_odd = simd.mul_add(y3, simd.splat(8.0), simd.add(y1, y1));
        [
            y0,
            simd.add(even, odd),
            simd.sub(even, odd),
            simd.add(far_even, far_odd),
            simd.sub(far_even, far_odd),
            y3,
        ]
    }
}

/// Six outputs from eight inputs.
#[derive(Debug, Clone, Copy)]
pub struct F6;

impl Transform<8, 6> for F6 {
    const WEIGHTS: [[f64; 3]; 8] = [
        [1.0, 0.0, 0.0],
        [-2.0 / 9.0, -2.0 / 9.0, -2.0 / 9.0],
        [-2.0 / 9.0, 2.0 / 9.0, -2.0 / 9.0],
        [1.0 / 90.0, 1.0 / 45.0, 2.0 / 45.0],
        [1.0 / 90.0, -1.0 / 45.0, 2.0 / 45.0],
        [32.0 / 45.0, 16.0 / 45.0, 8.0 / 45.0],
        [32.0 / 45.0, -16.0 / 45.0, 8.0 / 45.0],
        [0.0, 0.0, 1.0],
    ];
    const MIDDLE: f64 = 9.0 / 4.0;

    #[inline(always)]
    fn input<S: Simd>(simd: S, [d0, d1, d2, d3, d4, d5, d6, d7]: [S::Vector; 8]) -> [S::Vector; 8] {
        let even = simd.add(simd.mul_add(d4, simd.splat(-4.25), d2), d6);
        let odd = simd.add(simd.mul_add(d3, simd.splat(-4.25), d1), d5);
        let low_even = simd.mul_add(d2, simd.splat(0.25), simd.mul_add(d4, simd.splat(-1.25), d6));
        let low_odd =
            simd.mul_add(d1, simd.splat(0.5), simd.mul_add(d3, simd.splat(-2.5), simd.add(d5, d5)));
        let high_even = simd.mul_add(d2, simd.splat(4.0), simd.mul_add(d4, simd.splat(-5.0), d6));
        let high_odd =
            simd.mul_add(d5, simd.splat(0.5), simd.mul_add(d3, simd.splat(-2.5), simd.add(d1, d1)));
        [
            simd.mul_add(simd.sub(d4, d2), simd.splat(5.25), simd.sub(d0, d6)),
            simd.add(even, odd),
            simd.sub(even, odd),
            simd.add(low_even, low_odd),
            simd.sub(low_even, low_odd),
            simd.add(high_even, high_odd),
            simd.sub(high_even, high_odd),
            simd.mul_add(simd.sub(d3, d5), simd.splat(5.25), simd.sub(d7, d1)),
        ]
    }

    #[inline(always)]
    fn output<S: Simd>(
        simd: S,
        [m0, m1, m2, m3, m4, m5, m6, m7]: [S::Vector; 8],
    ) -> [S::Vector; 6] {
        let (s1, d1) = (simd.add(m1, m2), simd.sub(m1, m2));
        let (s2, d2) = (simd.add(m3, m4), simd.sub(m3, m4));
        let (s3, d3) = (simd.add(m5, m6), simd.sub(m5, m6));
        [
            simd.add(simd.add(m0, s1), simd.add(s2, s3)),
            weighted(simd, [d1, d2, d3], 2.0, 0.5),
            weighted(simd, [s1, s2, s3], 4.0, 0.25),
            weighted(simd, [d1, d2, d3], 8.0, 0.125),
            weighted(simd, [s1, s2, s3], 16.0, 0.0625),
            simd.add(weighted(simd, [d1, d2, d3], 32.0, 0.03125), m7),
        ]
    }

    #[inline(always)]
    fn gradient<S: Simd>(simd: S, [y0, y1, y2, y3, y4, y5]: [S::Vector; 6]) -> [S::Vector; 8] {
        let (even, odd) = (simd.add(simd.add(y0, y2), y4), simd.add(simd.add(y1, y3), y5));
        let far_even = weighted(simd, [y0, y2, y4], 4.0, 16.0);
        let far_odd = weighted(simd, [simd.add(y1, y1), y3, y5], 8.0, 32.0);
        let close_even = weighted(simd, [y0, y2, y4], 0.25, 0.0625);
        let close_odd = weighted(simd, [simd.mul(y1, simd.splat(0.5)), y3, y5], 0.125, 0.03125);
        [
            y0,
            simd.add(even, odd),
            simd.sub(even, odd),
            simd.add(far_even, far_odd),
            simd.sub(far_even, far_odd),
            simd.add(close_even, close_odd),
            simd.sub(close_even, close_odd),
            y5,
        ]
    }
}

/// `a + b * second + c * third`: for outputs a sum over the point pairs 1, 2 and 1/2, each to the power
/// of the output's index.
#[inline(always)]
fn weighted<S: Simd>(simd: S, [a, b, c]: [S::Vector; 3], second: f32, third: f32) -> S::Vector {
    simd.mul_add(c, simd.splat(third), simd.mul_add(b, simd.splat(second), a))
}

/// Weight `(u, v)` of one pair of channels from its transformed weights.
pub fn original_weight<T: Transform<IN, OUT>, const IN: usize, const OUT: usize>(
    (u, v): (usize, usize),
    transformed: impl Fn(usize, usize) -> f32,
) -> f32 {
    // (index, factor) pairs: the first and the last point see one weight only.
    let parts = |tap: usize| match tap {
        0 => [(0, 1.0 / T::WEIGHTS[0][0]), (0, 0.0)],
        1 => [(2, T::MIDDLE), (1, -T::MIDDLE)],
        _ => [(IN - 1, 1.0), (0, 0.0)],
    };
    let mut sum = 0.0;
    for (i, row) in parts(u) {
        for (j, col) in parts(v) {
            if row * col != 0.0 {
                sum += row * col * f64::from(transformed(i, j));
            }
        }
    }
    sum as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Portable;

    /// One dimension, in lane 0: `T` against the filter's definition.
    fn check<T: Transform<IN, OUT>, const IN: usize, const OUT: usize>() {
        let g = [0.7_f32, -1.3, 0.4];
        let d: [f32; IN] = std::array::from_fn(|i| ((i * 5 + 2) % 7) as f32 - 3.0);
        let simd = Portable;
        let transformed = T::input(simd, d.map(|x| simd.splat(x)));
        let products = std::array::from_fn(|i| {
            let w: f64 = (0..3).map(|k| T::WEIGHTS[i][k] * f64::from(g[k])).sum();
            simd.mul(transformed[i], simd.splat(w as f32))
        });
        for (i, y) in T::output(simd, products).iter().enumerate() {
            let expected: f32 = (0..3).map(|k| d[i + k] * g[k]).sum();
            assert!((y[0] - expected).abs() < 1e-4, "F({OUT}, 3) output {i}: {} {expected}", y[0]);
        }
    }

    /// `A`, `G` and `G'` against what they are the transposes of: `<A y, m> = <y, A' m>`, and so on.
    fn check_gradients<T: Transform<IN, OUT>, const IN: usize, const OUT: usize>() {
        let (y, m) = (|i: usize| (i * 3 % 5) as f32 - 1.5, |i: usize| (i * 5 % 7) as f32 - 2.5);
        let simd = Portable;
        let dot = |n: usize, a: &dyn Fn(usize) -> f32, b: &dyn Fn(usize) -> f32| {
            (0..n).map(|i| f64::from(a(i)) * f64::from(b(i))).sum::<f64>()
        };
        let back = T::gradient(simd, std::array::from_fn(|i| simd.splat(y(i))));
        let forth = T::output(simd, std::array::from_fn(|i| simd.splat(m(i))));
        let (left, right) = (dot(IN, &|i| back[i][0], &m), dot(OUT, &y, &|i| forth[i][0]));
        assert!((left - right).abs() < 1e-3, "F({OUT}, 3): {left} {right}");
        let u = weights::<_, T, IN, OUT>(simd, std::array::from_fn(|i| simd.splat(y(i))));
        let g = weight_gradient::<_, T, IN, OUT>(simd, std::array::from_fn(|i| simd.splat(m(i))));
        let (left, right) = (dot(IN, &|i| u[i][0], &m), dot(3, &y, &|i| g[i][0]));
        assert!((left - right).abs() < 1e-3, "F({OUT}, 3): {left} {right}");
    }

    fn check_inverse<T: Transform<IN, OUT>, const IN: usize, const OUT: usize>() {
        let g = |u: usize, v: usize| ((u * 3 + v) * 5 % 9) as f32 / 4.0 - 1.0;
        for u in 0..3 {
            for v in 0..3 {
                let back = original_weight::<T, IN, OUT>((u, v), |i, j| {
                    let term = |u, v| T::WEIGHTS[i][u] * T::WEIGHTS[j][v] * f64::from(g(u, v));
                    (0..9).map(|tap| term(tap / 3, tap % 3)).sum::<f64>() as f32
                });
                assert!((back - g(u, v)).abs() < 1e-6, "F({OUT}, 3) ({u}, {v})");
            }
        }
    }

    #[test]
    fn every_transform_is_a_convolution() {
        check::<F2, 4, 2>();
        check::<F4, 6, 4>();
        check::<F6, 8, 6>();
    }

    #[test]
    fn transforms_of_gradients_are_transposes() {
        check_gradients::<F2, 4, 2>();
        check_gradients::<F4, 6, 4>();
        check_gradients::<F6, 8, 6>();
    }

    #[test]
    fn weights_can_be_had_back() {
        check_inverse::<F2, 4, 2>();
        check_inverse::<F4, 6, 4>();
        check_inverse::<F6, 8, 6>();
    }
}
