//! Weights packed once and multiplied many times.
//!
//! The right-hand matrix B (K rows, N columns) is cut into panels of NR columns, NR being the width
//! of the micro-kernel of the instruction set it is packed for, and each panel is laid out in the
//! order in which the kernel reads it:
//!
//! ```text
//! panel 0: B[0][0..NR] B[1][0..NR] ... B[K-1][0..NR]   panel 1: B[0][NR..2NR] ...
//! ```
//!
//! Columns beyond N are zero. The left-hand matrix is read in place: its rows are pixels of a
//! channels-last image, or of a copy of it with padding around.

use half::{bf16, f16};

use super::tile::{self, Bounds, Call};
use crate::isa::{Element, Isa, finish_streams};
use crate::memory::Scratch;
use crate::parallel;
use crate::rows::{Rows, RowsMut};

/// Terms in a part of a sum where speed counts: 4e-7 of the largest output off in the longest sums of
/// VGG-16, where oneDNN is 3e-7.
pub const LONG_SUM: usize = 512;
/// Terms in a part of a sum where rounding counts; ResNet-50 takes 1 to 6 % longer with it.
pub const SHORT_SUM: usize = 256;

/// How packed weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Storage {
    /// As they are.
    F32,
    /// IEEE half precision: half the memory, relative error up to 2^-11.
    F16,
    /// bfloat16: half the memory, relative error up to 2^-8.
    Bf16,
}

impl Storage {
    /// The name that `weight_storage` takes.
    pub fn name(self) -> &'static str {
        match self {
            Storage::F32 => "f32",
            Storage::F16 => "f16",
            Storage::Bf16 => "bf16",
        }
    }

    /// The largest number it holds.
    pub fn largest(self) -> f32 {
        match self {
            Storage::F32 => f32::MAX,
            Storage::F16 => f16::MAX.to_f32(),
            Storage::Bf16 => bf16::MAX.to_f32(),
        }
    }

    /// A number as it is stored; infinity if it is too large.
    pub fn round(self, x: f32) -> f32 {
        match self {
            Storage::F32 => x,
            Storage::F16 => f16::from_f32(x).to_f32(),
            Storage::Bf16 => bf16::from_f32(x).to_f32(),
        }
    }
}

/// A right-hand matrix in panels.
#[derive(Debug)]
pub struct PackedMatrix {
    isa: Isa,
    depth: usize,
    columns: usize,
    panels: Panels,
    /// Most terms that are summed up one after the other.
    sum: usize,
}

/// Where the elements of a matrix come from: `source(k, j, rows)` writes those in rows `k..` and
/// columns `j..` into `rows`, which are no longer than a panel is wide.
pub type Source<'a> = dyn Fn(usize, usize, RowsMut<'_>) + Sync + 'a;

/// How a matrix is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// For long, in memory of its own.
    Stored(Storage),
    /// For one call, as it is, in memory that the next call has for its own.
    Once,
}

#[derive(Debug)]
enum Panels {
    F32(Vec<f32>),
    Once(Scratch),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

/// A left-hand matrix, read in place: `lines` lines of `rows` rows each. Element `k` of a row lies
/// in segment `k / depth`:
///
/// ```text
/// line * line_stride + row * row_stride + segments[k / depth] * segment_unit + k % depth
/// ```
///
/// A row is an output pixel, a line a row of the image, a segment a tap of the kernel (or the taps
/// of one kernel row, where they are contiguous).
#[derive(Debug, Clone, Copy)]
pub struct Lhs<'a> {
    /// What is read.
    pub data: &'a [f32],
    /// Number of lines.
    pub lines: usize,
    /// Distance of neighbouring lines.
    pub line_stride: usize,
    /// Rows in a line.
    pub rows: usize,
    /// Distance of neighbouring rows.
    pub row_stride: usize,
    /// Where the segments of a row begin, relative to the row, in units.
    pub segments: &'a [usize],
    /// The unit.
    pub segment_unit: usize,
    /// Floats in a segment.
    pub depth: usize,
}

impl<'a> Lhs<'a> {
    /// Rows of a matrix, each one segment.
    pub fn matrix(rows: &Rows<'a>) -> Self {
        Lhs {
            data: rows.as_slice(),
            lines: 1,
            line_stride: 0,
            rows: rows.count(),
            row_stride: rows.stride(),
            segments: &[0],
            segment_unit: 1,
            depth: rows.channels(),
        }
    }

    /// Number of elements from the first one read to the last.
    fn extent(&self) -> Option<usize> {
        if self.depth == 0 {
            return Some(0);
        }
        let last =
            self.segments.iter().max().map_or(Some(0), |&s| s.checked_mul(self.segment_unit));
        let rows = self.rows.checked_sub(1)?.checked_mul(self.row_stride)?;
        let lines = self.lines.checked_sub(1)?.checked_mul(self.line_stride)?;
        lines.checked_add(rows)?.checked_add(last?)?.checked_add(self.depth)
    }
}

/// What is done to the sums before they are stored.
#[derive(Debug, Clone, Copy)]
pub struct Finish<'a> {
    /// Added to the sums: one a column of the matrix, padded with anything to a multiple of NR.
    pub bias: Option<&'a [f32]>,
    /// Added to the sums, too; as many rows and columns as are computed.
    pub residual: Option<Rows<'a>>,
    /// Range into which results are clamped last; NaN stays NaN.
    pub bounds: Bounds,
    /// Whether results are written past the caches, where memory allows it: those of a layer that
    /// [outgrow them](RowsMut::outgrow_caches).
    pub stream: bool,
}

impl PackedMatrix {
    /// Packs a matrix of `depth` rows and `columns` columns.
    pub fn pack(
        isa: Isa,
        (depth, columns): (usize, usize),
        keep: Keep,
        source: &Source<'_>,
    ) -> Self {
        let shape = (depth, columns);
        let panels = match keep {
            Keep::Stored(Storage::F16) => Panels::F16(rounded_panels(isa, shape, source)),
            Keep::Stored(Storage::Bf16) => Panels::Bf16(rounded_panels(isa, shape, source)),
            _ => {
                let once = keep == Keep::Once;
                return Self::pack_panels(isa, shape, once, &|j, panel| source(0, j, panel));
            }
        };
        PackedMatrix { isa, depth, columns, panels, sum: LONG_SUM }
    }

    /// [`pack`](Self::pack) for elements that cannot be had row by row: `write(j, rows)` writes all
    /// rows of columns `j..`, those of one panel.
    pub fn pack_panels(
        isa: Isa,
        (depth, columns): (usize, usize),
        once: bool,
        write: &(dyn Fn(usize, RowsMut<'_>) + Sync),
    ) -> Self {
        let width = tile::shape(isa).1;
        let len = columns.div_ceil(width) * depth * width;
        let fill = |panels: &mut [f32]| {
            parallel::for_each_chunk(panels, (depth * width).max(1), |index, panel| {
                let first = index * width;
                let count = width.min(columns - first);
                if count < width {
                    panel.fill(0.0);
                }
                write(first, RowsMut::new(panel, depth, count, width));
            });
        };
        let panels = match once {
            true => {
                let mut panels = Scratch::new(len);
                fill(&mut panels);
                Panels::Once(panels)
            }
            false => {
                let mut panels = vec![0.0; len];
                fill(&mut panels);
                Panels::F32(panels)
            }
        };
        PackedMatrix { isa, depth, columns, panels, sum: LONG_SUM }
    }

    /// The matrix with sums made of parts of at most `terms` terms: short parts round less and take
    /// a little longer.
    pub fn with_parts_of(self, terms: usize) -> Self {
        assert!(terms > 0, "parts of no terms");
        PackedMatrix { sum: terms, ..self }
    }

    /// Number of rows, K.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Number of columns, N.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Rows (MR) and columns (NR) of the micro-kernel's tile.
    pub fn tile(&self) -> (usize, usize) {
        tile::shape(self.isa)
    }

    /// Bytes of the panels.
    pub fn bytes(&self) -> usize {
        match &self.panels {
            Panels::F32(panels) => size_of_val(&panels[..]),
            Panels::Once(panels) => size_of_val(&panels[..]),
            Panels::F16(panels) => size_of_val(&panels[..]),
            Panels::Bf16(panels) => size_of_val(&panels[..]),
        }
    }

    /// Element in row `k`, column `j`, as it is stored.
    pub fn get(&self, k: usize, j: usize) -> f32 {
        assert!(k < self.depth && j < self.columns, "element ({k}, {j})");
        let width = self.tile().1;
        let at = (j / width * self.depth + k) * width + j % width;
        match &self.panels {
            Panels::F32(panels) => panels[at],
            Panels::Once(panels) => panels[at],
            Panels::F16(panels) => panels[at].to_f32(),
            Panels::Bf16(panels) => panels[at].to_f32(),
        }
    }

    /// `out = finish(lhs * B[first_row.., first_column..])`, as many rows of B as `lhs` has columns
    /// and as many columns as `out` has, on this thread. Panels of B form the outer loop: each
    /// stays in the cache for all rows of `lhs`.
    ///
    /// # Panics
    /// If the extents do not fit together or `first_column` is not a multiple of NR.
    pub fn multiply(
        &self,
        lhs: &Lhs<'_>,
        (first_row, first_column): (usize, usize),
        out: RowsMut<'_>,
        finish: Finish<'_>,
    ) {
        let corner = (first_row, first_column);
        match &self.panels {
            Panels::F32(panels) => self.multiply_panels(&panels[..], lhs, corner, out, finish),
            Panels::Once(panels) => self.multiply_panels(&panels[..], lhs, corner, out, finish),
            Panels::F16(panels) => self.multiply_panels(panels, lhs, corner, out, finish),
            Panels::Bf16(panels) => self.multiply_panels(panels, lhs, corner, out, finish),
        }
    }

    fn multiply_panels<E: Element>(
        &self,
        panels: &[E],
        lhs: &Lhs<'_>,
        (first_row, first_column): (usize, usize),
        mut out: RowsMut<'_>,
        finish: Finish<'_>,
    ) {
        let (height, width) = self.tile();
        let (rows, columns, stride) = (out.count(), out.channels(), out.stride());
        assert_eq!(lhs.lines * lhs.rows, rows, "rows of the left-hand matrix");
        let depth = lhs.segments.len() * lhs.depth;
        assert!(first_row + depth <= self.depth, "rows {first_row} + {depth} of {}", self.depth);
        assert!(first_column.is_multiple_of(width), "columns from {first_column}");
        assert!(first_column + columns <= self.columns, "{first_column} + {columns} columns");
        let padded = columns.next_multiple_of(width);
        assert!(finish.bias.is_none_or(|bias| first_column + padded <= bias.len()), "bias");
        let fits = |r: &Rows<'_>| r.count() == rows && r.channels() == columns;
        assert!(finish.residual.as_ref().is_none_or(fits), "extents of the residual");
        if rows == 0 || columns == 0 {
            return;
        }
        let fits = lhs.extent().is_some_and(|extent| extent <= lhs.data.len());
        assert!(fits, "a left-hand matrix beyond its data");

        let stream = finish.stream && out.are_on_lines();
        let kernels = tile::kernels::<E>(self.isa);
        let tiles = lhs.rows.div_ceil(height);
        let panel_len = self.depth * width;
        for column in (0..columns).step_by(width) {
            let panel = &panels[(first_column + column) / width * panel_len..][..panel_len]
                [first_row * width..][..depth * width];
            let count = width.min(columns - column);
            for line in 0..lhs.lines {
                let mut row = 0;
                for tile in 0..tiles {
                    // Tiles of nearly equal height: 16 rows are 8 + 8, not 14 + 2.
                    let end = lhs.rows * (tile + 1) / tiles;
                    let at = line * lhs.rows + row;
                    let residual =
                        finish.residual.map(|r| r.rows(at, end - row).columns(column, count));
                    let (ahead, stride_ahead) = fetch::<E>(
                        (line * tiles + tile, lhs.lines * tiles),
                        panel_len,
                        depth * width,
                    );
                    // SAFETY: `isa` is available, since `kernels` found it. `extent` above covers
                    // every read of the left-hand matrix, the panel has `depth * NR` elements, the
                    // bias covers `padded` columns, residual and output have `end - row` rows of
                    // `count` values from here, asserted above. Streams are finished below, before
                    // the exclusive borrow of the output ends.
                    unsafe {
                        let call = Call {
                            a: lhs
                                .data
                                .as_ptr()
                                .wrapping_add(line * lhs.line_stride + row * lhs.row_stride),
                            a_stride: lhs.row_stride,
                            a_step: 1,
                            segments: lhs.segments,
                            segment_unit: lhs.segment_unit,
                            depth: lhs.depth,
                            b: panel.as_ptr(),
                            b_rows: None,
                            stream,
                            onto: false,
                            bias: finish.bias.map(|bias| bias.as_ptr().add(first_column + column)),
                            residual: residual.map(|r| (r.as_slice().as_ptr(), r.stride())),
                            bounds: finish.bounds,
                            c: out.as_mut_ptr().add(at * stride + column),
                            c_stride: stride,
                            columns: count,
                            next: panel.as_ptr().wrapping_add(ahead).cast(),
                            next_stride: stride_ahead,
                        };
                        tile::sum_in_parts(kernels[end - row], &call, width, self.sum);
                    }
                    row = end;
                }
            }
        }
        if stream {
            finish_streams();
        }
    }
}

/// A block of rows packed for one use, in memory of the caller's: panels as a [`PackedMatrix`] has
/// them.
#[derive(Debug)]
pub struct PackedRows<'a> {
    isa: Isa,
    rows: usize,
    columns: usize,
    panels: &'a [f32],
    /// Floats from a panel to the next.
    stride: usize,
}

impl<'a> PackedRows<'a> {
    /// Panels that somebody else has written, `stride` floats apart.
    pub fn from_panels(
        isa: Isa,
        (rows, columns): (usize, usize),
        panels: &'a [f32],
        stride: usize,
    ) -> Self {
        PackedRows { isa, rows, columns, panels, stride }
    }

    /// Floats of memory that it takes.
    pub fn len(isa: Isa, rows: usize, columns: usize) -> usize {
        columns.next_multiple_of(tile::shape(isa).1) * rows
    }

    /// Copies `rows` into `buffer`, which holds [`len`](Self::len) floats at least.
    pub fn pack(isa: Isa, rows: Rows<'_>, buffer: &'a mut [f32]) -> Self {
        let (count, columns, width) = (rows.count(), rows.channels(), tile::shape(isa).1);
        let panels = &mut buffer[..Self::len(isa, count, columns)];
        if count > 0 {
            for (panel, first) in panels.chunks_exact_mut(count * width).zip((0..).step_by(width)) {
                let part = rows.columns(first, width.min(columns - first));
                for (to, index) in panel.chunks_exact_mut(width).zip(0..) {
                    let (values, rest) = to.split_at_mut(part.channels());
                    values.copy_from_slice(part.row(index));
                    rest.fill(0.0);
                }
            }
        }
        PackedRows { isa, rows: count, columns, panels, stride: count * width }
    }

    /// What it is packed for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Panel `index`: a row of NR floats for each row.
    pub fn panel(&self, index: usize) -> &[f32] {
        let len = self.rows * tile::shape(self.isa).1;
        &self.panels[index * self.stride..][..len]
    }
}

/// Which weights a tile asks for while it is computed: distance in elements from the panel's start,
/// and in bytes between the cache lines, one for each step of the sum.
///
/// Weights come from memory at a steady rate, but the first tile of a panel wants all of it at
/// once and the others none. So the first two tiles fetch half of the next panel each. With one tile
/// alone there is nothing to even out, but memory still delivers a tenth more if it is asked a
/// kilobyte ahead; every other line will do, since lines are fetched in pairs.
fn fetch<E>((tile, tiles): (usize, usize), panel_len: usize, used: usize) -> (usize, usize) {
    match (tile, tiles) {
        (_, 1) => (1024 / size_of::<E>(), 128),
        _ if used * size_of::<E>() > FETCHED_PANEL => (0, 0),
        (0, _) => (panel_len, 64),
        (1, _) => (panel_len + used / 2, 64),
        _ => (0, 0),
    }
}

/// Panels up to this many bytes are fetched ahead into the second-level cache, which holds one being
/// used, one being fetched and the rows they are multiplied with.
const FETCHED_PANEL: usize = 256 * 1024;

/// Panels of a type with less precision.
fn rounded_panels<E: Element>(
    isa: Isa,
    (depth, columns): (usize, usize),
    source: &Source<'_>,
) -> Vec<E> {
    /// Rows that are rounded at a time.
    const ROWS: usize = 64;
    let width = tile::shape(isa).1;
    let mut panels = vec![E::default(); columns.div_ceil(width) * depth * width];
    // (No loop of rayon's: a plan that has to pack while it runs does so on a thread outside our pool,
    // from where rayon would start its own.)
    parallel::for_each_chunk(&mut panels, (depth * width).max(1), |index, panel| {
        let first = index * width;
        let mut values = vec![0.0; ROWS * width];
        for (block, rows) in panel.chunks_mut(ROWS * width).enumerate() {
            let values = &mut values[..rows.len()];
            let count = width.min(columns - first);
            source(block * ROWS, first, RowsMut::new(values, rows.len() / width, count, width));
            for (element, &value) in rows.iter_mut().zip(&*values) {
                *element = E::from_f32(value);
            }
        }
    });
    panels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0).collect()
    }

    const F32: Keep = Keep::Stored(Storage::F32);

    /// Sizes around every edge of a tile of `n`.
    fn around(n: usize) -> [usize; 6] {
        [0, 1, n - 1, n, n + 1, 2 * n + 3]
    }

    fn check(isa: Isa, keep: Keep, (rows, depth, columns): (usize, usize, usize)) {
        let a_stride = depth + 3;
        let (a, b) = (values(rows * a_stride, 1), values(depth * columns, 2));
        let packed = PackedMatrix::pack(isa, (depth, columns), keep, &|k, j, rows| {
            rows.for_each_row(|i, row| {
                row.copy_from_slice(&b[(k + i) * columns + j..][..row.len()]);
            });
        });
        let width = packed.tile().1;
        let bias = values(columns.next_multiple_of(width), 3);
        let residual = values(rows * columns, 4);
        let none = f32::NEG_INFINITY;
        let cases =
            [(false, none, false), (true, -0.25, false), (false, none, true), (true, -0.25, true)];
        for (finished, low, stream) in cases {
            let finish = Finish {
                bias: finished.then_some(&bias[..]),
                residual: finished.then(|| Rows::new(&residual, rows, columns, columns)),
                bounds: Bounds { low, high: f32::INFINITY },
                stream,
            };
            // A line more, so that there is a stride and a place that allow streams.
            let c_stride = if stream { (columns + 2).next_multiple_of(16) } else { columns + 2 };
            let mut c = vec![9.0; rows * c_stride + 16];
            let start = if stream { c.as_ptr().align_offset(64) } else { 0 };
            let c = &mut c[start..][..rows * c_stride];
            let lhs = Lhs::matrix(&Rows::new(&a, rows, depth, a_stride));
            let out = RowsMut::new(c, rows, columns, c_stride);
            packed.multiply(&lhs, (0, 0), out, finish);
            for i in 0..rows {
                for j in 0..c_stride {
                    let got = c[i * c_stride + j];
                    if j >= columns {
                        assert_eq!(got, 9.0, "a gap was written");
                        continue;
                    }
                    let mut sum = 0.0;
                    for k in 0..depth {
                        sum += f64::from(a[i * a_stride + k]) * f64::from(packed.get(k, j));
                    }
                    if finished {
                        sum += f64::from(bias[j]) + f64::from(residual[i * columns + j]);
                    }
                    let expected = sum.max(f64::from(low));
                    let close = (f64::from(got) - expected).abs() < 1e-5 * (1.0 + depth as f64);
                    assert!(close, "{isa:?} {rows} {depth} {columns}: {got}, {expected}");
                }
            }
        }
    }

    #[test]
    fn agrees_with_the_naive_product_around_every_tile_edge() {
        for isa in Isa::available() {
            let (height, width) = tile::shape(isa);
            for rows in around(height) {
                for columns in around(width) {
                    for depth in [1, 5, 600] {
                        check(isa, F32, (rows, depth, columns));
                    }
                }
            }
            // Sums of one part, of several, and of parts that are not even.
            for depth in [511, 512, 513, 1024, 1600] {
                check(isa, F32, (height, depth, width));
            }
            // Every number of rows a micro-kernel has, and an empty sum.
            (1..=height).for_each(|rows| check(isa, F32, (rows, 7, width)));
            check(isa, F32, (3, 0, width + 1));
            check(isa, Keep::Once, (height + 1, 30, width + 1));
            for storage in [Storage::F16, Storage::Bf16] {
                check(isa, Keep::Stored(storage), (height + 1, 90, width + 1));
            }
        }
    }

    #[test]
    fn stored_values_are_rounded_to_the_nearest() {
        let pack = |storage| {
            let source = |_: usize, _: usize, rows: RowsMut<'_>| {
                rows.for_each_row(|_, row| row.fill(1.003));
            };
            PackedMatrix::pack(Isa::Scalar, (1, 1), Keep::Stored(storage), &source)
        };
        assert_eq!(pack(Storage::F32).get(0, 0), 1.003);
        assert_eq!(pack(Storage::F16).get(0, 0), half::f16::from_f32(1.003).to_f32());
        assert_eq!(pack(Storage::Bf16).get(0, 0), half::bf16::from_f32(1.003).to_f32());
        assert!(pack(Storage::F16).bytes() * 2 == pack(Storage::F32).bytes());
    }

    #[test]
    fn nan_and_infinity_come_through() {
        for isa in Isa::available() {
            let packed = PackedMatrix::pack(isa, (1, 3), F32, &|_, _, rows| {
                rows.for_each_row(|_, row| row.copy_from_slice(&[1.0, -1.0, 0.0]));
            });
            let run = |x: f32| {
                let mut c = [0.0; 3];
                packed.multiply(
                    &Lhs::matrix(&Rows::dense(&[x], 1)),
                    (0, 0),
                    RowsMut::dense(&mut c, 3),
                    Finish {
                        bias: None,
                        residual: None,
                        bounds: Bounds { low: 0.0, high: 6.0 },
                        stream: false,
                    },
                );
                c
            };
            assert!(run(f32::NAN).iter().all(|c| c.is_nan()));
            let [high, low, nan] = run(f32::INFINITY);
            assert!(high == 6.0 && low == 0.0 && nan.is_nan());
        }
    }
}
