//! VOC matching and average precision.

use numpy::{PyArray1, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use super::boxes::rows;
use super::{compute, slice, wrap};
use crate::evaluation::voc::{self, Rows};

type Labels<'py> = PyReadonlyArray1<'py, i64>;
/// Outcomes of one class and its number of positives, `None` for a class never seen.
type Outcome<'py> = (Bound<'py, PyArray1<i8>>, Option<usize>);

macro_rules! bindings {
    ($t:ty, $voc_match:ident) => {
        /// Per class: outcomes by descending score, and the number of positives.
        #[pyfunction]
        fn $voc_match<'py>(
            py: Python<'py>,
            pred_bbox: PyReadonlyArray2<'py, $t>,
            pred_label: Labels<'py>,
            pred_image: Labels<'py>,
            pred_score: PyReadonlyArray1<'py, f64>,
            gt_bbox: PyReadonlyArray2<'py, $t>,
            gt_label: Labels<'py>,
            gt_image: Labels<'py>,
            gt_difficult: PyReadonlyArray1<'py, bool>,
            threshold: f64,
        ) -> PyResult<Vec<Outcome<'py>>> {
            let detections = Rows {
                boxes: rows(&pred_bbox, "pred_bboxes")?,
                labels: slice(&pred_label, "pred_labels")?,
                images: slice(&pred_image, "pred_images")?,
            };
            let objects = Rows {
                boxes: rows(&gt_bbox, "gt_bboxes")?,
                labels: slice(&gt_label, "gt_labels")?,
                images: slice(&gt_image, "gt_images")?,
            };
            let scores = slice(&pred_score, "pred_scores")?;
            let difficult = slice(&gt_difficult, "gt_difficults")?;
            let classes = compute(py, || {
                voc::match_detections(detections, scores, objects, difficult, threshold)
            })?;
            let outcome = |c: voc::ClassOutcome| {
                let n = c.outcome.len();
                Ok((wrap(py, c.outcome, [n])?, c.positives))
            };
            classes.into_iter().map(outcome).collect()
        }
    };
}

bindings!(f32, voc_match_f32);
bindings!(f64, voc_match_f64);

/// Average precision of one class.
#[pyfunction]
fn voc_average_precision(
    prec: PyReadonlyArray1<'_, f64>,
    rec: PyReadonlyArray1<'_, f64>,
    eleven_points: bool,
) -> PyResult<f64> {
    Ok(voc::average_precision(slice(&prec, "prec")?, slice(&rec, "rec")?, eleven_points)?)
}

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(voc_match_f32, m)?)?;
    m.add_function(wrap_pyfunction!(voc_match_f64, m)?)?;
    m.add_function(wrap_pyfunction!(voc_average_precision, m)?)?;
    Ok(())
}
