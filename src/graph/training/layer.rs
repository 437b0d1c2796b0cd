//! Convolutions and fully connected layers in training: weights are those of the call, so each call
//! packs them anew; those of frozen layers are packed once.

use std::borrow::Cow;
use std::sync::Arc;

use super::super::ir::Layer;
use super::super::packed::norm_of;
use crate::Result;
use crate::conv::{
    Conv2d, Epilogue, Precision, PreparedConv, backward_bias, backward_data_into,
    backward_weight_into, forward_into,
};
use crate::gemm::{MatRef, product_into};
use crate::layers::activation::add_assign;
use crate::layers::fold::fold_packed;
use crate::memory::Scratch;
use crate::parallel;
use crate::rows::{Rows, RowsMut};

/// What every layer of a run has in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub batch: usize,
    pub constants: &'a [&'a [f32]],
    pub precision: Precision,
    /// Of each constant, whether several steps add to its gradient.
    pub shared: &'a [bool],
}

/// Gradients of constants, where they are wanted.
pub(super) type Sinks<'a> = [Option<&'a mut [f32]>];

/// An array of constants, or one made of them.
type Array<'a> = Cow<'a, [f32]>;

fn geometry(layer: &Layer, batch: usize) -> Conv2d {
    Conv2d { batch, ..layer.conv }
}

/// Weights and bias with the fixed batch norm behind them, if there is one.
fn folded<'a>(layer: &Layer, call: Call<'a>) -> Result<(Array<'a>, Option<Array<'a>>)> {
    let weight = call.constants[layer.weight];
    let bias = layer.bias.map(|bias| call.constants[bias]);
    let Some(norm) = &layer.norm else {
        return Ok((Cow::Borrowed(weight), bias.map(Cow::Borrowed)));
    };
    let norm = norm_of(norm, call.constants)?;
    let mut weight = weight.to_vec();
    let bias = fold_packed(layer.conv.out_channels, &mut weight, bias, &norm)?;
    Ok((Cow::Owned(weight), Some(Cow::Owned(bias))))
}

/// Writes the layer's output.
pub(super) fn forward(
    layer: &Layer,
    frozen: Option<&Arc<PreparedConv>>,
    call: Call<'_>,
    input: Rows<'_>,
    residual: Option<Rows<'_>>,
    output: &mut [f32],
) -> Result<()> {
    let epilogue = Epilogue { residual, activation: layer.activation };
    let outputs = layer.conv.out_channels;
    if let Some(prepared) = frozen {
        let mut scratch = Scratch::new(prepared.scratch_len(call.batch));
        let rows = RowsMut::dense(output, outputs);
        prepared.run(call.batch, input, rows, epilogue, &mut scratch);
        return Ok(());
    }
    let (weight, bias) = folded(layer, call)?;
    if !layer.linear {
        let conv = geometry(layer, call.batch);
        let rows = RowsMut::dense(output, outputs);
        forward_into(&conv, input, &weight, bias.as_deref(), epilogue, call.precision, rows);
        return Ok(());
    }
    let features = layer.conv.in_channels;
    let rows = MatRef::new(input.as_slice(), call.batch, features, features);
    product_into(rows, MatRef::new(&weight, outputs, features, features).t(), output);
    parallel::for_each_chunk(output, outputs.max(1), |index, row| {
        if let Some(bias) = &bias {
            row.iter_mut().zip(&**bias).for_each(|(y, b)| *y += b);
        }
        if let Some(residual) = &residual {
            row.iter_mut().zip(residual.row(index)).for_each(|(y, r)| *y += r);
        }
        row.iter_mut().for_each(|y| *y = layer.activation.apply(*y));
    });
    Ok(())
}

/// Adds up the gradients of weight and bias; `gradient` is that of the sums, behind the activation.
/// `input` may be empty where that of the weight is not wanted.
pub(super) fn backward_constants(
    layer: &Layer,
    call: Call<'_>,
    input: &[f32],
    gradient: &[f32],
    sinks: &mut Sinks<'_>,
) -> Result<()> {
    let outputs = layer.conv.out_channels;
    let scale = match &layer.norm {
        Some(norm) => Some(norm_of(norm, call.constants)?.scale()),
        None => None,
    };
    let scaled = |values: &mut [f32]| {
        if let Some(scale) = &scale {
            for row in values.chunks_exact_mut(outputs) {
                row.iter_mut().zip(scale).for_each(|(v, s)| *v = (f64::from(*v) * s) as f32);
            }
        }
    };
    if let Some(sink) = layer.bias.and_then(|bias| sinks[bias].as_deref_mut()) {
        let mut sums = backward_bias(outputs, gradient);
        scaled(&mut sums);
        add_assign(sink, &sums);
    }
    if let Some(sink) = sinks[layer.weight].as_deref_mut() {
        if call.shared[layer.weight] {
            let mut sums = Scratch::new(sink.len());
            weight_gradient(layer, call, input, gradient, &mut sums);
            scaled(&mut sums);
            add_assign(sink, &sums);
        } else {
            weight_gradient(layer, call, input, gradient, sink);
            scaled(sink);
        }
    }
    Ok(())
}

/// Writes the gradient of the weights.
fn weight_gradient(layer: &Layer, call: Call<'_>, input: &[f32], gradient: &[f32], to: &mut [f32]) {
    if layer.linear {
        let (features, outputs) = (layer.conv.in_channels, layer.conv.out_channels);
        let rows = MatRef::new(gradient, call.batch, outputs, outputs);
        product_into(rows.t(), MatRef::new(input, call.batch, features, features), to);
    } else {
        let conv = geometry(layer, call.batch);
        backward_weight_into(&conv, input, gradient, call.precision, to);
    }
}

/// Writes the gradient of the layer's input.
pub(super) fn backward_data(
    layer: &Layer,
    call: Call<'_>,
    gradient: &[f32],
    grad_input: &mut [f32],
) -> Result<()> {
    let (weight, _) = folded(layer, call)?;
    if layer.linear {
        let (features, outputs) = (layer.conv.in_channels, layer.conv.out_channels);
        let rows = MatRef::new(gradient, call.batch, outputs, outputs);
        product_into(rows, MatRef::new(&weight, outputs, features, features), grad_input);
    } else {
        let conv = geometry(layer, call.batch);
        backward_data_into(&conv, gradient, &weight, call.precision, grad_input);
    }
    Ok(())
}
