//! Stochastic gradient descent with momentum.

use super::{Arrays, Step, direction, for_each_element};

/// The settings of a step, with the names of `torch.optim.SGD`.
#[derive(Debug, Clone, Copy)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f32,
    /// Share of the velocity that remains.
    pub momentum: f32,
    /// Share of the gradient that enters the velocity, `1 - dampening`.
    pub share: f32,
    /// What part of a parameter is added to its gradient.
    pub weight_decay: f32,
    /// Look ahead along the velocity.
    pub nesterov: bool,
    /// Go up instead of down.
    pub maximize: bool,
}

impl Sgd {
    /// `p -= lr * g`.
    pub fn step(self, arrays: Vec<Arrays<'_, 1>>) {
        for_each_element(arrays, &self);
    }

    /// The step of parameters with a velocity; `first` sets it to the gradient.
    pub fn step_with_momentum(self, arrays: Vec<Arrays<'_, 2>>, first: bool) {
        for_each_element(arrays, &Rolling { sgd: self, first });
    }
}

impl Step<1> for Sgd {
    #[inline(always)]
    fn apply(&self, [p]: [f32; 1], g: f32) -> [f32; 1] {
        [p - self.lr * direction(g, p, self.weight_decay, self.maximize)]
    }
}

struct Rolling {
    sgd: Sgd,
    first: bool,
}

impl Step<2> for Rolling {
    #[inline(always)]
    fn apply(&self, [p, v]: [f32; 2], g: f32) -> [f32; 2] {
        let Sgd { lr, momentum, share, weight_decay, nesterov, maximize } = self.sgd;
        let g = direction(g, p, weight_decay, maximize);
        let v = if self.first { g } else { v * momentum + share * g };
        [p - lr * if nesterov { g + momentum * v } else { v }, v]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn agrees_with_the_formulas_in_float64() {
        let plain = Sgd {
            lr: 0.125,
            momentum: 0.0,
            share: 1.0,
            weight_decay: 0.0,
            nesterov: false,
            maximize: false,
        };
        check(|arrays| plain.step(arrays), |[p], g| [p - 0.125 * g]);
        let up = Sgd { weight_decay: 0.25, maximize: true, ..plain };
        check(|arrays| up.step(arrays), |[p], g| [p - 0.125 * (0.25 * p - g)]);
        let rolling = Sgd { momentum: 0.75, share: 0.5, weight_decay: 0.25, ..plain };
        check(
            |arrays| rolling.step_with_momentum(arrays, false),
            |[p, v], g| {
                let v = 0.75 * v + 0.5 * (g + 0.25 * p);
                [p - 0.125 * v, v]
            },
        );
        let ahead = Sgd { nesterov: true, share: 1.0, ..rolling };
        check(
            |arrays| ahead.step_with_momentum(arrays, true),
            |[p, _], g| {
                let g = g + 0.25 * p;
                [p - 0.125 * (g + 0.75 * g), g]
            },
        );
    }
}
