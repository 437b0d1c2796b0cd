//! Adam and AdamW: steps scaled by running moments of the gradient.

use super::{Arrays, Step, direction, for_each_element};

/// The settings of a step, with the names of `torch.optim.Adam` where it has them.
#[derive(Debug, Clone, Copy)]
pub struct Adam {
    /// `lr / (1 - beta1^t)` in step t.
    pub step_size: f32,
    /// `sqrt(1 - beta2^t)` in step t.
    pub root: f32,
    /// `1 - beta1`.
    pub share: f32,
    /// What remains of the second moment.
    pub beta2: f32,
    /// `1 - beta2`.
    pub square_share: f32,
    /// Added to the root.
    pub eps: f32,
    /// What part of a parameter is added to its gradient (Adam).
    pub weight_decay: f32,
    /// What remains of a parameter before the step, `1 - lr * weight_decay` (AdamW).
    pub kept: f32,
    /// Go up instead of down.
    pub maximize: bool,
}

impl Adam {
    /// Changes parameters and their first and second moments.
    pub fn step(self, arrays: Vec<Arrays<'_, 3>>) {
        for_each_element(arrays, &self);
    }

    /// [`step`](Self::step) with the largest second moment so far in a fourth array (AMSGrad).
    pub fn step_with_largest(self, arrays: Vec<Arrays<'_, 4>>) {
        for_each_element(arrays, &self);
    }

    #[inline(always)]
    fn moments(&self, p: f32, m: f32, v: f32, g: f32) -> (f32, f32) {
        let g = direction(g, p, self.weight_decay, self.maximize);
        (m + self.share * (g - m), v * self.beta2 + self.square_share * (g * g))
    }

    #[inline(always)]
    fn changed(&self, p: f32, m: f32, v: f32) -> f32 {
        let divisor = v.sqrt() / self.root + self.eps;
        p * self.kept - self.step_size * (m / divisor)
    }
}

impl Step<3> for Adam {
    #[inline(always)]
    fn apply(&self, [p, m, v]: [f32; 3], g: f32) -> [f32; 3] {
        let (m, v) = self.moments(p, m, v, g);
        [self.changed(p, m, v), m, v]
    }
}

impl Step<4> for Adam {
    #[inline(always)]
    fn apply(&self, [p, m, v, largest]: [f32; 4], g: f32) -> [f32; 4] {
        let (m, v) = self.moments(p, m, v, g);
        let largest = if largest >= v { largest } else { v };
        [self.changed(p, m, largest), m, v, largest]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn agrees_with_the_formulas_in_float64() {
        let adam = Adam {
            step_size: 0.125,
            root: 0.5,
            share: 0.25,
            beta2: 0.875,
            square_share: 0.125,
            eps: 0.0625,
            weight_decay: 0.25,
            kept: 1.0,
            maximize: false,
        };
        let moments = |m: f64, v: f64, g: f64| (m + 0.25 * (g - m), 0.875 * v + 0.125 * g * g);
        let change = |m: f64, v: f64| 0.125 * m / (v.sqrt() / 0.5 + 0.0625);
        check(
            |arrays| adam.step(arrays),
            |[p, m, v], g| {
                let (m, v) = moments(m, v, g + 0.25 * p);
                [p - change(m, v), m, v]
            },
        );
        let decoupled = Adam { weight_decay: 0.0, kept: 0.75, maximize: true, ..adam };
        check(
            |arrays| decoupled.step_with_largest(arrays),
            |[p, m, v, largest], g| {
                let (m, v) = moments(m, v, -g);
                [0.75 * p - change(m, v.max(largest)), m, v, v.max(largest)]
            },
        );
    }
}
