//! Products `A' B` of two matrices that lie in memory as rows: sums over pixels.
//!
//! The gradient of a convolution's weights is such a sum: a row for each input channel under a tap, a
//! column for each output channel, a term for each output pixel. Neither factor has to be transposed:
//! the micro-kernel takes the elements of a row of A' wherever they lie, here a pixel apart, and MR
//! of them lie next to each other. Only B is packed, a block of pixels at a time, into panels that
//! stay in the second-level cache for all rows of A':
//!
//! ```text
//! for each tile of MR rows of A':            (MR neighbouring channels; one cache line a pixel)
//!     for each panel of B:
//!         C[tile][panel] += sum over pixels
//! ```

use super::packed::PackedRows;
use super::tile::{self, Bounds, Call};
use crate::rows::RowsMut;

/// The left-hand matrix A': `rows` neighbouring floats of every pixel, pixels in lines of equal
/// length.
#[derive(Debug, Clone, Copy)]
pub struct Pixels<'a> {
    /// What is read.
    pub data: &'a [f32],
    /// Rows of A'.
    pub rows: usize,
    /// Floats from a pixel of a line to the next.
    pub step: usize,
    /// Pixels in a line.
    pub count: usize,
    /// Where each line begins in `data`, in units.
    pub lines: &'a [usize],
    /// The unit.
    pub unit: usize,
}

impl Pixels<'_> {
    /// Floats of `data` up to the last one that is read.
    fn extent(&self) -> Option<usize> {
        match (self.lines.iter().max(), self.count.checked_sub(1)) {
            (Some(line), Some(last)) => {
                let line = line.checked_mul(self.unit)?;
                line.checked_add(last.checked_mul(self.step)?)?.checked_add(self.rows)
            }
            _ => Some(0),
        }
    }
}

/// `out += A' B`, where line `l` of `pixels` meets the rows of B from `first[l]` on. Sums are as long
/// as there are pixels: callers keep them short enough for their rounding.
///
/// # Panics
/// If the extents do not fit together.
pub fn add_product(pixels: &Pixels<'_>, b: &PackedRows<'_>, first: &[usize], mut out: RowsMut<'_>) {
    let (height, width) = tile::shape(b.isa());
    let (rows, columns, stride) = (out.count(), out.channels(), out.stride());
    assert_eq!((pixels.rows, pixels.lines.len()), (rows, first.len()), "rows and lines");
    assert!(columns <= b.columns(), "{columns} columns of {}", b.columns());
    let last = first.iter().max().map_or(0, |&row| row.saturating_add(pixels.count));
    assert!(last <= b.rows(), "rows of B up to {last} of {}", b.rows());
    let fits = pixels.extent().is_some_and(|extent| extent <= pixels.data.len());
    assert!(fits, "pixels beyond their data");
    if rows == 0 || columns == 0 || first.is_empty() {
        return;
    }
    let kernels = tile::kernels::<f32>(b.isa());
    let tiles = rows.div_ceil(height);
    let mut row = 0;
    for index in 0..tiles {
        let end = rows * (index + 1) / tiles;
        for column in (0..columns).step_by(width) {
            let panel = b.panel(column / width);
            // SAFETY: the kernels are those of an instruction set that is available. `extent` covers
            // every read of the pixels, `last` every row of the panel, and the output has `end - row`
            // rows of `columns` values from here, of which each is read before it is written.
            unsafe {
                let c = out.as_mut_ptr().add(row * stride + column);
                kernels[end - row](&Call {
                    a: pixels.data.as_ptr().wrapping_add(row),
                    a_stride: 1,
                    a_step: pixels.step,
                    segments: pixels.lines,
                    segment_unit: pixels.unit,
                    depth: pixels.count,
                    b: panel.as_ptr(),
                    b_rows: Some(first),
                    stream: false,
                    onto: true,
                    bias: None,
                    residual: None,
                    bounds: Bounds::NONE,
                    c,
                    c_stride: stride,
                    columns: width.min(columns - column),
                    next: panel.as_ptr().cast(),
                    next_stride: 0,
                });
            }
        }
        row = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::rows::Rows;

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0).collect()
    }

    fn check(isa: Isa, (rows, columns): (usize, usize), (lines, count): (usize, usize)) {
        // Pixels of `rows + 2` floats in lines of `count + 1`, every second pixel in use.
        let (pixel, line) = (rows + 2, 2 * count + 1);
        let data = values(lines * line * pixel, 1);
        let starts: Vec<usize> = (0..lines).map(|l| l * line).collect();
        // Rows of B in another order than the lines, with one unused between them.
        let first: Vec<usize> = (0..lines).rev().map(|l| l * (count + 1)).collect();
        let (b_rows, b_stride) = (lines * (count + 1), columns + 3);
        let b = values(b_rows * b_stride, 2);
        let mut buffer = vec![f32::NAN; PackedRows::len(isa, b_rows, columns)];
        let packed = PackedRows::pack(isa, Rows::new(&b, b_rows, columns, b_stride), &mut buffer);
        let stride = columns + 1;
        let mut out = values(rows * stride, 3);
        let before = out.clone();
        let pixels =
            Pixels { data: &data, rows, step: 2 * pixel, count, lines: &starts, unit: pixel };
        add_product(&pixels, &packed, &first, RowsMut::new(&mut out, rows, columns, stride));
        for r in 0..rows {
            for c in 0..stride {
                let mut sum = f64::from(before[r * stride + c]);
                for (start, first) in starts.iter().zip(&first) {
                    for k in 0..if c < columns { count } else { 0 } {
                        let a = data[start * pixel + k * 2 * pixel + r];
                        sum += f64::from(a) * f64::from(b[(first + k) * b_stride + c]);
                    }
                }
                let got = f64::from(out[r * stride + c]);
                assert!((got - sum).abs() < 1e-4, "{isa:?} {rows} {columns} {lines} {count}");
            }
        }
    }

    #[test]
    fn agrees_with_the_naive_sum_around_every_tile_edge() {
        for isa in Isa::available() {
            let (height, width) = tile::shape(isa);
            for rows in [0, 1, height - 1, height, height + 1, 2 * height + 3] {
                for columns in [0, 1, width - 1, width, width + 1, 2 * width + 3] {
                    for lines in [(0, 5), (1, 0), (1, 1), (1, 70), (5, 7)] {
                        check(isa, (rows, columns), lines);
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "pixels beyond their data")]
    fn lines_beyond_the_data_are_refused() {
        let isa = Isa::active();
        let mut buffer = vec![0.0; PackedRows::len(isa, 4, 1)];
        let packed = PackedRows::pack(isa, Rows::dense(&[0.0; 4], 1), &mut buffer);
        let pixels = Pixels { data: &[0.0; 7], rows: 1, step: 2, count: 4, lines: &[1], unit: 1 };
        add_product(&pixels, &packed, &[0], RowsMut::dense(&mut [0.0], 1));
    }
}
