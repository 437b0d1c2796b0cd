//! Wall-clock time whose throughput reads "GFLOP/s, percent of peak": `Throughput::Elements` are
//! floating-point operations of the direct sum, so that Winograd may exceed the peak, which is what
//! the micro-kernel reaches on data in the first-level cache, times the number of threads.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use criterion::Throughput;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use oxidet::gemm;
use oxidet::isa::Isa;

/// Threads of the benchmark that is being reported.
static THREADS: AtomicUsize = AtomicUsize::new(1);

/// Tells how many threads the next benchmarks use.
pub fn set_threads(threads: usize) {
    THREADS.store(threads, Ordering::Relaxed);
}

/// Operations per nanosecond of one thread at most.
fn peak() -> f64 {
    static PEAK: OnceLock<f64> = OnceLock::new();
    *PEAK.get_or_init(|| gemm::measure_peak(Isa::active()) / 1e9)
}

/// The measurement.
pub struct FlopTime;

impl Measurement for FlopTime {
    type Intermediate = Instant;
    type Value = Duration;

    fn start(&self) -> Instant {
        WallTime.start()
    }

    fn end(&self, start: Instant) -> Duration {
        WallTime.end(start)
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        WallTime.add(a, b)
    }

    fn zero(&self) -> Duration {
        WallTime.zero()
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self
    }
}

impl ValueFormatter for FlopTime {
    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_values(typical, values)
    }

    fn format_throughput(&self, throughput: &Throughput, value: f64) -> String {
        let mut values = [value];
        let unit = self.scale_throughputs(value, throughput, &mut values);
        let percent = 100.0 * values[0] / (peak() * THREADS.load(Ordering::Relaxed) as f64);
        format!("{:.1} {unit}, {percent:.0}%", values[0])
    }

    fn scale_throughputs(
        &self,
        typical: f64,
        throughput: &Throughput,
        values: &mut [f64],
    ) -> &'static str {
        let &Throughput::Elements(operations) = throughput else {
            return WallTime.formatter().scale_throughputs(typical, throughput, values);
        };
        // Operations per nanosecond are 1e9 per second.
        values.iter_mut().for_each(|value| *value = operations as f64 / *value);
        "GFLOP/s"
    }

    fn scale_for_machines(&self, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_for_machines(values)
    }
}
