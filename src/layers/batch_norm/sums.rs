//! Two sums for each channel over all pixels: the passes that training has to wait for.
//!
//! ```text
//! for each part of the pixels:                    (a task; the shape says how many there are)
//!     for each block of 32 pixels:
//!         for each four pixels, for each channel: add to two sums in float32     (all in L1)
//!         add the block's sums to those of the part, in float64
//! add those of the parts, in order
//! ```
//!
//! Each pass reads its arrays once and in order. A float32 sum of 32 numbers loses nothing that
//! matters; what might cancel is measured from nearby: the block's own first pixel, or the mean.

use std::marker::PhantomData;
use std::ops::Range;

use super::super::blocks::{NARROW, WIDE, lanes};
use super::Gate;
use super::backward::Source;
use crate::isa::{self, Isa, Simd};
use crate::parallel::for_each_chunk;
use crate::rows::Rows;

/// Upper limit of the parts.
const PARTS: usize = 64;
/// Elements below which a part is not worth a task.
const PART: usize = 32_768;
/// Pixels whose values are added in float32.
const BLOCK: usize = 32;
/// Pixels taken in one step, so that a sum is loaded and stored once for all of them.
const STEP: usize = 4;

/// Two sums for each channel.
pub(super) struct Sums {
    pub first: Vec<f64>,
    pub second: Vec<f64>,
}

/// What is summed.
///
/// Implementations mark their methods as `#[inline(always)]`, so that they are compiled for the
/// vectors of the CPU.
trait Summand<'a>: Sync {
    /// Some pixels of all arrays.
    type Pixels<const N: usize>;

    /// `N` pixels from `pixel` on, which belong to the block that begins at `block`.
    fn pixels<const N: usize>(&self, block: usize, pixel: usize) -> Self::Pixels<N>;

    /// Adds `W` channels of pixels, from `channel` on, to the two sums.
    fn add<const N: usize, const W: usize>(
        &self,
        pixels: &Self::Pixels<N>,
        channel: usize,
        sums: [&mut [f32; W]; 2],
    );

    /// Adds the sums of a block of `count` pixels to those of the part.
    fn merge(&self, block: usize, count: usize, sums: [&[f32]; 2], totals: [&mut [f64]; 2]);
}

/// Sums of `x - shift` and its square, where `shift` is the first pixel.
pub(super) fn moments(input: Rows<'_>) -> Sums {
    channel_sums(input.count(), input.channels(), &Moments { input })
}

struct Moments<'a> {
    input: Rows<'a>,
}

impl<'a> Summand<'a> for Moments<'a> {
    /// The block's first pixel, and those to add.
    type Pixels<const N: usize> = (&'a [f32], [&'a [f32]; N]);

    #[inline(always)]
    fn pixels<const N: usize>(&self, block: usize, pixel: usize) -> Self::Pixels<N> {
        (self.input.row(block), std::array::from_fn(|i| self.input.row(pixel + i)))
    }

    #[inline(always)]
    fn add<const N: usize, const W: usize>(
        &self,
        (base, pixels): &Self::Pixels<N>,
        channel: usize,
        [first, second]: [&mut [f32; W]; 2],
    ) {
        let base = lanes::<W>(base, channel);
        for pixel in pixels {
            let x = lanes::<W>(pixel, channel);
            for c in 0..W {
                let d = x[c] - base[c];
                first[c] += d;
                second[c] += d * d;
            }
        }
    }

    #[inline(always)]
    fn merge(&self, block: usize, count: usize, sums: [&[f32]; 2], totals: [&mut [f64]; 2]) {
        let (shift, base, count) = (self.input.row(0), self.input.row(block), count as f64);
        let [first, second] = totals;
        let constants = shift.iter().zip(base).zip(sums[0].iter().zip(sums[1]));
        for ((first, second), ((&shift, &base), (&sum, &square))) in
            first.iter_mut().zip(second).zip(constants)
        {
            let (sum, offset) = (f64::from(sum), f64::from(base) - f64::from(shift));
            *first += sum + count * offset;
            *second += f64::from(square) + offset * (2.0 * sum + count * offset);
        }
    }
}

/// Sums of `g` and `g (x - mean)`, where `g` is the gradient behind the gate.
pub(super) fn gradients<F>(
    input: Rows<'_>,
    mean: &[f32],
    grad: Source<'_>,
    gate: &Gate<'_, F>,
) -> Sums
where
    F: Fn(f32, f32) -> f32 + Sync,
{
    channel_sums(input.count(), input.channels(), &Gradients { input, mean, grad, gate })
}

struct Gradients<'a, F> {
    input: Rows<'a>,
    mean: &'a [f32],
    grad: Source<'a>,
    gate: &'a Gate<'a, F>,
}

impl<'a, F: Fn(f32, f32) -> f32 + Sync> Summand<'a> for Gradients<'a, F> {
    /// Input, output and gradient of each.
    type Pixels<const N: usize> = [[&'a [f32]; 3]; N];

    #[inline(always)]
    fn pixels<const N: usize>(&self, _: usize, pixel: usize) -> Self::Pixels<N> {
        std::array::from_fn(|i| {
            let at = pixel + i;
            [self.input.row(at), self.gate.output.row(at), self.grad.row(at)]
        })
    }

    #[inline(always)]
    fn add<const N: usize, const W: usize>(
        &self,
        pixels: &Self::Pixels<N>,
        channel: usize,
        [first, second]: [&mut [f32; W]; 2],
    ) {
        let mean = lanes::<W>(self.mean, channel);
        for [x, y, g] in pixels {
            let (x, y) = (lanes::<W>(x, channel), lanes::<W>(y, channel));
            let g = lanes::<W>(g, channel);
            for c in 0..W {
                let passed = (self.gate.pass)(y[c], g[c]);
                first[c] += passed;
                second[c] += passed * (x[c] - mean[c]);
            }
        }
    }

    #[inline(always)]
    fn merge(&self, _: usize, _: usize, sums: [&[f32]; 2], totals: [&mut [f64]; 2]) {
        for (totals, sums) in totals.into_iter().zip(sums) {
            totals.iter_mut().zip(sums).for_each(|(total, &sum)| *total += f64::from(sum));
        }
    }
}

fn channel_sums<'a>(pixels: usize, channels: usize, summand: &impl Summand<'a>) -> Sums {
    if pixels == 0 || channels == 0 {
        return Sums { first: vec![0.0; channels], second: vec![0.0; channels] };
    }
    let part = pixels.div_ceil(PARTS).max(PART.div_ceil(channels)).next_multiple_of(BLOCK);
    let mut totals = vec![0.0; pixels.div_ceil(part) * 2 * channels];
    for_each_chunk(&mut totals, 2 * channels, |index, totals| {
        let pixels = index * part..((index + 1) * part).min(pixels);
        isa::dispatch(Isa::active(), Part { summand, pixels, totals, rows: PhantomData });
    });
    let (sums, others) = totals.split_at_mut(2 * channels);
    for other in others.chunks_exact(2 * channels) {
        sums.iter_mut().zip(other).for_each(|(sum, part)| *sum += part);
    }
    let (first, second) = sums.split_at(channels);
    Sums { first: first.to_vec(), second: second.to_vec() }
}

/// One part, compiled for the vectors of the CPU.
struct Part<'a, 'b, S> {
    summand: &'b S,
    pixels: Range<usize>,
    totals: &'b mut [f64],
    rows: PhantomData<&'a f32>,
}

impl<'a, S: Summand<'a>> isa::Kernel for Part<'a, '_, S> {
    type Output = ();

    #[inline(always)]
    fn run<V: Simd>(self, _: V) {
        let channels = self.totals.len() / 2;
        let mut sums = vec![0.0; 2 * channels];
        for block in self.pixels.clone().step_by(BLOCK) {
            let end = (block + BLOCK).min(self.pixels.end);
            sums.fill(0.0);
            let (first, second) = sums.split_at_mut(channels);
            let mut pixel = block;
            while pixel + STEP <= end {
                let pixels = self.summand.pixels::<STEP>(block, pixel);
                add_channels(self.summand, &pixels, [&mut *first, &mut *second]);
                pixel += STEP;
            }
            while pixel < end {
                let pixels = self.summand.pixels::<1>(block, pixel);
                add_channels(self.summand, &pixels, [&mut *first, &mut *second]);
                pixel += 1;
            }
            let (totals, squares) = self.totals.split_at_mut(channels);
            self.summand.merge(block, end - block, [first, second], [totals, squares]);
        }
    }
}

/// Adds all channels of some pixels.
#[inline(always)]
fn add_channels<'a, S: Summand<'a>, const N: usize>(
    summand: &S,
    pixels: &S::Pixels<N>,
    [first, second]: [&mut [f32]; 2],
) {
    let (wide, first) = first.as_chunks_mut::<WIDE>();
    let (wide_second, second) = second.as_chunks_mut::<WIDE>();
    let (narrow, first) = first.as_chunks_mut::<NARROW>();
    let (narrow_second, second) = second.as_chunks_mut::<NARROW>();
    let mut channel = 0;
    for (first, second) in wide.iter_mut().zip(wide_second) {
        summand.add::<N, WIDE>(pixels, channel, [first, second]);
        channel += WIDE;
    }
    for (first, second) in narrow.iter_mut().zip(narrow_second) {
        summand.add::<N, NARROW>(pixels, channel, [first, second]);
        channel += NARROW;
    }
    let rest = first.as_chunks_mut::<1>().0.iter_mut().zip(second.as_chunks_mut::<1>().0);
    for (first, second) in rest {
        summand.add::<N, 1>(pixels, channel, [first, second]);
        channel += 1;
    }
}
