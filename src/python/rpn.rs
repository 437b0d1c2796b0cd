//! Anchors and what the three creators compute. Every creator exists for float32 and float64.

use numpy::{PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use super::boxes::{indices, rows};
use super::{slice, wrap};
use crate::boxes::{Coder, Cutoff};
use crate::rpn::anchors::{self, Axes};
use crate::rpn::{anchor_targets, matcher, proposals, roi_targets};
use crate::{Result, parallel};

/// Runs a kernel on the calling thread with the GIL released; it asks for others if it has the work.
fn detached<T: Send>(py: Python<'_>, kernel: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    Ok(py.detach(|| parallel::ieee(kernel))?)
}

/// Scores to rank by, which need not be of the type of the boxes.
#[derive(FromPyObject)]
enum Scores<'py> {
    #[pyo3(transparent)]
    Narrow(PyReadonlyArray1<'py, f32>),
    #[pyo3(transparent)]
    Wide(PyReadonlyArray1<'py, f64>),
}

type Float32Rows<'py> = Bound<'py, PyArray2<f32>>;
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

/// Base anchors at every cell of a height x width map: (height * width * A, 4), of boxes that begin
/// with y, or with x if `xy`.
#[pyfunction]
fn shifted_anchors<'py>(
    py: Python<'py>,
    anchor_base: PyReadonlyArray2<'py, f64>,
    stride: (f64, f64),
    size: (usize, usize),
    xy: bool,
) -> PyResult<Float32Rows<'py>> {
    let base = rows(&anchor_base, "anchor_base")?;
    let axes = if xy { Axes::XY } else { Axes::YX };
    let all = detached(py, || anchors::shifted_anchors(base, stride, size, axes))?;
    let n = all.len();
    wrap(py, all.into_flattened(), [n, 4])
}

macro_rules! bindings {
    ($t:ty, $anchor_targets:ident, $proposals:ident, $roi_targets:ident, $matches:ident,
     $match_boxes:ident, $encode_boxes:ident, $decode_boxes:ident) => {
        /// Offsets (S, 4) and candidate labels (S,) of all anchors; the indices of those labelled
        /// 1 and of those labelled 0.
        #[pyfunction]
        fn $anchor_targets<'py>(
            py: Python<'py>,
            anchor: PyReadonlyArray2<'py, $t>,
            bbox: PyReadonlyArray2<'py, $t>,
            size: (f64, f64),
            positive: f64,
            negative: f64,
            unreached: bool,
        ) -> PyResult<(
            Bound<'py, PyArray2<$t>>,
            Bound<'py, PyArray1<i32>>,
            Indices<'py>,
            Indices<'py>,
        )> {
            let (anchor, bbox) = (rows(&anchor, "anchor")?, rows(&bbox, "bbox")?);
            let rule = anchor_targets::Rule { size, positive, negative, unreached };
            let targets = detached(py, || anchor_targets::anchor_targets(anchor, bbox, &rule))?;
            let loc = wrap(py, targets.loc.into_flattened(), [anchor.len(), 4])?;
            let label = wrap(py, targets.label, [anchor.len()])?;
            Ok((loc, label, indices(py, targets.positive)?, indices(py, targets.negative)?))
        }

        /// Proposals (S, 4) by descending score, and the anchors they came from (S,).
        #[pyfunction]
        fn $proposals<'py>(
            py: Python<'py>,
            loc: PyReadonlyArray2<'py, $t>,
            score: Scores<'py>,
            anchor: PyReadonlyArray2<'py, $t>,
            size: (f64, f64),
            min_size: f64,
            limits: (Option<usize>, Option<usize>),
            threshold: f64,
            inclusive: bool,
            rounded: bool,
        ) -> PyResult<(Bound<'py, PyArray2<$t>>, Indices<'py>)> {
            let (loc, anchor) = (rows(&loc, "loc")?, rows(&anchor, "anchor")?);
            let cutoff = Cutoff::new(threshold, inclusive, rounded);
            let (pre_nms, post_nms) = limits;
            let rule = proposals::Rule { size, min_size, pre_nms, post_nms, cutoff };
            let found = match &score {
                Scores::Narrow(score) => {
                    let score = slice(score, "score")?;
                    detached(py, || proposals::proposals(loc, score, anchor, &rule))
                }
                Scores::Wide(score) => {
                    let score = slice(score, "score")?;
                    detached(py, || proposals::proposals(loc, score, anchor, &rule))
                }
            }?;
            let n = found.boxes.len();
            let roi = wrap(py, found.boxes.into_flattened(), [n, 4])?;
            Ok((roi, indices(py, found.anchor)?))
        }

        /// Index of the best object (R,); the indices of positive and of negative candidates.
        #[pyfunction]
        fn $roi_targets<'py>(
            py: Python<'py>,
            roi: PyReadonlyArray2<'py, $t>,
            bbox: PyReadonlyArray2<'py, $t>,
            positive: f64,
            negative_hi: f64,
            negative_lo: f64,
        ) -> PyResult<(Indices<'py>, Indices<'py>, Indices<'py>)> {
            let (roi, bbox) = (rows(&roi, "roi")?, rows(&bbox, "bbox")?);
            let rule = roi_targets::Rule { positive, negative_hi, negative_lo };
            let targets = detached(py, || roi_targets::roi_targets(roi, bbox, &rule))?;
            let assignment = indices(py, targets.assignment)?;
            Ok((assignment, indices(py, targets.positive)?, indices(py, targets.negative)?))
        }

        /// Index of the object each prediction (column) matches, -1 or -2 for none: (N,).
        #[pyfunction]
        fn $matches<'py>(
            py: Python<'py>,
            quality: PyReadonlyArray2<'py, $t>,
            high: f64,
            low: f64,
            low_quality: bool,
        ) -> PyResult<Indices<'py>> {
            let shape = quality.as_array().dim();
            let quality = slice(&quality, "match_quality_matrix")?;
            let rule = matcher::Rule { high, low, low_quality };
            let found = detached(py, || matcher::match_predictions(quality, shape, &rule))?;
            wrap(py, found, [shape.1])
        }

        /// The same by the IoU of (M, 4) objects and (N, 4) boxes: (N,).
        #[pyfunction]
        fn $match_boxes<'py>(
            py: Python<'py>,
            objects: PyReadonlyArray2<'py, $t>,
            boxes: PyReadonlyArray2<'py, $t>,
            high: f64,
            low: f64,
            low_quality: bool,
        ) -> PyResult<Indices<'py>> {
            let (objects, boxes) = (rows(&objects, "gt_boxes")?, rows(&boxes, "boxes")?);
            let rule = matcher::Rule { high, low, low_quality };
            let found = detached(py, || matcher::match_boxes(objects, boxes, &rule))?;
            wrap(py, found, [boxes.len()])
        }

        /// Weighted offsets from proposals to reference boxes: (R, 4).
        #[pyfunction]
        fn $encode_boxes<'py>(
            py: Python<'py>,
            reference_boxes: PyReadonlyArray2<'py, $t>,
            proposals: PyReadonlyArray2<'py, $t>,
            weights: [$t; 4],
        ) -> PyResult<Bound<'py, PyArray2<$t>>> {
            let references = rows(&reference_boxes, "reference_boxes")?;
            let proposals = rows(&proposals, "proposals")?;
            let coder = Coder { weights, exponent: 0.0 };
            let codes = detached(py, || coder.encode(references, proposals))?;
            wrap(py, codes.into_flattened(), [proposals.len(), 4])
        }

        /// Boxes that (R, 4 K) weighted offsets make of (R, 4) boxes: (R, 4 K).
        #[pyfunction]
        fn $decode_boxes<'py>(
            py: Python<'py>,
            rel_codes: PyReadonlyArray2<'py, $t>,
            boxes: PyReadonlyArray2<'py, $t>,
            weights: [$t; 4],
            exponent: $t,
        ) -> PyResult<Bound<'py, PyArray2<$t>>> {
            let (r, width) = rel_codes.as_array().dim();
            let codes = crate::boxes::rows(slice(&rel_codes, "rel_codes")?, "rel_codes")?;
            let boxes = rows(&boxes, "boxes")?;
            let coder = Coder { weights, exponent };
            let decoded = detached(py, || coder.decode(codes, boxes, width / 4))?;
            wrap(py, decoded.into_flattened(), [r, width])
        }
    };
}

bindings!(
    f32,
    anchor_targets_f32,
    proposals_f32,
    roi_targets_f32,
    match_predictions_f32,
    match_boxes_f32,
    encode_boxes_f32,
    decode_boxes_f32
);
bindings!(
    f64,
    anchor_targets_f64,
    proposals_f64,
    roi_targets_f64,
    match_predictions_f64,
    match_boxes_f64,
    encode_boxes_f64,
    decode_boxes_f64
);

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(anchor_base, m)?)?;
    m.add_function(wrap_pyfunction!(shifted_anchors, m)?)?;
    m.add_function(wrap_pyfunction!(anchor_targets_f32, m)?)?;
    m.add_function(wrap_pyfunction!(anchor_targets_f64, m)?)?;
    m.add_function(wrap_pyfunction!(proposals_f32, m)?)?;
    m.add_function(wrap_pyfunction!(proposals_f64, m)?)?;
    m.add_function(wrap_pyfunction!(roi_targets_f32, m)?)?;
    m.add_function(wrap_pyfunction!(roi_targets_f64, m)?)?;
    m.add_function(wrap_pyfunction!(match_predictions_f32, m)?)?;
    m.add_function(wrap_pyfunction!(match_predictions_f64, m)?)?;
    m.add_function(wrap_pyfunction!(match_boxes_f32, m)?)?;
    m.add_function(wrap_pyfunction!(encode_boxes_f32, m)?)?;
    m.add_function(wrap_pyfunction!(match_boxes_f64, m)?)?;
    m.add_function(wrap_pyfunction!(encode_boxes_f64, m)?)?;
    m.add_function(wrap_pyfunction!(decode_boxes_f32, m)?)?;
    m.add_function(wrap_pyfunction!(decode_boxes_f64, m)?)?;
    Ok(())
}
