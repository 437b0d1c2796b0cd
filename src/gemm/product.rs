//! Products of matrices that are multiplied once, such as those of layers in training.
//!
//! The right-hand matrix B is packed a block at a time, and used for all rows while it is in the
//! second-level cache; the left-hand matrix A is read in place, across its rows or along them:
//!
//! ```text
//! for each block of columns (and share of the rows, where there are few blocks):        (one task)
//!     for each part of the sums:
//!         pack the block's part of B
//!         for each tile of MR rows: for each panel: C[tile][panel] += sum of the part
//! ```
//!
//! Only an A whose rows (or columns) compete for one set of the first-level cache is copied, some
//! tiles at a time.

use super::packed::{LONG_SUM, Source};
use super::tile::{self, Bounds, Call};
use super::transpose::transpose;
use crate::isa::Isa;
use crate::memory::Scratch;
use crate::parallel;
use crate::rows::{Rows, RowsMut, Tile, Tiling, conflicting};

/// Panels of B in a block: 256 KiB of a part of the sums with AVX-512.
const PANELS: usize = 4;
/// Tiles of A that are copied at a time.
const TILES: usize = 16;
/// Tasks wanted, so that a few threads finish at about the same time.
const TASKS: usize = 16;
/// Floats between the rows of a copy beyond those that are used.
const GAP: usize = 16;

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
        let needed = match (rows, cols) {
            (0, _) | (_, 0) => 0,
            _ => (rows - 1).saturating_mul(row_stride).saturating_add(cols),
        };
        let got = data.len();
        assert!(
            needed <= got,
            "a {rows} x {cols} matrix with row stride {row_stride} needs {needed} elements, got {got}"
        );
        MatRef { data, rows, cols, row_stride, col_stride: 1 }
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

    /// Writes elements from row `k` and column `j` on into `rows`.
    fn read(&self, isa: Isa, (k, j): (usize, usize), mut rows: RowsMut<'_>) {
        let from = &self.data[k * self.row_stride + j * self.col_stride..];
        let (count, columns) = (rows.count(), rows.channels());
        if self.col_stride == 1 {
            let from = Rows::new(from, count, columns, self.row_stride);
            (0..count).for_each(|i| rows.row_mut(i).copy_from_slice(from.row(i)));
        } else {
            transpose(isa, Rows::new(from, columns, count, self.col_stride), rows);
        }
    }
}

/// `lhs * rhs` as a new row-major matrix.
///
/// # Panics
/// If the shapes do not fit together: shapes are computed by kernels, never by users.
pub fn product(lhs: MatRef<'_>, rhs: MatRef<'_>) -> Vec<f32> {
    let mut result = vec![0.0; lhs.rows * rhs.cols];
    product_into(lhs, rhs, &mut result);
    result
}

/// [`product`] into memory of the caller's.
///
/// # Panics
/// If the shapes do not fit together.
pub fn product_into(lhs: MatRef<'_>, rhs: MatRef<'_>, result: &mut [f32]) {
    assert_eq!(lhs.cols, rhs.rows, "matrix shapes do not fit together");
    assert_eq!(result.len(), lhs.rows * rhs.cols, "elements of the product");
    let isa = Isa::active();
    let out = RowsMut::new(result, lhs.rows, rhs.cols, rhs.cols);
    multiply_once(isa, lhs, &|k, j, rows| rhs.read(isa, (k, j), rows), out);
}

/// `out = lhs * B`, where `source` gives the elements of B.
///
/// # Panics
/// If the shapes do not fit together.
pub fn multiply_once(isa: Isa, lhs: MatRef<'_>, source: &Source<'_>, mut out: RowsMut<'_>) {
    assert_eq!(lhs.rows, out.count(), "matrix shapes do not fit together");
    if out.count() == 0 || out.channels() == 0 {
        return;
    }
    if lhs.cols == 0 {
        return (0..out.count()).for_each(|row| out.row_mut(row).fill(0.0));
    }
    let (height, width) = tile::shape(isa);
    let columns = out.channels();
    // Narrower blocks before shares of the rows, for each of which B is packed anew.
    let blocks = (1..=PANELS).rev().map(|panels| panels * width);
    let block = blocks.clone().find(|&block| columns.div_ceil(block) >= TASKS);
    let block = block.unwrap_or(if lhs.rows > TILES * height { PANELS * width } else { width });
    let shares = match columns.div_ceil(block) {
        blocks if blocks >= TASKS => 1,
        blocks => TASKS.div_ceil(blocks).min(lhs.rows.div_ceil(TILES * height)).max(1),
    };
    let rows = lhs.rows.div_ceil(shares).next_multiple_of(height).max(height);
    let part = lhs.cols.div_ceil(lhs.cols.div_ceil(LONG_SUM));
    let copied = conflicting(lhs.row_stride.max(lhs.col_stride)) && lhs.rows > 1;
    let packed_len = block * part;
    let copy_len = if copied { (TILES * height + GAP) * (part + GAP) } else { 0 };
    parallel::assemble(|| {
        let len = packed_len + copy_len;
        let mut scratch = Scratch::new(len * parallel::workers());
        let tiling = Tiling { group: usize::MAX, rows, channels: block };
        out.for_each_tile_with(tiling, &mut scratch, len, |scratch, tile| {
            let (panels, copy) = scratch.split_at_mut(packed_len);
            let copy = copied.then_some(copy);
            Task { isa, lhs, source, part, panels, copy }.run(tile);
        });
    });
}

/// A block of the result.
struct Task<'a> {
    isa: Isa,
    lhs: MatRef<'a>,
    source: &'a Source<'a>,
    /// Terms that are summed up at a time.
    part: usize,
    panels: &'a mut [f32],
    copy: Option<&'a mut [f32]>,
}

impl Task<'_> {
    fn run(mut self, tile: Tile<'_>) {
        let (height, width) = tile::shape(self.isa);
        let Tile { first_row, first_channel, mut rows } = tile;
        for k in (0..self.lhs.cols).step_by(self.part) {
            let depth = self.part.min(self.lhs.cols - k);
            for (index, panel) in self.panels.chunks_mut(depth * width).enumerate() {
                let column = index * width;
                if column >= rows.channels() {
                    break;
                }
                let count = width.min(rows.channels() - column);
                let panel = RowsMut::new(panel, depth, count, width);
                (self.source)(k, first_channel + column, panel);
            }
            for row in (0..rows.count()).step_by(TILES * height) {
                let count = (TILES * height).min(rows.count() - row);
                let (_, rest) = rows.reborrow().split_rows(row);
                let corner = (first_row + row, k);
                let part = left(self.lhs, self.copy.as_deref_mut(), corner, (count, depth));
                multiply(self.isa, part, self.panels, k > 0, rest.split_rows(count).0);
            }
        }
    }
}

/// Some rows and columns of the left-hand matrix: where they lie, or in `copy`.
fn left<'a>(
    lhs: MatRef<'a>,
    copy: Option<&'a mut [f32]>,
    (i, k): (usize, usize),
    (rows, cols): (usize, usize),
) -> MatRef<'a> {
    let data = &lhs.data[i * lhs.row_stride + k * lhs.col_stride..];
    let Some(copy) = copy else { return MatRef { data, rows, cols, ..lhs } };
    // In the order in which it lies in memory.
    let along = lhs.col_stride == 1;
    let (count, len) = if along { (rows, cols) } else { (cols, rows) };
    let from = Rows::new(data, count, len, lhs.row_stride.max(lhs.col_stride));
    let stride = len + GAP;
    for (i, to) in copy.chunks_exact_mut(stride).take(count).enumerate() {
        to[..len].copy_from_slice(from.row(i));
    }
    let (row_stride, col_stride) = if along { (stride, 1) } else { (1, stride) };
    MatRef { data: copy, rows, cols, row_stride, col_stride }
}

/// `out = lhs * panels`, or `out += ...` with `add`, all of whose columns the panels hold.
fn multiply(isa: Isa, lhs: MatRef<'_>, panels: &[f32], add: bool, mut out: RowsMut<'_>) {
    let (height, width) = tile::shape(isa);
    let (rows, columns, stride) = (out.count(), out.channels(), out.stride());
    let last = (rows - 1) * lhs.row_stride + (lhs.cols - 1) * lhs.col_stride;
    assert!(rows == lhs.rows && last < lhs.data.len(), "a left-hand matrix beyond its data");
    assert!(columns.div_ceil(width) * lhs.cols * width <= panels.len(), "columns of the panels");
    let kernels = tile::kernels::<f32>(isa);
    let tiles = rows.div_ceil(height);
    let mut row = 0;
    for tile in 0..tiles {
        let end = rows * (tile + 1) / tiles;
        for column in (0..columns).step_by(width) {
            let panel = &panels[column * lhs.cols..][..lhs.cols * width];
            // SAFETY: the kernels are those of an instruction set that is available. `last` is the
            // last element of the left-hand matrix, the panel has a row for each of its columns, and
            // the output has `end - row` rows of up to NR values from here, read before written.
            unsafe {
                let c = out.as_mut_ptr().add(row * stride + column);
                kernels[end - row](&Call {
                    a: lhs.data.as_ptr().add(row * lhs.row_stride),
                    a_stride: lhs.row_stride,
                    a_step: lhs.col_stride,
                    segments: &[0],
                    segment_unit: 1,
                    depth: lhs.cols,
                    b: panel.as_ptr(),
                    b_rows: None,
                    stream: false,
                    onto: add,
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

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0).collect()
    }

    fn check(isa: Isa, [m, n, k]: [usize; 3]) {
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
            // Rows with a gap that stays.
            let mut c = vec![7.0; m * (n + 1)];
            let out = RowsMut::new(&mut c, m, n, n + 1);
            multiply_once(isa, lhs, &|k, j, rows| rhs.read(isa, (k, j), rows), out);
            for (i, row) in c.chunks(n + 1).enumerate() {
                for (j, &got) in row[..n].iter().enumerate() {
                    let mut sum = 0.0;
                    for p in 0..k {
                        let x = a[if lhs_t { p * m + i } else { i * k + p }];
                        let y = b[if rhs_t { j * k + p } else { p * n + j }];
                        sum += f64::from(x) * f64::from(y);
                    }
                    assert!((f64::from(got) - sum).abs() < 1e-3, "{m} {n} {k}: {got} != {sum}");
                }
                assert_eq!(row[n], 7.0, "a gap was written");
            }
        }
    }

    #[test]
    fn agrees_with_a_naive_product_for_every_orientation() {
        for isa in Isa::available() {
            let (height, width) = tile::shape(isa);
            let shapes = [
                [1, 1, 1],
                [3, 5, 7],
                [height, width, 16],
                [height + 1, width - 1, 65],
                [2 * height + 3, PANELS * width + 1, 33],
                [1, 100, 30],
                [64, 1, 200],
                // More rows than are copied at a time; sums of several parts.
                [TILES * height + 5, 3, LONG_SUM + 1],
                [5, TASKS * width + 1, 2 * LONG_SUM],
                // Rows that compete for a set of the cache, of A and of A'.
                [19, 5, 1024],
                [1024, 5, 19],
                [0, 3, 2],
                [3, 0, 2],
                [3, 4, 0],
            ];
            shapes.into_iter().for_each(|shape| check(isa, shape));
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let [m, n, k] = [300, 130, 700];
        let (a, b) = (values(m * k, 1), values(k * n, 2));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let (a, b) = (MatRef::new(&a, m, k, k), MatRef::new(&b, k, n, n));
            pool.unwrap().install(|| product(a, b))
        };
        let one = run(1);
        assert!([2, 3, 8].into_iter().all(|threads| one == run(threads)));
    }

    #[test]
    #[should_panic(expected = "elements, got 1")]
    fn extents_that_overflow_do_not_fit() {
        // Twice this stride is 0 to a wrapping multiplication.
        MatRef::new(&[0.0], 3, 1, 1 << (usize::BITS - 1));
    }
}
