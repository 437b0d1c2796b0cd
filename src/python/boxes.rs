//! Boxes: IoU, codec, clipping, in float32 and float64.
//!
//! People call the small ones in loops, so these look at the arrays themselves: what needs no
//! conversion is computed, for everything else they return None and the Python side converts.

use numpy::{Element, Ix2, PyArray1, PyArray2, PyReadonlyArray2, PyReadonlyArray3};
use pyo3::prelude::*;

use super::{filled, ready, slice, wrap};
use crate::boxes::{self, BBox, Format, Pairwise, Scalar};
use crate::{Error, Result};

/// The rows of an (R, 4) array.
pub(super) fn rows<'a, T: numpy::Element>(
    array: &'a PyReadonlyArray2<'_, T>,
    argument: &'static str,
) -> Result<&'a [BBox<T>]> {
    let (r, columns) = array.as_array().dim();
    match columns {
        4 => boxes::rows(slice(array, argument)?, argument),
        _ => Err(Error::shape(argument, "shape (R, 4)", format!("({r}, {columns})"))),
    }
}

/// Kept indices as NumPy's index type.
pub(super) fn indices<'py>(
    py: Python<'py>,
    indices: Vec<usize>,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let n = indices.len();
    wrap(py, indices.into_iter().map(|i| i as i64).collect(), [n])
}

/// A result, or none where the arguments have to be converted first.
pub(super) type Perhaps<'py> = PyResult<Option<Bound<'py, PyAny>>>;

/// `function::<f32>(...)`, or `function::<f64>(...)` if that has none.
macro_rules! either {
    ($function:ident($($argument:expr),*)) => {
        match $function::<f32>($($argument),*)? {
            None => $function::<f64>($($argument),*),
            result => Ok(result),
        }
    };
}
pub(super) use either;

/// The two types, to kernels and to NumPy.
pub(super) trait Number: Scalar + Element {}
impl Number for f32 {}
impl Number for f64 {}

/// An (R, 4) array that needs no conversion.
pub(super) fn ready_boxes<'py, T: Element>(
    object: &Bound<'py, PyAny>,
) -> Option<PyReadonlyArray2<'py, T>> {
    ready(object).filter(|array: &PyReadonlyArray2<'py, T>| array.as_array().ncols() == 4)
}

fn format(name: &str) -> Option<Format> {
    match name {
        "xyxy" => Some(Format::Corners),
        "xywh" => Some(Format::CornerSize),
        "cxcywh" => Some(Format::CentreSize),
        _ => None,
    }
}

fn areas<'py, T: Number>(py: Python<'py>, boxes: &Bound<'py, PyAny>, fmt: &str) -> Perhaps<'py> {
    let (Some(boxes), Some(format)) = (ready_boxes::<T>(boxes), format(fmt)) else {
        return Ok(None);
    };
    let boxes = rows(&boxes, "boxes")?;
    let areas = filled(py, [boxes.len()], |out| boxes::areas(boxes, format, out))?;
    Ok(Some(areas.into_any()))
}

/// Areas of boxes in one of three formats: (R,).
#[pyfunction]
fn box_area<'py>(py: Python<'py>, boxes: &Bound<'py, PyAny>, fmt: &str) -> Perhaps<'py> {
    either!(areas(py, boxes, fmt))
}

fn matrix<'py, T: Number>(
    py: Python<'py>,
    what: Pairwise,
    a: &Bound<'py, PyAny>,
    b: &Bound<'py, PyAny>,
    fmt: &str,
) -> Perhaps<'py> {
    let arrays = (ready_boxes::<T>(a), ready_boxes::<T>(b), format(fmt));
    let (Some(a), Some(b), Some(format)) = arrays else { return Ok(None) };
    let (a, b) = (rows(&a, "boxes1")?, rows(&b, "boxes2")?);
    boxes::matrix_len(a, b)?;
    let kernel = |out: &mut [T]| boxes::pairwise(what, a, b, format, out);
    Ok(Some(filled(py, [a.len(), b.len()], kernel)?.into_any()))
}

/// IoU of every box of `a` with every box of `b`, as torchvision computes it: (N, K).
#[pyfunction]
fn box_iou<'py>(
    py: Python<'py>,
    a: &Bound<'py, PyAny>,
    b: &Bound<'py, PyAny>,
    fmt: &str,
) -> Perhaps<'py> {
    either!(matrix(py, Pairwise::Iou, a, b, fmt))
}

/// IoU of every box of `a` with every box of `b`, as chainercv computes it: (N, K).
#[pyfunction]
fn bbox_iou<'py>(py: Python<'py>, a: &Bound<'py, PyAny>, b: &Bound<'py, PyAny>) -> Perhaps<'py> {
    either!(matrix(py, Pairwise::MaskedIou, a, b, "xyxy"))
}

/// Generalized IoU of every pair: (N, K).
#[pyfunction]
fn generalized_box_iou<'py>(
    py: Python<'py>,
    a: &Bound<'py, PyAny>,
    b: &Bound<'py, PyAny>,
) -> Perhaps<'py> {
    either!(matrix(py, Pairwise::GeneralizedIou, a, b, "xyxy"))
}

/// Distance IoU of every pair: (N, K).
#[pyfunction]
fn distance_box_iou<'py>(
    py: Python<'py>,
    a: &Bound<'py, PyAny>,
    b: &Bound<'py, PyAny>,
    eps: f64,
) -> Perhaps<'py> {
    either!(matrix(py, Pairwise::DistanceIou(eps), a, b, "xyxy"))
}

/// Complete IoU of every pair: (N, K).
#[pyfunction]
fn complete_box_iou<'py>(
    py: Python<'py>,
    a: &Bound<'py, PyAny>,
    b: &Bound<'py, PyAny>,
    eps: f64,
) -> Perhaps<'py> {
    either!(matrix(py, Pairwise::CompleteIou(eps), a, b, "xyxy"))
}

fn encoded<'py, T: Number>(
    py: Python<'py>,
    src: &Bound<'py, PyAny>,
    dst: &Bound<'py, PyAny>,
) -> Perhaps<'py> {
    let (Some(src), Some(dst)) = (ready_boxes::<T>(src), ready_boxes::<T>(dst)) else {
        return Ok(None);
    };
    let (src, dst) = (rows(&src, "src_bbox")?, rows(&dst, "dst_bbox")?);
    let shape = [boxes::encoded_rows(src, dst)?, 4];
    let kernel = |out: &mut [T]| boxes::encode(src, dst, out.as_chunks_mut().0);
    Ok(Some(filled(py, shape, kernel)?.into_any()))
}

/// Offsets that take each source box to its destination: (R, 4).
#[pyfunction]
fn bbox2loc<'py>(
    py: Python<'py>,
    src_bbox: &Bound<'py, PyAny>,
    dst_bbox: &Bound<'py, PyAny>,
) -> Perhaps<'py> {
    either!(encoded(py, src_bbox, dst_bbox))
}

fn decoded<'py, T: Number>(
    py: Python<'py>,
    src: &Bound<'py, PyAny>,
    loc: &Bound<'py, PyAny>,
) -> Perhaps<'py> {
    let arrays = (ready_boxes::<T>(src), ready::<T, Ix2>(loc));
    let (Some(src), Some(loc)) = arrays else { return Ok(None) };
    let (src, (n, width)) = (rows(&src, "src_bbox")?, loc.as_array().dim());
    if width % 4 != 0 || src.is_empty() || ![1, n].contains(&src.len()) {
        return Ok(None);
    }
    let (loc, _) = slice(&loc, "loc")?.as_chunks();
    let kernel = |out: &mut [T]| boxes::decode(src, loc, width / 4, out.as_chunks_mut().0);
    Ok(Some(filled(py, [n, width], kernel)?.into_any()))
}

/// Boxes that (R, 4 K) offsets make of (R, 4) source boxes, of at least one: (R, 4 K).
#[pyfunction]
fn loc2bbox<'py>(
    py: Python<'py>,
    src_bbox: &Bound<'py, PyAny>,
    loc: &Bound<'py, PyAny>,
) -> Perhaps<'py> {
    either!(decoded(py, src_bbox, loc))
}

fn clipped<'py, T: Number>(
    py: Python<'py>,
    boxes: &Bound<'py, PyAny>,
    size: (f64, f64),
) -> Perhaps<'py> {
    let Some(boxes) = ready_boxes::<T>(boxes) else { return Ok(None) };
    let boxes = rows(&boxes, "boxes")?;
    let size = (T::from_f64(size.0), T::from_f64(size.1));
    let kernel = |out: &mut [T]| boxes::clip(boxes, size, out.as_chunks_mut().0);
    Ok(Some(filled(py, [boxes.len(), 4], kernel)?.into_any()))
}

/// Boxes limited to `[0, size]` of each axis: (R, 4).
#[pyfunction]
fn clip_boxes<'py>(py: Python<'py>, boxes: &Bound<'py, PyAny>, size: (f64, f64)) -> Perhaps<'py> {
    either!(clipped(py, boxes, size))
}

/// The smallest box around the pixels of each mask that are not 0: (N, 4).
#[pyfunction]
fn mask_boxes<'py>(
    py: Python<'py>,
    masks: PyReadonlyArray3<'py, u8>,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let (n, height, width) = masks.as_array().dim();
    let masks = slice(&masks, "masks")?;
    let size = (height, width);
    filled(py, [n, 4], |out| boxes::mask_boxes(masks, size, out.as_chunks_mut().0))
}

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(box_area, m)?)?;
    m.add_function(wrap_pyfunction!(box_iou, m)?)?;
    m.add_function(wrap_pyfunction!(bbox_iou, m)?)?;
    m.add_function(wrap_pyfunction!(generalized_box_iou, m)?)?;
    m.add_function(wrap_pyfunction!(distance_box_iou, m)?)?;
    m.add_function(wrap_pyfunction!(complete_box_iou, m)?)?;
    m.add_function(wrap_pyfunction!(bbox2loc, m)?)?;
    m.add_function(wrap_pyfunction!(loc2bbox, m)?)?;
    m.add_function(wrap_pyfunction!(clip_boxes, m)?)?;
    m.add_function(wrap_pyfunction!(mask_boxes, m)?)?;
    Ok(())
}
