//! Losses of pairs of boxes, 1 less an IoU of the generalised kind, and their gradients.
//!
//! The formulas are written once, over a [`Number`]. With `f64` they give the loss; with a [`Dual`],
//! a number that carries its derivatives by the eight corners along, the gradient. A few hundred
//! boxes a step make eight times the arithmetic cheaper than eight derivatives written by hand.
//!
//! Where two corners coincide, a maximum or minimum sends half the gradient to each, as torch does.

use std::ops::{Add, Div, Mul, Sub};

use super::{BBox, Scalar};
use crate::{Error, Result, parallel};

/// Boxes that take about 10 microseconds.
const GRAIN: usize = 1 << 8;

/// What is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoxLoss {
    /// "Generalized Intersection over Union" (Rezatofighi et al., 2019).
    Generalized,
    /// "Distance-IoU Loss" (Zheng et al., 2019).
    Distance,
    /// The same paper's complete form, with a term for the aspect ratio.
    Complete,
}

/// torchvision's complete loss divides by IoU and diagonal with this, whatever `eps` it is given.
const COMPLETE_EPS: f64 = 1e-7;

/// A real number, possibly with derivatives.
trait Number:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    fn constant(value: f64) -> Self;
    fn value(self) -> f64;
    fn atan(self) -> Self;

    /// The larger of two, their mean if they are equal.
    fn max(self, other: Self) -> Self {
        match self.value().partial_cmp(&other.value()) {
            Some(std::cmp::Ordering::Greater) => self,
            Some(std::cmp::Ordering::Less) => other,
            _ => Self::constant(0.5) * (self + other),
        }
    }

    /// The smaller of two, their mean if they are equal.
    fn min(self, other: Self) -> Self {
        match self.value().partial_cmp(&other.value()) {
            Some(std::cmp::Ordering::Less) => self,
            Some(std::cmp::Ordering::Greater) => other,
            _ => Self::constant(0.5) * (self + other),
        }
    }
}

impl Number for f64 {
    fn constant(value: f64) -> f64 {
        value
    }
    fn value(self) -> f64 {
        self
    }
    fn atan(self) -> f64 {
        f64::atan(self)
    }
}

/// A value and its derivatives by the corners of both boxes.
#[derive(Clone, Copy)]
struct Dual {
    value: f64,
    slopes: [f64; 8],
}

impl Dual {
    /// The variable of the given number.
    fn variable(value: f64, index: usize) -> Dual {
        let mut slopes = [0.0; 8];
        slopes[index] = 1.0;
        Dual { value, slopes }
    }

    /// A function of this and another with the given value and derivatives.
    ///
    /// What a corner has no part in stays without it, even where a derivative is infinite: the ratio
    /// of a box without height is no reason for the gradient of the other box to be NaN.
    fn chain(self, other: Dual, value: f64, by_self: f64, by_other: f64) -> Dual {
        let part = |by: f64, slope: f64| if slope == 0.0 { 0.0 } else { by * slope };
        let mut slopes = [0.0; 8];
        for (i, slope) in slopes.iter_mut().enumerate() {
            *slope = part(by_self, self.slopes[i]) + part(by_other, other.slopes[i]);
        }
        Dual { value, slopes }
    }
}

impl Add for Dual {
    type Output = Dual;
    fn add(self, other: Dual) -> Dual {
        self.chain(other, self.value + other.value, 1.0, 1.0)
    }
}

impl Sub for Dual {
    type Output = Dual;
    fn sub(self, other: Dual) -> Dual {
        self.chain(other, self.value - other.value, 1.0, -1.0)
    }
}

impl Mul for Dual {
    type Output = Dual;
    fn mul(self, other: Dual) -> Dual {
        self.chain(other, self.value * other.value, other.value, self.value)
    }
}

impl Div for Dual {
    type Output = Dual;
    fn div(self, other: Dual) -> Dual {
        let quotient = self.value / other.value;
        self.chain(other, quotient, 1.0 / other.value, -quotient / other.value)
    }
}

impl Number for Dual {
    fn constant(value: f64) -> Dual {
        Dual { value, slopes: [0.0; 8] }
    }
    fn value(self) -> f64 {
        self.value
    }
    fn atan(self) -> Dual {
        let slope = 1.0 / (1.0 + self.value * self.value);
        self.chain(self, self.value.atan(), slope, 0.0)
    }
}

fn square<N: Number>(x: N) -> N {
    x * x
}

fn loss<N: Number>(what: BoxLoss, a: [N; 4], b: [N; 4], eps: f64) -> N {
    let (zero, one, half) = (N::constant(0.0), N::constant(1.0), N::constant(0.5));
    let ratio_eps = if what == BoxLoss::Complete { COMPLETE_EPS } else { eps };
    let extent = |b: [N; 4], axis: usize| b[axis + 2] - b[axis];
    let common = [0, 1].map(|i| a[i + 2].min(b[i + 2]) - a[i].max(b[i]));
    let overlap = common[0].value() > 0.0 && common[1].value() > 0.0;
    let intersection = if overlap { common[0] * common[1] } else { zero };
    let union = extent(a, 0) * extent(a, 1) + extent(b, 0) * extent(b, 1) - intersection;
    let iou = intersection / (union + N::constant(ratio_eps));
    let hull = [0, 1].map(|i| a[i + 2].max(b[i + 2]) - a[i].min(b[i]));
    if what == BoxLoss::Generalized {
        let around = hull[0] * hull[1];
        return one - (iou - (around - union) / (around + N::constant(eps)));
    }
    let apart = [0, 1].map(|i| half * (a[i] + a[i + 2]) - half * (b[i] + b[i + 2]));
    let diagonal = square(hull[0]) + square(hull[1]) + N::constant(ratio_eps);
    let distance = one - iou + (square(apart[0]) + square(apart[1])) / diagonal;
    if what == BoxLoss::Distance {
        return distance;
    }
    let slant = |b: [N; 4]| (extent(b, 0) / extent(b, 1)).atan();
    let v = N::constant(4.0 / std::f64::consts::PI.powi(2)) * square(slant(b) - slant(a));
    // The weight of the ratio counts as a constant.
    let alpha = v.value() / (1.0 - iou.value() + v.value() + eps);
    distance + N::constant(alpha) * v
}

fn check<T>(a: &[BBox<T>], b: &[BBox<T>], out: usize, rows: usize) -> Result<()> {
    if (b.len(), out) != (a.len(), rows) {
        return Err(Error::shape(
            "boxes2",
            format!("shape ({}, 4) as boxes1", a.len()),
            format!("({}, 4), and {out} results", b.len()),
        ));
    }
    Ok(())
}

fn wide<T: Scalar>(b: &BBox<T>) -> BBox<f64> {
    b.map(T::to_f64)
}

/// Writes the loss of each box of `a` against its partner in `b`. All arithmetic is in float64.
pub fn box_loss<T: Scalar>(
    what: BoxLoss,
    a: &[BBox<T>],
    b: &[BBox<T>],
    eps: f64,
    losses: &mut [T],
) -> Result<()> {
    check(a, b, losses.len(), a.len())?;
    let one = |row: usize| T::from_f64(loss(what, wide(&a[row]), wide(&b[row]), eps));
    parallel::fill(losses, GRAIN, |row, out| *out = one(row))
}

/// Writes the gradient of the losses, weighted, by the corners of both boxes: for each pair the
/// four of `a`, then the four of `b`.
pub fn box_loss_backward<T: Scalar>(
    what: BoxLoss,
    a: &[BBox<T>],
    b: &[BBox<T>],
    eps: f64,
    weights: &[T],
    gradient: &mut [[T; 8]],
) -> Result<()> {
    check(a, b, gradient.len(), a.len())?;
    check(a, b, weights.len(), a.len())?;
    parallel::fill(gradient, GRAIN, |row, out| {
        let (a, b) = (wide(&a[row]), wide(&b[row]));
        let variables = |b: BBox<f64>, first: usize| {
            [0, 1, 2, 3].map(|corner| Dual::variable(b[corner], first + corner))
        };
        let slopes = loss(what, variables(a, 0), variables(b, 4), eps).slopes;
        let weight = weights[row].to_f64();
        *out = slopes.map(|slope| T::from_f64(weight * slope));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [BoxLoss; 3] = [BoxLoss::Generalized, BoxLoss::Distance, BoxLoss::Complete];

    fn value(what: BoxLoss, a: BBox<f64>, b: BBox<f64>) -> f64 {
        let mut out = [0.0];
        box_loss(what, &[a], &[b], 1e-7, &mut out).unwrap();
        out[0]
    }

    fn gradient(what: BoxLoss, a: BBox<f64>, b: BBox<f64>) -> [f64; 8] {
        let mut out = [[0.0; 8]];
        box_loss_backward(what, &[a], &[b], 1e-7, &[1.0], &mut out).unwrap();
        out[0]
    }

    #[test]
    fn losses_of_the_worked_examples() {
        let (a, b) = ([0., 0., 4., 4.], [2., 1., 6., 5.]);
        let close = |x: f64, y: f64| assert!((x - y).abs() < 1e-6, "{x}, expected {y}");
        close(value(BoxLoss::Generalized, a, b), 1.0 - 0.09743589);
        close(value(BoxLoss::Distance, a, b), 1.0 - 0.14880201);
        close(value(BoxLoss::Complete, a, [2., 1., 6., 4.]), 1.0 - 0.19090597);
        for what in ALL {
            close(value(what, a, a), 0.0);
        }
    }

    #[test]
    fn gradients_are_the_slopes_of_the_losses() {
        let pairs = [
            ([0., 0., 4., 4.], [2., 1., 6., 5.]),    // overlapping
            ([0., 0., 4., 4.], [6., 1., 9., 3.5]),   // apart
            ([0., 0., 10., 8.], [2., 1., 6., 5.5]),  // one inside the other
            ([1., 2., 1.5, 9.], [0.5, 1., 8., 2.5]), // of different shapes
        ];
        for (what, (a, b)) in ALL.into_iter().flat_map(|what| pairs.map(|pair| (what, pair))) {
            // The weight of the ratio term is a constant of the gradient, so not of differences.
            let ratio = |a: BBox<f64>, b: BBox<f64>| {
                let slant = |b: BBox<f64>| ((b[2] - b[0]) / (b[3] - b[1])).atan();
                4.0 / std::f64::consts::PI.powi(2) * (slant(a) - slant(b)).powi(2)
            };
            let excess = value(BoxLoss::Complete, a, b) - value(BoxLoss::Distance, a, b);
            let alpha = if ratio(a, b) > 0.0 { excess / ratio(a, b) } else { 0.0 };
            let function = |a: BBox<f64>, b: BBox<f64>| match what {
                BoxLoss::Complete => value(BoxLoss::Distance, a, b) + alpha * ratio(a, b),
                _ => value(what, a, b),
            };
            for (index, got) in gradient(what, a, b).into_iter().enumerate() {
                let moved = |step: f64| {
                    let (mut a, mut b) = (a, b);
                    if index < 4 {
                        a[index] += step
                    } else {
                        b[index - 4] += step
                    }
                    function(a, b)
                };
                let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((got - expected).abs() < 1e-8, "{what:?} {index}: {got}, {expected}");
            }
        }
    }

    #[test]
    fn equal_corners_share_the_gradient() {
        // Moving a corner of either of two equal boxes changes as much.
        for what in ALL {
            let slopes = gradient(what, [0., 0., 4., 3.], [0., 0., 4., 3.]);
            for corner in 0..4 {
                assert!((slopes[corner] - slopes[corner + 4]).abs() < 1e-9, "{what:?} {slopes:?}");
            }
        }
    }

    #[test]
    fn a_box_without_height_leaves_the_other_its_gradient() {
        let (a, flat) = ([0., 0., 4., 4.], [1., 2., 5., 2.]);
        let slopes = gradient(BoxLoss::Complete, a, flat);
        assert!(slopes[..4].iter().all(|slope| slope.is_finite()), "{slopes:?}");
        assert!(slopes[4..].iter().all(|slope| slope.is_nan()), "{slopes:?}");
        let nearly = gradient(BoxLoss::Complete, a, [1., 2., 5., 2.0 + 1e-9]);
        for (got, expected) in slopes[..4].iter().zip(nearly) {
            assert!((got - expected).abs() < 1e-6, "{got}, {expected}");
        }
    }

    #[test]
    fn many_boxes_are_their_single_ones_and_weights_multiply() {
        let n = 10 * GRAIN + 3;
        let boxes = |shift: f32| -> Vec<BBox<f32>> {
            (0..n).map(|i| i as f32).map(|i| [i, shift, i + 3.0, i + 4.0 + shift]).collect()
        };
        let (a, b) = (boxes(0.0), boxes(0.5));
        let weights: Vec<f32> = (0..n).map(|i| (i % 5) as f32).collect();
        for what in ALL {
            let (mut losses, mut slopes) = (vec![0.0; n], vec![[0.0; 8]; n]);
            box_loss(what, &a, &b, 1e-7, &mut losses).unwrap();
            box_loss_backward(what, &a, &b, 1e-7, &weights, &mut slopes).unwrap();
            for i in 0..n {
                let (a, b) = (wide(&a[i]), wide(&b[i]));
                assert_eq!(losses[i], value(what, a, b) as f32);
                let expected = gradient(what, a, b).map(|x| (x * f64::from(weights[i])) as f32);
                assert_eq!(slopes[i], expected);
            }
        }
    }

    #[test]
    fn different_numbers_of_boxes_are_refused() {
        let two = [[0f32; 4]; 2];
        assert!(box_loss(BoxLoss::Distance, &two, &two[..1], 1e-7, &mut [0.0; 2]).is_err());
        assert!(box_loss(BoxLoss::Distance, &two, &two, 1e-7, &mut [0.0; 1]).is_err());
        let mut slopes = [[0.0; 8]; 2];
        let what = BoxLoss::Distance;
        assert!(box_loss_backward(what, &two, &two, 1e-7, &[1.0], &mut slopes).is_err());
    }
}
