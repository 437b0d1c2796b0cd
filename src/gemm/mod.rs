//! Matrix products of float32 matrices.
//!
//! | file | what it holds |
//! |---|---|
//! | `tile` | the micro-kernels: one tile of a product in registers, for each instruction set |
//! | `packed` | weights packed for them once and multiplied many times |
//! | `transposed` | sums over pixels, where the left-hand matrix is read across its rows |
//! | this one | everything else: a safe face for the gemm crate, which packs on the fly |
//!
//! `gemm::gemm` takes raw pointers and two strides per operand; [`MatRef`] and [`RowsMut`] carry a
//! slice with those strides and prove that every element they can address lies inside it. The
//! product itself always runs on the calling thread: callers split the *output* into blocks whose
//! size depends on the geometry alone and hand each block to one task, so the order of every sum,
//! and with it every bit of the result, is the same for any number of threads.

mod packed;
mod tile;
mod transposed;

pub use packed::{Finish, LONG_SUM, Lhs, PackedMatrix, PackedRows, SHORT_SUM, Source, Storage};
pub use tile::{Bounds, measure_peak, name as kernel_name, shape as tile_shape};
pub use transposed::{Pixels, add_product};

use crate::rows::{RowsMut, Tiling};

/// Rows and columns of the output tile that one task of [`product`] computes.
const TILE: usize = 256;

/// A read-only matrix: `rows x cols` elements of `data`, element `(i, j)` at
/// `i * row_stride + j * col_stride`.
#[derive(Clone, Copy)]
pub struct MatRef<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> MatRef<'a> {
    /// A row-major matrix whose rows start `row_stride` elements apart.
    pub fn new(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert_fits(data.len(), rows, cols, row_stride);
        MatRef { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// `count` rows from `first` on.
    fn rows(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.rows, "rows beyond the matrix");
        MatRef {
            data: &self.data[(first * self.row_stride).min(self.data.len())..],
            rows: count,
            ..self
        }
    }

    /// The transposed matrix, over the same elements.
    pub fn t(self) -> Self {
        MatRef {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }
}

fn assert_fits(len: usize, rows: usize, cols: usize, row_stride: usize) {
    let needed = match (rows, cols) {
        (0, _) | (_, 0) => 0,
        _ => (rows - 1).saturating_mul(row_stride).saturating_add(cols),
    };
    assert!(
        needed <= len,
        "a {rows} x {cols} matrix with row stride {row_stride} needs {needed} elements, got {len}"
    );
}

/// `dst = lhs * rhs`, or `dst += lhs * rhs` with `accumulate`, on the calling thread.
///
/// # Panics
/// If the three shapes do not fit together: shapes are computed by kernels, never by users.
pub fn gemm(mut dst: RowsMut<'_>, accumulate: bool, lhs: MatRef<'_>, rhs: MatRef<'_>) {
    assert_eq!(
        (dst.count(), dst.channels(), lhs.cols),
        (lhs.rows, rhs.cols, rhs.rows),
        "matrix shapes do not fit together"
    );
    let (m, n, k) = (dst.count(), dst.channels(), lhs.cols);
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !accumulate {
            (0..m).for_each(|row| dst.row_mut(row).fill(0.0));
        }
        return;
    }
    // SAFETY: `MatRef::new`, `MatRef::t` and `RowsMut` established that every element
    // addressed by these extents and strides lies inside its slice; `dst` is borrowed exclusively,
    // so it overlaps neither operand; strides fit `isize` because slices do.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            dst.stride() as isize,
            accumulate,
            lhs.data.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// `lhs * rhs` as a new row-major matrix, its tiles spread over the threads of [`parallel::for_each`](crate::parallel::for_each).
///
/// # Panics
/// If the shapes do not fit together.
pub fn product(lhs: MatRef<'_>, rhs: MatRef<'_>) -> Vec<f32> {
    let (rows, cols) = (lhs.rows, rhs.cols);
    let mut result = vec![0.0; rows * cols];
    let tiling = Tiling { group: usize::MAX, rows: TILE, channels: TILE };
    RowsMut::new(&mut result, rows, cols, cols).for_each_tile(tiling, |tile| {
        let (count, width) = (tile.rows.count(), tile.rows.channels());
        let lhs = lhs.rows(tile.first_row, count);
        gemm(tile.rows, false, lhs, rhs.t().rows(tile.first_channel, width).t());
    });
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_of_several_tiles_agrees_with_one_call() {
        let (m, n, k) = (TILE + 3, 2 * TILE + 1, 5);
        let (a, b) = (values(m * k, 1), values(k * n, 2));
        let (lhs, rhs) = (MatRef::new(&a, m, k, k), MatRef::new(&b, k, n, n));
        let mut whole = vec![0.0; m * n];
        gemm(RowsMut::new(&mut whole, m, n, n), false, lhs, rhs);
        let tiled = product(lhs, rhs);
        assert!(whole.iter().zip(&tiled).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0).collect()
    }

    #[test]
    fn agrees_with_a_naive_product_for_every_orientation() {
        for (m, n, k) in
            [(1, 1, 1), (3, 5, 7), (16, 16, 16), (17, 33, 65), (64, 1, 200), (1, 100, 30)]
        {
            let (a, b) = (values(m * k, 1), values(k * n, 2));
            for (lhs_t, rhs_t) in [(false, false), (true, false), (false, true), (true, true)] {
                // Stored transposed, read through `t()`: the same elements in another order.
                let lhs = match lhs_t {
                    false => MatRef::new(&a, m, k, k),
                    true => MatRef::new(&a, k, m, m).t(),
                };
                let rhs = match rhs_t {
                    false => MatRef::new(&b, k, n, n),
                    true => MatRef::new(&b, n, k, k).t(),
                };
                let start = values(m * n, 3);
                for accumulate in [false, true] {
                    let mut c = start.clone();
                    gemm(RowsMut::new(&mut c, m, n, n), accumulate, lhs, rhs);
                    for i in 0..m {
                        for j in 0..n {
                            let mut sum =
                                if accumulate { f64::from(start[i * n + j]) } else { 0.0 };
                            for p in 0..k {
                                let x = a[if lhs_t { p * m + i } else { i * k + p }];
                                let y = b[if rhs_t { j * k + p } else { p * n + j }];
                                sum += f64::from(x) * f64::from(y);
                            }
                            let got = f64::from(c[i * n + j]);
                            assert!((got - sum).abs() < 1e-4, "{m} {n} {k}: {got} != {sum}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "elements, got 1")]
    fn extents_that_overflow_do_not_fit() {
        // Twice this stride is 0 to a wrapping multiplication.
        MatRef::new(&[0.0], 3, 1, 1 << (usize::BITS - 1));
    }

    #[test]
    fn an_empty_sum_is_zero_and_row_gaps_stay_untouched() {
        let mut c = vec![7.0; 5];
        gemm(
            RowsMut::new(&mut c, 2, 2, 3),
            false,
            MatRef::new(&[], 2, 0, 0),
            MatRef::new(&[], 0, 2, 2),
        );
        assert_eq!(c, [0.0, 0.0, 7.0, 0.0, 0.0]);
    }
}
