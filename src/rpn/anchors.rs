//! Anchors: boxes of several shapes around the centre of every cell of a feature map.
//!
//! All arithmetic is in f64 and stored as f32, unrounded, as the originals do: networks are trained
//! against exactly these numbers.

use rayon::prelude::*;

use crate::boxes::BBox;
use crate::memory::result_len;
use crate::{Error, Result};

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

/// The base anchors moved to every cell: row `(y * width + x) * A + a` is base `a` shifted by
/// `(y * stride, x * stride)`.
pub fn shifted_anchors(
    base: &[BBox<f64>],
    stride: f64,
    height: usize,
    width: usize,
) -> Result<Vec<BBox<f32>>> {
    positive("feat_stride", &[stride])?;
    let count = result_len::<BBox<f32>>("height, width", &[height, width, base.len()])?;
    let mut anchors = vec![[0.0; 4]; count];
    if anchors.is_empty() {
        return Ok(anchors);
    }
    anchors.par_chunks_exact_mut(width * base.len()).enumerate().for_each(|(y, row)| {
        let dy = y as f64 * stride;
        for (x, cell) in row.chunks_exact_mut(base.len()).enumerate() {
            let dx = x as f64 * stride;
            for (out, b) in cell.iter_mut().zip(base) {
                *out = [b[0] + dy, b[1] + dx, b[2] + dy, b[3] + dx].map(|v| v as f32);
            }
        }
    });
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
        let anchors = shifted_anchors(&base, 16.0, 37, 50).unwrap();
        assert_eq!(anchors.len(), 16650);
        assert_eq!(anchors[16649], [221.96133, 610.98065, 946.0387, 973.01935]);
        assert_eq!(anchors[(2 * 50 + 3) * 9 + 3], [-56. + 32., -56. + 48., 72. + 32., 72. + 48.]);
        assert!(shifted_anchors(&base, 16.0, 0, 50).unwrap().is_empty());
        assert!(shifted_anchors(&[], 16.0, 3, 4).unwrap().is_empty());
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
