//! One step backward: from the gradient of its value to those of its inputs and constants.

use super::super::ir::{Op, Shape, TrainNorm};
use super::super::packed::norm_of;
use super::forward::{Kept, Mask, channel_factors, rows, scale_channels};
use super::layer::{self, Call, Sinks};
use crate::Result;
use crate::layers::activation::{self, Function};
use crate::layers::batch_norm::{self, Norm, Statistics};
use crate::layers::windows::Pool2d;
use crate::layers::{avg_pool, dropout, max_pool, softmax};
use crate::rows::{Rows, RowsMut};

/// What a step going back can look at.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a> {
    /// The step's inputs; without elements where they were not kept.
    pub inputs: &'a [(&'a [f32], Shape)],
    /// Its output; without elements where it was not kept.
    pub output: &'a [f32],
    pub shape: Shape,
    pub kept: &'a Kept,
    pub masks: &'a [Mask],
}

/// The gradients of the inputs, to be written whole, where they are wanted and are not computed in
/// the place of the value's gradient.
pub(super) type Targets<'a> = [Option<&'a mut [f32]>];

/// Goes back through `op`. `gradient` is that of its value, and becomes that of the input that
/// [`schedule`](super::schedule) lets take over its place.
pub(super) fn run(
    op: &Op,
    call: Call<'_>,
    saved: Saved<'_>,
    gradient: &mut [f32],
    targets: &mut Targets<'_>,
    sinks: &mut Sinks<'_>,
) -> Result<()> {
    let batch = call.batch;
    // First the operations that work in place.
    match op {
        Op::Layer(layer) => {
            activation::mask(layer.activation, saved.output, gradient);
            layer::backward_constants(layer, call, saved.inputs[0].0, gradient, sinks)?;
            if let Some(target) = &mut targets[0] {
                layer::backward_data(layer, call, gradient, target)?;
            }
            if let Some(Some(target)) = targets.get_mut(1) {
                copy(gradient, target);
            }
            return Ok(());
        }
        Op::TrainNorm(norm) => train_norm(norm, call, saved, gradient, targets, sinks)?,
        Op::BatchNorm(norm, activation) => {
            activation::mask(*activation, saved.output, gradient);
            let norm = norm_of(norm, call.constants)?;
            let factors: Vec<f32> = norm.scale().into_iter().map(|scale| scale as f32).collect();
            scale_channels(
                &factors,
                (saved.shape.channels(), batch * saved.shape.pixels()),
                gradient,
            );
        }
        Op::Add(activation) => {
            activation::mask(*activation, saved.output, gradient);
            if let Some(Some(target)) = targets.get_mut(1) {
                copy(gradient, target);
            }
        }
        Op::Map(function) => map(*function, saved.output, gradient),
        Op::Copy | Op::Dropout => {}
        Op::RandomDrop(drop) => {
            let (seed, mask) = saved.masks[drop.number];
            if drop.channels {
                let factors = channel_factors(drop.p, (seed, mask), batch, saved.shape);
                scale_channels(&factors, (saved.shape.channels(), saved.shape.pixels()), gradient);
            } else {
                dropout::dropout_in_place(gradient, drop.p, seed, mask);
            }
        }
        _ => return elsewhere(op, batch, saved, gradient, targets),
    }
    if let Some(target) = &mut targets[0] {
        copy(gradient, target);
    }
    Ok(())
}

/// Operations whose input's gradient has a shape or an order of its own.
fn elsewhere(
    op: &Op,
    batch: usize,
    saved: Saved<'_>,
    gradient: &[f32],
    targets: &mut Targets<'_>,
) -> Result<()> {
    if let Op::Concat = op {
        let mut rest = rows(gradient, saved.shape, batch);
        for (target, &(_, shape)) in targets.iter_mut().zip(saved.inputs) {
            let channels = shape.channels();
            if let Some(target) = target {
                let part = rest.columns(0, channels);
                activation::copy_into(part, rows_mut(target, shape, batch));
            }
            rest = rest.columns(channels, rest.channels() - channels);
        }
        return Ok(());
    }
    let (Some(Some(target)), &[(input, shape)]) = (targets.get_mut(0), saved.inputs) else {
        return Ok(());
    };
    match op {
        Op::MaxPool(pool) => {
            let pool = Pool2d { batch, ..pool.clone() };
            max_pool::train_backward_into(&pool, gradient, &saved.kept.places, target);
        }
        Op::AvgPool(pool, divisor) => {
            let pool = Pool2d { batch, ..pool.clone() };
            avg_pool::backward_into(&pool, *divisor, gradient, target);
        }
        Op::Gather(gather, _) => gather.backward_into(batch, gradient, target),
        Op::Bilinear(resize) => resize.backward_into(batch, gradient, target),
        Op::ResponseNorm(norm) => {
            copy(&norm.backward(shape.channels(), input, gradient), target);
        }
        Op::Flatten => unflatten(batch, gradient, shape, target),
        Op::Softmax { log } => {
            let classes = shape.channels();
            let values = match log {
                false => softmax::softmax_backward(classes, saved.output, gradient),
                true => softmax::log_softmax_backward(classes, saved.output, gradient),
            };
            copy(&values, target);
        }
        Op::Channels(first) => {
            target.fill(0.0);
            let wide = rows_mut(target, shape, batch);
            let (_, rest) = wide.split_columns(*first);
            let (part, _) = rest.split_columns(saved.shape.channels());
            activation::copy_into(rows(gradient, saved.shape, batch), part);
        }
        _ => unreachable!("{} is no step or works in place", op.name()),
    }
    Ok(())
}

/// The gradient of a function of single elements, by its output.
fn map(function: Function, output: &[f32], gradient: &mut [f32]) {
    match function {
        Function::Clamp(activation) => activation::mask(activation, output, gradient),
        Function::Scale(factor, _) => gradient.iter_mut().for_each(|g| *g *= factor),
        Function::Sigmoid | Function::Tanh => {
            let above = gradient.to_vec();
            activation::backward_into(function, output, &above, gradient);
        }
    }
}

fn train_norm(
    norm: &TrainNorm,
    call: Call<'_>,
    saved: Saved<'_>,
    gradient: &mut [f32],
    targets: &mut Targets<'_>,
    sinks: &mut Sinks<'_>,
) -> Result<()> {
    let at = |constant: Option<usize>| constant.map(|c| call.constants[c]);
    let (weight, bias) = (at(norm.weight), at(norm.bias));
    let (mean, var, statistics) = match norm.running {
        None => {
            let (mean, var) = &saved.kept.statistics;
            (&mean[..], &var[..], Statistics::Batch)
        }
        Some((mean, var)) => (call.constants[mean], call.constants[var], Statistics::Running),
    };
    let map = Norm::new(mean, var, weight, bias, norm.eps)?;
    let channels = saved.shape.channels();
    let (input, shape) = saved.inputs[0];
    // Without the input nobody wants the gradient that would need it.
    let zeros;
    let input = match input.is_empty() {
        true => {
            zeros = vec![0.0; gradient.len()];
            &zeros
        }
        false => input,
    };
    let output = if saved.output.is_empty() { input } else { saved.output };
    let residual = targets.get_mut(1).and_then(|target| target.as_deref_mut());
    let (grad_weight, grad_bias) = batch_norm::train_backward_into(
        &map,
        statistics,
        norm.activation,
        rows(input, shape, call.batch),
        rows(output, saved.shape, call.batch),
        RowsMut::dense(gradient, channels),
        residual.map(|residual| RowsMut::dense(residual, channels)),
    );
    for (constant, values) in [(norm.weight, grad_weight), (norm.bias, grad_bias)] {
        if let Some(sink) = constant.and_then(|c| sinks[c].as_deref_mut()) {
            activation::add_assign(sink, &values);
        }
    }
    Ok(())
}

fn rows_mut<'a>(data: &'a mut [f32], shape: Shape, batch: usize) -> RowsMut<'a> {
    RowsMut::new(data, batch * shape.pixels(), shape.channels(), shape.channels())
}

/// Copies a whole gradient.
pub(super) fn copy(from: &[f32], to: &mut [f32]) {
    activation::copy_into(Rows::dense(from, 1), RowsMut::dense(to, 1));
}

/// Writes each row, in C, H, W order, as the pixels of one image.
fn unflatten(batch: usize, gradient: &[f32], shape: Shape, target: &mut [f32]) {
    let (pixels, channels) = (shape.pixels(), shape.channels());
    if pixels * channels == 0 {
        return;
    }
    let images = target.chunks_exact_mut(pixels * channels).take(batch);
    for (image, from) in images.zip(gradient.chunks_exact(pixels * channels)) {
        for (pixel, row) in image.chunks_exact_mut(channels).enumerate() {
            for (value, plane) in row.iter_mut().zip(from.chunks_exact(pixels)) {
                *value = plane[pixel];
            }
        }
    }
}
