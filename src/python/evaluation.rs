//! VOC matching and average precision, COCO precision and recall.

use numpy::{Element, IntoPyArray, PyArray1, PyArray5, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use super::boxes::rows;
use super::{slice, wrap};
use crate::evaluation::coco::{self, Detections, Objects, Settings};
use crate::evaluation::voc::{self, Problem};
use crate::{Result, evaluation::Rows};

type Labels<'py> = PyReadonlyArray1<'py, i32>;
type Numbers<'py> = PyReadonlyArray1<'py, f64>;
type Flags<'py> = PyReadonlyArray1<'py, bool>;
/// Boxes, classes and images of all boxes, a row each.
type Boxes<'py, T> = (PyReadonlyArray2<'py, T>, Labels<'py>, Labels<'py>);
/// Outcomes of one class and its number of positives, `None` for a class never seen.
type Outcome<'py> = (Bound<'py, PyArray1<i8>>, Option<usize>);

fn detections<'a, T: Element>((boxes, labels, images): &'a Boxes<'_, T>) -> Result<Rows<'a, T>> {
    Ok(Rows {
        boxes: rows(boxes, "pred_bboxes")?,
        labels: slice(labels, "pred_labels")?,
        images: slice(images, "pred_images")?,
    })
}

fn objects<'a, T: Element>((boxes, labels, images): &'a Boxes<'_, T>) -> Result<Rows<'a, T>> {
    Ok(Rows {
        boxes: rows(boxes, "gt_bboxes")?,
        labels: slice(labels, "gt_labels")?,
        images: slice(images, "gt_images")?,
    })
}

macro_rules! bindings {
    ($t:ty, $voc_match:ident, $voc_ap:ident) => {
        /// Per class: outcomes by descending score, and the number of positives.
        #[pyfunction]
        fn $voc_match<'py>(
            py: Python<'py>,
            pred: Boxes<'py, $t>,
            pred_score: Numbers<'py>,
            gt: Boxes<'py, $t>,
            gt_difficult: Flags<'py>,
            threshold: f64,
        ) -> PyResult<Vec<Outcome<'py>>> {
            let (detections, objects) = (detections(&pred)?, objects(&gt)?);
            let scores = slice(&pred_score, "pred_scores")?;
            let difficult = slice(&gt_difficult, "gt_difficults")?;
            let problem = Problem { detections, scores, objects, difficult, threshold };
            let outcome = |c: voc::ClassOutcome| {
                let n = c.outcome.len();
                Ok((wrap(py, c.outcome, [n])?, c.positives))
            };
            py.detach(|| problem.outcomes())?.into_iter().map(outcome).collect()
        }

        /// Average precision per class, NaN for those without objects that count.
        #[pyfunction]
        fn $voc_ap<'py>(
            py: Python<'py>,
            pred: Boxes<'py, $t>,
            pred_score: Numbers<'py>,
            gt: Boxes<'py, $t>,
            gt_difficult: Flags<'py>,
            threshold: f64,
            eleven_points: bool,
        ) -> PyResult<Bound<'py, PyArray1<f64>>> {
            let (detections, objects) = (detections(&pred)?, objects(&gt)?);
            let scores = slice(&pred_score, "pred_scores")?;
            let difficult = slice(&gt_difficult, "gt_difficults")?;
            let problem = Problem { detections, scores, objects, difficult, threshold };
            let ap = py.detach(|| problem.average_precisions(eleven_points))?;
            Ok(ap.into_pyarray(py))
        }
    };
}

bindings!(f32, voc_match_f32, voc_ap_f32);
bindings!(f64, voc_match_f64, voc_ap_f64);

/// Average precision of one class.
#[pyfunction]
fn voc_average_precision(
    prec: Numbers<'_>,
    rec: Numbers<'_>,
    eleven_points: bool,
) -> PyResult<f64> {
    Ok(voc::average_precision(slice(&prec, "prec")?, slice(&rec, "rec")?, eleven_points)?)
}

/// COCO curves `(K, A, M, T, 2 R + 1)`, see the kernel. Boxes are `(x, y, width, height)`.
#[pyfunction]
fn coco_curves<'py>(
    py: Python<'py>,
    pred: Boxes<'py, f64>,
    pred_score: Numbers<'py>,
    pred_area: Numbers<'py>,
    gt: Boxes<'py, f64>,
    gt_area: Numbers<'py>,
    gt_crowded: Flags<'py>,
    classes: usize,
    thresholds: Numbers<'py>,
    recalls: Numbers<'py>,
    area_ranges: Vec<[f64; 2]>,
    max_detections: Vec<usize>,
) -> PyResult<Bound<'py, PyArray5<f64>>> {
    let detections = Detections {
        rows: detections(&pred)?,
        scores: slice(&pred_score, "pred_scores")?,
        areas: slice(&pred_area, "pred_areas")?,
    };
    let objects = Objects {
        rows: objects(&gt)?,
        areas: slice(&gt_area, "gt_areas")?,
        crowded: slice(&gt_crowded, "gt_crowdeds")?,
    };
    let settings = Settings {
        thresholds: slice(&thresholds, "iou_thresholds")?,
        recalls: slice(&recalls, "recall_thresholds")?,
        areas: &area_ranges,
        max_detections: &max_detections,
    };
    let curves = py.detach(|| coco::evaluate(detections, objects, classes, settings))?;
    let (t, r) = (settings.thresholds.len(), 2 * settings.recalls.len() + 1);
    wrap(py, curves, [classes, area_ranges.len(), max_detections.len(), t, r])
}

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(voc_match_f32, m)?)?;
    m.add_function(wrap_pyfunction!(voc_match_f64, m)?)?;
    m.add_function(wrap_pyfunction!(voc_ap_f32, m)?)?;
    m.add_function(wrap_pyfunction!(voc_ap_f64, m)?)?;
    m.add_function(wrap_pyfunction!(coco_curves, m)?)?;
    m.add_function(wrap_pyfunction!(voc_average_precision, m)?)?;
    Ok(())
}
