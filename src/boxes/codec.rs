//! The codec between boxes and the offsets a network regresses.
//!
//! For a source box with centre `(cy, cx)` and size `(h, w)` an offset `(ty, tx, th, tw)` means the
//! box with centre `(cy + ty h, cx + tx w)` and size `(h exp(th), w exp(tw))`. Eq. 1 to 4 of
//! "Rich feature hierarchies for accurate object detection" (Girshick et al., 2014).

use super::{BBox, Scalar};
use crate::{Error, Result, parallel};

/// Boxes that take about 10 microseconds.
const GRAIN: usize = 512;

/// Centre and size `(c_0, c_1, extent_0, extent_1)`.
fn centre_and_size<T: Scalar>(b: &BBox<T>) -> [T; 4] {
    let (h, w) = (b[2] - b[0], b[3] - b[1]);
    [b[0] + T::HALF * h, b[1] + T::HALF * w, h, w]
}

/// Writes the offsets that take each source box to its destination.
///
/// Either side may be a single box, which then serves all. Sizes of source boxes are raised to the
/// machine epsilon; destinations are not protected: one of no size gives `-inf`, an inverted one
/// NaN.
pub fn encode<T: Scalar>(
    source: &[BBox<T>],
    destination: &[BBox<T>],
    offsets: &mut [[T; 4]],
) -> Result<()> {
    if offsets.len() != encoded_rows(source, destination)? {
        return Err(Error::shape("out", "one row a box", format!("{}", offsets.len())));
    }
    let (source_step, destination_step) = (step(source), step(destination));
    parallel::fill(offsets, GRAIN, |row, out| {
        *out = encode_one(&source[row * source_step], &destination[row * destination_step]);
    })
}

/// Distance of the boxes of neighbouring rows: none if a single one serves all.
fn step<T>(boxes: &[BBox<T>]) -> usize {
    usize::from(boxes.len() != 1)
}

/// Number of offsets that [`encode`] gives.
pub fn encoded_rows<T>(source: &[BBox<T>], destination: &[BBox<T>]) -> Result<usize> {
    match (source.len(), destination.len()) {
        (n, m) if n == m || m == 1 => Ok(n),
        (1, m) => Ok(m),
        (n, m) => Err(Error::shape(
            "dst_bbox",
            format!("shape ({n}, 4) as src_bbox"),
            format!("({m}, 4)"),
        )),
    }
}

/// [`encode`] for one pair.
pub(crate) fn encode_one<T: Scalar>(source: &BBox<T>, destination: &BBox<T>) -> [T; 4] {
    let [py, px, h, w] = centre_and_size(source);
    let [gy, gx, gh, gw] = centre_and_size(destination);
    let (ph, pw) = (h.maximum(T::EPSILON), w.maximum(T::EPSILON));
    [(gy - py) / ph, (gx - px) / pw, (gh / ph).ln(), (gw / pw).ln()]
}

/// Writes the boxes that the offsets make of their sources: `per_row` for each source box, row
/// after row. A single box serves all rows. The exponent is not clamped.
pub fn decode<T: Scalar>(
    source: &[BBox<T>],
    offsets: &[[T; 4]],
    per_row: usize,
    boxes: &mut [BBox<T>],
) -> Result<()> {
    if offsets.is_empty() && boxes.is_empty() {
        return Ok(());
    }
    let rows = offsets.len().checked_div(per_row).unwrap_or(0);
    if ![1, rows].contains(&source.len()) || [rows * per_row, boxes.len()] != [offsets.len(); 2] {
        return Err(Error::shape(
            "loc",
            format!("shape ({}, {}), one row for each box", source.len(), 4 * per_row),
            format!("{} numbers", 4 * offsets.len()),
        ));
    }
    let step = step(source);
    parallel::fill(boxes, GRAIN, |index, out| {
        *out = decode_one(&source[index / per_row * step], &offsets[index]);
    })
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

    fn encoded<T: Scalar>(source: &[BBox<T>], destination: &[BBox<T>]) -> Result<Vec<[T; 4]>> {
        let mut offsets = vec![[T::ZERO; 4]; encoded_rows(source, destination)?];
        encode(source, destination, &mut offsets).map(|()| offsets)
    }

    fn decoded<T: Scalar>(
        source: &[BBox<T>],
        offsets: &[[T; 4]],
        per_row: usize,
    ) -> Result<Vec<BBox<T>>> {
        let mut boxes = vec![[T::ZERO; 4]; offsets.len()];
        decode(source, offsets, per_row, &mut boxes).map(|()| boxes)
    }

    #[test]
    fn offsets_of_the_worked_example() {
        let (source, destination) = ([[10f32, 20., 30., 60.]], [[12f32, 16., 40., 50.]]);
        let loc = encoded(&source, &destination).unwrap();
        let expected = [0.3, -0.175, 0.33647224, -0.1625189];
        assert_eq!(loc[0][..2], expected[..2], "centres are plain arithmetic");
        for (a, b) in loc[0].iter().zip(expected) {
            assert!((a - b).abs() < 1e-7, "{loc:?}");
        }
        let back = decoded(&source, &loc, 1).unwrap();
        for (a, b) in back[0].iter().zip(destination[0]) {
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
        let loc = [[0., 0., 0., 0.], [1., 0., 0., 0.]].repeat(source.len());
        let boxes = decoded(&source, &loc, 2).unwrap();
        for (i, row) in boxes.chunks(2).enumerate() {
            let y = i as f64;
            assert_eq!(row, [[y, 0., y + 2., 4.], [y + 2., 0., y + 4., 4.]]);
        }
        let back = encoded(&source, &source).unwrap();
        assert!(back.as_flattened().iter().all(|&x| x == 0.0));
    }

    #[test]
    fn a_single_box_serves_all() {
        let (one, many) = ([[0f32, 0., 2., 4.]], [[0f32, 0., 2., 4.], [2., 4., 4., 8.]]);
        assert_eq!(encoded(&one, &many).unwrap(), [[0.; 4], [1., 1., 0., 0.]]);
        assert_eq!(encoded(&many, &one).unwrap(), [[0.; 4], [-1., -1., 0., 0.]]);
        assert!(encoded::<f32>(&one, &[]).unwrap().is_empty());
        assert_eq!(decoded(&one, &[[0.; 4], [1., 1., 0., 0.]], 1).unwrap(), many);
    }

    #[test]
    fn different_row_counts_are_refused() {
        let two = [[0f32, 0., 1., 1.]; 2];
        assert!(encoded(&two, &[]).unwrap_err().to_string().starts_with("dst_bbox: expected"));
        for (offsets, per_row) in [(1, 1), (3, 1), (3, 2), (2, 2), (2, 0)] {
            let error = decoded(&two, &vec![[0.0; 4]; offsets], per_row).unwrap_err();
            assert!(error.to_string().starts_with("loc: expected"), "{offsets}: {error}");
        }
        assert!(decoded::<f32>(&[], &[], 3).unwrap().is_empty());
    }
}
