//! From images of several sizes to one batch (torchvision's `GeneralizedRCNNTransform`).
//!
//! ```text
//! for each image, some lines of the result:                            one task each
//!     for each line:
//!         the two lines of the image that it lies between, resized along x    (kept while in use)
//!         their mean, times a factor and plus a summand for each channel
//! ```
//!
//! Bilinear, with half-pixel centres and no smoothing. Resizing is linear, so normalising after it is
//! normalising before it, of fewer numbers at once. What a smaller image leaves of the batch is 0.

use crate::isa::vectorize;
use crate::layers::bilinear::{Place, half_pixel_places};
use crate::memory::result_len;
use crate::rows::{RowsMut, Tiling};
use crate::{Error, Result, parallel};

/// Lines of a task: neighbours share the lines of the image that they lie between.
const LINES: usize = 16;

/// The values of an image.
#[derive(Debug, Clone, Copy)]
pub enum Pixels<'a> {
    /// 0 to 255.
    U8(&'a [u8]),
    /// Any.
    F32(&'a [f32]),
}

/// An image.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    /// Its values.
    pub pixels: Pixels<'a>,
    /// Height and width.
    pub size: (usize, usize),
    /// Whether they lie in memory plane by plane, else pixel by pixel.
    pub channels_first: bool,
}

/// What becomes of the images.
#[derive(Debug, Clone, Copy)]
pub struct Transform<'a> {
    /// For each image its new height and width.
    pub sizes: &'a [(usize, usize)],
    /// For each channel the factor of its values,
    pub factors: &'a [f32],
    /// and what is added to them.
    pub summands: &'a [f32],
    /// Height and width of the batch are multiples of this.
    pub multiple: usize,
}

impl Transform<'_> {
    /// Shape of the batch, (N, H, W, C): the largest extents, rounded up.
    pub fn shape(&self) -> Result<[usize; 4]> {
        if self.multiple == 0 {
            return Err(Error::value("size_divisible", "at least 1", "0"));
        }
        let up = |extents: &mut dyn Iterator<Item = usize>| {
            let most = extents.max().unwrap_or(0);
            most.checked_next_multiple_of(self.multiple).unwrap_or(usize::MAX)
        };
        let height = up(&mut self.sizes.iter().map(|size| size.0));
        let width = up(&mut self.sizes.iter().map(|size| size.1));
        let shape = [self.sizes.len(), height, width, self.factors.len()];
        result_len::<f32>("sizes", &shape)?;
        Ok(shape)
    }

    /// Writes the images into a batch of [`shape`](Self::shape) that is 0.
    pub fn run(&self, pictures: &[Picture<'_>], batch: &mut [f32]) -> Result<()> {
        let [count, height, width, channels] = self.shape()?;
        if pictures.len() != count {
            let expected = format!("{}, one for each image", pictures.len());
            return Err(Error::shape("sizes", expected, count.to_string()));
        }
        if self.summands.len() != channels || batch.len() != count * height * width * channels {
            return Err(Error::shape("mean", format!("{channels} numbers"), "others"));
        }
        let check = |(row, picture): (usize, &Picture<'_>)| self.check(row, picture);
        pictures.iter().enumerate().try_for_each(check)?;
        if batch.is_empty() {
            return Ok(());
        }
        let pairs = pictures.iter().zip(self.sizes);
        let tables: Vec<_> = pairs.map(|(old, &new)| Resizing::new(old, new, channels)).collect();
        let repeated = |values: &[f32]| values.repeat(width);
        let (factors, summands) = (repeated(self.factors), repeated(self.summands));
        let tiling = Tiling { group: height, rows: LINES, channels: usize::MAX };
        parallel::lead(|| {
            RowsMut::dense(batch, width * channels).for_each_tile(tiling, |mut tile| {
                let (image, first) = (tile.first_row / height, tile.first_row % height);
                let len = self.sizes[image].1 * channels;
                let mut lines = Lines::new(&pictures[image], &tables[image], channels);
                // Lines below the image have no place in it.
                let places = tables[image].rows.iter().skip(first);
                for (index, place) in (0..tile.rows.count()).zip(places) {
                    let [above, below] = lines.pair(place.pixels);
                    let target = &mut tile.rows.row_mut(index)[..len];
                    blend(target, above, below, place.parts, &factors, &summands);
                }
            });
        })
    }

    fn check(&self, row: usize, picture: &Picture<'_>) -> Result<()> {
        let ((height, width), size) = (picture.size, self.sizes[row]);
        let len = match picture.pixels {
            Pixels::U8(values) => values.len(),
            Pixels::F32(values) => values.len(),
        };
        if height == 0 || width == 0 || height * width * self.factors.len() != len {
            let expected = format!("{} channels of at least one pixel", self.factors.len());
            let got = format!("{len} numbers, {height} x {width} pixels");
            return Err(Error::row("images", expected, got, row));
        }
        if u32::try_from(len).is_err() {
            return Err(Error::row("images", "fewer than 2^32 numbers", len.to_string(), row));
        }
        if size.0 == 0 || size.1 == 0 {
            return Err(Error::row("sizes", "at least one pixel", format!("{size:?}"), row));
        }
        Ok(())
    }
}

/// Where the lines and the values of a line lie in the image.
struct Resizing {
    rows: Vec<Place>,
    /// For each value of a line, pixel by pixel: the two it lies between, counted from the line's
    /// first value, and how far it is on the way from one to the other.
    left: Vec<u32>,
    right: Vec<u32>,
    behind: Vec<f32>,
}

impl Resizing {
    fn new(picture: &Picture<'_>, new: (usize, usize), channels: usize) -> Self {
        let (height, width) = picture.size;
        // Distance of neighbouring columns, and of channels; `check` saw that indices fit.
        let (column, channel) = match picture.channels_first {
            true => (1, height * width),
            false => (channels, 1),
        };
        let cols = half_pixel_places(width, new.1);
        let values = || cols.iter().flat_map(|place| (0..channels).map(move |c| (place, c)));
        let index = |side: usize| {
            values().map(|(place, c)| (place.pixels[side] * column + c * channel) as u32).collect()
        };
        Resizing {
            rows: half_pixel_places(height, new.0),
            left: index(0),
            right: index(1),
            behind: values().map(|(place, _)| place.parts[1]).collect(),
        }
    }

    /// Writes one line, of which `values` begin with the first.
    fn along<T: Copy + Into<f32>>(&self, values: &[T], line: &mut [f32]) {
        let n = line.len();
        let (left, right, behind) = (&self.left[..n], &self.right[..n], &self.behind[..n]);
        vectorize(
            #[inline(always)]
            || {
                for i in 0..n {
                    let [a, b]: [f32; 2] = [left[i], right[i]].map(|at| values[at as usize].into());
                    line[i] = a * (1.0 - behind[i]) + b * behind[i];
                }
            },
        );
    }
}

/// Lines of an image that have been resized along x, the last two of them.
struct Lines<'a> {
    picture: &'a Picture<'a>,
    resizing: &'a Resizing,
    /// Distance of neighbouring lines in the image.
    step: usize,
    /// Number of the line in each buffer.
    held: [Option<usize>; 2],
    buffers: [Vec<f32>; 2],
}

impl<'a> Lines<'a> {
    fn new(picture: &'a Picture<'a>, resizing: &'a Resizing, channels: usize) -> Self {
        let buffers = [(); 2].map(|()| vec![0.0; resizing.left.len()]);
        let width = picture.size.1;
        let step = if picture.channels_first { width } else { width * channels };
        Lines { picture, resizing, step, held: [None; 2], buffers }
    }

    /// Lines `above` and `below`, which is the same or the next.
    fn pair(&mut self, [above, below]: [usize; 2]) -> [&[f32]; 2] {
        if self.held[1] == Some(above) {
            self.held.swap(0, 1);
            self.buffers.swap(0, 1);
        }
        self.hold(0, above);
        if below != above {
            self.hold(1, below);
        }
        let [first, second] = &self.buffers;
        if below == above { [first, first] } else { [first, second] }
    }

    fn hold(&mut self, slot: usize, line: usize) {
        if self.held[slot] != Some(line) {
            self.held[slot] = Some(line);
            let (start, buffer) = (line * self.step, &mut self.buffers[slot]);
            match self.picture.pixels {
                Pixels::U8(values) => self.resizing.along(&values[start..], buffer),
                Pixels::F32(values) => self.resizing.along(&values[start..], buffer),
            }
        }
    }
}

/// Writes `(above * parts[0] + below * parts[1]) * factor + summand`.
fn blend(
    target: &mut [f32],
    above: &[f32],
    below: &[f32],
    parts: [f32; 2],
    factors: &[f32],
    summands: &[f32],
) {
    let n = target.len();
    let (above, below) = (&above[..n], &below[..n]);
    let (factors, summands) = (&factors[..n], &summands[..n]);
    vectorize(
        #[inline(always)]
        || {
            for i in 0..n {
                let mean = above[i] * parts[0] + below[i] * parts[1];
                target[i] = mean * factors[i] + summands[i];
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_resized_normalised_and_padded() {
        let planes: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let pixels: Vec<u8> = (0..12).flat_map(|i| [i, i + 12]).collect();
        let size = (3, 4);
        let first = Picture { pixels: Pixels::F32(&planes), size, channels_first: true };
        let second = Picture { pixels: Pixels::U8(&pixels), size, channels_first: false };
        let (factors, summands) = ([2.0, 1.0], [1.0, -12.0]);
        let sizes = [(3, 4), (3, 4), (6, 2)];
        let transform =
            Transform { sizes: &sizes, factors: &factors, summands: &summands, multiple: 5 };
        let shape = transform.shape().unwrap();
        assert_eq!(shape, [3, 10, 5, 2]);
        let mut batch = vec![0.0; 300];
        transform.run(&[first, second, second], &mut batch).unwrap();
        assert_eq!(batch[..100], batch[100..200]);
        for (index, pixel) in batch[..100].chunks(2).enumerate() {
            let (y, x) = (index / 5, index % 5);
            let value = (y * 4 + x) as f32;
            let expected = if y < 3 && x < 4 { [2.0 * value + 1.0, value] } else { [0.0; 2] };
            assert_eq!(pixel, expected);
        }
        // Lines at -0.25 (which is 0), 0.25, 0.75, ..., columns at 0.5 and 2.5.
        let column: Vec<f32> = batch[200..].chunks(10).map(|line| line[1]).collect();
        assert_eq!(column, [0.5, 1.5, 3.5, 5.5, 7.5, 8.5, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(batch[200 + 4..][..6], [0.0; 6]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let picture = Picture { pixels: Pixels::U8(&[0; 6]), size: (2, 1), channels_first: true };
        let run = |picture: Picture<'_>, sizes: &[(usize, usize)], multiple: usize| {
            let one = [1.0; 3];
            let transform = Transform { sizes, factors: &one, summands: &one, multiple };
            let len = transform.shape()?.iter().product();
            transform.run(&[picture], &mut vec![0.0; len])
        };
        assert!(run(picture, &[(2, 2)], 1).is_ok());
        assert!(run(picture, &[(0, 2)], 1).is_err());
        assert!(run(picture, &[(2, 2)], 0).is_err());
        assert!(run(picture, &[(2, 2); 2], 1).is_err());
        assert!(run(picture, &[(usize::MAX, usize::MAX)], 32).is_err());
        assert!(run(Picture { size: (1, 1), ..picture }, &[(2, 2)], 1).is_err());
        assert!(run(Picture { size: (0, 2), ..picture }, &[(2, 2)], 1).is_err());
    }
}
