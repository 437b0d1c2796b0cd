//! Softmax and log-softmax over the last axis of an array `(..., K)`.
//!
//! Each row subtracts its maximum before it exponentiates, so nothing overflows, and sums in float64.
//! A row of minus infinities has no softmax and becomes NaN, as in torch.

use super::blocks::{for_each_block, rows_per_task};
use super::elementwise::assert_shape;
use crate::rows::{Rows, RowsMut};

/// Calls `work(index, output row)` for every row of `output`, in parallel.
fn for_each_row(output: RowsMut<'_>, work: impl Fn(usize, &mut [f32]) + Sync) {
    let block = rows_per_task(output.channels());
    for_each_block(output, block, |first, mut rows| {
        for index in 0..rows.count() {
            work(first + index, rows.row_mut(index));
        }
    });
}

/// A result of as many elements as `x`, filled row by row.
fn new_rows(classes: usize, x: &[f32], work: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut result = vec![0.0; x.len()];
    for_each_row(RowsMut::dense(&mut result, classes), work);
    result
}

fn row(values: &[f32], classes: usize, index: usize) -> &[f32] {
    &values[index * classes..(index + 1) * classes]
}

/// Largest element; NaN if one is.
fn maximum(row: &[f32]) -> f32 {
    row.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m || v.is_nan() { v } else { m })
}

/// `(m, log(sum(exp(x - m))))` with `m` the row's maximum; their sum is the log of the partition
/// function.
pub(super) fn log_partition(row: &[f32]) -> (f32, f64) {
    let most = maximum(row);
    let sum: f64 = row.iter().map(|&x| f64::from((x - most).exp())).sum();
    (most, sum.ln())
}

/// `exp(x) / sum(exp(x))` of each row.
pub fn softmax(classes: usize, x: &[f32]) -> Vec<f32> {
    let mut result = vec![0.0; x.len()];
    softmax_into(Rows::dense(x, classes), RowsMut::dense(&mut result, classes));
    result
}

/// [`softmax`] of rows with gaps.
pub fn softmax_into(x: Rows<'_>, output: RowsMut<'_>) {
    assert_shape(x, &output);
    for_each_row(output, |index, y| {
        let x = x.row(index);
        let most = maximum(x);
        let mut sum = 0.0_f64;
        for (y, &x) in y.iter_mut().zip(x) {
            *y = (x - most).exp();
            sum += f64::from(*y);
        }
        let factor = (1.0 / sum) as f32;
        y.iter_mut().for_each(|y| *y *= factor);
    });
}

/// Gradient of [`softmax`] from its output: `y * (g - sum(g y))`.
pub fn softmax_backward(classes: usize, y: &[f32], grad_output: &[f32]) -> Vec<f32> {
    assert_eq!(y.len(), grad_output.len(), "slices of one length");
    new_rows(classes, y, |index, dx| {
        let (y, g) = (row(y, classes, index), row(grad_output, classes, index));
        let dot: f64 = y.iter().zip(g).map(|(&y, &g)| f64::from(y) * f64::from(g)).sum();
        for ((dx, &y), &g) in dx.iter_mut().zip(y).zip(g) {
            *dx = y * (g - dot as f32);
        }
    })
}

/// `x - log(sum(exp(x)))` of each row.
pub fn log_softmax(classes: usize, x: &[f32]) -> Vec<f32> {
    let mut result = vec![0.0; x.len()];
    log_softmax_into(Rows::dense(x, classes), RowsMut::dense(&mut result, classes));
    result
}

/// [`log_softmax`] of rows with gaps.
pub fn log_softmax_into(x: Rows<'_>, output: RowsMut<'_>) {
    assert_shape(x, &output);
    for_each_row(output, |index, y| {
        let x = x.row(index);
        let (most, log_sum) = log_partition(x);
        for (y, &x) in y.iter_mut().zip(x) {
            *y = (f64::from(x - most) - log_sum) as f32;
        }
    });
}

/// Gradient of [`log_softmax`] from its output: `g - exp(y) * sum(g)`.
pub fn log_softmax_backward(classes: usize, y: &[f32], grad_output: &[f32]) -> Vec<f32> {
    assert_eq!(y.len(), grad_output.len(), "slices of one length");
    new_rows(classes, y, |index, dx| {
        let (y, g) = (row(y, classes, index), row(grad_output, classes, index));
        let sum = g.iter().map(|&g| f64::from(g)).sum::<f64>() as f32;
        for ((dx, &y), &g) in dx.iter_mut().zip(y).zip(g) {
            *dx = g - y.exp() * sum;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{numeric_gradient, same_for_any_thread_count};
    use super::*;
    use crate::conv::reference::{close, values};

    fn naive(x: &[f64]) -> Vec<f64> {
        let sum: f64 = x.iter().map(|v| v.exp()).sum();
        x.iter().map(|v| v.exp() / sum).collect()
    }

    #[test]
    fn values_and_gradients_agree_with_float64() {
        for (rows, classes) in [(1, 1), (3, 2), (2, 21), (2000, 5), (1, 1000)] {
            let x: Vec<f32> = values(rows * classes, 1).iter().map(|v| 6.0 * v).collect();
            let g = values(x.len(), 2);
            let exact: Vec<f64> = x
                .chunks(classes)
                .flat_map(|row| naive(&row.iter().map(|&v| f64::from(v)).collect::<Vec<_>>()))
                .collect();
            let expected: Vec<f32> = exact.iter().map(|&v| v as f32).collect();
            let logs: Vec<f32> = exact.iter().map(|&v| v.ln() as f32).collect();
            let (y, log_y) = (softmax(classes, &x), log_softmax(classes, &x));
            assert!(close(&y, &expected, 1e-6), "{rows} x {classes}");
            assert!(close(&log_y, &logs, 1e-6), "{rows} x {classes}");
            let weighted = |x: &[f64], f: fn(f64) -> f64| -> f64 {
                naive(x).iter().zip(&g).map(|(&y, &g)| f64::from(g) * f(y)).sum()
            };
            let first = |v: Vec<f32>| v[..classes].to_vec();
            let expected = numeric_gradient(&x[..classes], |x| weighted(x, |y| y));
            assert!(
                close(&first(softmax_backward(classes, &y, &g)), &expected, 1e-4) || classes == 1
            );
            let expected = numeric_gradient(&x[..classes], |x| weighted(x, f64::ln));
            let got = first(log_softmax_backward(classes, &log_y, &g));
            assert!(close(&got, &expected, 1e-4) || classes == 1);
        }
    }

    #[test]
    fn one_class_has_no_gradient() {
        assert_eq!(softmax(1, &[3.0, -2.0]), [1.0, 1.0]);
        assert_eq!(softmax_backward(1, &[1.0, 1.0], &[5.0, 7.0]), [0.0, 0.0]);
        assert_eq!(log_softmax_backward(1, &[0.0], &[5.0]), [0.0]);
    }

    #[test]
    fn large_and_infinite_logits() {
        assert_eq!(softmax(2, &[1e30, -1e30]), [1.0, 0.0]);
        assert_eq!(log_softmax(2, &[f32::NEG_INFINITY, 4.0]), [f32::NEG_INFINITY, 0.0]);
        assert!(softmax(2, &[f32::NEG_INFINITY; 2])[0].is_nan());
        assert!(softmax(2, &[f32::NAN, 0.0]).iter().all(|v| v.is_nan()));
        assert!(softmax(0, &[]).is_empty());
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let (x, g) = (values(7 * 5000, 1), values(7 * 5000, 2));
        same_for_any_thread_count(|| {
            let y = softmax(7, &x);
            (softmax_backward(7, &y, &g), y)
        });
    }
}
