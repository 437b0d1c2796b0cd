//! The order of descending score, by a radix sort.
//!
//! A score becomes an unsigned number that grows as the score falls: 0 for NaN, then from +inf to
//! -inf. Sorting by its digits from the last to the first keeps the order of equal scores. A digit
//! that all keys share (the exponents of probabilities, say) costs nothing but its count.

use std::cmp::Ordering;
use std::ops::Range;

use crate::boxes::Scalar;

/// Bits of a digit: 2048 counters stay in the first-level cache.
const DIGIT: u32 = 11;
/// Fewer scores than this are sorted by comparisons.
const FEW: usize = 128;

/// A type of scores: `f32` or `f64`.
pub trait Score: Scalar {
    /// Bits of the key.
    const BITS: u32;
    /// An unsigned number that sorts as these scores rank; 0 for NaN, one number for both zeros.
    type Key: Copy + Send;
    /// The score's key.
    fn key(self) -> Self::Key;
    /// `DIGIT` bits of a key.
    fn digit(key: Self::Key, shift: u32) -> usize;
}

macro_rules! score {
    ($t:ident, $bits:ident) => {
        impl Score for $t {
            const BITS: u32 = $bits::BITS;
            type Key = $bits;

            #[inline(always)]
            fn key(self) -> $bits {
                // Adding 0 makes the negative zero positive.
                let bits = (self + 0.0).to_bits();
                let sign = 1 << ($bits::BITS - 1);
                let descending = if bits & sign == 0 { !(bits | sign) } else { bits };
                if self.is_nan() { 0 } else { descending }
            }

            #[inline(always)]
            fn digit(key: $bits, shift: u32) -> usize {
                (key >> shift) as usize % (1 << DIGIT)
            }
        }
    };
}

score!(f32, u32);
score!(f64, u64);

/// Indices in the order of descending score: NaN first, equal scores by ascending index.
pub fn rank<S: Score>(scores: &[S]) -> Vec<usize> {
    if scores.len() < FEW || u32::try_from(scores.len()).is_err() {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&i, &j| descending(scores[i], scores[j]));
        return order;
    }
    let mut from: Vec<(S::Key, u32)> = (0..).zip(scores).map(|(i, s)| (s.key(), i)).collect();
    let mut to = from.clone();
    for shift in (0..S::BITS).step_by(DIGIT as usize) {
        let mut next = [0_usize; 1 << DIGIT];
        from.iter().for_each(|&(key, _)| next[S::digit(key, shift)] += 1);
        if next.contains(&from.len()) {
            continue;
        }
        starts(&mut next);
        for &entry in &from {
            let place = &mut next[S::digit(entry.0, shift)];
            to[*place] = entry;
            *place += 1;
        }
        std::mem::swap(&mut from, &mut to);
    }
    from.into_iter().map(|(_, index)| index as usize).collect()
}

/// The first `count` of [`rank`], without ranking the rest: the leading digits are counted, and only
/// the scores whose digit can be among the first are sorted.
pub fn best<S: Score>(scores: &[S], count: usize) -> Vec<usize> {
    let shift = S::BITS - DIGIT;
    let mut order = if count >= scores.len() {
        rank(scores)
    } else {
        let mut counts = [0_usize; 1 << DIGIT];
        scores.iter().for_each(|s| counts[S::digit(s.key(), shift)] += 1);
        let mut total = 0;
        let reaches = |&n: &usize| {
            total += n;
            total >= count
        };
        let last = counts.iter().position(reaches).unwrap_or(counts.len());
        let among = |&i: &usize| S::digit(scores[i].key(), shift) <= last;
        let candidates: Vec<usize> = (0..scores.len()).filter(among).collect();
        let their_scores: Vec<S> = candidates.iter().map(|&i| scores[i]).collect();
        rank(&their_scores).into_iter().map(|k| candidates[k]).collect()
    };
    order.truncate(count);
    order
}

/// Turns the sizes of groups into where each begins.
fn starts(counts: &mut [usize]) {
    let mut total = 0;
    for count in counts {
        total += std::mem::replace(count, total);
    }
}

fn descending<S: Scalar>(a: S, b: S) -> Ordering {
    b.partial_cmp(&a).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

/// Positions `0..classes.len()` gathered by class, in order within each, and the range of each
/// class.
pub(crate) fn by_class(classes: &[i64]) -> (Vec<usize>, Vec<Range<usize>>) {
    let mut positions: Vec<usize> = (0..classes.len()).collect();
    let (low, high) = classes.iter().fold((i64::MAX, i64::MIN), |(l, h), &c| (l.min(c), h.max(c)));
    // Class numbers are usually few and small; anything else is sorted.
    match usize::try_from(i128::from(high) - i128::from(low)) {
        Ok(span) if span <= 2 * classes.len() => {
            let class = |i: usize| classes[i].wrapping_sub(low) as usize;
            let mut next = vec![0; span + 1];
            (0..classes.len()).for_each(|i| next[class(i)] += 1);
            starts(&mut next);
            for i in 0..classes.len() {
                let place = &mut next[class(i)];
                positions[*place] = i;
                *place += 1;
            }
        }
        _ => positions.sort_by_key(|&i| classes[i]),
    }
    let mut ranges = vec![];
    let mut start = 0;
    for group in positions.chunk_by(|&i, &j| classes[i] == classes[j]) {
        ranges.push(start..start + group.len());
        start += group.len();
    }
    (positions, ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boxes::nms::tests::Random;

    #[test]
    fn nan_comes_first_and_ties_keep_their_order() {
        let inf = f64::INFINITY;
        let scores = [1.0, f64::NAN, 3.0, 1.0, -inf, inf, -f64::NAN, 0.0, -0.0];
        let expected = [1, 6, 5, 2, 0, 3, 7, 8, 4];
        assert_eq!(rank(&scores), expected);
        assert_eq!(rank(&scores.map(|s| s as f32)), expected);
    }

    #[test]
    fn digits_and_comparisons_agree() {
        let odd = [0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e-320];
        let mut random = Random(1);
        for n in [FEW - 1, FEW, FEW + 1, 5000] {
            for levels in [1.0, 3.0, 1e9] {
                let mut scores: Vec<f64> =
                    (0..n).map(|_| (random.next() * levels).floor() / levels - 0.5).collect();
                if levels == 3.0 {
                    (0..n).step_by(9).for_each(|i| scores[i] = odd[i % odd.len()]);
                }
                let narrow: Vec<f32> = scores.iter().map(|&s| s as f32).collect();
                let mut expected: Vec<usize> = (0..n).collect();
                expected.sort_by(|&i, &j| descending(scores[i], scores[j]));
                assert_eq!(rank(&scores), expected, "{n} scores, {levels} levels");
                expected.sort_by(|&i, &j| descending(narrow[i], narrow[j]).then(i.cmp(&j)));
                assert_eq!(rank(&narrow), expected, "{n} scores, {levels} levels");
            }
        }
    }

    #[test]
    fn the_best_are_the_beginning_of_the_ranking() {
        let mut random = Random(3);
        for levels in [1.0, 4.0, 1e6] {
            let mut scores: Vec<f32> = (0..3000)
                .map(|_| ((random.next() * levels).floor() / levels - 0.5) as f32)
                .collect();
            scores[7] = f32::NAN;
            scores[2001] = -f32::NAN;
            let ranked = rank(&scores);
            for count in [0, 1, 2, 3, 100, 2999, 3000, 5000] {
                assert_eq!(best(&scores, count), ranked[..count.min(3000)], "{levels} {count}");
            }
        }
        assert!(best::<f64>(&[], 4).is_empty());
    }

    #[test]
    fn classes_are_gathered_in_order() {
        let far = [i64::MAX, i64::MIN, 0, i64::MAX, 0];
        assert_eq!(by_class(&far), (vec![1, 2, 4, 0, 3], vec![0..1, 1..3, 3..5]));
        let near = [7, -1, 7, 3, -1, 3];
        assert_eq!(by_class(&near), (vec![1, 4, 3, 5, 0, 2], vec![0..2, 2..4, 4..6]));
        assert_eq!(by_class(&[]), (vec![], vec![]));
    }
}
