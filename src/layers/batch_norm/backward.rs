//! Gradients of a batch norm, of the residual connection and through the activation behind it.
//!
//! With `g` the gradient behind the activation and `x^` the normalised input, the statistics of the
//! batch pass gradient too: `dx = scale * (g - mean(g) - x^ * mean(g x^))`. One pass sums `g` and
//! `g x^`, a second one is the rest.

use super::super::blocks::{NARROW, WIDE, lanes, rows_per_task, set_lanes};
use super::super::elementwise::assert_shape;
use super::{Gate, Norm, Statistics, sums, with_gate};
use crate::conv::Activation;
use crate::isa::{self, Isa, Simd};
use crate::parallel::for_each_chunk;
use crate::rows::{Rows, RowsMut};
use crate::{Error, Result};

/// Writes the gradient of the input of [`normalize`](super::normalize) to `grad_input` and returns
/// those of weight and bias. With [`Statistics::Batch`], mean and variance are those of `input` and
/// pass gradient too; with [`Statistics::Running`] they are constants.
pub fn backward_into(
    norm: &Norm<'_>,
    statistics: Statistics,
    input: &[f32],
    grad_output: &[f32],
    grad_input: &mut [f32],
) -> Result<(Vec<f32>, Vec<f32>)> {
    norm.check("input", input.len())?;
    if grad_output.len() != input.len() {
        let expected = format!("{} elements, as the input", input.len());
        let got = format!("{} elements", grad_output.len());
        return Err(Error::shape("grad_output", expected, got));
    }
    let channels = norm.channels();
    let (x, g) = (Rows::dense(input, channels), Rows::dense(grad_output, channels));
    let grad = RowsMut::dense(grad_input, channels);
    let grads = Grads { from: Some(g), grad, residual: None };
    with_gate!(Activation::Identity, x, x, |gate| Ok(run(norm, statistics, x, gate, grads)))
}

/// Gradients of [`train_forward_into`](super::train_forward_into), with the mean and variance that
/// it returned (or constant ones, with [`Statistics::Running`]).
///
/// `grad` holds the gradient of `output` and becomes that of `input`; `grad_residual` becomes that
/// of the residual. The activation passes gradient where `output` lies inside its bounds. Returns
/// the gradients of weight and bias.
pub fn train_backward_into(
    norm: &Norm<'_>,
    statistics: Statistics,
    activation: Activation,
    input: Rows<'_>,
    output: Rows<'_>,
    grad: RowsMut<'_>,
    grad_residual: Option<RowsMut<'_>>,
) -> (Vec<f32>, Vec<f32>) {
    let grads = Grads { from: None, grad, residual: grad_residual };
    with_gate!(activation, input, output, |gate| run(norm, statistics, input, gate, grads))
}

/// The gradients of full size.
struct Grads<'a> {
    /// That of the output, unless `grad` holds it.
    from: Option<Rows<'a>>,
    /// That of the input, in the end.
    grad: RowsMut<'a>,
    residual: Option<RowsMut<'a>>,
}

/// The gradient of the output.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    Shared(Rows<'a>),
    /// Where that of the input will be.
    Own(&'a RowsMut<'a>),
}

impl<'a> Source<'a> {
    #[inline(always)]
    pub(super) fn row(self, index: usize) -> &'a [f32] {
        match self {
            Source::Shared(rows) => rows.row(index),
            Source::Own(rows) => rows.row(index),
        }
    }
}

impl<'a> Grads<'a> {
    fn source(&self) -> Source<'_> {
        self.from.map_or(Source::Own(&self.grad), Source::Shared)
    }

    /// Cuts into blocks of at most `rows` rows.
    fn blocks(mut self, rows: usize) -> Vec<Grads<'a>> {
        let mut blocks = Vec::with_capacity(self.grad.count().div_ceil(rows));
        while self.grad.count() > 0 {
            let count = rows.min(self.grad.count());
            let (grad, below) = self.grad.split_rows(count);
            let (residual, rest) = self.residual.map(|r| r.split_rows(count)).unzip();
            let from = self.from.map(|from| from.rows(0, count));
            blocks.push(Grads { from, grad, residual });
            let from = self.from.map(|from| from.rows(count, below.count()));
            self = Grads { from, grad: below, residual: rest };
        }
        blocks
    }
}

fn run<F>(
    norm: &Norm<'_>,
    statistics: Statistics,
    input: Rows<'_>,
    gate: &Gate<'_, F>,
    grads: Grads<'_>,
) -> (Vec<f32>, Vec<f32>)
where
    F: Fn(f32, f32) -> f32 + Sync,
{
    assert_shape(input, &grads.grad);
    assert_shape(gate.output, &grads.grad);
    grads.residual.iter().for_each(|residual| assert_shape(input, residual));
    assert_eq!(input.channels(), norm.channels(), "channels of input and batch norm");
    let (pixels, channels) = (input.count(), input.channels());
    let sums = sums::gradients(input, norm.mean, grads.source(), gate);
    let (scale, inv_std) = (norm.scale(), norm.inv_std());
    let vector =
        |of: &dyn Fn(usize) -> f64| -> Vec<f32> { (0..channels).map(|c| of(c) as f32).collect() };
    // Constants pass nothing on.
    let part = match statistics {
        Statistics::Batch => 1.0 / pixels as f64,
        Statistics::Running => 0.0,
    };
    let map = Map {
        mean: norm.mean,
        scale: &vector(&|c| scale[c]),
        slope: &vector(&|c| -scale[c] * inv_std[c] * inv_std[c] * sums.second[c] * part),
        offset: &vector(&|c| -scale[c] * sums.first[c] * part),
    };
    let block = rows_per_task(channels);
    for_each_chunk(&mut grads.blocks(block), 1, |index, grads| {
        for grads in grads {
            let input = input.rows(index * block, grads.grad.count());
            let output = gate.output.rows(index * block, grads.grad.count());
            let gate = Gate { output, pass: &gate.pass };
            isa::dispatch(Isa::active(), Pass { map: &map, input, gate, grads });
        }
    });
    (vector(&|c| sums.second[c] * inv_std[c]), vector(&|c| sums.first[c]))
}

/// `scale * g + slope * (x - mean) + offset` of each channel.
struct Map<'a> {
    mean: &'a [f32],
    scale: &'a [f32],
    slope: &'a [f32],
    offset: &'a [f32],
}

/// The second pass over a block, compiled for the vectors of the CPU.
struct Pass<'a, 'b, F> {
    map: &'a Map<'a>,
    input: Rows<'a>,
    gate: Gate<'a, &'a F>,
    grads: &'a mut Grads<'b>,
}

impl<F: Fn(f32, f32) -> f32> isa::Kernel for Pass<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Grads { from, grad, residual } = self.grads;
        for index in 0..grad.count() {
            let mut row = Row {
                map: self.map,
                pass: self.gate.pass,
                x: self.input.row(index),
                y: self.gate.output.row(index),
                from: from.map(|from| from.row(index)),
                grad: grad.row_mut(index),
                residual: residual.as_mut().map(|residual| residual.row_mut(index)),
            };
            let first = row.channels::<WIDE>(0);
            let first = row.channels::<NARROW>(first);
            row.channels::<1>(first);
        }
    }
}

/// One pixel of all arrays.
struct Row<'a, F> {
    map: &'a Map<'a>,
    pass: &'a F,
    x: &'a [f32],
    y: &'a [f32],
    from: Option<&'a [f32]>,
    grad: &'a mut [f32],
    residual: Option<&'a mut [f32]>,
}

impl<F: Fn(f32, f32) -> f32> Row<'_, F> {
    /// Blocks of `N` channels from `first` on, while there are such; returns the next channel.
    #[inline(always)]
    fn channels<const N: usize>(&mut self, mut first: usize) -> usize {
        while first + N <= self.grad.len() {
            let Map { mean, scale, slope, offset } = *self.map;
            let (x, y) = (lanes::<N>(self.x, first), lanes::<N>(self.y, first));
            let (mean, scale) = (lanes::<N>(mean, first), lanes::<N>(scale, first));
            let (slope, offset) = (lanes::<N>(slope, first), lanes::<N>(offset, first));
            let mut g = lanes::<N>(self.from.unwrap_or(self.grad), first);
            for i in 0..N {
                g[i] = (self.pass)(y[i], g[i]);
            }
            if let Some(residual) = &mut self.residual {
                set_lanes(residual, first, g);
            }
            for i in 0..N {
                g[i] = scale[i] * g[i] + slope[i] * (x[i] - mean[i]) + offset[i];
            }
            set_lanes(self.grad, first, g);
            first += N;
        }
        first
    }
}
