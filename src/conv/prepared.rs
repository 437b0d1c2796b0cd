//! A convolution made ready to run many times: algorithm chosen, weights packed, bias kept.
//!
//! This is what an executable plan holds for each layer. A fully connected layer is the same thing
//! with the whole input as its window.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::algorithm::Algorithm;
use super::direct::Direct;
use super::geometry::{Conv2d, Padding};
use super::grouped::Grouped;
use super::winograd::Winograd;
use crate::gemm::{Bounds, Keep, LONG_SUM, SHORT_SUM, Source, Storage, tile_shape};
use crate::isa::{Isa, vectorize};
use crate::parallel;
use crate::rows::{Rows, RowsMut};
use crate::{Error, Result};

/// What is applied to the sums before they are stored: residual first, then the clamp.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a> {
    /// Added to the result: one row per output pixel, O channels.
    pub residual: Option<Rows<'a>>,
    /// Function applied last.
    pub activation: Activation,
}

impl Epilogue<'_> {
    /// Nothing is applied.
    pub const NONE: Self = Epilogue { residual: None, activation: Activation::Identity };
}

/// Function applied to each value of a result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// The value itself.
    Identity,
    /// `max(x, 0)`; NaN stays NaN.
    Relu,
    /// `min(max(x, low), high)`; NaN stays NaN.
    Clamp(f32, f32),
}

impl Activation {
    /// The function as clamping between two bounds.
    #[inline(always)]
    pub fn bounds(self) -> Bounds {
        match self {
            Activation::Identity => Bounds::NONE,
            Activation::Relu => Bounds { low: 0.0, high: f32::INFINITY },
            Activation::Clamp(low, high) => Bounds { low, high },
        }
    }

    /// The function of one value.
    #[inline(always)]
    pub fn apply(self, x: f32) -> f32 {
        // Comparisons that NaN fails, so that it comes through.
        let Bounds { low, high } = self.bounds();
        let x = if x < low { low } else { x };
        if x > high { high } else { x }
    }
}

/// What may be chosen for speed (part of a plan's key).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Options {
    /// How products may be rounded.
    pub precision: Precision,
    /// How the weights of layers that wait for memory are stored: those with few output pixels,
    /// fully connected ones above all.
    pub storage: Storage,
}

/// How products may be rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Direct sums only.
    Direct,
    /// Winograd where it pays.
    Winograd,
    /// bfloat16 multiplicands (runs as `Winograd` in this version).
    Bf16,
}

/// What packed weights follow from, besides the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Packing {
    algorithm: Algorithm,
    channels: (usize, usize),
    kernel: (usize, usize),
    groups: usize,
    storage: Storage,
    sum: usize,
}

impl Precision {
    /// Terms in a part of a direct sum.
    fn sum(self) -> usize {
        match self {
            Precision::Direct => SHORT_SUM,
            Precision::Winograd | Precision::Bf16 => LONG_SUM,
        }
    }
}

/// A convolution ready to run.
#[derive(Debug)]
pub struct PreparedConv {
    conv: Conv2d,
    layer: Layer,
    /// One value an output channel; each matrix of weights padded to a multiple of the
    /// micro-kernel's width.
    bias: Option<Arc<[f32]>>,
}

/// The chosen algorithm with its packed weights.
#[derive(Debug)]
enum Layer {
    Direct(Direct),
    Grouped(Grouped),
    Winograd(Winograd),
}

impl PreparedConv {
    /// Chooses the algorithm for `conv` (whose batch does not matter) and packs `weight`
    /// (kh, kw, C / groups, O) for it.
    pub fn new(conv: &Conv2d, weight: &[f32], bias: Option<&[f32]>, options: Options) -> Self {
        let source = in_order(conv, weight);
        let winograd = matches!(Algorithm::choose(conv, options), Algorithm::Winograd(_));
        let precision = match winograd && !all_tame(weight) {
            true => Precision::Direct,
            false => options.precision,
        };
        Self::with_weights(conv, &source, bias, Options { precision, ..options })
    }

    /// A layer for one call on the batch of `conv`: `source` gives the weights' elements as [`new`]
    /// has them, term by term; they are those of `weight`, in whatever order.
    ///
    /// [`new`]: Self::new
    pub(super) fn for_one_call(
        conv: &Conv2d,
        weight: &[f32],
        source: &Source<'_>,
        bias: Option<&[f32]>,
        precision: Precision,
    ) -> Self {
        let algorithm = match Algorithm::for_one_call(conv, precision) {
            Algorithm::Winograd(_) if !all_tame(weight) => Algorithm::Direct,
            algorithm => algorithm,
        };
        let conv = Conv2d { batch: 1, ..*conv };
        Self::assemble(algorithm, &conv, Isa::active(), source, bias, precision, Keep::Once)
    }

    /// A fully connected layer over images of (H, W, C), flattened in C, H, W order: `weight` is
    /// (O, C * H * W).
    pub fn linear(
        (height, width, channels): (usize, usize, usize),
        weight: &[f32],
        bias: Option<&[f32]>,
        out_channels: usize,
        options: Options,
    ) -> Result<Self> {
        let inputs = height * width * channels;
        assert_eq!(weight.len(), inputs * out_channels, "weight length does not match the layer");
        let conv = Conv2d::new(
            (1, 1, 1, inputs),
            (1, 1, inputs, out_channels),
            (1, 1),
            Padding::default(),
            (1, 1),
            1,
        )?;
        let pixels = height * width;
        // Term `k` in memory is channel `k % C` of pixel `k / C`.
        let source = |first: usize, o: usize, rows: RowsMut<'_>| {
            rows.for_each_row(|index, row| {
                let k = first + index;
                let term = k % channels * pixels + k / channels;
                for (value, weights) in row.iter_mut().zip(weight[o * inputs..].chunks(inputs)) {
                    *value = weights[term];
                }
            });
        };
        Ok(Self::with_weights(&conv, &source, bias, options))
    }

    fn with_weights(
        conv: &Conv2d,
        weight: &Source<'_>,
        bias: Option<&[f32]>,
        options: Options,
    ) -> Self {
        let (conv, isa) = (Conv2d { batch: 1, ..*conv }, Isa::active());
        Self::with_algorithm(Algorithm::choose(&conv, options), &conv, isa, weight, bias, options)
    }

    fn with_algorithm(
        algorithm: Algorithm,
        conv: &Conv2d,
        isa: Isa,
        weight: &Source<'_>,
        bias: Option<&[f32]>,
        options: Options,
    ) -> Self {
        let keep = Keep::Stored(Algorithm::storage(conv, options));
        Self::assemble(algorithm, conv, isa, weight, bias, options.precision, keep)
    }

    fn assemble(
        algorithm: Algorithm,
        conv: &Conv2d,
        isa: Isa,
        weight: &Source<'_>,
        bias: Option<&[f32]>,
        precision: Precision,
        keep: Keep,
    ) -> Self {
        let conv = *conv;
        let layer = match algorithm {
            Algorithm::Winograd(size) => {
                Layer::Winograd(Winograd::new(&conv, size, isa, keep == Keep::Once, weight))
            }
            Algorithm::Grouped => Layer::Grouped(Grouped::new(&conv, isa, weight)),
            Algorithm::Direct => {
                Layer::Direct(Direct::new(&conv, isa, keep, precision.sum(), weight))
            }
        };
        let width = tile_shape(isa).1;
        let bias = bias.map(|bias| {
            assert_eq!(bias.len(), conv.out_channels, "bias length does not match the geometry");
            let mut padded = Vec::new();
            let matrix = match algorithm {
                Algorithm::Direct => conv.group_out(),
                _ => conv.out_channels,
            };
            for group in bias.chunks(matrix.max(1)) {
                padded.extend_from_slice(group);
                padded.resize(padded.len().next_multiple_of(width), 0.0);
            }
            padded.into()
        });
        PreparedConv { conv, layer, bias }
    }

    /// What packed weights follow from, besides the weights: two geometries with the same packing
    /// can share them.
    pub fn packing(conv: &Conv2d, options: Options) -> Packing {
        Packing {
            algorithm: Algorithm::choose(conv, options),
            channels: (conv.in_channels, conv.out_channels),
            kernel: conv.kernel,
            groups: conv.groups,
            storage: Algorithm::storage(conv, options),
            sum: options.precision.sum(),
        }
    }

    /// Refuses weights of which a finite one would become infinite in the form in which the layer
    /// `name` stores them.
    pub fn check_range(conv: &Conv2d, weight: &[f32], options: Options, name: &str) -> Result<()> {
        let storage = match Algorithm::choose(conv, options) {
            Algorithm::Grouped => Storage::F32,
            _ => Algorithm::storage(conv, options),
        };
        if storage == Storage::F32 {
            return Ok(());
        }
        let finite = weight.iter().map(|w| w.abs()).filter(|w| w.is_finite());
        let largest = finite.fold(0.0, f32::max);
        if storage.round(largest).is_finite() {
            return Ok(());
        }
        let rest = if storage == Storage::F16 { "f32 or bf16" } else { "f32" };
        let (stored, limit) = (storage.name(), storage.largest());
        Err(Error::value(
            "weight_storage",
            format!("{rest}, because {stored} ends at {limit:?}"),
            format!("{stored} with a weight of {largest:?} in {name}"),
        ))
    }

    /// The layer for a geometry with the same [`packing`](Self::packing), on the same weights.
    pub fn resized(&self, conv: &Conv2d) -> Self {
        let conv = Conv2d { batch: 1, ..*conv };
        let layer = match &self.layer {
            Layer::Direct(direct) => Layer::Direct(direct.resized(&conv)),
            Layer::Grouped(grouped) => Layer::Grouped(grouped.resized(&conv)),
            Layer::Winograd(winograd) => Layer::Winograd(winograd.resized(&conv)),
        };
        PreparedConv { conv, layer, bias: self.bias.clone() }
    }

    /// The geometry, for one image.
    pub fn geometry(&self) -> &Conv2d {
        &self.conv
    }

    /// Name of the chosen algorithm, as `plan` shows it.
    pub fn algorithm(&self) -> String {
        match &self.layer {
            Layer::Direct(direct) => direct.name(),
            Layer::Grouped(grouped) => grouped.name(),
            Layer::Winograd(winograd) => winograd.name(),
        }
    }

    /// Bytes of packed weights and bias.
    pub fn weight_bytes(&self) -> usize {
        let weights = match &self.layer {
            Layer::Direct(direct) => direct.weight_bytes(),
            Layer::Grouped(grouped) => grouped.weight_bytes(),
            Layer::Winograd(winograd) => winograd.weight_bytes(),
        };
        weights + 4 * self.bias.as_ref().map_or(0, |bias| bias.len())
    }

    /// Floats of scratch memory that [`run`](Self::run) needs for a batch, with the threads it
    /// would have if called here.
    pub fn scratch_len(&self, batch: usize) -> usize {
        match &self.layer {
            Layer::Direct(direct) => direct.scratch_len(batch),
            Layer::Grouped(grouped) => grouped.scratch_len(),
            Layer::Winograd(winograd) => winograd.scratch_len(batch),
        }
    }

    /// Runs the layer on a batch: `input` has one row per input pixel (N, H, W order) of C
    /// channels, `output` one per output pixel of O channels. Allocates nothing, unless a sum under
    /// Winograd is not finite and the layer runs again by direct sums.
    ///
    /// # Panics
    /// If an extent does not match the geometry or `scratch` is too short.
    pub fn run(
        &self,
        batch: usize,
        input: Rows<'_>,
        output: RowsMut<'_>,
        epilogue: Epilogue<'_>,
        scratch: &mut [f32],
    ) {
        let conv = Conv2d { batch, ..self.conv };
        assert_eq!(input.count() * input.channels(), conv.input_len(), "extents of the input");
        assert_eq!(input.channels(), conv.in_channels, "channels of the input");
        assert_eq!(output.count() * output.channels(), conv.output_len(), "extents of the output");
        assert_eq!(output.channels(), conv.out_channels, "channels of the output");
        if let Some(residual) = &epilogue.residual {
            let extents = (residual.count(), residual.channels());
            assert_eq!(extents, (output.count(), output.channels()), "extents of the residual");
        }
        if conv.output_len() == 0 {
            return;
        }
        let bias = self.bias.as_deref();
        match &self.layer {
            Layer::Direct(direct) => direct.run(input, output, bias, &epilogue, scratch),
            Layer::Grouped(grouped) => grouped.run(input, output, bias, &epilogue, scratch),
            Layer::Winograd(winograd) => winograd.run(input, output, bias, &epilogue, scratch),
        }
    }
}

/// Whether all weights may be transformed: an infinite one (or one near the largest number) would
/// spread over the nine taps of its kernel.
fn all_tame(weight: &[f32]) -> bool {
    const CHUNK: usize = 64 * 1024;
    let wild = AtomicBool::new(false);
    parallel::for_each(weight.len().div_ceil(CHUNK), |_, index| {
        let chunk = &weight[index * CHUNK..weight.len().min((index + 1) * CHUNK)];
        let tame = vectorize(
            #[inline(always)]
            || chunk.iter().fold(true, |tame, w| tame & (w.abs() <= f32::MAX / 4.0)),
        );
        if !tame {
            wild.store(true, Relaxed);
        }
    });
    !wild.into_inner()
}

/// The elements of weights `(kh, kw, C / groups, O)`.
pub(super) fn in_order(conv: &Conv2d, weight: &[f32]) -> impl Fn(usize, usize, RowsMut<'_>) + Sync {
    assert_eq!(weight.len(), conv.weight_len(), "weight length does not match the geometry");
    let out = conv.out_channels;
    move |k, o, rows| {
        let from = &weight[(k * out + o).min(weight.len())..];
        copy_rows(Rows::new(from, rows.count(), rows.channels(), out), rows);
    }
}

/// Copies rows of equal extents.
fn copy_rows(from: Rows<'_>, to: RowsMut<'_>) {
    // Most are as wide as a panel: then the compiler knows the length.
    match to.channels() {
        32 => to.for_each_row(|i, row| row[..32].copy_from_slice(&from.row(i)[..32])),
        _ => to.for_each_row(|i, row| row.copy_from_slice(from.row(i))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{self, cases, close, values, winograd_cases};
    use super::*;

    const DIRECT: Options = Options { precision: Precision::Direct, storage: Storage::F32 };

    /// Runs a layer on rows with gaps, the way a plan does.
    fn run(
        conv: &Conv2d,
        layer: &PreparedConv,
        input: &[f32],
        (residual, activation): (Option<&[f32]>, Activation),
    ) -> Vec<f32> {
        let (gap, out) = (3, conv.out_channels);
        let stride = conv.in_channels + gap;
        let mut spread = vec![f32::NAN; input.len() / conv.in_channels.max(1) * stride];
        for (to, from) in spread.chunks_mut(stride).zip(input.chunks(conv.in_channels.max(1))) {
            to[..from.len()].copy_from_slice(from);
        }
        let count = conv.batch * conv.input.0 * conv.input.1;
        let mut output = vec![f32::NAN; conv.output_pixels() * (out + gap)];
        let mut scratch = vec![f32::NAN; layer.scratch_len(conv.batch)];
        layer.run(
            conv.batch,
            Rows::new(&spread, count, conv.in_channels, stride),
            RowsMut::new(&mut output, conv.output_pixels(), out, out + gap),
            Epilogue {
                residual: residual.map(|r| Rows::new(r, conv.output_pixels(), out, out)),
                activation,
            },
            &mut scratch,
        );
        assert!(output.chunks(out + gap).all(|row| row[out..].iter().all(|x| x.is_nan())));
        output.chunks(out + gap).flat_map(|row| row[..out].to_vec()).collect()
    }

    /// Every algorithm that can compute `conv`, for every instruction set of this CPU.
    fn layers(conv: &Conv2d, weight: &[f32], bias: Option<&[f32]>) -> Vec<(PreparedConv, f32)> {
        let out = conv.out_channels;
        let source = |k: usize, o: usize, rows: RowsMut<'_>| {
            rows.for_each_row(|i, row| {
                row.copy_from_slice(&weight[(k + i) * out + o..][..row.len()]);
            });
        };
        let conv = Conv2d { batch: 1, ..*conv };
        let mut layers = Vec::new();
        for isa in Isa::available() {
            for algorithm in Algorithm::candidates(&conv) {
                let tolerance = match algorithm {
                    Algorithm::Direct | Algorithm::Grouped => 2e-6,
                    Algorithm::Winograd(_) => 5e-5,
                };
                let layer =
                    PreparedConv::with_algorithm(algorithm, &conv, isa, &source, bias, DIRECT);
                layers.push((layer, tolerance));
            }
        }
        layers
    }

    /// Few channels a group: channels around the vectors' lengths, multipliers, lanes of one group and
    /// of several, whole and partial blocks of pixels, clipped taps at every side.
    fn grouped_cases() -> Vec<Conv2d> {
        let conv = |(n, h, w), (group_in, group_out, groups), kernel: (usize, usize)| {
            move |stride, padding, dilation| {
                let input = (n, h, w, group_in * groups);
                let weight = (kernel.0, kernel.1, group_in, group_out * groups);
                Conv2d::new(input, weight, stride, padding, dilation, groups).unwrap()
            }
        };
        let one = Padding::symmetric(1, 1);
        let ragged = Padding { top: 2, bottom: 0, left: 0, right: 3 };
        let wide = Padding { top: 40, bottom: 31, left: 50, right: 60 };
        let mut cases = Vec::new();
        for groups in [2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33] {
            cases.push(conv((2, 6, 7), (1, 1, groups), (3, 3))((1, 1), one, (1, 1)));
            cases.push(conv((1, 5, 9), (1, 2, groups), (3, 2))((2, 1), one, (1, 1)));
            cases.push(conv((1, 7, 5), (1, 3, groups), (2, 3))((1, 2), ragged, (1, 1)));
        }
        for channels in 1..=9 {
            cases.push(conv((2, 5, 6), (channels, channels, 6), (3, 3))((1, 1), one, (1, 1)));
            cases.push(conv((1, 6, 5), (channels, 10 - channels, 5), (3, 1))((2, 2), one, (1, 1)));
        }
        for (group_in, group_out) in [(4, 8), (8, 4), (12, 17), (16, 16), (17, 20), (31, 31)] {
            cases.push(conv((1, 9, 8), (group_in, group_out, 3), (3, 3))((1, 1), ragged, (1, 2)));
        }
        for groups in [4, 20] {
            for (size, stride) in [((1, 24), 1), ((3, 30), 1), ((20, 17), 2), ((30, 1), 3)] {
                let image = (1, size.0, size.1);
                let square = conv(image, (1, 1, groups), (3, 3));
                cases.push(square((stride, stride), one, (1, 1)));
                cases.push(square((1, 1), wide, (1, 1)));
                cases.push(square((1, 1), Padding::symmetric(6, 6), (3, 5)));
                let many = conv(image, (4, 4, groups), (5, 3));
                cases.push(many((stride, 1), Padding::symmetric(2, 1), (1, 1)));
                cases.push(many((7, 9), wide, (2, 1)));
            }
        }
        cases.push(conv((1, 70, 65), (1, 1, 36), (3, 3))((1, 1), one, (1, 1)));
        cases.push(conv((3, 60, 61), (8, 8, 4), (3, 3))((1, 1), one, (1, 1)));
        cases.push(conv((1, 4, 4), (0, 3, 2), (3, 3))((1, 1), one, (1, 1)));
        cases
    }

    /// Padding that nobody could copy.
    fn padded_cases() -> Vec<Conv2d> {
        let conv = |channels, out, kernel, stride, padding, dilation, groups| {
            let weight = (kernel, kernel, channels / groups, out);
            Conv2d::new((2, 5, 4, channels), weight, stride, padding, dilation, groups).unwrap()
        };
        let huge = Padding::symmetric(1_000_000, 1_000_000);
        let left = Padding { top: 2, bottom: 1, left: 900_000_000, right: 3 };
        let steps = (1_000_000, 1_000_000);
        vec![
            conv(3, 5, 3, steps, huge, (1, 1), 1),
            conv(40, 50, 2, (999_999, 1_000_002), huge, (1, 2), 1),
            conv(4, 66, 1, (1_000_001, 999_999), huge, (1, 1), 2),
            conv(4, 6, 3, (1, 300_000_001), left, (1, 1), 2),
            conv(6, 6, 3, steps, huge, (1, 1), 6),
            conv(6, 12, 2, (1_000_000, 999_997), huge, (2, 3), 6),
            conv(8, 8, 2, (1, 1), Padding::symmetric(30_000, 0), (60_001, 1), 1),
        ]
    }

    fn all_cases() -> impl Iterator<Item = Conv2d> {
        cases().into_iter().chain(winograd_cases()).chain(grouped_cases()).chain(padded_cases())
    }

    #[test]
    fn scratch_memory_is_in_proportion_to_the_images() {
        for conv in padded_cases().into_iter().chain(grouped_cases()) {
            let weight = values(conv.weight_len(), 2);
            let single = Conv2d { batch: 1, ..conv };
            let floats = single.input_len() + single.output_len() + conv.weight_len();
            let most = 64 * 1024 + 16 * floats;
            for (layer, _) in layers(&conv, &weight, None) {
                let scratch = layer.scratch_len(1);
                // A padded copy is shared by all workers.
                let most = most * crate::parallel::workers().max(2);
                assert!(scratch <= most, "{scratch} {} {conv:?}", layer.algorithm());
            }
        }
    }

    #[test]
    fn every_algorithm_agrees_with_the_naive_sums() {
        for conv in all_cases() {
            let input = values(conv.input_len(), 1);
            let weight = values(conv.weight_len(), 2);
            let bias = values(conv.out_channels, 3);
            let residual = values(conv.output_len(), 4);
            let clamp = Activation::Clamp(-0.5, 200.0);
            let plain = reference::forward(&conv, &input, &weight, None);
            let mut finished = reference::forward(&conv, &input, &weight, Some(&bias));
            for (value, residual) in finished.iter_mut().zip(&residual) {
                *value = clamp.apply(*value + residual);
            }
            for (layer, tolerance) in layers(&conv, &weight, None) {
                let got = run(&conv, &layer, &input, (None, Activation::Identity));
                assert!(close(&got, &plain, tolerance), "{} {conv:?}", layer.algorithm());
            }
            for (layer, tolerance) in layers(&conv, &weight, Some(&bias)) {
                let got = run(&conv, &layer, &input, (Some(&residual), clamp));
                assert!(close(&got, &finished, tolerance), "{} {conv:?}", layer.algorithm());
            }
        }
    }

    #[test]
    fn the_number_of_threads_and_of_images_changes_no_bit() {
        for conv in all_cases() {
            let (input, weight) = (values(conv.input_len(), 1), values(conv.weight_len(), 2));
            for (layer, _) in layers(&conv, &weight, None) {
                let plain = (None, Activation::Relu);
                let run_on = |threads| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                    pool.unwrap().install(|| run(&conv, &layer, &input, plain))
                };
                let together = run_on(1);
                for threads in [2, 3, 8] {
                    let same = together == run_on(threads);
                    assert!(same, "{threads} threads, {} {conv:?}", layer.algorithm());
                }
                let single = Conv2d { batch: 1, ..conv };
                let lengths = (single.input_len().max(1), single.output_len().max(1));
                for (x, y) in input.chunks(lengths.0).zip(together.chunks(lengths.1)) {
                    assert_eq!(run(&single, &layer, x, plain), y, "{}", layer.algorithm());
                }
            }
        }
    }

    /// Largest error of a value, over the largest value.
    fn error(got: &[f32], expected: &[f32]) -> f32 {
        let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, f32::max);
        let errors = &mut got.iter().zip(expected).map(|(a, b)| (a - b).abs());
        largest(errors) / largest(&mut expected.iter().map(|b| b.abs()))
    }

    #[test]
    fn errors_grow_with_tiles_and_channels_as_documented() {
        // Limits of docs/numerics.md for inputs behind a ReLU: (channels, direct, F2, F4, F6).
        let limits = [
            (64, [1e-6, 1e-6, 1e-5, 2e-5]),
            (256, [1e-6, 2e-6, 1.5e-5, 3e-5]),
            (512, [1e-6, 2e-6, 2.5e-5, 4e-5]),
        ];
        for (channels, limits) in limits {
            let (x, w) = ((1, 24, 24, channels), (3, 3, channels, 32));
            let one = Padding::symmetric(1, 1);
            let conv = Conv2d::new(x, w, (1, 1), one, (1, 1), 1).unwrap();
            let input: Vec<f32> = values(conv.input_len(), 1).iter().map(|x| x.max(0.0)).collect();
            let weight = values(conv.weight_len(), 2);
            let expected = reference::forward(&conv, &input, &weight, None);
            for (layer, _) in layers(&conv, &weight, None) {
                let limit = match Algorithm::candidates(&conv)
                    .iter()
                    .position(|algorithm| algorithm.to_string() == layer.algorithm())
                {
                    Some(index) => limits[index],
                    None => limits[0],
                };
                let got = run(&conv, &layer, &input, (None, Activation::Identity));
                let error = error(&got, &expected);
                println!("{channels} channels, {}: {error:.1e}", layer.algorithm());
                assert!(error <= limit, "{channels} channels, {}: {error}", layer.algorithm());
            }
        }
    }

    #[test]
    fn weights_too_large_for_their_storage_are_refused() {
        let linear =
            Conv2d::new((1, 1, 1, 3), (1, 1, 3, 2), (1, 1), Padding::default(), (1, 1), 1).unwrap();
        let check = |storage, largest: f32| {
            let options = Options { precision: Precision::Winograd, storage };
            let weight = [0.5, f32::INFINITY, -largest, 1.0, f32::NAN, 0.0];
            PreparedConv::check_range(&linear, &weight, options, "fc6")
        };
        assert_eq!(check(Storage::F32, f32::MAX), Ok(()));
        // What rounds down to the largest number, and what no longer does.
        assert_eq!(check(Storage::F16, 65519.0), Ok(()));
        assert_eq!(
            check(Storage::F16, 65520.0).unwrap_err().to_string(),
            "weight_storage: expected f32 or bf16, because f16 ends at 65504.0, \
             got f16 with a weight of 65520.0 in fc6"
        );
        assert_eq!(check(Storage::Bf16, 1e38), Ok(()));
        assert!(check(Storage::Bf16, f32::MAX).is_err());
    }

    #[test]
    fn nan_and_infinity_reach_only_the_outputs_that_see_them() {
        let grouped = grouped_cases().into_iter().step_by(7);
        let convs = [winograd_cases().remove(1), padded_cases().remove(1)].into_iter();
        convs.chain(grouped).filter(|conv| conv.in_channels > 0).for_each(check_not_finite);
    }

    fn check_not_finite(conv: Conv2d) {
        let weight = values(conv.weight_len(), 2);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut input = values(conv.input_len(), 1);
            input[conv.input_len() / 3] = bad;
            let expected = reference::forward(&conv, &input, &weight, None);
            for (layer, _) in layers(&conv, &weight, None) {
                let got = run(&conv, &layer, &input, (None, Activation::Identity));
                for (got, expected) in got.iter().zip(&expected) {
                    let same = got.is_nan() == expected.is_nan()
                        && got.is_infinite() == expected.is_infinite()
                        && (!got.is_finite() || (got - expected).abs() < 1e-3);
                    assert!(same, "{bad}: {got}, expected {expected}, {}", layer.algorithm());
                }
            }
        }
    }

    #[test]
    fn an_infinite_weight_is_not_transformed() {
        // Without padding: whether zeros around an image meet the weight is left open.
        let (x, w) = ((1, 24, 24, 64), (3, 3, 64, 64));
        let conv = Conv2d::new(x, w, (1, 1), Padding::default(), (1, 1), 1).unwrap();
        let options = Options { precision: Precision::Winograd, storage: Storage::F32 };
        let (input, mut weight) = (values(conv.input_len(), 1), values(conv.weight_len(), 2));
        let ordinary = PreparedConv::new(&conv, &weight, None, options);
        assert!(ordinary.algorithm().starts_with("winograd"));
        for (at, bad) in [(5, f32::INFINITY), (conv.weight_len() / 2, f32::NAN), (0, f32::MAX)] {
            let ordinary = std::mem::replace(&mut weight[at], bad);
            let layer = PreparedConv::new(&conv, &weight, None, options);
            let got = run(&conv, &layer, &input, (None, Activation::Identity));
            let expected = reference::forward(&conv, &input, &weight, None);
            for (got, expected) in got.iter().zip(&expected) {
                let same = got.is_nan() == expected.is_nan()
                    && (!got.is_infinite() && !expected.is_infinite() || got == expected);
                assert!(same, "weight {bad}: {got}, expected {expected}");
            }
            weight[at] = ordinary;
        }
    }

    #[test]
    fn a_layer_for_another_image_size_shares_the_weights() {
        let conv = |size| {
            let weight = (3, 3, 8, 40);
            let one = Padding::symmetric(1, 1);
            Conv2d::new((1, size, size, 8), weight, (1, 1), one, (1, 1), 1).unwrap()
        };
        let (small, large) = (conv(9), conv(21));
        let weight = values(small.weight_len(), 2);
        let input = values(large.input_len(), 1);
        let pairs = layers(&small, &weight, None).into_iter().zip(layers(&large, &weight, None));
        for ((layer, _), (fresh, _)) in pairs {
            let resized = layer.resized(&large);
            let plain = (None, Activation::Identity);
            let expected = run(&large, &fresh, &input, plain);
            assert_eq!(run(&large, &resized, &input, plain), expected, "{}", layer.algorithm());
            assert_eq!(resized.weight_bytes(), layer.weight_bytes());
        }
    }

    #[test]
    fn a_linear_layer_reads_channels_first_weights() {
        let (h, w, c, out) = (2, 3, 5, 4);
        let (x, weight) = (values(2 * h * w * c, 1), values(h * w * c * out, 2));
        let layer = PreparedConv::linear((h, w, c), &weight, None, out, DIRECT).unwrap();
        let mut y = vec![0.0; 2 * out];
        layer.run(
            2,
            Rows::dense(&x, h * w * c),
            RowsMut::dense(&mut y, out),
            Epilogue { residual: None, activation: Activation::Identity },
            &mut [],
        );
        for n in 0..2 {
            for o in 0..out {
                let mut sum = 0.0;
                for (k, weight) in weight[o * h * w * c..][..h * w * c].iter().enumerate() {
                    let (channel, pixel) = (k / (h * w), k % (h * w));
                    sum += x[n * h * w * c + pixel * c + channel] * weight;
                }
                assert!((sum - y[n * out + o]).abs() < 1e-5);
            }
        }
    }
}
