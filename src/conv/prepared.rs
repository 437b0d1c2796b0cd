//! A convolution made ready to run many times: algorithm chosen, weights packed, bias kept.
//!
//! This is what an executable plan holds for each layer. A fully connected layer is the same thing
//! with the whole input as its window.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::algorithm::Algorithm;
use super::direct::Direct;
use super::epilogue::Epilogue;
use super::geometry::{Conv2d, Padding};
use super::grouped::Grouped;
use super::options::{Options, Precision};
use super::winograd::Winograd;
use crate::gemm::{Keep, Source, Storage, tile_shape};
use crate::isa::{Isa, vectorize};
use crate::parallel;
use crate::rows::{Rows, RowsMut};
use crate::{Error, Result};

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

    pub(super) fn with_algorithm(
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
