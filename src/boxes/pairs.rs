//! Matrices over all pairs of two lists of boxes: IoU and what grew out of it.
//!
//! ```text
//! tasks:  some rows of the matrix (boxes of a), as many as make up a fair share of work
//!   for a block of b that fits into the first-level cache, as one array a side
//!     for a row of the task
//!       for a box of the block                      <- vectors run along here
//!         one value, written once
//! ```
//!
//! A value takes about ten vector operations and a division, so a large matrix costs what it costs
//! to write it. What depends on one box alone (area, slant) is computed once a box.

use super::{BBox, Scalar, check_length};
use crate::isa::{Isa, Kernel, Simd, dispatch};
use crate::memory::result_len;
use crate::{Error, Result, parallel};

/// Boxes of a block: six columns of `f32` take 24 KiB.
const BLOCK: usize = 1024;
/// Values up to which waking a second thread costs more than it saves.
const SERIAL: usize = 1 << 16;
/// Values of a task: enough to outweigh drawing it, few enough to share the work.
const TASK: usize = 1 << 17;

/// How four numbers describe a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Smallest corner, largest corner.
    Corners,
    /// Smallest corner, extents.
    CornerSize,
    /// Centre, extents.
    CentreSize,
}

/// What is computed of a pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pairwise {
    /// Intersection over union as chainercv computes it: the product of the extents, times 0 unless
    /// both are positive. It is NaN where an extent is minus infinity.
    MaskedIou,
    /// Intersection over union as torchvision computes it: negative extents count as 0.
    Iou,
    /// IoU less the part of the enclosing box that the union leaves empty.
    GeneralizedIou,
    /// IoU less the squared distance of the centres over the enclosing box's squared diagonal, to
    /// which the number is added.
    DistanceIou(f64),
    /// The former less a penalty for different aspect ratios. The same number keeps the penalty's
    /// weight from 0 / 0.
    CompleteIou(f64),
}

/// One box as the formulas want it.
#[derive(Clone, Copy)]
struct Side<T> {
    min_0: T,
    min_1: T,
    max_0: T,
    max_1: T,
    /// NaN if a corner is.
    area: T,
    /// `atan(extent_0 / extent_1)`, where it is needed.
    slant: T,
}

impl<T: Scalar> Side<T> {
    fn new(b: &BBox<T>, format: Format, slanted: bool) -> Self {
        let corners @ [min_0, min_1, max_0, max_1] = corners(b, format);
        let slant = if slanted { ((max_0 - min_0) / (max_1 - min_1)).atan() } else { T::ZERO };
        let spoiled = corners.iter().any(|x| x.is_nan());
        let area = if spoiled { T::from_f64(f64::NAN) } else { area(b, format) };
        Side { min_0, min_1, max_0, max_1, area, slant }
    }
}

/// The corners of a box.
fn corners<T: Scalar>(b: &BBox<T>, format: Format) -> BBox<T> {
    let (half_0, half_1) = (T::HALF * b[2], T::HALF * b[3]);
    match format {
        Format::Corners => *b,
        Format::CornerSize => [b[0], b[1], b[0] + b[2], b[1] + b[3]],
        Format::CentreSize => [b[0] - half_0, b[1] - half_1, b[0] + half_0, b[1] + half_1],
    }
}

/// Product of the extents, whatever their signs.
fn area<T: Scalar>(b: &BBox<T>, format: Format) -> T {
    match format {
        Format::Corners => (b[2] - b[0]) * (b[3] - b[1]),
        Format::CornerSize | Format::CentreSize => b[2] * b[3],
    }
}

/// Boxes that take about 10 microseconds to find their areas.
const GRAIN: usize = 1 << 13;

/// Writes the [`area`] of each box.
pub fn areas<T: Scalar>(boxes: &[BBox<T>], format: Format, areas: &mut [T]) -> Result<()> {
    check_length("areas", areas.len(), boxes.len())?;
    parallel::fill(areas, GRAIN, |row, out| *out = area(&boxes[row], format))
}

/// Boxes as a structure of arrays, so that one box meets many in vector registers.
struct Columns<T>([Vec<T>; 6]);

impl<T: Scalar> Columns<T> {
    fn new(boxes: &[BBox<T>], format: Format, slanted: bool) -> Self {
        let mut columns = [(); 6].map(|()| Vec::with_capacity(boxes.len()));
        for b in boxes {
            let Side { min_0, min_1, max_0, max_1, area, slant } = Side::new(b, format, slanted);
            let values = [min_0, min_1, max_0, max_1, area, slant];
            columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
        }
        Columns(columns)
    }
}

/// A value for each pair. `larger` and `smaller` may drop a corner's NaN: it reaches every result
/// through the area.
trait Formula<T>: Copy + Sync {
    fn value(self, a: Side<T>, b: Side<T>) -> T;
}

#[inline(always)]
fn larger<T: Scalar>(x: T, y: T) -> T {
    if x > y { x } else { y }
}

#[inline(always)]
fn smaller<T: Scalar>(x: T, y: T) -> T {
    if x < y { x } else { y }
}

/// `x`, or 0 if it is negative; NaN stays NaN.
#[inline(always)]
fn positive<T: Scalar>(x: T) -> T {
    if x < T::ZERO { T::ZERO } else { x }
}

/// Extents of the intersection, negative where there is a gap.
#[inline(always)]
fn common<T: Scalar>(a: Side<T>, b: Side<T>) -> (T, T) {
    (
        smaller(a.max_0, b.max_0) - larger(a.min_0, b.min_0),
        smaller(a.max_1, b.max_1) - larger(a.min_1, b.min_1),
    )
}

/// Extents of the smallest box around both.
#[inline(always)]
fn hull<T: Scalar>(a: Side<T>, b: Side<T>) -> (T, T) {
    (
        positive(larger(a.max_0, b.max_0) - smaller(a.min_0, b.min_0)),
        positive(larger(a.max_1, b.max_1) - smaller(a.min_1, b.min_1)),
    )
}

#[derive(Clone, Copy)]
struct MaskedIou;

impl<T: Scalar> Formula<T> for MaskedIou {
    #[inline(always)]
    fn value(self, a: Side<T>, b: Side<T>) -> T {
        let (h, w) = common(a, b);
        let both = if (h > T::ZERO) & (w > T::ZERO) { T::ONE } else { T::ZERO };
        let intersection = h * w * both;
        intersection / (a.area + b.area - intersection)
    }
}

/// Intersection and union with negative extents as 0.
#[inline(always)]
fn inter_union<T: Scalar>(a: Side<T>, b: Side<T>) -> (T, T) {
    let (h, w) = common(a, b);
    let intersection = positive(h) * positive(w);
    (intersection, a.area + b.area - intersection)
}

#[derive(Clone, Copy)]
struct Iou;

impl<T: Scalar> Formula<T> for Iou {
    #[inline(always)]
    fn value(self, a: Side<T>, b: Side<T>) -> T {
        let (intersection, union) = inter_union(a, b);
        intersection / union
    }
}

#[derive(Clone, Copy)]
struct GeneralizedIou;

impl<T: Scalar> Formula<T> for GeneralizedIou {
    #[inline(always)]
    fn value(self, a: Side<T>, b: Side<T>) -> T {
        let (intersection, union) = inter_union(a, b);
        let (h, w) = hull(a, b);
        intersection / union - (h * w - union) / (h * w)
    }
}

#[derive(Clone, Copy)]
struct DistanceIou<T>(T);

impl<T: Scalar> Formula<T> for DistanceIou<T> {
    #[inline(always)]
    fn value(self, a: Side<T>, b: Side<T>) -> T {
        let (intersection, union) = inter_union(a, b);
        let (h, w) = hull(a, b);
        let d_0 = T::HALF * (a.min_0 + a.max_0) - T::HALF * (b.min_0 + b.max_0);
        let d_1 = T::HALF * (a.min_1 + a.max_1) - T::HALF * (b.min_1 + b.max_1);
        intersection / union - (d_0 * d_0 + d_1 * d_1) / (h * h + w * w + self.0)
    }
}

#[derive(Clone, Copy)]
struct CompleteIou<T> {
    eps: T,
    /// `4 / pi^2`
    factor: T,
}

impl<T: Scalar> Formula<T> for CompleteIou<T> {
    #[inline(always)]
    fn value(self, a: Side<T>, b: Side<T>) -> T {
        let (intersection, union) = inter_union(a, b);
        let v = self.factor * ((a.slant - b.slant) * (a.slant - b.slant));
        let alpha = v / (T::ONE - intersection / union + v + self.eps);
        DistanceIou(self.eps).value(a, b) - alpha * v
    }
}

/// Some rows of the matrix.
struct Rows<'a, T, F> {
    formula: F,
    boxes: &'a [Side<T>],
    columns: &'a Columns<T>,
    out: &'a mut [T],
}

impl<T: Scalar, F: Formula<T>> Kernel for Rows<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Columns([min_0, min_1, max_0, max_1, area, slant]) = self.columns;
        let width = area.len();
        let mut start = 0;
        while start < width {
            let block = start..(start + BLOCK).min(width);
            let n = block.len();
            let (min_0, min_1) = (&min_0[block.clone()], &min_1[block.clone()]);
            let (max_0, max_1) = (&max_0[block.clone()], &max_1[block.clone()]);
            let (area, slant) = (&area[block.clone()], &slant[block]);
            for (row, &one) in self.boxes.iter().enumerate() {
                let out = &mut self.out[row * width + start..][..n];
                for j in 0..n {
                    let other = Side {
                        min_0: min_0[j],
                        min_1: min_1[j],
                        max_0: max_0[j],
                        max_1: max_1[j],
                        area: area[j],
                        slant: slant[j],
                    };
                    out[j] = self.formula.value(one, other);
                }
            }
            start += n;
        }
    }
}

fn fill<T: Scalar>(
    formula: impl Formula<T>,
    boxes: &[Side<T>],
    columns: &Columns<T>,
    out: &mut [T],
) -> Result<()> {
    let (isa, width) = (Isa::active(), columns.0[0].len());
    let run = |boxes: &[Side<T>], out: &mut [T]| {
        dispatch(isa, Rows { formula, boxes, columns, out });
    };
    if out.len() <= SERIAL {
        parallel::ieee(|| run(boxes, out));
        return Ok(());
    }
    // At least eight tasks, so that the threads end together.
    let rows = (TASK.min(out.len() / 8) / width).max(1);
    parallel::lead(|| {
        parallel::for_each_chunk(out, rows * width, |task, out| {
            run(&boxes[task * rows..][..out.len() / width], out);
        });
    })
}

/// Number of values in the matrix of `a` and `b`, if memory can hold them.
pub fn matrix_len<T>(a: &[BBox<T>], b: &[BBox<T>]) -> Result<usize> {
    result_len::<T>("boxes", &[a.len(), b.len()])
}

/// Writes a value for every box of `a` with every box of `b`, row-major `(a.len(), b.len())`.
///
/// Touching boxes have IoU 0, an inverted box 0 with everything, two boxes without area NaN (0 / 0),
/// and a NaN corner makes NaN.
pub fn pairwise<T: Scalar>(
    what: Pairwise,
    a: &[BBox<T>],
    b: &[BBox<T>],
    format: Format,
    out: &mut [T],
) -> Result<()> {
    if out.len() != a.len() * b.len() {
        return Err(Error::shape(
            "out",
            format!("shape ({}, {})", a.len(), b.len()),
            format!("{} numbers", out.len()),
        ));
    }
    if out.is_empty() {
        return Ok(());
    }
    let slanted = matches!(what, Pairwise::CompleteIou(_));
    let columns = Columns::new(b, format, slanted);
    let sides: Vec<_> = a.iter().map(|b| Side::new(b, format, slanted)).collect();
    let (sides, columns) = (&sides[..], &columns);
    let factor = T::from_f64(4.0 / std::f64::consts::PI.powi(2));
    match what {
        Pairwise::MaskedIou => fill(MaskedIou, sides, columns, out),
        Pairwise::Iou => fill(Iou, sides, columns, out),
        Pairwise::GeneralizedIou => fill(GeneralizedIou, sides, columns, out),
        Pairwise::DistanceIou(eps) => fill(DistanceIou(T::from_f64(eps)), sides, columns, out),
        Pairwise::CompleteIou(eps) => {
            fill(CompleteIou { eps: T::from_f64(eps), factor }, sides, columns, out)
        }
    }
}

/// [`pairwise`] with [`Pairwise::MaskedIou`], as a matrix of its own.
pub fn iou_matrix<T: Scalar>(a: &[BBox<T>], b: &[BBox<T>]) -> Result<Vec<T>> {
    let mut matrix = vec![T::ZERO; matrix_len(a, b)?];
    pairwise(Pairwise::MaskedIou, a, b, Format::Corners, &mut matrix)?;
    Ok(matrix)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definitions, one pair of corners at a time, as the papers have them.
    fn naive(what: Pairwise, a: &BBox<f64>, b: &BBox<f64>) -> f64 {
        let area = |b: &BBox<f64>| (b[2] - b[0]) * (b[3] - b[1]);
        let extent = |i: usize| (a[i + 2].min(b[i + 2]) - a[i].max(b[i])).max(0.0);
        let around = |i: usize| a[i + 2].max(b[i + 2]) - a[i].min(b[i]);
        let distance = |i: usize| (a[i] + a[i + 2] - b[i] - b[i + 2]) / 2.0;
        let intersection = extent(0) * extent(1);
        let union = area(a) + area(b) - intersection;
        let iou = intersection / union;
        let squared = |f: &dyn Fn(usize) -> f64| f(0) * f(0) + f(1) * f(1);
        let slant = |b: &BBox<f64>| ((b[2] - b[0]) / (b[3] - b[1])).atan();
        match what {
            Pairwise::MaskedIou | Pairwise::Iou => iou,
            Pairwise::GeneralizedIou => {
                let hull = around(0) * around(1);
                iou - (hull - union) / hull
            }
            Pairwise::DistanceIou(eps) => iou - squared(&distance) / (squared(&around) + eps),
            Pairwise::CompleteIou(eps) => {
                let v = 4.0 / std::f64::consts::PI.powi(2) * (slant(a) - slant(b)).powi(2);
                let alpha = v / (1.0 - iou + v + eps);
                naive(Pairwise::DistanceIou(eps), a, b) - alpha * v
            }
        }
    }

    const ALL: [Pairwise; 5] = [
        Pairwise::MaskedIou,
        Pairwise::Iou,
        Pairwise::GeneralizedIou,
        Pairwise::DistanceIou(1e-7),
        Pairwise::CompleteIou(1e-7),
    ];

    fn scattered(n: usize, seed: u64) -> Vec<BBox<f64>> {
        let mut state = seed;
        let mut next = |scale: f64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // Whole 1/64ths, so that float32 holds every format exactly.
            ((state >> 40) as f64 / (1u64 << 24) as f64 * scale * 64.0).floor() / 64.0
        };
        (0..n)
            .map(|_| {
                let (y, x) = (next(100.0), next(100.0));
                [y, x, y + 1.0 + next(60.0), x + 1.0 + next(60.0)]
            })
            .collect()
    }

    fn matrix<T: Scalar>(what: Pairwise, a: &[BBox<T>], b: &[BBox<T>], format: Format) -> Vec<T> {
        let mut out = vec![T::ONE; matrix_len(a, b).unwrap()];
        pairwise(what, a, b, format, &mut out).unwrap();
        out
    }

    fn single(boxes: &[BBox<f64>]) -> Vec<BBox<f32>> {
        boxes.iter().map(|b| b.map(|x| x as f32)).collect()
    }

    #[test]
    fn matrices_agree_with_the_definitions_for_sizes_around_blocks_and_tasks() {
        let sizes = [(0, 3), (3, 0), (1, 1), (7, 5), (2, BLOCK + 1), (300, 230), (3, 50_000)];
        for ((n, k), what) in sizes.into_iter().flat_map(|size| ALL.map(|what| (size, what))) {
            let (a, b) = (scattered(n, 1), scattered(k, 2));
            let wide = matrix(what, &a, &b, Format::Corners);
            let narrow = matrix(what, &single(&a), &single(&b), Format::Corners);
            assert_eq!((wide.len(), narrow.len()), (n * k, n * k));
            for (index, (wide, narrow)) in wide.iter().zip(narrow).enumerate() {
                let expected = naive(what, &a[index / k], &b[index % k]);
                assert!((wide - expected).abs() < 1e-12, "{what:?} {n}x{k} at {index}");
                assert!((f64::from(narrow) - expected).abs() < 1e-6, "{what:?} {n}x{k}: {index}");
            }
        }
    }

    #[test]
    fn every_instruction_set_and_every_number_of_threads_gives_the_same_bits() {
        let (a, b) = (single(&scattered(40, 3)), single(&scattered(BLOCK + 37, 4)));
        for what in [Pairwise::Iou, Pairwise::GeneralizedIou, Pairwise::DistanceIou(1e-7)] {
            let expected = matrix(what, &a, &b, Format::Corners);
            let columns = Columns::new(&b, Format::Corners, false);
            let sides: Vec<_> = a.iter().map(|b| Side::new(b, Format::Corners, false)).collect();
            for isa in Isa::available() {
                let mut out = vec![0.0; expected.len()];
                let (boxes, columns, rows) = (&sides[..], &columns, &mut out[..]);
                match what {
                    Pairwise::Iou => {
                        dispatch(isa, Rows { formula: Iou, boxes, columns, out: rows });
                    }
                    Pairwise::GeneralizedIou => {
                        dispatch(isa, Rows { formula: GeneralizedIou, boxes, columns, out: rows });
                    }
                    _ => {
                        let formula = DistanceIou(1e-7f32);
                        dispatch(isa, Rows { formula, boxes, columns, out: rows });
                    }
                }
                assert_eq!(out, expected, "{what:?} {isa:?}");
            }
        }
    }

    #[test]
    fn formats_describe_the_same_boxes() {
        let (a, b) = (scattered(20, 5), scattered(30, 6));
        for what in ALL {
            let expected = matrix(what, &a, &b, Format::Corners);
            for format in [Format::CornerSize, Format::CentreSize] {
                let change = |b: &BBox<f64>| match format {
                    Format::CornerSize => [b[0], b[1], b[2] - b[0], b[3] - b[1]],
                    _ => {
                        let (h, w) = (b[2] - b[0], b[3] - b[1]);
                        [b[0] + h / 2.0, b[1] + w / 2.0, h, w]
                    }
                };
                let convert = |boxes: &[BBox<f64>]| boxes.iter().map(change).collect::<Vec<_>>();
                let got = matrix(what, &convert(&a), &convert(&b), format);
                for (got, expected) in got.iter().zip(&expected) {
                    assert!((got - expected).abs() < 1e-12, "{what:?} {format:?}");
                }
            }
        }
    }

    #[test]
    fn degenerate_boxes_follow_the_written_rules() {
        let iou = |a: BBox<f32>, b: BBox<f32>| iou_matrix(&[a], &[b]).unwrap()[0];
        let inf = f32::INFINITY;
        assert_eq!(iou([0., 0., 4., 4.], [4., 0., 8., 4.]), 0.0, "touching");
        assert!(iou([1., 1., 1., 1.], [1., 1., 1., 1.]).is_nan(), "two points");
        assert_eq!(iou([1., 1., 1., 1.], [0., 0., 4., 4.]), 0.0, "a point in a box");
        assert!(iou([f32::NAN, 0., 4., 4.], [0., 0., 4., 4.]).is_nan(), "NaN");
        assert!(iou([0., 0., 4., 4.], [0., 0., 4., f32::NAN]).is_nan(), "NaN on the right");
        assert_eq!(iou([0., 0., inf, inf], [0., 0., 4., 4.]), 0.0, "infinite");
        assert_eq!(iou([4., 4., 0., 0.], [4., 4., 0., 0.]), 0.0, "inverted, with itself");
    }

    #[test]
    fn a_gap_of_minus_infinity_is_no_overlap_but_nan_under_the_mask() {
        // Far apart: the gap between them overflows.
        let (a, b) = ([[-3e38f32, 0., -2.9e38, 1e-3]], [[2.9e38f32, 0., 3e38, 1e-3]]);
        assert_eq!(matrix(Pairwise::Iou, &a, &b, Format::Corners), [0.0]);
        assert!(matrix(Pairwise::MaskedIou, &a, &b, Format::Corners)[0].is_nan());
    }

    #[test]
    fn a_matrix_of_another_size_is_refused() {
        let one = [[0f32, 0., 1., 1.]];
        assert!(pairwise(Pairwise::Iou, &one, &one, Format::Corners, &mut [0.0; 2]).is_err());
    }
}
