//! Boxes: IoU, codec, clipping. Every function exists for float32 and float64.

use numpy::{PyArray1, PyArray2, PyReadonlyArray2};
use pyo3::prelude::*;

use super::{compute, slice, wrap};
use crate::boxes::{self, BBox, Scalar};
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

macro_rules! bindings {
    ($t:ty, $box_iou:ident, $bbox2loc:ident, $loc2bbox:ident, $clip_boxes:ident) => {
        /// IoU of every box of `a` with every box of `b`: (N, K).
        #[pyfunction]
        fn $box_iou<'py>(
            py: Python<'py>,
            a: PyReadonlyArray2<'py, $t>,
            b: PyReadonlyArray2<'py, $t>,
        ) -> PyResult<Bound<'py, PyArray2<$t>>> {
            let (a, b) = (rows(&a, "bbox_a")?, rows(&b, "bbox_b")?);
            let matrix = compute(py, || boxes::iou_matrix(a, b))?;
            wrap(py, matrix, [a.len(), b.len()])
        }

        /// Offsets that take each source box to its destination: (R, 4).
        #[pyfunction]
        fn $bbox2loc<'py>(
            py: Python<'py>,
            src_bbox: PyReadonlyArray2<'py, $t>,
            dst_bbox: PyReadonlyArray2<'py, $t>,
        ) -> PyResult<Bound<'py, PyArray2<$t>>> {
            let (src, dst) = (rows(&src_bbox, "src_bbox")?, rows(&dst_bbox, "dst_bbox")?);
            let offsets = compute(py, || boxes::encode(src, dst))?;
            wrap(py, offsets, [src.len(), 4])
        }

        /// Boxes that (R, 4 K) offsets make of (R, 4) source boxes: (R, 4 K).
        #[pyfunction]
        fn $loc2bbox<'py>(
            py: Python<'py>,
            src_bbox: PyReadonlyArray2<'py, $t>,
            loc: PyReadonlyArray2<'py, $t>,
        ) -> PyResult<Bound<'py, PyArray2<$t>>> {
            let (r, width) = loc.as_array().dim();
            let (src, loc) = (rows(&src_bbox, "src_bbox")?, slice(&loc, "loc")?);
            let decoded = compute(py, || boxes::decode(src, loc, width / 4))?;
            wrap(py, decoded, [r, width])
        }

        /// Boxes limited to `[0, size]` of each axis.
        #[pyfunction]
        fn $clip_boxes<'py>(
            py: Python<'py>,
            bbox: PyReadonlyArray2<'py, $t>,
            size: (f64, f64),
        ) -> PyResult<Bound<'py, PyArray2<$t>>> {
            let mut clipped = rows(&bbox, "bbox")?.to_vec();
            let size = (<$t>::from_f64(size.0), <$t>::from_f64(size.1));
            boxes::clip(&mut clipped, size);
            let n = clipped.len();
            wrap(py, clipped.into_flattened(), [n, 4])
        }
    };
}

bindings!(f32, box_iou_f32, bbox2loc_f32, loc2bbox_f32, clip_boxes_f32);
bindings!(f64, box_iou_f64, bbox2loc_f64, loc2bbox_f64, clip_boxes_f64);

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(box_iou_f32, m)?)?;
    m.add_function(wrap_pyfunction!(box_iou_f64, m)?)?;
    m.add_function(wrap_pyfunction!(bbox2loc_f32, m)?)?;
    m.add_function(wrap_pyfunction!(bbox2loc_f64, m)?)?;
    m.add_function(wrap_pyfunction!(loc2bbox_f32, m)?)?;
    m.add_function(wrap_pyfunction!(loc2bbox_f64, m)?)?;
    m.add_function(wrap_pyfunction!(clip_boxes_f32, m)?)?;
    m.add_function(wrap_pyfunction!(clip_boxes_f64, m)?)?;
    Ok(())
}
