//! Anchors and what the three creators compute. Every creator exists for float32 and float64.

use numpy::{PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use super::boxes::{indices, rows};
use super::{compute, slice, wrap};
use crate::boxes::Cutoff;
use crate::rpn::{anchor_targets, anchors, proposals, roi_targets};

type Float32Rows<'py> = Bound<'py, PyArray2<f32>>;
type Mask<'py> = Bound<'py, PyArray1<bool>>;
type Indices<'py> = Bound<'py, PyArray1<i64>>;

/// Anchors of the first cell: (A, 4), ratio-major.
#[pyfunction]
fn anchor_base<'py>(
    py: Python<'py>,
    base_size: f64,
    ratios: Vec<f64>,
    anchor_scales: Vec<f64>,
) -> PyResult<Float32Rows<'py>> {
    let base = anchors::anchor_base(base_size, &ratios, &anchor_scales)?;
    let n = base.len();
    wrap(py, base.into_flattened(), [n, 4])
}

/// Base anchors at every cell of a height x width map: (height * width * A, 4).
#[pyfunction]
fn shifted_anchors<'py>(
    py: Python<'py>,
    anchor_base: PyReadonlyArray2<'py, f64>,
    feat_stride: f64,
    height: usize,
    width: usize,
) -> PyResult<Float32Rows<'py>> {
    let base = rows(&anchor_base, "anchor_base")?;
    let all = compute(py, || anchors::shifted_anchors(base, feat_stride, height, width))?;
    let n = all.len();
    wrap(py, all.into_flattened(), [n, 4])
}

macro_rules! bindings {
    ($t:ty, $anchor_targets:ident, $proposals:ident, $roi_targets:ident) => {
        /// Offsets (S, 4) and candidate labels (S,) of all anchors.
        #[pyfunction]
        fn $anchor_targets<'py>(
            py: Python<'py>,
            anchor: PyReadonlyArray2<'py, $t>,
            bbox: PyReadonlyArray2<'py, $t>,
            size: (f64, f64),
            positive: f64,
            negative: f64,
            unreached: bool,
        ) -> PyResult<(Bound<'py, PyArray2<$t>>, Bound<'py, PyArray1<i32>>)> {
            let (anchor, bbox) = (rows(&anchor, "anchor")?, rows(&bbox, "bbox")?);
            let rule = anchor_targets::Rule { size, positive, negative, unreached };
            let targets = compute(py, || anchor_targets::anchor_targets(anchor, bbox, &rule))?;
            let loc = wrap(py, targets.loc.into_flattened(), [anchor.len(), 4])?;
            Ok((loc, wrap(py, targets.label, [anchor.len()])?))
        }

        /// Proposals (S, 4) by descending score, and the anchors they came from (S,).
        #[pyfunction]
        fn $proposals<'py>(
            py: Python<'py>,
            loc: PyReadonlyArray2<'py, $t>,
            score: PyReadonlyArray1<'py, f64>,
            anchor: PyReadonlyArray2<'py, $t>,
            size: (f64, f64),
            min_size: f64,
            limits: (Option<usize>, Option<usize>),
            threshold: f64,
            inclusive: bool,
            rounded: bool,
        ) -> PyResult<(Bound<'py, PyArray2<$t>>, Indices<'py>)> {
            let (loc, score) = (rows(&loc, "loc")?, slice(&score, "score")?);
            let anchor = rows(&anchor, "anchor")?;
            let cutoff = Cutoff::new(threshold, inclusive, rounded);
            let (pre_nms, post_nms) = limits;
            let rule = proposals::Rule { size, min_size, pre_nms, post_nms, cutoff };
            let found = compute(py, || proposals::proposals(loc, score, anchor, &rule))?;
            let n = found.boxes.len();
            let roi = wrap(py, found.boxes.into_flattened(), [n, 4])?;
            Ok((roi, indices(py, found.anchor)?))
        }

        /// Index of the best object, positive candidates and negative candidates, (R,) each.
        #[pyfunction]
        fn $roi_targets<'py>(
            py: Python<'py>,
            roi: PyReadonlyArray2<'py, $t>,
            bbox: PyReadonlyArray2<'py, $t>,
            positive: f64,
            negative_hi: f64,
            negative_lo: f64,
        ) -> PyResult<(Indices<'py>, Mask<'py>, Mask<'py>)> {
            let (roi, bbox) = (rows(&roi, "roi")?, rows(&bbox, "bbox")?);
            let rule = roi_targets::Rule { positive, negative_hi, negative_lo };
            let targets = compute(py, || roi_targets::roi_targets(roi, bbox, &rule))?;
            let assignment = indices(py, targets.assignment)?;
            let positive = wrap(py, targets.positive, [roi.len()])?;
            Ok((assignment, positive, wrap(py, targets.negative, [roi.len()])?))
        }
    };
}

bindings!(f32, anchor_targets_f32, proposals_f32, roi_targets_f32);
bindings!(f64, anchor_targets_f64, proposals_f64, roi_targets_f64);

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(anchor_base, m)?)?;
    m.add_function(wrap_pyfunction!(shifted_anchors, m)?)?;
    m.add_function(wrap_pyfunction!(anchor_targets_f32, m)?)?;
    m.add_function(wrap_pyfunction!(anchor_targets_f64, m)?)?;
    m.add_function(wrap_pyfunction!(proposals_f32, m)?)?;
    m.add_function(wrap_pyfunction!(proposals_f64, m)?)?;
    m.add_function(wrap_pyfunction!(roi_targets_f32, m)?)?;
    m.add_function(wrap_pyfunction!(roi_targets_f64, m)?)?;
    Ok(())
}
