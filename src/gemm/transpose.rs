//! Turning a matrix around: squares of vectors in registers.

use crate::isa::{Isa, Kernel, Simd, dispatch};
use crate::rows::{Rows, RowsMut};

/// `to[j][i] = from[i][j]`.
///
/// # Panics
/// If the extents do not fit together.
pub fn transpose(isa: Isa, from: Rows<'_>, to: RowsMut<'_>) {
    dispatch(isa, Transpose { from, to });
}

struct Transpose<'a> {
    from: Rows<'a>,
    to: RowsMut<'a>,
}

impl Kernel for Transpose<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let (rows, columns) = (self.from.count(), self.from.channels());
        assert_eq!((columns, rows), (self.to.count(), self.to.channels()), "extents");
        let (from, from_stride) = (self.from.as_slice(), self.from.stride());
        let (to, to_stride) = (self.to.as_mut_ptr(), self.to.stride());
        let (full_rows, full_columns) = (rows / S::LANES * S::LANES, columns / S::LANES * S::LANES);
        for i in (0..full_rows).step_by(S::LANES) {
            for j in (0..full_columns).step_by(S::LANES) {
                // SAFETY: LANES rows of `from` from `i` on have LANES floats from `j` on, and as many
                // of `to`, which is borrowed exclusively, the other way round.
                unsafe {
                    let from = (from.as_ptr().add(i * from_stride + j), from_stride);
                    simd.transpose(from, (to.add(j * to_stride + i), to_stride));
                }
            }
        }
        for j in 0..columns {
            let first = if j < full_columns { full_rows } else { 0 };
            let line = self.to.row_mut(j);
            for i in first..rows {
                line[i] = from[i * from_stride + j];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_changes_row_and_column_and_gaps_stay() {
        for isa in Isa::available() {
            for rows in [0, 1, 4, 7, 8, 16, 17, 35] {
                for columns in [0, 1, 3, 8, 15, 16, 33] {
                    let (from_stride, to_stride) = (columns + 1, rows + 2);
                    let from: Vec<f32> = (0..rows * from_stride).map(|i| i as f32).collect();
                    let mut to = vec![-1.0; columns * to_stride];
                    transpose(
                        isa,
                        Rows::new(&from, rows, columns, from_stride),
                        RowsMut::new(&mut to, columns, rows, to_stride),
                    );
                    for (index, &value) in to.iter().enumerate() {
                        let (j, i) = (index / to_stride, index % to_stride);
                        let expected = if i < rows { from[i * from_stride + j] } else { -1.0 };
                        assert_eq!(value, expected, "{isa:?} {rows} x {columns}");
                    }
                }
            }
        }
    }
}
