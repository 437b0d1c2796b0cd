//! What a detector does between its networks. Boxes are float32; results are lists over images.

use numpy::{PyArray1, PyArray2, PyArray4, PyReadonlyArray2, PyReadonlyArray3, PyReadonlyArray4};
use pyo3::prelude::*;

use super::boxes::rows;
use super::{filled, shape4, slice, wrap};
use crate::boxes::{Coder, Cutoff};
use crate::detection::images::{Picture, Pixels, Transform};
use crate::detection::proposals::{self, Level, proposals};
use crate::detection::results::{self, Head, Objects, Original};
use crate::{Error, Result};

type Maps<'py> = Vec<PyReadonlyArray4<'py, f32>>;
type Rows<'py> = PyReadonlyArray2<'py, f32>;
/// Boxes and scores.
type Scored<'py> = (Bound<'py, PyArray2<f32>>, Bound<'py, PyArray1<f32>>);
/// Boxes, labels and scores.
type Labelled<'py, L> =
    (Bound<'py, PyArray2<f32>>, Bound<'py, PyArray1<L>>, Bound<'py, PyArray1<f32>>);

fn level<'a>(
    objectness: &'a PyReadonlyArray4<'_, f32>,
    deltas: &'a PyReadonlyArray4<'_, f32>,
    cells: &'a Rows<'_>,
    stride: (f64, f64),
) -> Result<Level<'a>> {
    let (n, height, width, anchors) = shape4(objectness);
    let expected = (n, height, width, anchors.saturating_mul(4));
    if shape4(deltas) != expected {
        let got = format!("{:?}", shape4(deltas));
        return Err(Error::shape("deltas", format!("shape {expected:?}"), got));
    }
    let cells = rows(cells, "cell_anchors")?;
    if cells.len() != anchors {
        let got = format!("({}, 4)", cells.len());
        return Err(Error::shape("cell_anchors", format!("shape ({anchors}, 4)"), got));
    }
    let (offsets, _) = slice(deltas, "deltas")?.as_chunks();
    let logits = slice(objectness, "objectness")?;
    Ok(Level { logits, offsets, cells, stride, size: (height, width) })
}

/// An image, (C, H, W) or (H, W, C).
#[derive(FromPyObject)]
enum Image<'py> {
    #[pyo3(transparent)]
    U8(PyReadonlyArray3<'py, u8>),
    #[pyo3(transparent)]
    F32(PyReadonlyArray3<'py, f32>),
}

impl Image<'_> {
    fn picture(&self, channels_first: bool) -> Result<Picture<'_>> {
        let (pixels, shape) = match self {
            Image::U8(array) => (Pixels::U8(slice(array, "images")?), array.as_array().dim()),
            Image::F32(array) => (Pixels::F32(slice(array, "images")?), array.as_array().dim()),
        };
        let size = if channels_first { (shape.1, shape.2) } else { (shape.0, shape.1) };
        Ok(Picture { pixels, size, channels_first })
    }
}

/// Images, resized, times factors and plus summands of their channels, in one batch (N, H, W, C) whose
/// extents are multiples. Every image comes with whether it is (C, H, W) rather than (H, W, C).
#[pyfunction]
fn batch_images<'py>(
    py: Python<'py>,
    images: Vec<(Image<'py>, bool)>,
    sizes: Vec<(usize, usize)>,
    factors: Vec<f32>,
    summands: Vec<f32>,
    multiple: usize,
) -> PyResult<Bound<'py, PyArray4<f32>>> {
    let pictures = images.iter().map(|(image, first)| image.picture(*first));
    let pictures = pictures.collect::<Result<Vec<_>>>()?;
    let transform = Transform { sizes: &sizes, factors: &factors, summands: &summands, multiple };
    filled(py, transform.shape()?, |batch| transform.run(&pictures, batch))
}

/// Proposals of each image: boxes (R, 4) and scores (R,), best first. Levels are (N, H, W, A) and
/// (N, H, W, 4 A) with (A, 4) anchors and strides (down, across); sizes are (height, width).
#[pyfunction]
fn rpn_proposals<'py>(
    py: Python<'py>,
    objectness: Maps<'py>,
    deltas: Maps<'py>,
    cell_anchors: Vec<Rows<'py>>,
    strides: Vec<(f64, f64)>,
    image_sizes: Vec<(f32, f32)>,
    limits: (usize, usize),
    nms_thresh: f64,
    score_thresh: f32,
    min_size: f32,
) -> PyResult<Vec<Scored<'py>>> {
    let count = objectness.len();
    for (argument, got) in
        [("deltas", deltas.len()), ("cell_anchors", cell_anchors.len()), ("strides", strides.len())]
    {
        if got != count {
            let expected = format!("{count} levels, as objectness has");
            return Err(Error::shape(argument, expected, got.to_string()).into());
        }
    }
    let parts = objectness.iter().zip(&deltas).zip(&cell_anchors).zip(strides);
    let levels: Vec<Level<'_>> =
        parts.map(|(((o, d), cells), stride)| level(o, d, cells, stride)).collect::<Result<_>>()?;
    let (pre_nms, post_nms) = limits;
    let cutoff = Cutoff::new(nms_thresh, false, false);
    let rule = proposals::Rule { pre_nms, post_nms, cutoff, score: score_thresh, min_size };
    let found = py.detach(|| proposals(&levels, &image_sizes, &rule))?;
    let wrapped = found.into_iter().map(|image| {
        let n = image.boxes.len();
        Ok((wrap(py, image.boxes.into_flattened(), [n, 4])?, wrap(py, image.scores, [n])?))
    });
    wrapped.collect()
}

/// What the head says about regions, of which `counts` are in each image.
fn head<'a>(
    logits: &'a Rows<'_>,
    offsets: &'a Rows<'_>,
    regions: &'a Rows<'_>,
    counts: &'a [usize],
) -> Result<Head<'a>> {
    let ((r, classes), regions) = (logits.as_array().dim(), rows(regions, "proposals")?);
    let expected = (r, classes.saturating_mul(4));
    let got = offsets.as_array().dim();
    if got != expected {
        let expected = format!("shape {expected:?}");
        return Err(Error::shape("box_regression", expected, format!("{got:?}")));
    }
    let (offsets, _) = slice(offsets, "box_regression")?.as_chunks();
    Ok(Head { classes, logits: slice(logits, "class_logits")?, offsets, regions, counts })
}

/// Objects as arrays, with the number that `label` makes of a class.
fn labelled<'py, L: numpy::Element>(
    py: Python<'py>,
    found: Vec<Objects>,
    label: impl Fn(u32) -> L,
) -> PyResult<Vec<Labelled<'py, L>>> {
    let wrapped = found.into_iter().map(|objects| {
        let n = objects.boxes.len();
        let labels = objects.classes.into_iter().map(&label).collect();
        let boxes = wrap(py, objects.boxes.into_flattened(), [n, 4])?;
        Ok((boxes, wrap(py, labels, [n])?, wrap(py, objects.scores, [n])?))
    });
    wrapped.collect()
}

/// Objects of each image, best first: boxes (R, 4), labels (R,) from 1 and scores (R,).
#[pyfunction]
fn box_detections<'py>(
    py: Python<'py>,
    class_logits: Rows<'py>,
    box_regression: Rows<'py>,
    proposals: Rows<'py>,
    counts: Vec<usize>,
    image_sizes: Vec<(f32, f32)>,
    weights: [f32; 4],
    exponent: f32,
    score_thresh: f32,
    nms_thresh: f64,
    most: usize,
    min_size: f32,
) -> PyResult<Vec<Labelled<'py, i64>>> {
    let head = head(&class_logits, &box_regression, &proposals, &counts)?;
    let coder = Coder { weights, exponent };
    let cutoff = Cutoff::new(nms_thresh, false, false);
    let rule = results::Rule { score: score_thresh, cutoff, most };
    let found =
        py.detach(|| results::best_objects(&head, &image_sizes, &coder, min_size, &rule))?;
    labelled(py, found, i64::from)
}

/// Objects of each image in the coordinates of the original, class by class, each best first: boxes
/// (R, 4), labels (R,) from 0 and scores (R,). `originals` holds (height, width, scale).
#[pyfunction]
fn detect_per_class<'py>(
    py: Python<'py>,
    roi_scores: Rows<'py>,
    roi_cls_locs: Rows<'py>,
    rois: Rows<'py>,
    counts: Vec<usize>,
    originals: Vec<(f32, f32, f32)>,
    mean: [f32; 4],
    std: [f32; 4],
    score_thresh: f32,
    nms_thresh: f64,
    inclusive: bool,
) -> PyResult<Vec<Labelled<'py, i32>>> {
    let head = head(&roi_scores, &roi_cls_locs, &rois, &counts)?;
    let originals: Vec<_> = originals
        .into_iter()
        .map(|(height, width, scale)| Original { size: (height, width), scale })
        .collect();
    // As in `nms`, the threshold is rounded where the rule is inclusive.
    let cutoff = Cutoff::new(nms_thresh, inclusive, inclusive);
    let rule = results::Rule { score: score_thresh, cutoff, most: usize::MAX };
    let found = py.detach(|| results::objects_by_class(&head, &originals, (mean, std), &rule))?;
    labelled(py, found, |class| class as i32 - 1)
}

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(batch_images, m)?)?;
    m.add_function(wrap_pyfunction!(rpn_proposals, m)?)?;
    m.add_function(wrap_pyfunction!(box_detections, m)?)?;
    m.add_function(wrap_pyfunction!(detect_per_class, m)?)?;
    Ok(())
}
