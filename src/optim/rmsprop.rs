//! RMSprop: steps divided by a running root mean square of the gradient.

use super::{Arrays, direction, for_each_element};

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
        for_each_element(arrays, |[p, s], g| {
            let g = self.gradient(*p, s, g);
            self.change(p, g, *s, None);
        });
    }

    /// [`step`](Self::step) with the running mean of the gradient in a third array, whose square is
    /// subtracted.
    pub fn step_centered(self, arrays: Vec<Arrays<'_, 3>>) {
        for_each_element(arrays, |[p, s, mean], g| {
            let g = self.gradient(*p, s, g);
            let variance = self.variance(*s, mean, g);
            self.change(p, g, variance, None);
        });
    }

    /// [`step`](Self::step) with the last step in a third array.
    pub fn step_with_momentum(self, arrays: Vec<Arrays<'_, 3>>) {
        for_each_element(arrays, |[p, s, last], g| {
            let g = self.gradient(*p, s, g);
            self.change(p, g, *s, Some(last));
        });
    }

    /// [`step_centered`](Self::step_centered) with the last step in a fourth array.
    pub fn step_centered_with_momentum(self, arrays: Vec<Arrays<'_, 4>>) {
        for_each_element(arrays, |[p, s, mean, last], g| {
            let g = self.gradient(*p, s, g);
            let variance = self.variance(*s, mean, g);
            self.change(p, g, variance, Some(last));
        });
    }

    /// The gradient, after it went into its mean square.
    #[inline(always)]
    fn gradient(&self, p: f32, square: &mut f32, g: f32) -> f32 {
        let g = direction(g, p, self.weight_decay, self.maximize);
        *square = *square * self.alpha + self.share * (g * g);
        g
    }

    #[inline(always)]
    fn variance(&self, square: f32, mean: &mut f32, g: f32) -> f32 {
        *mean += self.share * (g - *mean);
        let variance = square - *mean * *mean;
        // Rounding may bring it below 0, where torch goes on with NaN.
        if variance < 0.0 { 0.0 } else { variance }
    }

    #[inline(always)]
    fn change(&self, p: &mut f32, g: f32, square: f32, last: Option<&mut f32>) {
        let mut change = match self.eps_inside {
            true => g / (square + self.eps).sqrt() * self.lr,
            false => g / (square.sqrt() + self.eps),
        };
        if let Some(last) = last {
            *last = *last * self.momentum + change;
            change = *last;
        }
        *p -= if self.eps_inside { change } else { self.lr * change };
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
