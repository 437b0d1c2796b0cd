//! RoI max pooling, RoI align and their position-sensitive kin. `rois` is (R, 5): batch_index, x1,
//! y1, x2, y2.

use numpy::{
    PyArray1, PyArray4, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArray4,
    PyReadwriteArray4,
};
use pyo3::prelude::*;

use super::boxes::rows;
use super::{compute, filled, shape4, slice, wrap};
use crate::roi::{
    self, Align, Edges, FeatureMap, Layout, Level, LevelRule, MaxPool, PyramidAlign, Region,
    Rounding,
};
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

/// A forward operator: checks, then `run(map, layout, input, regions, output)`. The input is
/// (N, H, W, C) and the output (R, oh, ow, K), or (N, C, H, W) and (R, K, oh, ow); the output has
/// K = `channels(map)` channels, and every element of it is written.
fn forward<'py>(
    py: Python<'py>,
    input: &PyReadonlyArray4<'py, f32>,
    channels_first: bool,
    rois: &PyReadonlyArray2<'py, f32>,
    output: &mut PyReadwriteArray4<'py, f32>,
    (output_size, channels): (Pair, impl FnOnce(&FeatureMap) -> Result<usize>),
    run: impl FnOnce(FeatureMap, Layout, &[f32], &[Region], &mut [f32]) -> Result<()> + Send,
) -> PyResult<()> {
    let (batch, second, third, fourth) = shape4(input);
    let (layout, shape) = match channels_first {
        true => (Layout::ChannelsFirst, (batch, third, fourth, second)),
        false => (Layout::ChannelsLast, (batch, second, third, fourth)),
    };
    let map = FeatureMap::new(shape, output_size)?;
    let (x, regions) = (slice(input, "input")?, regions(rois, batch)?);
    let (count, (rows, cols), channels) = (regions.len(), output_size, channels(&map)?);
    let expected = match layout {
        Layout::ChannelsFirst => (count, channels, rows, cols),
        Layout::ChannelsLast => (count, rows, cols, channels),
    };
    let got = output.as_array().dim();
    match output.as_slice_mut() {
        Ok(out) if got == expected => Ok(py.detach(|| run(map, layout, x, &regions, out))?),
        _ => {
            let expected = format!("contiguous {expected:?}");
            Err(Error::shape("output", expected, format!("{got:?}")).into())
        }
    }
}

/// The channels of the result of an operator that treats all channels alike.
fn all_channels(map: &FeatureMap) -> Result<usize> {
    Ok(map.channels)
}

/// Gradient of the input, all channels last: `run(map, regions, grad_output)`.
fn backward<'py>(
    py: Python<'py>,
    grad_output: &PyReadonlyArray4<'py, f32>,
    rois: &PyReadonlyArray2<'py, f32>,
    input_shape: Quad,
    run: impl FnOnce(FeatureMap, &[Region], &[f32]) -> Result<Vec<f32>> + Send,
) -> PyResult<F32Array4<'py>> {
    let (regions, grad) = (regions(rois, input_shape.0)?, shape4(grad_output));
    if grad.0 != regions.len() {
        let expected = format!("{} regions", regions.len());
        return Err(Error::shape("grad_output", expected, format!("{grad:?}")).into());
    }
    let map = FeatureMap::new(input_shape, (grad.1, grad.2))?;
    let g = slice(grad_output, "grad_output")?;
    let result = compute(py, || run(map, &regions, g))?;
    wrap(py, result, [map.batch, map.height, map.width, map.channels])
}

fn pooling(map: FeatureMap, scale: f64, even: bool, f64_edges: bool) -> MaxPool {
    let rounding = if even { Rounding::HalfToEven } else { Rounding::HalfAwayFromZero };
    let edges = if f64_edges { Edges::F64 } else { Edges::F32 };
    MaxPool { map, scale, rounding, edges }
}

/// RoI max pooling, a [`forward`] operator.
#[pyfunction]
fn roi_pool<'py>(
    py: Python<'py>,
    input: PyReadonlyArray4<'py, f32>,
    channels_first: bool,
    rois: PyReadonlyArray2<'py, f32>,
    mut output: PyReadwriteArray4<'py, f32>,
    output_size: Pair,
    scale: f64,
    half_to_even: bool,
    float64_edges: bool,
) -> PyResult<()> {
    let options = (output_size, all_channels);
    forward(py, &input, channels_first, &rois, &mut output, options, |map, layout, x, r, out| {
        let pool = pooling(map, scale, half_to_even, float64_edges);
        roi::max_pool(&pool, layout, x, r, out)
    })
}

/// [`roi_pool`], channels last, and the pixel y * W + x of every maximum, -1 for an empty bin.
#[pyfunction]
fn roi_pool_with_argmax<'py>(
    py: Python<'py>,
    input: PyReadonlyArray4<'py, f32>,
    rois: PyReadonlyArray2<'py, f32>,
    output_size: Pair,
    scale: f64,
    half_to_even: bool,
    float64_edges: bool,
) -> PyResult<(F32Array4<'py>, I32Array4<'py>)> {
    let map = FeatureMap::new(shape4(&input), output_size)?;
    let pool = pooling(map, scale, half_to_even, float64_edges);
    let (x, regions) = (slice(&input, "input")?, regions(&rois, map.batch)?);
    let (output, argmax) = compute(py, || roi::max_pool_with_argmax(&pool, x, &regions))?;
    let shape = [regions.len(), output_size.0, output_size.1, map.channels];
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
    let at = slice(&argmax, "argmax")?;
    backward(py, &grad_output, &rois, input_shape, |map, regions, g| {
        roi::max_pool_backward(&map, regions, at, g)
    })
}

/// RoI align, a [`forward`] operator.
#[pyfunction]
fn roi_align<'py>(
    py: Python<'py>,
    input: PyReadonlyArray4<'py, f32>,
    channels_first: bool,
    rois: PyReadonlyArray2<'py, f32>,
    mut output: PyReadwriteArray4<'py, f32>,
    output_size: Pair,
    scale: f64,
    sampling_ratio: i32,
    aligned: bool,
) -> PyResult<()> {
    let options = (output_size, all_channels);
    forward(py, &input, channels_first, &rois, &mut output, options, |map, layout, x, r, out| {
        roi::align(&Align { map, scale, sampling_ratio, aligned }, layout, x, r, out)
    })
}

/// Gradient of the input of [`roi_align`]; `input_shape` is (N, H, W, C).
#[pyfunction]
fn roi_align_backward<'py>(
    py: Python<'py>,
    grad_output: PyReadonlyArray4<'py, f32>,
    rois: PyReadonlyArray2<'py, f32>,
    input_shape: Quad,
    scale: f64,
    sampling_ratio: i32,
    aligned: bool,
) -> PyResult<F32Array4<'py>> {
    let (regions, grad) = (regions(&rois, input_shape.0)?, shape4(&grad_output));
    let map = FeatureMap::new(input_shape, (grad.1, grad.2))?;
    let g = slice(&grad_output, "grad_output")?;
    let align = Align { map, scale, sampling_ratio, aligned };
    let shape = [map.batch, map.height, map.width, map.channels];
    filled(py, shape, |grad_input| roi::align_backward(&align, &regions, g, grad_input))
}

/// Level of each (R, 4) box, -1 for none: (R,).
#[pyfunction]
fn roi_levels<'py>(
    py: Python<'py>,
    boxes: PyReadonlyArray2<'py, f32>,
    levels: (f32, f32),
    canonical_scale: f32,
    canonical_level: f32,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let rule = LevelRule { levels, canonical_scale, canonical_level };
    let boxes = rows(&boxes, "boxes")?;
    wrap(py, boxes.iter().map(|b| rule.level(b)).collect(), [boxes.len()])
}

/// RoI align of every region from the map of its level, channels last: (R, oh, ow, C).
#[pyfunction]
fn roi_align_levels<'py>(
    py: Python<'py>,
    inputs: Vec<PyReadonlyArray4<'py, f32>>,
    rois: PyReadonlyArray2<'py, f32>,
    levels: PyReadonlyArray1<'py, i64>,
    mut output: PyReadwriteArray4<'py, f32>,
    scales: Vec<f64>,
    sampling_ratio: i32,
) -> PyResult<()> {
    let (count, rows, cols, channels) = output.as_array().dim();
    let shapes: Vec<Quad> = inputs.iter().map(shape4).collect();
    let maps = maps(&shapes, (rows, cols), &scales)?;
    let regions = regions(&rois, shapes.first().map_or(0, |shape| shape.0))?;
    let expected = (regions.len(), rows, cols, shapes.first().map_or(0, |shape| shape.3));
    if (count, rows, cols, channels) != expected {
        let got = format!("{:?}", output.as_array().dim());
        return Err(Error::shape("output", format!("{expected:?}"), got).into());
    }
    let inputs = inputs.iter().map(|input| slice(input, "input")).collect::<Result<Vec<_>>>()?;
    let (level_of, out) = (slice(&levels, "levels")?, output.as_slice_mut()?);
    Ok(py.detach(|| {
        PyramidAlign::new(&maps, sampling_ratio, &regions, level_of)?.forward(&inputs, out)
    })?)
}

fn maps(shapes: &[Quad], output: Pair, scales: &[f64]) -> Result<Vec<Level>> {
    if shapes.len() != scales.len() {
        let expected = format!("{}, one for each map", shapes.len());
        return Err(Error::shape("scales", expected, scales.len().to_string()));
    }
    let maps = shapes.iter().zip(scales).map(|(&shape, &scale)| {
        let map = FeatureMap::new(shape, output)?;
        Ok(Level { map, scale })
    });
    maps.collect()
}

/// Gradients of the inputs of [`roi_align_levels`]; `shapes` are (N, H, W, C).
#[pyfunction]
fn roi_align_levels_backward<'py>(
    py: Python<'py>,
    grad_output: PyReadonlyArray4<'py, f32>,
    rois: PyReadonlyArray2<'py, f32>,
    levels: PyReadonlyArray1<'py, i64>,
    shapes: Vec<Quad>,
    scales: Vec<f64>,
    sampling_ratio: i32,
) -> PyResult<Vec<F32Array4<'py>>> {
    let grad = shape4(&grad_output);
    let maps = maps(&shapes, (grad.1, grad.2), &scales)?;
    let regions = regions(&rois, shapes.first().map_or(0, |shape| shape.0))?;
    let (g, level_of) = (slice(&grad_output, "grad_output")?, slice(&levels, "levels")?);
    let results: Vec<F32Array4<'py>> =
        shapes.iter().map(|&(n, h, w, c)| PyArray4::zeros(py, [n, h, w, c], false)).collect();
    let mut borrows = results
        .iter()
        .map(|array| array.try_readwrite())
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let mut targets = borrows
        .iter_mut()
        .map(|borrow| borrow.as_slice_mut())
        .collect::<std::result::Result<Vec<_>, _>>()?;
    py.detach(|| {
        PyramidAlign::new(&maps, sampling_ratio, &regions, level_of)?.backward(g, &mut targets)
    })?;
    drop(borrows);
    Ok(results)
}

/// Position-sensitive RoI pooling, a [`forward`] operator with C / (oh * ow) output channels.
#[pyfunction]
fn ps_roi_pool<'py>(
    py: Python<'py>,
    input: PyReadonlyArray4<'py, f32>,
    channels_first: bool,
    rois: PyReadonlyArray2<'py, f32>,
    mut output: PyReadwriteArray4<'py, f32>,
    output_size: Pair,
    scale: f64,
) -> PyResult<()> {
    let options = (output_size, FeatureMap::channels_per_bin);
    forward(py, &input, channels_first, &rois, &mut output, options, |map, layout, x, r, out| {
        roi::ps_pool(&map, scale, layout, x, r, out)
    })
}

/// Gradient of the input of [`ps_roi_pool`]; all channels last.
#[pyfunction]
fn ps_roi_pool_backward<'py>(
    py: Python<'py>,
    grad_output: PyReadonlyArray4<'py, f32>,
    rois: PyReadonlyArray2<'py, f32>,
    input_shape: Quad,
    scale: f64,
) -> PyResult<F32Array4<'py>> {
    backward(py, &grad_output, &rois, input_shape, |map, regions, g| {
        roi::ps_pool_backward(&map, scale, regions, g)
    })
}

/// Position-sensitive RoI align, a [`forward`] operator with C / (oh * ow) output channels.
#[pyfunction]
fn ps_roi_align<'py>(
    py: Python<'py>,
    input: PyReadonlyArray4<'py, f32>,
    channels_first: bool,
    rois: PyReadonlyArray2<'py, f32>,
    mut output: PyReadwriteArray4<'py, f32>,
    output_size: Pair,
    scale: f64,
    sampling_ratio: i32,
) -> PyResult<()> {
    let options = (output_size, FeatureMap::channels_per_bin);
    forward(py, &input, channels_first, &rois, &mut output, options, |map, layout, x, r, out| {
        roi::ps_align(&Align { map, scale, sampling_ratio, aligned: true }, layout, x, r, out)
    })
}

/// Gradient of the input of [`ps_roi_align`]; all channels last.
#[pyfunction]
fn ps_roi_align_backward<'py>(
    py: Python<'py>,
    grad_output: PyReadonlyArray4<'py, f32>,
    rois: PyReadonlyArray2<'py, f32>,
    input_shape: Quad,
    scale: f64,
    sampling_ratio: i32,
) -> PyResult<F32Array4<'py>> {
    backward(py, &grad_output, &rois, input_shape, |map, regions, g| {
        roi::ps_align_backward(&Align { map, scale, sampling_ratio, aligned: true }, regions, g)
    })
}

pub(super) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(roi_pool, m)?)?;
    m.add_function(wrap_pyfunction!(roi_pool_with_argmax, m)?)?;
    m.add_function(wrap_pyfunction!(roi_pool_backward, m)?)?;
    m.add_function(wrap_pyfunction!(roi_align, m)?)?;
    m.add_function(wrap_pyfunction!(roi_align_backward, m)?)?;
    m.add_function(wrap_pyfunction!(roi_levels, m)?)?;
    m.add_function(wrap_pyfunction!(roi_align_levels, m)?)?;
    m.add_function(wrap_pyfunction!(roi_align_levels_backward, m)?)?;
    m.add_function(wrap_pyfunction!(ps_roi_pool, m)?)?;
    m.add_function(wrap_pyfunction!(ps_roi_pool_backward, m)?)?;
    m.add_function(wrap_pyfunction!(ps_roi_align, m)?)?;
    m.add_function(wrap_pyfunction!(ps_roi_align_backward, m)?)?;
    Ok(())
}
