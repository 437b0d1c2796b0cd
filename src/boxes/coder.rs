//! The codec with weights and a limit of the exponent (torchvision's BoxCoder).
//!
//! As the plain codec of the originals, but offsets are multiplied by weights, sizes are not
//! protected from being 0, and decoding limits the exponent, so that an untrained network makes no
//! infinite boxes. The order of operations is torchvision's.

use super::{BBox, Scalar};
use crate::{Error, Result, parallel};

/// Offsets that outweigh waking a second thread: each takes two logarithms or exponentials.
const OFFSETS_FOR_THREADS: usize = 1 << 13;
/// Offsets of a task.
const OFFSETS_PER_TASK: usize = 1 << 10;

/// Weights of the four offsets, and the largest exponent.
#[derive(Debug, Clone, Copy)]
pub struct Coder<T> {
    /// Multiply the offsets of the first and second centre and extent.
    pub weights: [T; 4],
    /// Largest logarithm of a size ratio that is decoded.
    pub exponent: T,
}

impl<T: Scalar> Coder<T> {
    /// Offsets from each proposal to its reference box.
    pub fn encode(&self, references: &[BBox<T>], proposals: &[BBox<T>]) -> Result<Vec<[T; 4]>> {
        if references.len() != proposals.len() {
            return Err(Error::shape(
                "proposals",
                format!("shape ({}, 4) as reference_boxes", references.len()),
                format!("({}, 4)", proposals.len()),
            ));
        }
        let mut offsets = vec![[T::ZERO; 4]; proposals.len()];
        rows(&mut offsets, 1, |i, row| row[0] = self.encode_one(&references[i], &proposals[i]))?;
        Ok(offsets)
    }

    /// Boxes that the offsets make, `per_box` of them for each box, one after the other.
    pub fn decode(
        &self,
        offsets: &[[T; 4]],
        boxes: &[BBox<T>],
        per_box: usize,
    ) -> Result<Vec<BBox<T>>> {
        if boxes.len().checked_mul(per_box) != Some(offsets.len()) {
            return Err(Error::shape(
                "rel_codes",
                format!("shape ({}, {}), one row for each box", boxes.len(), 4 * per_box),
                format!("{} numbers", 4 * offsets.len()),
            ));
        }
        let mut decoded = vec![[T::ZERO; 4]; offsets.len()];
        rows(&mut decoded, per_box, |i, row| {
            for (out, code) in row.iter_mut().zip(&offsets[i * per_box..]) {
                *out = self.decode_one(code, &boxes[i]);
            }
        })?;
        Ok(decoded)
    }

    fn encode_one(&self, reference: &BBox<T>, proposal: &BBox<T>) -> [T; 4] {
        let [px, py, pw, ph] = centre_and_size(proposal);
        let [gx, gy, gw, gh] = centre_and_size(reference);
        let [wx, wy, ww, wh] = self.weights;
        [wx * (gx - px) / pw, wy * (gy - py) / ph, ww * (gw / pw).ln(), wh * (gh / ph).ln()]
    }

    /// [`decode`](Self::decode) for one offset.
    pub(crate) fn decode_one(&self, code: &[T; 4], b: &BBox<T>) -> BBox<T> {
        let [x, y, w, h] = centre_and_size(b);
        let [wx, wy, ww, wh] = self.weights;
        let (dx, dy) = (code[0] / wx, code[1] / wy);
        let (dw, dh) =
            ((code[2] / ww).minimum(self.exponent), (code[3] / wh).minimum(self.exponent));
        let (x, y) = (dx * w + x, dy * h + y);
        let (half_w, half_h) = (T::HALF * (dw.exp() * w), T::HALF * (dh.exp() * h));
        [x - half_w, y - half_h, x + half_w, y + half_h]
    }
}

fn centre_and_size<T: Scalar>(b: &BBox<T>) -> [T; 4] {
    let (w, h) = (b[2] - b[0], b[3] - b[1]);
    [b[0] + T::HALF * w, b[1] + T::HALF * h, w, h]
}

/// Calls `run` with every row of `len` results and its number, on several threads if they are many.
fn rows<T: Scalar>(
    results: &mut [[T; 4]],
    len: usize,
    run: impl Fn(usize, &mut [[T; 4]]) + Sync,
) -> Result<()> {
    if results.is_empty() {
        return Ok(());
    }
    if results.len() < OFFSETS_FOR_THREADS {
        results.chunks_exact_mut(len).enumerate().for_each(|(i, row)| run(i, row));
        return Ok(());
    }
    let per_task = OFFSETS_PER_TASK.div_ceil(len);
    parallel::lead(|| {
        parallel::for_each_chunk(results, per_task * len, |task, chunk| {
            let rows = chunk.chunks_exact_mut(len).enumerate();
            rows.for_each(|(i, row)| run(task * per_task + i, row));
        });
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Coder<f32> = Coder { weights: [10., 10., 5., 5.], exponent: 4.135_166_6 };

    fn assert_near(got: [f32; 4], expected: [f32; 4]) {
        let near = got.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-4 * b.abs().max(1.0));
        assert!(near, "{got:?}, expected {expected:?}");
    }

    #[test]
    fn the_worked_example() {
        let (proposal, reference) = ([20f32, 10., 60., 30.], [16f32, 12., 50., 40.]);
        let codes = HEAD.encode(&[reference], &[proposal]).unwrap();
        assert_near(codes[0], [-1.75, 3.0, -0.8126, 1.6824]);
        assert_near(HEAD.decode(&codes, &[proposal], 1).unwrap()[0], reference);
        let rpn = Coder { weights: [1.0; 4], ..HEAD };
        let huge = rpn.decode(&[[0., 0., 1000., 1000.]], &[[0., 0., 16., 16.]], 1).unwrap();
        assert_near(huge[0], [-492., -492., 508., 508.]);
    }

    #[test]
    fn nan_gets_through_and_a_point_gives_infinities() {
        let decoded = HEAD.decode_one(&[0., 0., f32::NAN, 0.], &[0., 0., 2., 2.]);
        assert!(decoded[0].is_nan() && decoded[2].is_nan() && decoded[1] == 0.0);
        let code = HEAD.encode_one(&[0., 0., 2., 2.], &[0.0; 4]);
        assert_eq!(code, [f32::INFINITY; 4]);
    }

    #[test]
    fn every_row_uses_its_own_box_on_any_number_of_threads() {
        for (n, per_box) in [(3, 2), (OFFSETS_FOR_THREADS, 1), (700, 13), (2, 2000), (1, 9000)] {
            let boxes: Vec<BBox<f64>> =
                (0..n).map(|i| [i as f64, 0.0, i as f64 + 2.0, 4.0]).collect();
            let codes: Vec<[f64; 4]> =
                (0..n * per_box).map(|i| [(i % per_box) as f64, 0.0, 0.0, 0.0]).collect();
            let coder = Coder { weights: [1.0; 4], exponent: 4.0 };
            let decoded = coder.decode(&codes, &boxes, per_box).unwrap();
            for (i, row) in decoded.chunks(per_box).enumerate() {
                for (k, b) in row.iter().enumerate() {
                    let x = i as f64 + 2.0 * k as f64;
                    assert_eq!(*b, [x, 0.0, x + 2.0, 4.0], "{n} boxes, {per_box} each");
                }
            }
            let back = coder.encode(&boxes, &boxes).unwrap();
            assert!(back.iter().all(|code| *code == [0.0; 4]));
        }
    }

    #[test]
    fn different_counts_are_refused() {
        let error = HEAD.encode(&[[0.0; 4]; 2], &[[0.0; 4]]).unwrap_err().to_string();
        assert!(error.starts_with("proposals: expected shape (2, 4)"), "{error}");
        let error = HEAD.decode(&[[0.0; 4]; 3], &[[0.0; 4]; 2], 2).unwrap_err().to_string();
        assert!(error.starts_with("rel_codes: expected shape (2, 8)"), "{error}");
        assert!(HEAD.decode(&[], &[], 3).unwrap().is_empty());
    }
}
