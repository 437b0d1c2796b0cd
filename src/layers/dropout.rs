//! Dropout with a counter-based generator.
//!
//! Whether element i survives mask number m is a hash of (seed, m, i), so a mask depends on neither
//! the number of threads nor the order of the work, and needs no storage: the backward pass applies
//! the same function to the gradient.

use super::elementwise::{map_indexed, map_indexed_in_place};

/// 2^64 divided by the golden ratio: successive multiples spread evenly over 64 bits.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Keeps each element with probability `1 - p`, divided by `1 - p`; the others become 0.
///
/// Its own gradient: apply it to `grad_output` with the same `p`, `seed` and `mask`.
pub fn dropout(x: &[f32], p: f64, seed: u64, mask: u64) -> Vec<f32> {
    map_indexed(x, rule(p, seed, mask))
}

/// [`dropout`] where the elements are.
pub fn dropout_in_place(x: &mut [f32], p: f64, seed: u64, mask: u64) {
    map_indexed_in_place(x, rule(p, seed, mask));
}

/// What becomes of an element with its index.
fn rule(p: f64, seed: u64, mask: u64) -> impl Fn(u64, f32) -> f32 + Sync {
    // Hashed twice before elements are counted, so that neighbouring seeds or masks do not give
    // shifted copies of one stream.
    let key = mix(mix(seed).wrapping_add(mask.wrapping_mul(GOLDEN)));
    // A 32-bit uniform integer is below the limit with probability p.
    let limit = (p * 4_294_967_296.0).round() as u64;
    let scale = (1.0 / (1.0 - p)) as f32;
    move |index, x| {
        let uniform = mix(key.wrapping_add((index + 1).wrapping_mul(GOLDEN))) >> 32;
        if uniform < limit { 0.0 } else { x * scale }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014), a bijection whose every output bit
/// depends on every input bit.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::testing::same_for_any_thread_count;
    use super::*;

    static ONES: [f32; 40_000] = [1.0; 40_000];

    #[test]
    fn survivors_are_as_many_as_p_says_and_scaled() {
        for p in [0.0, 0.1, 0.5, 0.9] {
            let y = dropout(&ONES, p, 7, 0);
            let kept = y.iter().filter(|&&v| v != 0.0).count() as f64;
            let expected = (1.0 - p) * ONES.len() as f64;
            // Five standard deviations of a binomial count.
            assert!((kept - expected).abs() <= 5.0 * (p * expected).sqrt(), "{p}: {kept}");
            assert!(y.iter().all(|&v| v == 0.0 || v == (1.0 / (1.0 - p)) as f32));
        }
        assert!(dropout(&ONES, 1.0, 7, 0).iter().all(|&v| v == 0.0));
    }

    #[test]
    fn the_mask_is_a_function_of_seed_and_number() {
        let y = dropout(&ONES, 0.5, 1, 1);
        assert_eq!(y, dropout(&ONES, 0.5, 1, 1));
        for (seed, mask) in [(2, 1), (0, 1), (1, 2), (1, 0)] {
            let other = dropout(&ONES, 0.5, seed, mask);
            // Independent masks agree on half the elements, also when one is shifted.
            for shift in [0, 1, 2] {
                let pairs = y[shift..].iter().zip(&other).chain(other[shift..].iter().zip(&y));
                let (equal, count) =
                    pairs.fold((0, 0), |(e, n), (a, b)| (e + usize::from(a == b), n + 1));
                let agreement = equal as f64 / f64::from(count);
                assert!((agreement - 0.5).abs() < 0.02, "{seed} {mask} {shift}: {agreement}");
            }
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        same_for_any_thread_count(|| dropout(&ONES, 0.3, 9, 5));
    }
}
