//! Cross-entropy of logits, and the negative log-likelihood of log-probabilities, row by row.
//!
//! For a row with target class t, smoothing e, K classes and class weights w:
//!
//! ```text
//! loss = (1 - e) * w[t] * -log p[t]  +  e / K * sum over k of w[k] * -log p[k]
//! ```
//!
//! Rows whose target is `ignore_index` cost 0. Reductions belong to the caller, who gets the loss of
//! each row and the sum of `w[t]` over the rows that count, by which a mean divides; the backward
//! pass takes one factor per row, which carries the reduction and the gradient from above.

use rayon::prelude::*;

use super::softmax::log_partition;
use crate::{Error, Result};

/// Elements of one task, rounded to whole rows.
const CHUNK: usize = 8_192;

/// The targets of a classification loss, checked against the classes.
#[derive(Debug, Clone, Copy)]
pub struct Targets<'a> {
    classes: usize,
    labels: &'a [i64],
    weight: Option<&'a [f32]>,
    ignore_index: i64,
}

impl<'a> Targets<'a> {
    /// `labels` holds one class from 0 to `classes - 1`, or `ignore_index`, per row; `weight` one
    /// factor per class.
    pub fn new(
        classes: usize,
        labels: &'a [i64],
        weight: Option<&'a [f32]>,
        ignore_index: i64,
    ) -> Result<Self> {
        if let Some(weight) = weight.filter(|w| w.len() != classes) {
            let (expected, got) = (format!("shape ({classes},)"), format!("({},)", weight.len()));
            return Err(Error::shape("weight", expected, got));
        }
        let legal = |t: i64| t == ignore_index || usize::try_from(t).is_ok_and(|t| t < classes);
        match labels.iter().position(|&t| !legal(t)) {
            None => Ok(Targets { classes, labels, weight, ignore_index }),
            Some(row) => {
                let most = classes as i64 - 1;
                let expected = format!("a class from 0 to {most} (or ignore_index {ignore_index})");
                Err(Error::row("target", expected, labels[row].to_string(), row))
            }
        }
    }

    /// Class of a row, or `None` if the row is ignored.
    fn label(&self, row: usize) -> Option<usize> {
        let label = self.labels[row];
        (label != self.ignore_index).then_some(label as usize)
    }

    fn weight(&self, class: usize) -> f64 {
        self.weight.map_or(1.0, |w| f64::from(w[class]))
    }

    /// Sum of the class weights of the rows that count; without weights their number.
    pub fn total_weight(&self) -> f64 {
        (0..self.labels.len()).filter_map(|row| self.label(row)).map(|t| self.weight(t)).sum()
    }

    fn assert_rows(&self, len: usize) {
        assert_eq!(len, self.labels.len() * self.classes, "one row of classes for each target");
    }

    /// One value per row, ignored rows being 0.
    fn map_rows(&self, rows: &[f32], f: impl Fn(usize, &[f32]) -> f64 + Sync) -> Vec<f32> {
        self.assert_rows(rows.len());
        let at = |row: usize| &rows[row * self.classes..(row + 1) * self.classes];
        let cost = |row: usize| self.label(row).map_or(0.0, |t| f(t, at(row)) as f32);
        (0..self.labels.len())
            .into_par_iter()
            .with_min_len((CHUNK / self.classes.max(1)).max(1))
            .map(cost)
            .collect()
    }

    /// One row per row, ignored rows being 0; `f` fills a row given its index and class.
    fn fill_rows(&self, f: impl Fn(usize, usize, &mut [f32]) + Sync) -> Vec<f32> {
        let mut result = vec![0.0; self.labels.len() * self.classes];
        if result.is_empty() {
            return result;
        }
        let rows = (CHUNK / self.classes).max(1);
        result.par_chunks_mut(rows * self.classes).enumerate().for_each(|(task, chunk)| {
            for (row, out) in chunk.chunks_exact_mut(self.classes).enumerate() {
                let row = task * rows + row;
                if let Some(label) = self.label(row) {
                    f(row, label, out);
                }
            }
        });
        result
    }
}

/// Loss of each row of `logits`, `(N, K)`.
pub fn cross_entropy(targets: &Targets<'_>, logits: &[f32], label_smoothing: f64) -> Vec<f32> {
    let share = label_smoothing / targets.classes as f64;
    targets.map_rows(logits, |label, x| {
        let (most, log_sum) = log_partition(x);
        let cost = |k: usize| targets.weight(k) * (log_sum - f64::from(x[k] - most));
        let loss = (1.0 - label_smoothing) * cost(label);
        // Without smoothing the other classes must not enter: 0 times infinity is NaN.
        if label_smoothing == 0.0 {
            return loss;
        }
        loss + share * (0..x.len()).map(cost).sum::<f64>()
    })
}

/// Gradient of the logits; `factors` holds the gradient of each row's loss.
pub fn cross_entropy_backward(
    targets: &Targets<'_>,
    logits: &[f32],
    label_smoothing: f64,
    factors: &[f32],
) -> Vec<f32> {
    targets.assert_rows(logits.len());
    assert_eq!(factors.len(), targets.labels.len(), "one factor for each row");
    let classes = targets.classes;
    let share = label_smoothing / classes as f64;
    let smoothed: f64 = share * (0..classes).map(|k| targets.weight(k)).sum::<f64>();
    targets.fill_rows(|row, label, dx| {
        let x = &logits[row * classes..(row + 1) * classes];
        let (most, log_sum) = log_partition(x);
        let (factor, hard) =
            (f64::from(factors[row]), (1.0 - label_smoothing) * targets.weight(label));
        for (k, (dx, &x)) in dx.iter_mut().zip(x).enumerate() {
            let p = (f64::from(x - most) - log_sum).exp();
            let target = if k == label { hard } else { 0.0 } + share * targets.weight(k);
            *dx = (factor * (p * (hard + smoothed) - target)) as f32;
        }
    })
}

/// `-w[t] * log_probabilities[t]` of each row.
pub fn nll(targets: &Targets<'_>, log_probabilities: &[f32]) -> Vec<f32> {
    targets.map_rows(log_probabilities, |label, row| -targets.weight(label) * f64::from(row[label]))
}

/// Gradient of [`nll`].
pub fn nll_backward(targets: &Targets<'_>, factors: &[f32]) -> Vec<f32> {
    assert_eq!(factors.len(), targets.labels.len(), "one factor for each row");
    targets.fill_rows(|row, label, dx| {
        dx[label] = (-targets.weight(label) * f64::from(factors[row])) as f32;
    })
}

#[cfg(test)]
mod tests {
    use super::super::softmax::log_softmax;
    use super::super::testing::{numeric_gradient, same_for_any_thread_count};
    use super::*;
    use crate::conv::reference::{close, values};

    #[test]
    fn known_values() {
        let targets = Targets::new(3, &[2], None, -100).unwrap();
        for (smoothing, expected) in [(0.0, 0.407_606), (0.1, 0.507_606)] {
            let loss = cross_entropy(&targets, &[1.0, 2.0, 3.0], smoothing);
            assert!((loss[0] - expected).abs() < 1e-6, "{loss:?}");
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let (rows, classes) = (4, 5);
        let logits: Vec<f32> = values(rows * classes, 1).iter().map(|v| 3.0 * v).collect();
        let factors = values(rows, 2);
        let weight = [0.5, 2.0, 0.0, 1.0, 3.0];
        for weight in [None, Some(&weight[..])] {
            let targets = Targets::new(classes, &[4, 0, -1, 2], weight, -1).unwrap();
            for smoothing in [0.0, 0.1, 1.0] {
                let loss = |x: &[f64]| -> f64 {
                    let row_loss = |(row, x): (usize, &[f64])| {
                        let label = targets.label(row)?;
                        let log_sum = x.iter().map(|v| v.exp()).sum::<f64>().ln();
                        let cost = |k: usize| targets.weight(k) * (log_sum - x[k]);
                        let smooth: f64 = (0..classes).map(cost).sum();
                        let loss =
                            (1.0 - smoothing) * cost(label) + smoothing / classes as f64 * smooth;
                        Some(f64::from(factors[row]) * loss)
                    };
                    x.chunks(classes).enumerate().filter_map(row_loss).sum()
                };
                let got = cross_entropy_backward(&targets, &logits, smoothing, &factors);
                assert!(close(&got, &numeric_gradient(&logits, loss), 1e-4), "{smoothing}");
                let point: Vec<f64> = logits.iter().map(|&v| f64::from(v)).collect();
                let losses = cross_entropy(&targets, &logits, smoothing);
                let total: f32 = losses.iter().zip(&factors).map(|(l, f)| l * f).sum();
                assert!((f64::from(total) - loss(&point)).abs() < 1e-5);
                assert_eq!(losses[2], 0.0, "an ignored row costs nothing");
            }
        }
    }

    #[test]
    fn nll_of_log_softmax_is_cross_entropy() {
        let logits = values(3 * 4, 1);
        let weight = [1.0, 0.5, 2.0, 0.25];
        let targets = Targets::new(4, &[3, -100, 0], Some(&weight), -100).unwrap();
        let expected = cross_entropy(&targets, &logits, 0.0);
        assert!(close(&nll(&targets, &log_softmax(4, &logits)), &expected, 1e-6));
        assert_eq!(targets.total_weight(), 1.25);
        let gradient = nll_backward(&targets, &[2.0, 2.0, 2.0]);
        assert_eq!((gradient[3], gradient[8]), (-0.5, -2.0));
        assert_eq!(gradient.iter().filter(|&&g| g != 0.0).count(), 2);
    }

    #[test]
    fn an_impossible_class_does_not_spoil_the_loss() {
        let targets = Targets::new(2, &[1], None, -100).unwrap();
        assert_eq!(cross_entropy(&targets, &[f32::NEG_INFINITY, 4.0], 0.0), [0.0]);
    }

    #[test]
    fn a_class_out_of_range_is_named_with_its_row() {
        for (labels, row) in [([0, 3, 1], 1), ([0, 1, -2], 2)] {
            let message = Targets::new(3, &labels, None, -1).unwrap_err().to_string();
            assert!(message.starts_with("target: expected a class from 0 to 2"), "{message}");
            assert!(message.ends_with(&format!("in row {row}")), "{message}");
        }
        let message = Targets::new(3, &[], Some(&[1.0]), -1).unwrap_err().to_string();
        assert!(message.starts_with("weight: expected shape (3,)"), "{message}");
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let (logits, factors) = (values(3 * 20_000, 1), values(20_000, 2));
        let labels: Vec<i64> = (0..20_000).map(|i| i % 4 - 1).collect();
        let targets = Targets::new(3, &labels, None, -1).unwrap();
        same_for_any_thread_count(|| {
            let loss = cross_entropy(&targets, &logits, 0.1);
            (loss, cross_entropy_backward(&targets, &logits, 0.1, &factors))
        });
    }
}
