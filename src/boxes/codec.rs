//! The codec between boxes and the offsets a network regresses.
//!
//! For a source box with centre `(cy, cx)` and size `(h, w)` an offset `(ty, tx, th, tw)` means the
//! box with centre `(cy + ty h, cx + tx w)` and size `(h exp(th), w exp(tw))`. Eq. 1 to 4 of
//! "Rich feature hierarchies for accurate object detection" (Girshick et al., 2014).

use rayon::prelude::*;

use super::{BBox, Scalar};
use crate::{Error, Result};

const ROWS_PER_TASK: usize = 1024;

/// Centre and size `(c_0, c_1, extent_0, extent_1)`.
fn centre_and_size<T: Scalar>(b: &BBox<T>) -> [T; 4] {
    let (h, w) = (b[2] - b[0], b[3] - b[1]);
    [b[0] + T::HALF * h, b[1] + T::HALF * w, h, w]
}

/// Offsets that take each source box to its destination.
///
/// Sizes of source boxes are raised to the machine epsilon; destinations are not protected: one
/// of no size gives `-inf`, an inverted one NaN.
pub fn encode<T: Scalar>(source: &[BBox<T>], destination: &[BBox<T>]) -> Result<Vec<T>> {
    if source.len() != destination.len() {
        return Err(Error::shape(
            "dst_bbox",
            format!("shape ({}, 4) as src_bbox", source.len()),
            format!("({}, 4)", destination.len()),
        ));
    }
    let mut offsets = vec![T::ZERO; 4 * source.len()];
    let (out, _) = offsets.as_chunks_mut::<4>();
    out.par_iter_mut()
        .zip(source.par_iter().zip(destination))
        .with_min_len(ROWS_PER_TASK)
        .for_each(|(out, (source, destination))| *out = encode_one(source, destination));
    Ok(offsets)
}

/// [`encode`] for one pair.
pub(crate) fn encode_one<T: Scalar>(source: &BBox<T>, destination: &BBox<T>) -> [T; 4] {
    let [py, px, h, w] = centre_and_size(source);
    let [gy, gx, gh, gw] = centre_and_size(destination);
    let (ph, pw) = (h.maximum(T::EPSILON), w.maximum(T::EPSILON));
    [(gy - py) / ph, (gx - px) / pw, (gh / ph).ln(), (gw / pw).ln()]
}

/// Boxes that the offsets make of their sources. `offsets` holds `per_row` quadruples for each
/// source box, row after row. The exponent is not clamped.
pub fn decode<T: Scalar>(source: &[BBox<T>], offsets: &[T], per_row: usize) -> Result<Vec<T>> {
    let expected = source.len() * per_row * 4;
    if offsets.len() != expected {
        return Err(Error::shape(
            "loc",
            format!("shape ({}, {}), one row for each box", source.len(), 4 * per_row),
            format!("{} numbers", offsets.len()),
        ));
    }
    let mut boxes = vec![T::ZERO; expected];
    if boxes.is_empty() {
        return Ok(boxes);
    }
    let width = 4 * per_row;
    boxes
        .par_chunks_exact_mut(width)
        .zip(offsets.par_chunks_exact(width))
        .zip(source)
        .with_min_len((ROWS_PER_TASK / per_row).max(1))
        .for_each(|((out, loc), source)| {
            let (out, _) = out.as_chunks_mut::<4>();
            let (loc, _) = loc.as_chunks::<4>();
            out.iter_mut().zip(loc).for_each(|(out, loc)| *out = decode_one(source, loc));
        });
    Ok(boxes)
}

/// [`decode`] for one quadruple.
pub(crate) fn decode_one<T: Scalar>(source: &BBox<T>, loc: &[T; 4]) -> BBox<T> {
    let [py, px, ph, pw] = centre_and_size(source);
    let (cy, cx) = (loc[0] * ph + py, loc[1] * pw + px);
    let (half_h, half_w) = (T::HALF * (loc[2].exp() * ph), T::HALF * (loc[3].exp() * pw));
    [cy - half_h, cx - half_w, cy + half_h, cx + half_w]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_the_worked_example() {
        let (source, destination) = ([[10f32, 20., 30., 60.]], [[12f32, 16., 40., 50.]]);
        let loc = encode(&source, &destination).unwrap();
        let expected = [0.3, -0.175, 0.33647224, -0.1625189];
        assert_eq!(loc[..2], expected[..2], "centres are plain arithmetic");
        for (a, b) in loc.iter().zip(expected) {
            assert!((a - b).abs() < 1e-7, "{loc:?}");
        }
        let back = decode(&source, &loc, 1).unwrap();
        for (a, b) in back.iter().zip(destination[0]) {
            assert!((a - b).abs() < 4e-6, "{back:?}");
        }
    }

    #[test]
    fn only_the_source_is_protected_from_having_no_size() {
        let (point, unit) = ([0f32; 4], [0f32, 0., 2., 2.]);
        let from_point = encode_one(&point, &unit);
        assert!((from_point[2] - 16.6355).abs() < 1e-4, "{from_point:?}");
        assert_eq!(encode_one(&unit, &point)[2], f32::NEG_INFINITY);
        assert!(encode_one(&unit, &[2., 2., 0., 0.])[2].is_nan());
        assert!(encode_one(&[f32::NAN; 4], &unit).iter().all(|x| x.is_nan()));
    }

    #[test]
    fn a_huge_exponent_gives_the_infinite_box() {
        let inf = f32::INFINITY;
        assert_eq!(
            decode_one(&[0f32, 0., 10., 10.], &[0., 0., 100., 100.]),
            [-inf, -inf, inf, inf]
        );
    }

    #[test]
    fn each_row_of_offsets_uses_its_own_box() {
        let source: Vec<BBox<f64>> =
            (0..5000).map(|i| [i as f64, 0.0, i as f64 + 2.0, 4.0]).collect();
        let loc: Vec<f64> = source.iter().flat_map(|_| [0., 0., 0., 0., 1., 0., 0., 0.]).collect();
        let boxes = decode(&source, &loc, 2).unwrap();
        for (i, row) in boxes.chunks(8).enumerate() {
            let y = i as f64;
            assert_eq!(row, [y, 0., y + 2., 4., y + 2., 0., y + 4., 4.]);
        }
    }

    #[test]
    fn different_row_counts_are_refused() {
        let one = [[0f32, 0., 1., 1.]];
        assert!(encode(&one, &[]).unwrap_err().to_string().starts_with("dst_bbox: expected"));
        assert!(decode(&one, &[0.0; 7], 1).unwrap_err().to_string().starts_with("loc: expected"));
        assert!(decode::<f32>(&[], &[], 3).unwrap().is_empty());
    }
}
