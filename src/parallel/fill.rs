//! Results that are computed one by one.

use super::{for_each_chunk, ieee, lead};
use crate::Result;

/// Tasks up to which waking a second thread costs more than it saves.
const SERIAL: usize = 4;

/// Calls `run` with the number and the place of each result: on this thread if there are few, else
/// on several. `grain` is how many results take about 10 microseconds.
pub fn fill<R: Send>(
    results: &mut [R],
    grain: usize,
    run: impl Fn(usize, &mut R) + Sync,
) -> Result<()> {
    let serially = |first: usize, results: &mut [R]| {
        results.iter_mut().enumerate().for_each(|(index, result)| run(first + index, result));
    };
    if results.len() <= SERIAL * grain {
        ieee(|| serially(0, results));
        return Ok(());
    }
    lead(|| for_each_chunk(results, grain, |task, results| serially(task * grain, results)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_is_computed_once() {
        for count in [0, 1, 3, 40, 41, 47, 1000] {
            let mut results = vec![0; count];
            fill(&mut results, 10, |index, result| *result += index + 1).unwrap();
            assert!(results.into_iter().eq(1..=count));
        }
    }
}
