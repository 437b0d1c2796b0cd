//! Statistics of a batch, and normalisation with what follows it: residual connection, activation.

use super::super::blocks::{NARROW, WIDE, for_each_block, lanes, rows_per_task, set_lanes};
use super::super::elementwise::assert_shape;
use super::{Norm, sums};
use crate::Result;
use crate::conv::Activation;
use crate::isa::{self, Isa, Simd};
use crate::rows::{Rows, RowsMut};

/// Mean and biased variance of each of `channels` channels over all pixels.
pub fn statistics(channels: usize, input: &[f32]) -> (Vec<f32>, Vec<f32>) {
    statistics_of(Rows::new(
        input,
        input.len().checked_div(channels).unwrap_or(0),
        channels,
        channels,
    ))
}

fn statistics_of(input: Rows<'_>) -> (Vec<f32>, Vec<f32>) {
    let channels = input.channels();
    if input.count() == 0 || channels == 0 {
        return (vec![0.0; channels], vec![0.0; channels]);
    }
    let (count, sums) = (input.count() as f64, sums::moments(input));
    let offsets = || sums.first.iter().map(|sum| sum / count);
    let mean =
        offsets().zip(input.row(0)).map(|(offset, &shift)| (offset + f64::from(shift)) as f32);
    let var = offsets().zip(&sums.second).map(|(offset, square)| {
        // Rounding may leave a tiny negative number; `max` would hide a NaN, `clamp` keeps it.
        (square / count - offset * offset).clamp(0.0, f64::INFINITY) as f32
    });
    (mean.collect(), var.collect())
}

/// `(x - mean) / sqrt(var + eps) * weight + bias`, channel by channel.
pub fn normalize(norm: &Norm<'_>, input: &[f32]) -> Result<Vec<f32>> {
    norm.check("input", input.len())?;
    let mut output = vec![0.0; input.len()];
    let (channels, map) = (norm.channels(), Affine::new(norm));
    let rows = RowsMut::dense(&mut output, channels);
    map.apply_into(Activation::Identity, Rows::dense(input, channels), rows);
    Ok(output)
}

/// `activation(batch norm of input + residual)` by the statistics of the batch, which are returned:
/// mean and biased variance of each channel.
pub fn train_forward_into(
    input: Rows<'_>,
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    eps: f64,
    residual: Option<Rows<'_>>,
    activation: Activation,
    output: RowsMut<'_>,
) -> Result<(Vec<f32>, Vec<f32>)> {
    let (mean, var) = statistics_of(input);
    let map = Affine::new(&Norm::new(&mean, &var, weight, bias, eps)?);
    map.apply_with_residual_into(activation, input, residual, output);
    Ok((mean, var))
}

/// The map `(x - mean) * scale + bias` of each channel, ready to be applied many times.
#[derive(Debug, Clone)]
pub struct Affine {
    mean: Vec<f32>,
    scale: Vec<f32>,
    bias: Vec<f32>,
}

impl Affine {
    /// The map that a batch norm with fixed statistics is.
    pub fn new(norm: &Norm<'_>) -> Self {
        Affine {
            mean: norm.mean.to_vec(),
            scale: norm.scale().into_iter().map(|s| s as f32).collect(),
            bias: norm.bias.map_or_else(|| vec![0.0; norm.channels()], <[f32]>::to_vec),
        }
    }

    /// Bytes of the constants.
    pub fn bytes(&self) -> usize {
        3 * size_of_val(&self.mean[..])
    }

    /// Writes the activation of the map of each element to the same place of `output`.
    pub fn apply_into(&self, activation: Activation, input: Rows<'_>, output: RowsMut<'_>) {
        self.apply_with_residual_into(activation, input, None, output);
    }

    /// [`apply_into`](Self::apply_into) with something added before the activation.
    pub fn apply_with_residual_into(
        &self,
        activation: Activation,
        input: Rows<'_>,
        residual: Option<Rows<'_>>,
        output: RowsMut<'_>,
    ) {
        // One loop an activation: a choice inside it would keep it from being vectorised.
        match activation {
            Activation::Identity => self.rows_into(input, residual, output, |y| y),
            Activation::Relu => {
                self.rows_into(input, residual, output, |y| Activation::Relu.apply(y))
            }
            Activation::Clamp(low, high) => {
                let last = |y| Activation::Clamp(low, high).apply(y);
                self.rows_into(input, residual, output, last)
            }
        }
    }

    fn rows_into(
        &self,
        input: Rows<'_>,
        residual: Option<Rows<'_>>,
        output: RowsMut<'_>,
        last: impl Fn(f32) -> f32 + Sync,
    ) {
        assert_shape(input, &output);
        residual.iter().for_each(|&residual| assert_shape(residual, &output));
        for_each_block(output, rows_per_task(input.channels()), |first, output| {
            let input = input.rows(first, output.count());
            let residual = residual.map(|residual| residual.rows(first, output.count()));
            let kernel = Normalize { map: self, input, residual, output, last: &last };
            isa::dispatch(Isa::active(), kernel);
        });
    }
}

/// The loops of [`Affine::apply_with_residual_into`], compiled for the vectors of the CPU.
struct Normalize<'a, F> {
    map: &'a Affine,
    input: Rows<'a>,
    residual: Option<Rows<'a>>,
    output: RowsMut<'a>,
    last: &'a F,
}

impl<F: Fn(f32) -> f32> isa::Kernel for Normalize<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        for index in 0..self.output.count() {
            let (x, r) = (self.input.row(index), self.residual.map(|r| r.row(index)));
            let y = self.output.row_mut(index);
            let first = channels::<WIDE, F>(self.map, self.last, x, r, y, 0);
            let first = channels::<NARROW, F>(self.map, self.last, x, r, y, first);
            channels::<1, F>(self.map, self.last, x, r, y, first);
        }
    }
}

/// Blocks of `N` channels of a row from `first` on, while there are such; returns the next channel.
#[inline(always)]
fn channels<const N: usize, F: Fn(f32) -> f32>(
    Affine { mean, scale, bias }: &Affine,
    last: &F,
    x: &[f32],
    residual: Option<&[f32]>,
    y: &mut [f32],
    mut first: usize,
) -> usize {
    while first + N <= y.len() {
        let (mut v, mean) = (lanes::<N>(x, first), lanes::<N>(mean, first));
        let (scale, bias) = (lanes::<N>(scale, first), lanes::<N>(bias, first));
        for i in 0..N {
            v[i] = (v[i] - mean[i]) * scale[i] + bias[i];
        }
        if let Some(residual) = residual {
            let r = lanes::<N>(residual, first);
            for i in 0..N {
                v[i] += r[i];
            }
        }
        for value in &mut v {
            *value = last(*value);
        }
        set_lanes(y, first, v);
        first += N;
    }
    first
}
