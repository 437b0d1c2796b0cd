//! One step forward.

use super::super::ir::{Op, Shape};
use super::super::packed::norm_of;
use super::super::steps::flatten_into;
use super::layer::{self, Call};
use crate::Result;
use crate::conv::PreparedConv;
use crate::layers::batch_norm::{self, Affine};
use crate::layers::softmax::{log_softmax_into, softmax_into};
use crate::layers::{activation, avg_pool, dropout, max_pool};
use crate::rows::{Rows, RowsMut};

/// What a step keeps besides values.
#[derive(Debug, Default, Clone)]
pub(super) struct Kept {
    /// Mean and biased variance of each channel of the batch.
    pub statistics: (Vec<f32>, Vec<f32>),
    /// Where in its window each maximum was.
    pub places: Vec<u8>,
}

/// The seed and number of a dropout's mask.
pub type Mask = (u64, u64);

/// A value as rows: one a pixel, or one an image.
pub(super) fn rows<'a>(data: &'a [f32], shape: Shape, batch: usize) -> Rows<'a> {
    Rows::new(data, batch * shape.pixels(), shape.channels(), shape.channels())
}

/// Writes the value of `op`.
pub(super) fn run(
    op: &Op,
    frozen: Option<&std::sync::Arc<PreparedConv>>,
    call: Call<'_>,
    inputs: &[(&[f32], Shape)],
    (output, shape): (&mut [f32], Shape),
    masks: &[Mask],
    kept: &mut Kept,
) -> Result<()> {
    let input = |index: usize| {
        let (data, shape) = inputs[index];
        rows(data, shape, call.batch)
    };
    let second = || (inputs.len() > 1).then(|| input(1));
    if let Op::Layer(layer) = op {
        return layer::forward(layer, frozen, call, input(0), second(), output);
    }
    if let Op::RandomDrop(drop) = op {
        let (seed, mask) = masks[drop.number];
        output.copy_from_slice(inputs[0].0);
        if drop.channels {
            let factors = channel_factors(drop.p, (seed, mask), call.batch, shape);
            scale_channels(&factors, (shape.channels(), shape.pixels()), output);
        } else {
            dropout::dropout_in_place(output, drop.p, seed, mask);
        }
        return Ok(());
    }
    let count = call.batch * shape.pixels();
    let out = RowsMut::new(output, count, shape.channels(), shape.channels());
    match op {
        Op::TrainNorm(norm) => {
            let at = |constant: Option<usize>| constant.map(|c| call.constants[c]);
            let (weight, bias) = (at(norm.weight), at(norm.bias));
            match norm.running {
                None => {
                    let (eps, activation) = (norm.eps, norm.activation);
                    kept.statistics = batch_norm::train_forward_into(
                        input(0),
                        weight,
                        bias,
                        eps,
                        second(),
                        activation,
                        out,
                    )?;
                }
                Some((mean, var)) => {
                    let (mean, var) = (call.constants[mean], call.constants[var]);
                    let norm_ = batch_norm::Norm::new(mean, var, weight, bias, norm.eps)?;
                    Affine::new(&norm_).apply_into(norm.activation, input(0), out);
                }
            }
        }
        Op::BatchNorm(norm, activation) => {
            Affine::new(&norm_of(norm, call.constants)?).apply_into(*activation, input(0), out);
        }
        Op::Map(function) => activation::apply_into(*function, input(0), out),
        Op::Add(activation) => activation::add_into(*activation, input(0), input(1), out),
        Op::MaxPool(pool) => {
            kept.places.resize(out.count() * out.channels(), 0);
            max_pool::train_forward_into(pool, input(0), out, &mut kept.places);
        }
        Op::AvgPool(pool, divisor) => avg_pool::forward_into(pool, *divisor, input(0), out),
        Op::Gather(gather, _) => gather.forward_into(input(0), out),
        Op::Bilinear(resize) => resize.forward_into(input(0), out),
        Op::ResponseNorm(norm) => norm.forward_into(input(0), out),
        Op::Flatten => flatten_into(call.batch, input(0), out),
        Op::Softmax { log: false } => softmax_into(input(0), out),
        Op::Softmax { log: true } => log_softmax_into(input(0), out),
        Op::Copy | Op::Dropout => activation::copy_into(input(0), out),
        Op::Channels(first) => {
            activation::copy_into(input(0).columns(*first, shape.channels()), out);
        }
        Op::Concat => {
            let mut rest = out;
            for index in 0..inputs.len() {
                let input = input(index);
                let (part, after) = rest.split_columns(input.channels());
                activation::copy_into(input, part);
                rest = after;
            }
        }
        Op::Layer(_) | Op::RandomDrop(_) => unreachable!("done above"),
        Op::Input(_) | Op::Gone => unreachable!("not steps"),
    }
    Ok(())
}

/// What each channel of each image is multiplied by: what dropout makes of a 1.
pub(super) fn channel_factors(p: f64, (seed, mask): Mask, batch: usize, shape: Shape) -> Vec<f32> {
    dropout::dropout(&vec![1.0; batch * shape.channels()], p, seed, mask)
}

/// Multiplies each row by the factors of its image, of which there are `pixels` rows.
pub(super) fn scale_channels(
    factors: &[f32],
    (channels, pixels): (usize, usize),
    values: &mut [f32],
) {
    let images = values.chunks_mut((channels * pixels).max(1));
    for (image, factors) in images.zip(factors.chunks(channels.max(1)).cycle()) {
        for row in image.chunks_mut(channels.max(1)) {
            row.iter_mut().zip(factors).for_each(|(value, f)| *value *= f);
        }
    }
}
