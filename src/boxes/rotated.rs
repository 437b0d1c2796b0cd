//! Rotated boxes: IoU by clipping polygons, suppression.
//!
//! A box is `[cx, cy, w, h, angle]`, the angle in degrees, counter-clockwise with the y axis
//! downwards. To intersect two, the corners of one are brought into the frame of the other, where
//! that is a rectangle around the origin, and its polygon is cut off at the four edges. So there
//! are no near-parallel lines to intersect, and coordinates far from zero cost no precision.
//! Everything is computed in f64.

use super::check_length;
use super::nms::{Cutoff, Score, rank};
use crate::memory::result_len;
use crate::{Result, parallel};

/// `[cx, cy, w, h, angle in degrees]`.
pub type RotatedBox = [f64; 5];

/// Pairs worth waking another thread for.
const MANY_PAIRS: usize = 1 << 10;

/// A box made ready to meet others.
#[derive(Debug, Clone, Copy)]
struct Ready {
    center: [f64; 2],
    /// Half the extents.
    half: [f64; 2],
    /// Direction of the width; the height is at right angles to it.
    cos: f64,
    sin: f64,
    area: f64,
    /// Distance of the corners from the centre.
    radius: f64,
}

impl Ready {
    fn new(&[cx, cy, w, h, angle]: &RotatedBox) -> Self {
        let (sin, cos) = angle.to_radians().sin_cos();
        let half = [w / 2.0, h / 2.0];
        let radius = half[0].hypot(half[1]);
        Ready { center: [cx, cy], half, cos, sin: -sin, area: w * h, radius }
    }

    /// Corners in order around the box, seen from the frame of `other`.
    fn corners_in(&self, other: &Ready) -> [[f64; 2]; 4] {
        let [x, y] = [0, 1].map(|axis| self.center[axis] - other.center[axis]);
        let turn = |x: f64, y: f64| [x * other.cos + y * other.sin, y * other.cos - x * other.sin];
        let center = turn(x, y);
        let along = turn(self.cos, self.sin).map(|d| d * self.half[0]);
        let across = turn(-self.sin, self.cos).map(|d| d * self.half[1]);
        [(1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0)]
            .map(|(a, b)| [0, 1].map(|axis| center[axis] + a * along[axis] + b * across[axis]))
    }

    /// IoU with another box: 0 unless all four extents are above 0, NaN if a number is NaN or
    /// infinite.
    fn iou(&self, other: &Ready) -> f64 {
        let distance = [0, 1].map(|axis| self.center[axis] - other.center[axis]);
        let reach = self.radius + other.radius;
        let numbers = [self.area, other.area, self.cos, other.cos, distance[0], distance[1], reach];
        if numbers.iter().any(|x| !x.is_finite()) {
            return f64::NAN;
        }
        let flat = self.half[0].min(self.half[1]).min(other.half[0].min(other.half[1])) <= 0.0;
        if flat || distance[0].hypot(distance[1]) >= reach {
            return 0.0;
        }
        let mut polygon = Polygon::new(self.corners_in(other));
        for axis in 0..2 {
            polygon = polygon.cut(axis, 1.0, other.half[axis]);
            polygon = polygon.cut(axis, -1.0, other.half[axis]);
        }
        let common = polygon.area().min(self.area).min(other.area);
        common / (self.area + other.area - common)
    }
}

/// A convex polygon: four corners, and one more for each cut.
#[derive(Debug, Clone, Copy)]
struct Polygon {
    corners: [[f64; 2]; 8],
    len: usize,
}

impl Polygon {
    fn new(four: [[f64; 2]; 4]) -> Self {
        let mut corners = [[0.0; 2]; 8];
        corners[..4].copy_from_slice(&four);
        Polygon { corners, len: 4 }
    }

    /// What lies at `sign * coordinate <= edge`.
    fn cut(&self, axis: usize, sign: f64, edge: f64) -> Polygon {
        let mut cut = Polygon { corners: [[0.0; 2]; 8], len: 0 };
        let mut push = |corner: [f64; 2]| {
            // Rounding could make a polygon concave by its last digit, and the corners one more.
            if cut.len < cut.corners.len() {
                cut.corners[cut.len] = corner;
                cut.len += 1;
            }
        };
        for index in 0..self.len {
            let (from, to) = (self.corners[index], self.corners[(index + 1) % self.len]);
            let (before, after) = (edge - sign * from[axis], edge - sign * to[axis]);
            if before >= 0.0 {
                push(from);
            }
            if (before >= 0.0) != (after >= 0.0) {
                let share = before / (before - after);
                let mut corner = [0, 1].map(|a| from[a] + share * (to[a] - from[a]));
                corner[axis] = sign * edge;
                push(corner);
            }
        }
        cut
    }

    fn area(&self) -> f64 {
        let next = |index: usize| self.corners[(index + 1) % self.len];
        let twice = (0..self.len)
            .map(|i| self.corners[i][0] * next(i)[1] - self.corners[i][1] * next(i)[0])
            .sum::<f64>();
        twice.abs() / 2.0
    }
}

/// IoU of every box of `a` with every box of `b`, row-major.
///
/// A box whose width or height is not above 0 gives 0, a number that is NaN or infinite NaN.
pub fn rotated_iou_matrix(a: &[RotatedBox], b: &[RotatedBox]) -> Result<Vec<f64>> {
    let mut matrix = vec![0.0; result_len::<f64>("boxes", &[a.len(), b.len()])?];
    let ready: Vec<Ready> = b.iter().map(Ready::new).collect();
    let row = |index: usize, row: &mut [f64]| {
        let one = Ready::new(&a[index]);
        row.iter_mut().zip(&ready).for_each(|(iou, other)| *iou = one.iou(other));
    };
    if b.is_empty() {
        return Ok(matrix);
    }
    if matrix.len() < MANY_PAIRS {
        matrix.chunks_exact_mut(b.len()).enumerate().for_each(|(i, chunk)| row(i, chunk));
    } else {
        parallel::lead(|| parallel::for_each_chunk(&mut matrix, b.len(), row))?;
    }
    Ok(matrix)
}

/// Greedy suppression of rotated boxes; indices by descending score.
pub fn rotated_nms<S: Score>(
    boxes: &[RotatedBox],
    scores: &[S],
    cutoff: Cutoff<f64>,
) -> Result<Vec<usize>> {
    check_length("scores", scores.len(), boxes.len())?;
    let mut kept: Vec<Ready> = vec![];
    let mut order = rank(scores);
    order.retain(|&i| {
        let one = Ready::new(&boxes[i]);
        let survives = !kept.iter().any(|other| cutoff.suppresses(other.iou(&one)));
        if survives {
            kept.push(one);
        }
        survives
    });
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iou(a: RotatedBox, b: RotatedBox) -> f64 {
        rotated_iou_matrix(&[a], &[b]).unwrap()[0]
    }

    #[test]
    fn figures_that_can_be_checked_by_hand() {
        let square = [0.0, 0.0, 2.0, 2.0, 0.0];
        let octagon = 8.0 * (2.0_f64.sqrt() - 1.0);
        let cases = [
            ("itself", square, square, 1.0),
            ("a quarter turn", [3., 4., 2., 6., 30.], [3., 4., 6., 2., 120.], 1.0),
            ("half shifted", square, [1., 0., 2., 2., 0.], 1.0 / 3.0),
            ("an eighth of a turn", square, [0., 0., 2., 2., 45.], octagon / (8.0 - octagon)),
            ("a corner inside", square, [1., 1., 2., 2., 0.], 1.0 / 7.0),
            ("inside", square, [0.1, 0.1, 1., 1., 17.], 0.25),
            ("a cross", [0., 0., 6., 2., 20.], [0., 0., 2., 6., 20.], 4.0 / 20.0),
            ("touching", square, [2., 0., 2., 2., 0.], 0.0),
            ("apart", square, [9., 9., 2., 2., 33.], 0.0),
            ("flat", square, [0., 0., 2., 0., 0.], 0.0),
            ("inverted", square, [0., 0., -2., -2., 0.], 0.0),
        ];
        for (name, a, b, expected) in cases {
            assert!((iou(a, b) - expected).abs() < 1e-14, "{name}: {}", iou(a, b));
            assert!((iou(b, a) - expected).abs() < 1e-14, "{name} the other way: {}", iou(b, a));
        }
        for odd in [f64::NAN, f64::INFINITY] {
            for index in 0..5 {
                let mut b = square;
                b[index] = odd;
                assert!(iou(square, b).is_nan(), "{odd} at {index}");
            }
        }
    }

    #[test]
    fn the_angle_turns_against_the_clock_when_y_points_down() {
        // Both long boxes lie from the lower left to the upper right.
        let long = [0.0, 0.0, 10.0, 1.0, 45.0];
        assert!(iou(long, [3.0, -3.0, 1.0, 1.0, 45.0]) > 0.09);
        assert_eq!(iou(long, [3.0, 3.0, 1.0, 1.0, 45.0]), 0.0);
    }

    #[test]
    fn suppression_follows_the_matrix() {
        let mut random = super::super::nms::tests::Random(9);
        let boxes: Vec<RotatedBox> = (0..300)
            .map(|_| {
                let mut number = |low: f64, high: f64| low + (high - low) * random.next();
                let center = (number(0.0, 100.0), number(0.0, 100.0));
                [center.0, center.1, number(5.0, 40.0), number(5.0, 40.0), number(-200.0, 200.0)]
            })
            .collect();
        let scores: Vec<f32> = (0..300).map(|i| (i * 7 % 100) as f32).collect();
        let matrix = rotated_iou_matrix(&boxes, &boxes).unwrap();
        for threshold in [0.0, 0.2, 0.5] {
            let mut expected: Vec<usize> = vec![];
            for i in rank(&scores) {
                if expected.iter().all(|k| matrix[k * 300 + i] <= threshold) {
                    expected.push(i);
                }
            }
            let cutoff = Cutoff::new(threshold, false, false);
            assert_eq!(rotated_nms(&boxes, &scores, cutoff).unwrap(), expected);
        }
    }
}
