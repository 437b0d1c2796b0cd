//! RMSprop: steps divided by a running root mean square of the gradient.

use super::{Arrays, Step, direction, for_each_element};

/// The settings of a step, with the names of `torch.optim.RMSprop`.
#[derive(Debug, Clone, Copy)]
pub struct RmsProp {
    /// Learning rate.
    pub lr: f32,
    /// What remains of the mean square.
    pub alpha: f32,
    /// `1 - alpha`.
    pub share: f32,
    /// Keeps the divisor from 0.
    pub eps: f32,
    /// What part of a parameter is added to its gradient.
    pub weight_decay: f32,
    /// Share of the last step that is repeated.
    pub momentum: f32,
    /// Go up instead of down.
    pub maximize: bool,
    /// TensorFlow's form: `eps` is added under the root, and steps are remembered with their
    /// learning rate.
    pub eps_inside: bool,
}

impl RmsProp {
    /// Changes parameters and their mean squares.
    pub fn step(self, arrays: Vec<Arrays<'_, 2>>) {
        for_each_element(arrays, &self);
    }

    /// [`step`](Self::step) with the running mean of the gradient in a third array, whose square is
    /// subtracted.
    pub fn step_centered(self, arrays: Vec<Arrays<'_, 3>>) {
        for_each_element(arrays, &Centered(self));
    }

    /// [`step`](Self::step) with the last step in a third array.
    pub fn step_with_momentum(self, arrays: Vec<Arrays<'_, 3>>) {
        for_each_element(arrays, &self);
    }

    /// [`step_centered`](Self::step_centered) with the last step in a fourth array.
    pub fn step_centered_with_momentum(self, arrays: Vec<Arrays<'_, 4>>) {
        for_each_element(arrays, &Centered(self));
    }

    /// The gradient, and its mean square with it.
    #[inline(always)]
    fn gradient(&self, p: f32, square: f32, g: f32) -> (f32, f32) {
        let g = direction(g, p, self.weight_decay, self.maximize);
        (g, square * self.alpha + self.share * (g * g))
    }

    /// The step, before momentum.
    #[inline(always)]
    fn scaled(&self, g: f32, square: f32) -> f32 {
        match self.eps_inside {
            true => g / (square + self.eps).sqrt() * self.lr,
            false => g / (square.sqrt() + self.eps),
        }
    }

    #[inline(always)]
    fn changed(&self, p: f32, step: f32) -> f32 {
        p - if self.eps_inside { step } else { self.lr * step }
    }
}

impl Step<2> for RmsProp {
    #[inline(always)]
    fn apply(&self, [p, square]: [f32; 2], g: f32) -> [f32; 2] {
        let (g, square) = self.gradient(p, square, g);
        [self.changed(p, self.scaled(g, square)), square]
    }
}

impl Step<3> for RmsProp {
    #[inline(always)]
    fn apply(&self, [p, square, last]: [f32; 3], g: f32) -> [f32; 3] {
        let (g, square) = self.gradient(p, square, g);
        let last = last * self.momentum + self.scaled(g, square);
        [self.changed(p, last), square, last]
    }
}

/// With the deviation as the divisor.
struct Centered(RmsProp);

impl Centered {
    /// The running mean, and the square of the deviation.
    #[inline(always)]
    fn variance(&self, square: f32, mean: f32, g: f32) -> (f32, f32) {
        let mean = mean + self.0.share * (g - mean);
        let variance = square - mean * mean;
        // Rounding may bring it below 0, where torch goes on with NaN.
        (mean, if variance < 0.0 { 0.0 } else { variance })
    }
}

impl Step<3> for Centered {
    #[inline(always)]
    fn apply(&self, [p, square, mean]: [f32; 3], g: f32) -> [f32; 3] {
        let (g, square) = self.0.gradient(p, square, g);
        let (mean, variance) = self.variance(square, mean, g);
        [self.0.changed(p, self.0.scaled(g, variance)), square, mean]
    }
}

impl Step<4> for Centered {
    #[inline(always)]
    fn apply(&self, [p, square, mean, last]: [f32; 4], g: f32) -> [f32; 4] {
        let (g, square) = self.0.gradient(p, square, g);
        let (mean, variance) = self.variance(square, mean, g);
        let last = last * self.0.momentum + self.0.scaled(g, variance);
        [self.0.changed(p, last), square, mean, last]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn agrees_with_the_formulas_in_float64() {
        let plain = RmsProp {
            lr: 0.125,
            alpha: 0.75,
            share: 0.25,
            eps: 0.0625,
            weight_decay: 0.5,
            momentum: 0.5,
            maximize: false,
            eps_inside: false,
        };
        let inside = RmsProp { eps_inside: true, maximize: true, ..plain };
        let square = |s: f64, g: f64| 0.75 * s + 0.25 * g * g;
        check(
            |arrays| plain.step(arrays),
            |[p, s], g| {
                let g = g + 0.5 * p;
                let s = square(s, g);
                [p - 0.125 * g / (s.sqrt() + 0.0625), s]
            },
        );
        check(
            |arrays| inside.step_with_momentum(arrays),
            |[p, s, last], g| {
                let g = 0.5 * p - g;
                let s = square(s, g);
                let last = 0.5 * last + 0.125 * g / (s + 0.0625).sqrt();
                [p - last, s, last]
            },
        );
        let variance = |s: f64, mean: f64| (s - mean * mean).max(0.0);
        // With an eps that keeps the rounding of a variance near 0 small.
        let centered = RmsProp { eps: 1.0, ..inside };
        check(
            |arrays| centered.step_centered(arrays),
            |[p, s, mean], g| {
                let g = 0.5 * p - g;
                let (s, mean) = (square(s, g), mean + 0.25 * (g - mean));
                [p - 0.125 * g / (variance(s, mean) + 1.0).sqrt(), s, mean]
            },
        );
        check(
            |arrays| centered.step_centered_with_momentum(arrays),
            |[p, s, mean, last], g| {
                let g = 0.5 * p - g;
                let (s, mean) = (square(s, g), mean + 0.25 * (g - mean));
                let last = 0.5 * last + 0.125 * g / (variance(s, mean) + 1.0).sqrt();
                [p - last, s, mean, last]
            },
        );
    }
}
