//! The geometry both operators share: the feature map, the regions, and their checks.

use crate::memory::result_len;
use crate::{Error, Result};

/// Extents of a channels-last batch of feature maps, and of the grid each region is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureMap {
    /// N.
    pub batch: usize,
    /// H.
    pub height: usize,
    /// W.
    pub width: usize,
    /// C.
    pub channels: usize,
    /// Bins of a region: rows, columns.
    pub output: (usize, usize),
}

impl FeatureMap {
    /// Checks that the grid is not empty and that every index the operators form fits.
    pub fn new(
        (batch, height, width, channels): (usize, usize, usize, usize),
        output: (usize, usize),
    ) -> Result<Self> {
        if output.0 == 0 || output.1 == 0 {
            let expected = "at least one row and one column";
            return Err(Error::value("output_size", expected, format!("{output:?}")));
        }
        // The position of a maximum is stored as an i32.
        if height.checked_mul(width).is_none_or(|pixels| i32::try_from(pixels).is_err()) {
            let got = format!("{height} x {width}");
            return Err(Error::shape("input", "fewer than 2^31 pixels a map", got));
        }
        Ok(Self { batch, height, width, channels, output })
    }

    /// Numbers in the whole batch of maps.
    pub fn input_len(&self) -> usize {
        self.batch * self.height * self.width * self.channels
    }

    /// Pixels of one map.
    pub(super) fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Bins of a region.
    pub(super) fn bins(&self) -> usize {
        self.output.0 * self.output.1
    }

    /// Numbers in one row of bins.
    pub(super) fn bin_row_len(&self) -> usize {
        self.output.1 * self.channels
    }

    /// Numbers in the result for `regions` regions, or an error where memory cannot hold them.
    pub fn output_len(&self, regions: usize) -> Result<usize> {
        let (rows, cols) = self.output;
        result_len::<f32>("output_size", &[regions, rows, cols, self.channels])
    }

    pub(super) fn check_input(&self, input: &[f32]) -> Result<()> {
        expect_len("input", self.input_len(), input.len())
    }

    pub(super) fn check_images(&self, regions: &[Region]) -> Result<()> {
        match regions.iter().position(|region| region.image >= self.batch) {
            None => Ok(()),
            Some(row) => {
                let expected = format!("a batch index below {}", self.batch);
                Err(Error::row("rois", expected, regions[row].image.to_string(), row))
            }
        }
    }

    /// The channels of one pixel.
    pub(super) fn pixel<'a>(
        &self,
        input: &'a [f32],
        image: usize,
        y: usize,
        x: usize,
    ) -> &'a [f32] {
        let at = ((image * self.height + y) * self.width + x) * self.channels;
        &input[at..at + self.channels]
    }
}

pub(super) fn expect_len(argument: &'static str, expected: usize, got: usize) -> Result<()> {
    match got == expected {
        true => Ok(()),
        false => Err(Error::shape(argument, format!("{expected} elements"), format!("{got}"))),
    }
}

pub(super) fn check_scale(scale: f64) -> Result<()> {
    match scale.is_finite() && scale > 0.0 {
        true => Ok(()),
        false => Err(Error::value("spatial_scale", "a positive finite number", scale.to_string())),
    }
}

/// A region of interest: which image of the batch, and its corners in image coordinates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    /// Index of the image in the batch.
    pub image: usize,
    /// Left edge.
    pub x1: f32,
    /// Upper edge.
    pub y1: f32,
    /// Right edge.
    pub x2: f32,
    /// Lower edge.
    pub y2: f32,
}

impl Region {
    fn corners(&self) -> [f32; 4] {
        [self.x1, self.y1, self.x2, self.y2]
    }

    /// Whether a coordinate is NaN: such a region lies nowhere. Its bins are 0, and it has no
    /// gradient.
    pub fn is_nowhere(&self) -> bool {
        self.corners().iter().any(|v| v.is_nan())
    }
}

/// Rows `(batch_index, x1, y1, x2, y2)` as regions of a batch of `batch` images. The index loses
/// its fraction; an index outside the batch or an infinite coordinate is refused.
pub fn parse_regions(rows: &[f32], batch: usize) -> Result<Vec<Region>> {
    let (rows, rest) = rows.as_chunks::<5>();
    if !rest.is_empty() {
        let got = format!("{} elements", rows.len() * 5 + rest.len());
        return Err(Error::shape("rois", "rows of (batch_index, x1, y1, x2, y2)", got));
    }
    let region = |(row, &[index, x1, y1, x2, y2]): (usize, &[f32; 5])| {
        // The comparison is false for NaN; -0.5 becomes 0 as in a C cast.
        if !(index > -1.0 && index < batch as f32) {
            let expected = format!("a batch index of at least 0 and below {batch}");
            return Err(Error::row("rois", expected, index.to_string(), row));
        }
        let region = Region { image: index as usize, x1, y1, x2, y2 };
        if region.corners().iter().any(|v| v.is_infinite()) {
            let got = format!("({x1}, {y1}, {x2}, {y2})");
            return Err(Error::row("rois", "finite coordinates", got, row));
        }
        Ok(region)
    };
    rows.iter().enumerate().map(region).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bad_row_is_named() {
        let good = [0.9, 0.0, 0.0, 4.0, 4.0];
        for bad in [
            [2.0, 0.0, 0.0, 4.0, 4.0],
            [-1.0, 0.0, 0.0, 4.0, 4.0],
            [f32::NAN, 0.0, 0.0, 4.0, 4.0],
            [0.0, f32::NAN, f32::NEG_INFINITY, 4.0, 4.0],
            [0.0, 0.0, 0.0, 4.0, f32::INFINITY],
        ] {
            let message = parse_regions(&[good, bad, bad].concat(), 2).unwrap_err().to_string();
            assert!(message.starts_with("rois: expected"), "{message}");
            assert!(message.ends_with("in row 1"), "{message}");
        }
        assert_eq!(parse_regions(&good, 1).unwrap()[0].image, 0);
        assert!(parse_regions(&[0.0, 1.0, 1.0, f32::NAN, 2.0], 1).unwrap()[0].is_nowhere());
        assert!(parse_regions(&[], 0).unwrap().is_empty());
        assert!(parse_regions(&[0.0; 4], 1).is_err());
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(FeatureMap::new((1, 2, 2, 1), (0, 7)).is_err());
        assert!(FeatureMap::new((1, 1 << 20, 1 << 20, 1), (7, 7)).is_err());
        let map = FeatureMap::new((1, 2, 2, 512), (usize::MAX / 2, 7)).unwrap();
        assert!(map.output_len(3).is_err());
        let map = FeatureMap::new((1, 2, 2, 512), (7, 7)).unwrap();
        assert_eq!(map.output_len(0).unwrap(), 0);
        assert!(check_scale(f64::NAN).is_err() && check_scale(0.0).is_err());
    }
}
