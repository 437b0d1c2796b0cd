//! What the tests of several layers share.

use std::fmt::Debug;

/// Runs `work` on pools of different sizes and compares the results bit by bit.
pub(crate) fn same_for_any_thread_count<T: PartialEq + Debug + Send>(work: impl Fn() -> T + Sync) {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("the system can start a few threads").install(&work)
    };
    let one = run(1);
    for threads in [2, 3, 8] {
        assert_eq!(one, run(threads), "{threads} threads");
    }
}

/// Naive float64 derivative of `loss` with respect to each element of `at`.
pub(super) fn numeric_gradient(at: &[f32], loss: impl Fn(&[f64]) -> f64) -> Vec<f32> {
    let mut point: Vec<f64> = at.iter().map(|&v| f64::from(v)).collect();
    (0..at.len())
        .map(|i| {
            let (centre, step) = (point[i], 1e-5);
            point[i] = centre + step;
            let above = loss(&point);
            point[i] = centre - step;
            let below = loss(&point);
            point[i] = centre;
            ((above - below) / (2.0 * step)) as f32
        })
        .collect()
}
