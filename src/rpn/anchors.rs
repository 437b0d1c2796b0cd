//! Anchors: boxes of several shapes around the centre of every cell of a feature map.
//!
//! All arithmetic is in f64 and stored as f32, unrounded, as the originals do: networks are trained
//! against exactly these numbers.

use crate::boxes::BBox;
use crate::memory::result_len;
use crate::{Error, Result, parallel};

/// Anchors that outweigh waking a second thread.
const ANCHORS_FOR_THREADS: usize = 1 << 16;

/// Anchors of the first cell, ratio-major: height / width is the ratio, `base_size * scale` the
/// side of the square of equal area, and the centre lies at half the base size.
pub fn anchor_base(base_size: f64, ratios: &[f64], scales: &[f64]) -> Result<Vec<BBox<f32>>> {
    positive("base_size", &[base_size])?;
    positive("ratios", ratios)?;
    positive("anchor_scales", scales)?;
    let centre = base_size / 2.0;
    let anchor = |ratio: f64, scale: f64| {
        let h = base_size * scale * ratio.sqrt();
        let w = base_size * scale * (1.0 / ratio).sqrt();
        [centre - h / 2.0, centre - w / 2.0, centre + h / 2.0, centre + w / 2.0].map(|x| x as f32)
    };
    Ok(ratios.iter().flat_map(|&r| scales.iter().map(move |&s| anchor(r, s))).collect())
}

fn positive(argument: &'static str, values: &[f64]) -> Result<()> {
    match values.iter().find(|v| !(v.is_finite() && **v > 0.0)) {
        None => Ok(()),
        Some(bad) => Err(Error::value(argument, "positive finite numbers", bad.to_string())),
    }
}

/// Which axis the numbers of a box begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axes {
    /// `(y_min, x_min, y_max, x_max)`.
    YX,
    /// `(x_min, y_min, x_max, y_max)`.
    XY,
}

/// The base anchors moved to every cell of a map of `(height, width)` cells: row
/// `(y * width + x) * A + a` is base `a` shifted by `y` and `x` times the strides `(down, across)`.
pub fn shifted_anchors(
    base: &[BBox<f64>],
    stride: (f64, f64),
    (height, width): (usize, usize),
    axes: Axes,
) -> Result<Vec<BBox<f32>>> {
    let count = result_len::<BBox<f32>>("height, width", &[height, width, base.len()])?;
    let mut anchors = vec![[0.0; 4]; count];
    if anchors.is_empty() {
        return Ok(anchors);
    }
    let fill = |y: usize, row: &mut [BBox<f32>]| {
        let dy = y as f64 * stride.0;
        for (x, cell) in row.chunks_exact_mut(base.len()).enumerate() {
            let dx = x as f64 * stride.1;
            let (d0, d1) = if axes == Axes::YX { (dy, dx) } else { (dx, dy) };
            for (out, b) in cell.iter_mut().zip(base) {
                *out = [
                    (b[0] + d0) as f32,
                    (b[1] + d1) as f32,
                    (b[2] + d0) as f32,
                    (b[3] + d1) as f32,
                ];
            }
        }
    };
    let row_len = width * base.len();
    if count < ANCHORS_FOR_THREADS {
        anchors.chunks_exact_mut(row_len).enumerate().for_each(|(y, row)| fill(y, row));
    } else {
        parallel::lead(|| parallel::for_each_chunk(&mut anchors, row_len, fill))?;
    }
    Ok(anchors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default_base() -> Vec<BBox<f32>> {
        anchor_base(16.0, &[0.5, 1.0, 2.0], &[8.0, 16.0, 32.0]).unwrap()
    }

    #[test]
    fn the_nine_anchors_of_the_paper() {
        let expected: [BBox<f32>; 9] = [
            [-37.254833, -82.50967, 53.254833, 98.50967],
            [-82.50967, -173.01933, 98.50967, 189.01933],
            [-173.01933, -354.03867, 189.01933, 370.03867],
            [-56., -56., 72., 72.],
            [-120., -120., 136., 136.],
            [-248., -248., 264., 264.],
            [-82.50967, -37.254833, 98.50967, 53.254833],
            [-173.01933, -82.50967, 189.01933, 98.50967],
            [-354.03867, -173.01933, 370.03867, 189.01933],
        ];
        assert_eq!(default_base(), expected);
    }

    #[test]
    fn cells_are_row_major_with_the_anchors_inside() {
        let base: Vec<BBox<f64>> = default_base().iter().map(|b| b.map(f64::from)).collect();
        let anchors = shifted_anchors(&base, (16.0, 16.0), (37, 50), Axes::YX).unwrap();
        assert_eq!(anchors.len(), 16650);
        assert_eq!(anchors[16649], [221.96133, 610.98065, 946.0387, 973.01935]);
        assert_eq!(anchors[(2 * 50 + 3) * 9 + 3], [-56. + 32., -56. + 48., 72. + 32., 72. + 48.]);
        for (base, size) in [(&base[..], (0, 50)), (&base, (50, 0)), (&[], (3, 4))] {
            assert!(shifted_anchors(base, (16.0, 16.0), size, Axes::YX).unwrap().is_empty());
        }
    }

    #[test]
    fn axes_swap_but_cells_stay_row_major_for_any_number_of_threads() {
        let base = [[-1.0, -2.0, 3.0, 4.0], [0.0, 0.0, 1.0, 5.0]];
        let swapped = base.map(|b| [b[1], b[0], b[3], b[2]]);
        for size in [(2, 3), (300, 200)] {
            let yx = shifted_anchors(&base, (8.0, 5.0), size, Axes::YX).unwrap();
            let xy = shifted_anchors(&swapped, (8.0, 5.0), size, Axes::XY).unwrap();
            let expected: Vec<BBox<f32>> = yx.iter().map(|b| [b[1], b[0], b[3], b[2]]).collect();
            assert_eq!(xy, expected);
            let last = [8.0 * (size.0 - 1) as f32, 5.0 * (size.1 - 1) as f32];
            assert_eq!(*yx.last().unwrap(), [last[0], last[1], last[0] + 1.0, last[1] + 5.0]);
        }
    }

    #[test]
    fn sizes_must_be_positive() {
        for (base, ratios, scales, argument) in [
            (0.0, vec![1.0], vec![1.0], "base_size"),
            (16.0, vec![1.0, -0.5], vec![1.0], "ratios"),
            (16.0, vec![1.0], vec![f64::NAN], "anchor_scales"),
        ] {
            let message = anchor_base(base, &ratios, &scales).unwrap_err().to_string();
            assert!(message.starts_with(argument), "{message}");
        }
    }
}
