//! Clipping boxes to an image.

use super::{BBox, Scalar, check_length};
use crate::{Result, parallel};

/// Boxes that take about 10 microseconds.
const GRAIN: usize = 1 << 12;

/// Writes the boxes with each coordinate limited to `[0, size]` of its axis. NaN stays NaN.
pub fn clip<T: Scalar>(boxes: &[BBox<T>], size: (T, T), out: &mut [BBox<T>]) -> Result<()> {
    check_length("out", out.len(), boxes.len())?;
    parallel::fill(out, GRAIN, |row, out| *out = clip_one(&boxes[row], size))
}

/// [`clip`] for one box.
pub(crate) fn clip_one<T: Scalar>(b: &BBox<T>, size: (T, T)) -> BBox<T> {
    let limit = |x: T, size: T| x.maximum(T::ZERO).minimum(size);
    [limit(b[0], size.0), limit(b[1], size.1), limit(b[2], size.0), limit(b[3], size.1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_end_at_the_border_and_nan_stays() {
        let inf = f32::INFINITY;
        let given = [[-1f32, 2., 11., 25.], [-inf, -inf, inf, inf], [12., f32::NAN, 3., 4.]];
        let mut boxes = given;
        clip(&given, (10., 20.), &mut boxes).unwrap();
        assert_eq!(boxes[0], [0., 2., 10., 20.]);
        assert_eq!(boxes[1], [0., 0., 10., 20.]);
        assert_eq!((boxes[2][0], boxes[2][2], boxes[2][3]), (10., 3., 4.));
        assert!(boxes[2][1].is_nan());
    }
}
