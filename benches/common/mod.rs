//! Shared by the benches: inputs, thread counts, the check that comes before every timing, and
//! throughput in floating-point operations.

// Every bench compiles this file for itself and uses part of it.
#![allow(dead_code)]

pub mod flops;
pub mod layers;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::Measurement;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion};
use oxidet::parallel;

use flops::FlopTime;

/// `count` numbers from -1 to 1, the same for the same seed.
pub fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Times `kernel` on one thread and on all that the machine offers, each after `check` has accepted
/// a result.
pub fn time<T: Send>(
    group: &mut BenchmarkGroup<'_, impl Measurement<Value = Duration>>,
    name: &str,
    check: impl Fn(T) + Sync,
    kernel: impl Fn() -> T + Sync,
) {
    time_in_place(
        group,
        name,
        &mut None,
        |result| result.take().map_or((), &check),
        |result| {
            *result = Some(kernel());
        },
    );
}

/// [`time`] for a kernel that writes into memory it is given.
pub fn time_in_place<S: Send>(
    group: &mut BenchmarkGroup<'_, impl Measurement<Value = Duration>>,
    name: &str,
    state: &mut S,
    check: impl Fn(&mut S) + Sync,
    kernel: impl Fn(&mut S) + Sync,
) {
    for threads in thread_counts() {
        time_on(threads, group, name, state, &check, &kernel);
    }
}

/// [`time_in_place`] on one number of threads.
pub fn time_on<S: Send>(
    threads: usize,
    group: &mut BenchmarkGroup<'_, impl Measurement<Value = Duration>>,
    name: &str,
    state: &mut S,
    check: impl Fn(&mut S) + Sync,
    kernel: impl Fn(&mut S) + Sync,
) {
    with_threads(threads, || {
        kernel(state);
        check(state);
    });
    flops::set_threads(threads);
    group.bench_function(BenchmarkId::new(name, format!("threads={threads}")), |b| {
        b.iter_custom(|rounds| {
            with_threads(threads, || {
                let start = Instant::now();
                (0..rounds).for_each(|_| kernel(black_box(state)));
                start.elapsed()
            })
        });
    });
}

fn thread_counts() -> Vec<usize> {
    match std::thread::available_parallelism().map_or(1, |n| n.get()) {
        1 => vec![1],
        all => vec![1, all],
    }
}

fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    parallel::set_num_threads(threads).expect("a legal number of threads");
    parallel::install(work).expect("a pool of that many threads")
}

/// Stops the bench unless max|a - b| / max|b| is within `tolerance`.
pub fn assert_close(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{what}: wrong length");
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, f32::max);
    let difference = largest(&mut got.iter().zip(expected).map(|(a, b)| (a - b).abs()));
    let scale = largest(&mut expected.iter().map(|b| b.abs()));
    assert!(difference <= tolerance * scale, "{what}: wrong by {:e}", difference / scale);
}

/// [`criterion`] for throughput in floating-point operations.
pub fn criterion_flops() -> Criterion<FlopTime> {
    criterion().with_measurement(FlopTime)
}

/// Criterion with a spread from 20 samples, in about three seconds a case.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args()
}
