//! RoI max pooling and RoI align. `rois` is (R, 5): batch_index, x1, y1, x2, y2.

use numpy::{PyArray4, PyReadonlyArray2, PyReadonlyArray4, PyReadwriteArray4};
use pyo3::prelude::*;

use super::{compute, shape4, slice, wrap};
use crate::roi::{self, Align, Edges, FeatureMap, Layout, MaxPool, Region, Rounding};
use crate::{Error, Result};

type Pair = (usize, usize);
type Quad = (usize, usize, usize, usize);
type F32Array4<'py> = Bound<'py, PyArray4<f32>>;
type I32Array4<'py> = Bound<'py, PyArray4<i32>>;

fn regions(rois: &PyReadonlyArray2<'_, f32>, batch: usize) -> Result<Vec<Region>> {
    let (rows, columns) = rois.as_array().dim();
    if columns != 5 {
        let expected = "shape (R, 5): batch_index, x1, y1, x2, y2";
        return Err(Error::shape("rois", expected, format!("({rows}, {columns})")));
    }
    roi::parse_regions(slice(rois, "rois")?, batch)
}

fn pooling(input: Quad, output: Pair, scale: f64, even: bool, f64_edges: bool) -> Result<MaxPool> {
    let rounding = if even { Rounding::HalfToEven } else { Rounding::HalfAwayFromZero };
    let edges = if f64_edges { Edges::F64 } else { Edges::F32 };
    Ok(MaxPool { map: FeatureMap::new(input, output)?, scale, rounding, edges })
}

/// The map whose gradient is asked for, once `grad_output` has been seen to fit it.
fn map_of_gradient(input: Quad, grad: Quad, regions: usize) -> Result<FeatureMap> {
    let (rows, columns, channels) = (grad.1, grad.2, grad.3);
    if grad.0 != regions || channels != input.3 {
        let expected = format!("shape ({regions}, oh, ow, {}) (R, oh, ow, C)", input.3);
        return Err(Error::shape("grad_output", expected, format!("{grad:?}")));
    }
    FeatureMap::new(input, (rows, columns))
}

fn out_shape(map: &FeatureMap, regions: usize) -> [usize; 4] {
    [regions, map.output.0, map.output.1, map.channels]
}

/// How input and result lie in memory, and the input's (N, H, W, C).
fn layout(input: &PyReadonlyArray4<'_, f32>, channels_first: bool) -> (Layout, Quad) {
    let (batch, second, third, fourth) = shape4(input);
    match channels_first {
        true => (Layout::ChannelsFirst, (batch, third, fourth, second)),
        false => (Layout::ChannelsLast, (batch, second, third, fourth)),
    }
}

/// The result's elements, if its shape is the one of R regions in the given layout.
fn result<'a>(
    output: &'a mut PyReadwriteArray4<'_, f32>,
    layout: Layout,
    map: &FeatureMap,
    regions: usize,
) -> Result<&'a mut [f32]> {
    let [count, rows, cols, channels] = out_shape(map, regions);
    let expected = match layout {
        Layout::ChannelsFirst => (count, channels, rows, cols),
        Layout::ChannelsLast => (count, rows, cols, channels),
    };
    let got = output.as_array().dim();
    match output.as_slice_mut() {
        Ok(elements) if got == expected => Ok(elements),
        _ => Err(Error::shape("output", format!("contiguous {expected:?}"), format!("{got:?}"))),
    }
}

/// RoI max pooling of input (N, H, W, C) into output (R, oh, ow, C), or of (N, C, H, W) into
/// (R, C, oh, ow). Every element is written.
#[pyfunction]
fn roi_pool<'py>(
    py: Python<'py>,
    input: PyReadonlyArray4<'py, f32>,
    channels_first: bool,
    rois: PyReadonlyArray2<'py, f32>,
    mut output: PyReadwriteArray4<'py, f32>,
    output_size: Pair,
    spatial_scale: f64,
    half_to_even: bool,
    float64_edges: bool,
) -> PyResult<()> {
    let (layout, shape) = layout(&input, channels_first);
    let pool = pooling(shape, output_size, spatial_scale, half_to_even, float64_edges)?;
    let (x, regions) = (slice(&input, "input")?, regions(&rois, shape.0)?);
    let out = result(&mut output, layout, &pool.map, regions.len())?;
    Ok(py.detach(|| roi::max_pool(&pool, layout, x, &regions, out))?)
}

/// [`roi_pool`] and the pixel y * W + x of every maximum, -1 for an empty bin.
#[pyfunction]
fn roi_pool_with_argmax<'py>(
    py: Python<'py>,
    input: PyReadonlyArray4<'py, f32>,
    rois: PyReadonlyArray2<'py, f32>,
    output_size: Pair,
    spatial_scale: f64,
    half_to_even: bool,
    float64_edges: bool,
) -> PyResult<(F32Array4<'py>, I32Array4<'py>)> {
    let shape = shape4(&input);
    let pool = pooling(shape, output_size, spatial_scale, half_to_even, float64_edges)?;
    let (x, regions) = (slice(&input, "input")?, regions(&rois, shape.0)?);
    let (output, argmax) = compute(py, || roi::max_pool_with_argmax(&pool, x, &regions))?;
    let shape = out_shape(&pool.map, regions.len());
    Ok((wrap(py, output, shape)?, wrap(py, argmax, shape)?))
}

/// Gradient of the input of [`roi_pool`]; `input_shape` is (N, H, W, C).
#[pyfunction]
fn roi_pool_backward<'py>(
    py: Python<'py>,
    grad_output: PyReadonlyArray4<'py, f32>,
    argmax: PyReadonlyArray4<'py, i32>,
    rois: PyReadonlyArray2<'py, f32>,
    input_shape: Quad,
) -> PyResult<F32Array4<'py>> {
    let regions = regions(&rois, input_shape.0)?;
    let map = map_of_gradient(input_shape, shape4(&grad_output), regions.len())?;
    let (g, at) = (slice(&grad_output, "grad_output")?, slice(&argmax, "argmax")?);
    let result = compute(py, || roi::max_pool_backward(&map, &regions, at, g))?;
    wrap(py, result, [map.batch, map.height, map.width, map.channels])
}

/// RoI align of input (N, H, W, C) into output (R, oh, ow, C), or of (N, C, H, W) into
/// (R, C, oh, ow). Every element is written.
#[pyfunction]
fn roi_align<'py>(
    py: Python<'py>,
    input: PyReadonlyArray4<'py, f32>,
    channels_first: bool,
    rois: PyReadonlyArray2<'py, f32>,
    mut output: PyReadwriteArray4<'py, f32>,
    output_size: Pair,
    spatial_scale: f64,
    sampling_ratio: i32,
    aligned: bool,
) -> PyResult<()> {
    let (layout, shape) = layout(&input, channels_first);
    let map = FeatureMap::new(shape, output_size)?;
    let align = Align { map, scale: spatial_scale, sampling_ratio, aligned };
    let (x, regions) = (slice(&input, "input")?, regions(&rois, map.batch)?);
    let out = result(&mut output, layout, &map, regions.len())?;
    Ok(py.detach(|| roi::align(&align, layout, x, &regions, out))?)
}

/// Gradient of the input of [`roi_align`]; `input_shape` is (N, H, W, C).
#[pyfunction]
fn roi_align_backward<'py>(
    py: Python<'py>,
    grad_output: PyReadonlyArray4<'py, f32>,
    rois: PyReadonlyArray2<'py, f32>,
    input_shape: Quad,
    spatial_scale: f64,
    sampling_ratio: i32,
    aligned: bool,
) -> PyResult<F32Array4<'py>> {
    let regions = regions(&rois, input_shape.0)?;
    let map = map_of_gradient(input_shape, shape4(&grad_output), regions.len())?;
    let align = Align { map, scale: spatial_scale, sampling_ratio, aligned };
    let g = slice(&grad_output, "grad_output")?;
    let result = compute(py, || roi::align_backward(&align, &regions, g))?;
    wrap(py, result, [map.batch, map.height, map.width, map.channels])
}

/// The map of a position-sensitive operator's result, whose channels are divided among the bins.
fn divided(map: &FeatureMap) -> Result<FeatureMap> {
    Ok(FeatureMap { channels: map.channels_per_bin()?, ..*map })
}

/// Position-sensitive RoI pooling; input and output as of [`roi_pool`], with C / (oh * ow) output
/// channels.
#[pyfunction]
fn ps_roi_pool<'py>(
    py: Python<'py>,
    input: PyReadonlyArray4<'py, f32>,
    channels_first: bool,
    rois: PyReadonlyArray2<'py, f32>,
    mut output: PyReadwriteArray4<'py, f32>,
    output_size: Pair,
    spatial_scale: f64,
) -> PyResult<()> {
    let (layout, shape) = layout(&input, channels_first);
    let map = FeatureMap::new(shape, output_size)?;
    let (x, regions) = (slice(&input, "input")?, regions(&rois, map.batch)?);
    let out = result(&mut output, layout, &divided(&map)?, regions.len())?;
    Ok(py.detach(|| roi::ps_pool(&map, spatial_scale, layout, x, &regions, out))?)
}

/// Gradient of the input of [`ps_roi_pool`]; all channels last.
#[pyfunction]
fn ps_roi_pool_backward<'py>(
    py: Python<'py>,
    grad_output: PyReadonlyArray4<'py, f32>,
    rois: PyReadonlyArray2<'py, f32>,
    input_shape: Quad,
    spatial_scale: f64,
) -> PyResult<F32Array4<'py>> {
    let (regions, grad) = (regions(&rois, input_shape.0)?, shape4(&grad_output));
    let map = FeatureMap::new(input_shape, (grad.1, grad.2))?;
    let g = slice(&grad_output, "grad_output")?;
    let result = compute(py, || roi::ps_pool_backward(&map, spatial_scale, &regions, g))?;
    wrap(py, result, [map.batch, map.height, map.width, map.channels])
}

/// Position-sensitive RoI align; input and output as of [`roi_align`], with C / (oh * ow) output
/// channels.
#[pyfunction]
fn ps_roi_align<'py>(
    py: Python<'py>,
    input: PyReadonlyArray4<'py, f32>,
    channels_first: bool,
    rois: PyReadonlyArray2<'py, f32>,
    mut output: PyReadwriteArray4<'py, f32>,
    output_size: Pair,
    spatial_scale: f64,
    sampling_ratio: i32,
) -> PyResult<()> {
    let (layout, shape) = layout(&input, channels_first);
    let map = FeatureMap::new(shape, output_size)?;
    let align = Align { map, scale: spatial_scale, sampling_ratio, aligned: true };
    let (x, regions) = (slice(&input, "input")?, regions(&rois, map.batch)?);
    let out = result(&mut output, layout, &divided(&map)?, regions.len())?;
    Ok(py.detach(|| roi::ps_align(&align, layout, x, &regions, out))?)
}

/// Gradient of the input of [`ps_roi_align`]; all channels last.
#[pyfunction]
fn ps_roi_align_backward<'py>(
    py: Python<'py>,
    grad_output: PyReadonlyArray4<'py, f32>,
    rois: PyReadonlyArray2<'py, f32>,
    input_shape: Quad,
    spatial_scale: f64,
    sampling_ratio: i32,
) -> PyResult<F32Array4<'py>> {
    let (regions, grad) = (regions(&rois, input_shape.0)?, shape4(&grad_output));
    let map = FeatureMap::new(input_shape, (grad.1, grad.2))?;
    let align = Align { map, scale: spatial_scale, sampling_ratio, aligned: true };
    let g = slice(&grad_output, "grad_output")?;
    let result = compute(py, || roi::ps_align_backward(&align, &regions, g))?;
    wrap(py, result, [map.batch, map.height, map.width, map.channels])
}

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(roi_pool, m)?)?;
    m.add_function(wrap_pyfunction!(roi_pool_with_argmax, m)?)?;
    m.add_function(wrap_pyfunction!(roi_pool_backward, m)?)?;
    m.add_function(wrap_pyfunction!(roi_align, m)?)?;
    m.add_function(wrap_pyfunction!(roi_align_backward, m)?)?;
    m.add_function(wrap_pyfunction!(ps_roi_pool, m)?)?;
    m.add_function(wrap_pyfunction!(ps_roi_pool_backward, m)?)?;
    m.add_function(wrap_pyfunction!(ps_roi_align, m)?)?;
    m.add_function(wrap_pyfunction!(ps_roi_align_backward, m)?)?;
    Ok(())
}
