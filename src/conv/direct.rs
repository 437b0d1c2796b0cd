//! Direct convolution as an implicit matrix product: weights packed once, pixels read in place.
//!
//! An output pixel is a row of the product, an output channel a column, and the input values under
//! the kernel, in (kernel row, kernel column, channel) order, are the sum's terms. In a
//! channels-last image the terms of a row lie in a few contiguous segments whose places, seen from
//! the row, are the same for every pixel, so the micro-kernel walks over segments and nothing is
//! gathered. What padding there is must be real memory for that:
//!
//! | source | when | what is read |
//! |---|---|---|
//! | in place | no padding | the input itself |
//! | band | padding, and the weights stay in the cache | each task copies the input rows it needs |
//! | copy | padding, and many weights | one padded copy, for all blocks of output channels |
//! | gathered | padding many times the image's size | each task copies what lies under its pixels |
//!
//! A task computes a tile of output pixels times a block of output channels. Blocks are chosen so
//! that the packed weights of one block stay in the second-level cache while tasks of the same block
//! follow each other.

use std::sync::Arc;

use super::epilogue::Epilogue;
use super::geometry::{Axis, Conv2d, Padding};
use crate::gemm::{Finish, Keep, Lhs, PackedMatrix, Source as Weights};
use crate::isa::Isa;
use crate::parallel;
use crate::rows::{Rows, RowsMut, Tile, Tiling, conflicting, roomy_stride};

/// Floats of packed weights in one block of output channels: 512 KiB, half of a second-level cache.
const BLOCK_WEIGHTS: usize = 128 * 1024;
/// Floats of input that a task reads: 256 KiB.
const TASK_INPUT: usize = 64 * 1024;
/// Multiply-accumulate operations of a task: about 30 microseconds at full speed, so that threads
/// which finish at different times wait little, and drawing a task costs nothing beside it.
const TASK_MACS: usize = 3_000_000;
/// Tasks that a layer of fewer operations is cut into nevertheless, and what each then has at least:
/// about 3 microseconds, several times what it takes to draw a task.
const SMALL_TASKS: usize = 4;
const SMALL_TASK_MACS: usize = 300_000;
/// Fewer channels than this make segments so short that a copy pays which joins the taps of a row.
const SHORT_SEGMENT: usize = 16;

/// Floats between pixels of a copy whose rows would compete for one set of the cache.
const STAGGER: usize = 16;

/// Where the rows of the product are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    InPlace,
    Band,
    Copy,
    Gathered,
}

/// A padded image may have this many times the floats of input and output together before nobody
/// makes one.
const PADDED: usize = 4;

/// A convolution by direct sums.
#[derive(Debug)]
pub(super) struct Direct {
    conv: Conv2d,
    /// One matrix a group; shared by layers of other image sizes.
    weights: Arc<[PackedMatrix]>,
    source: Source,
    /// Where the segments of a row begin, in pixels of the source.
    segments: Vec<usize>,
    /// Output rows (pixels, if the kernel is 1 x 1) and output channels of a task.
    task: (usize, usize),
}

impl Direct {
    /// Packs the weights: row `k` of the matrix that `weight` gives holds term `k` of every output
    /// channel's sum, which is made of parts of `sum` terms.
    pub fn new(conv: &Conv2d, isa: Isa, keep: Keep, sum: usize, weight: &Weights<'_>) -> Self {
        let shape = (conv.depth(), conv.group_out());
        let pack = |group| {
            let first = group * shape.1;
            PackedMatrix::pack(isa, shape, keep, &|k, o, rows| weight(k, first + o, rows))
                .with_parts_of(sum)
        };
        let mut direct = Direct {
            conv: *conv,
            weights: (0..conv.groups).map(pack).collect(),
            source: Source::InPlace,
            segments: Vec::new(),
            task: (1, 1),
        };
        direct.plan();
        direct
    }

    /// The layer for images of another size, on the same weights.
    pub fn resized(&self, conv: &Conv2d) -> Self {
        let mut direct = Direct {
            conv: *conv,
            weights: self.weights.clone(),
            source: Source::InPlace,
            segments: Vec::new(),
            task: (1, 1),
        };
        direct.plan();
        direct
    }

    /// Chooses source, segments and tasks for the geometry.
    fn plan(&mut self) {
        let conv = self.conv;
        let (height, width) = self.weights[0].tile();
        let (depth, columns) = (conv.depth().max(1), conv.group_out().max(1));
        let fitting = (BLOCK_WEIGHTS / depth / width * width).max(width);
        // Blocks of nearly equal width; a block lies inside one group.
        let blocks = if conv.groups > 1 { 1 } else { columns.div_ceil(fitting) };
        let columns = columns.div_ceil(blocks).next_multiple_of(width).min(columns);
        let one_block = blocks * conv.groups == 1;
        let image = Conv2d { batch: 1, ..conv }.macs() / conv.groups.max(1);
        let macs = TASK_MACS.min((image / SMALL_TASKS).max(SMALL_TASK_MACS));
        let by_work = (macs / (depth * columns)).max(1);
        if self.is_pointwise() {
            let in_place = conv.stride == (1, 1) && !conflicting(conv.in_channels);
            self.source = match (in_place, one_block) {
                (true, _) => Source::InPlace,
                (false, true) => Source::Band,
                (false, false) => Source::Copy,
            };
            self.segments = vec![0];
            let rows = by_work.min(TASK_INPUT / depth).next_multiple_of(height).max(height);
            self.task = (rows, columns);
            return;
        }
        if self.mostly_padding() {
            self.source = Source::Gathered;
            self.segments = (0..conv.kernel.0 * conv.kernel.1).collect();
            let rows = by_work.min(TASK_INPUT / self.window_len().max(1));
            self.task = (rows.clamp(1, height * (by_work / height).max(1)), columns);
            return;
        }
        let short = conv.in_channels < SHORT_SEGMENT && conv.kernel.1 > 1;
        let in_place = conv.padding == Padding::default() && !short && !self.staggered();
        self.source = match (in_place, one_block) {
            (true, _) => Source::InPlace,
            (false, true) => Source::Band,
            (false, false) => Source::Copy,
        };
        let pitch = self.source_width();
        self.segments.clear();
        for u in 0..conv.kernel.0 {
            for v in 0..if self.joined() { 1 } else { conv.kernel.1 } {
                self.segments.push(u * conv.dilation.0 * pitch + v * conv.dilation.1);
            }
        }
        let line = (pitch * conv.in_channels).max(1);
        let fitting = (TASK_INPUT / line).saturating_sub(self.window_rows()) / conv.stride.0 + 1;
        self.task = ((by_work / conv.output.1.max(1)).clamp(1, fitting), columns);
    }

    /// A 1 x 1 kernel without padding: what is read is a list of pixels, without neighbours.
    fn is_pointwise(&self) -> bool {
        self.conv.kernel == (1, 1) && self.conv.padding == Padding::default()
    }

    /// Whether a padded copy of the image would be out of proportion.
    fn mostly_padding(&self) -> bool {
        let Conv2d { input, output, padding, .. } = self.conv;
        let widened = input.1 + padding.left + padding.right;
        let padded = self.padded_rows().saturating_mul(widened).saturating_mul(self.pixel());
        let given = input.0 * input.1 * self.conv.in_channels;
        let ordinary = (given + output.0 * output.1 * self.conv.out_channels).max(TASK_INPUT);
        padded / PADDED > ordinary
    }

    /// Floats of the input under a kernel, of all groups.
    fn window_len(&self) -> usize {
        self.conv.kernel.0 * self.conv.kernel.1 * self.conv.in_channels
    }

    /// Input rows under a kernel.
    fn window_rows(&self) -> usize {
        self.conv.dilation.0 * (self.conv.kernel.0 - 1) + 1
    }

    /// Whether neighbouring rows of the product would compete for a set of the cache.
    fn staggered(&self) -> bool {
        conflicting(self.conv.stride.1 * self.conv.in_channels)
    }

    /// Whether the taps of a kernel row form one segment: in a copy without gaps.
    fn joined(&self) -> bool {
        let conv = &self.conv;
        self.source != Source::InPlace
            && !self.staggered()
            && conv.dilation.1 == 1
            && conv.groups == 1
    }

    /// Pixels in a row of the source.
    fn source_width(&self) -> usize {
        let Padding { left, right, .. } = self.conv.padding;
        self.conv.input.1 + if self.source == Source::InPlace { 0 } else { left + right }
    }

    /// Floats of a pixel of a copied source.
    fn pixel(&self) -> usize {
        match self.conv.in_channels {
            channels if self.staggered() => channels + STAGGER,
            channels => roomy_stride(channels),
        }
    }

    /// Rows of the source that the output rows of one task need.
    fn band_rows(&self) -> usize {
        (self.task.0.min(self.conv.output.0).max(1) - 1) * self.conv.stride.0 + self.window_rows()
    }

    /// Rows of one padded image.
    fn padded_rows(&self) -> usize {
        let Padding { top, bottom, .. } = self.conv.padding;
        self.conv.input.0 + top + bottom
    }

    /// Floats in a row of a copied source.
    fn line(&self) -> usize {
        self.source_width() * self.pixel()
    }

    /// What `plan` calls this.
    pub fn name(&self) -> String {
        let conv = &self.conv;
        let source = match self.source {
            Source::InPlace => "in place",
            Source::Band => "band copied",
            Source::Copy => "copied",
            Source::Gathered => "gathered",
        };
        let kernel = if conv.kernel == (1, 1) { "pointwise" } else { "implicit gemm" };
        let groups = if conv.groups > 1 { "grouped " } else { "" };
        format!("{groups}{kernel}, {source}")
    }

    pub fn weight_bytes(&self) -> usize {
        self.weights.iter().map(PackedMatrix::bytes).sum()
    }

    /// Floats of scratch memory for a batch.
    pub fn scratch_len(&self, batch: usize) -> usize {
        let pixels = self.conv.output.0 * self.conv.output.1;
        match (self.source, self.is_pointwise()) {
            (Source::InPlace, _) => 0,
            (Source::Gathered, _) => {
                self.task.0 * roomy_stride(self.window_len()) * parallel::workers()
            }
            (Source::Band, true) => self.task.0 * self.pixel() * parallel::workers(),
            (Source::Copy, true) => batch * pixels * self.pixel(),
            (Source::Band, false) => self.band_rows() * self.line() * parallel::workers(),
            (Source::Copy, false) => batch * self.padded_rows() * self.line(),
        }
    }

    /// Whether the result is written past the caches. Every line of it then is by one tile, which the
    /// last, narrow panel of a matrix would not do: mixed with other lines, or parts of lines, streams
    /// cost up to half the time of a layer.
    fn streams(&self, output: &RowsMut<'_>) -> bool {
        let whole = |weights: &PackedMatrix| weights.columns().is_multiple_of(weights.tile().1);
        output.outgrow_caches() && output.are_on_lines() && self.weights.iter().all(whole)
    }

    /// Runs the layer; `bias` is padded to a multiple of the tile's width.
    pub fn run(
        &self,
        input: Rows<'_>,
        output: RowsMut<'_>,
        bias: Option<&[f32]>,
        epilogue: &Epilogue<'_>,
        scratch: &mut [f32],
    ) {
        let stream = self.streams(&output);
        let run = Run { direct: self, input, bias, epilogue, stream };
        match (self.source, self.is_pointwise()) {
            (Source::InPlace, true) => run.pixels(input, output),
            (Source::Band, true) => run.gathered_pixels(output, scratch),
            (Source::Copy, true) => {
                let (count, pixel) = (output.count(), self.pixel());
                let copy = &mut scratch[..count * pixel];
                let rows = RowsMut::new(copy, count, input.channels(), pixel);
                rows.for_each_tile(Tiling::rows(32), |tile| run.gather(tile.first_row, tile.rows));
                run.pixels(Rows::new(copy, count, input.channels(), pixel), output);
            }
            (Source::Gathered, _) => run.gathered_windows(output, scratch),
            (Source::InPlace, false) => run.windows(output),
            (Source::Band, false) => run.banded_windows(output, scratch),
            (Source::Copy, false) => {
                let images = input.count() / (self.conv.input.0 * self.conv.input.1).max(1);
                let lines = images * self.padded_rows();
                let copy = &mut scratch[..lines * self.line()];
                RowsMut::dense(copy, self.line()).for_each_tile(Tiling::rows(4), |tile| {
                    run.copy_padded(tile.first_row, tile.rows);
                });
                run.copied_windows(copy, output);
            }
        }
    }
}

/// One run of a layer.
struct Run<'a> {
    direct: &'a Direct,
    input: Rows<'a>,
    bias: Option<&'a [f32]>,
    epilogue: &'a Epilogue<'a>,
    stream: bool,
}

impl Run<'_> {
    /// The tiling of outputs that are lists of pixels.
    fn pixel_tiling(&self) -> Tiling {
        let (rows, channels) = self.direct.task;
        Tiling { group: usize::MAX, rows, channels }
    }

    /// The tiling of outputs that are images.
    fn window_tiling(&self) -> Tiling {
        let ((lines, channels), (height, width)) = (self.direct.task, self.direct.conv.output);
        Tiling { group: height * width, rows: lines * width, channels }
    }

    /// 1 x 1 kernels: row `p` of the product is row `p` of `input`.
    fn pixels(&self, input: Rows<'_>, output: RowsMut<'_>) {
        output.for_each_tile(self.pixel_tiling(), |tile| {
            self.multiply_pixels(input.rows(tile.first_row, tile.rows.count()), tile);
        });
    }

    /// 1 x 1 kernels: each task gathers the pixels it needs.
    fn gathered_pixels(&self, output: RowsMut<'_>, scratch: &mut [f32]) {
        let (pixel, channels) = (self.direct.pixel(), self.input.channels());
        let len = self.direct.task.0 * pixel;
        output.for_each_tile_with(self.pixel_tiling(), scratch, len, |copy, tile| {
            let count = tile.rows.count();
            self.gather(tile.first_row, RowsMut::new(copy, count, channels, pixel));
            self.multiply_pixels(Rows::new(copy, count, channels, pixel), tile);
        });
    }

    /// Copies the input pixels of output pixels `first..` under a strided 1 x 1 kernel.
    fn gather(&self, first: usize, mut to: RowsMut<'_>) {
        let conv = &self.direct.conv;
        for index in 0..to.count() {
            let (image, row, col) = conv.output_position(first + index);
            let from =
                (image * conv.input.0 + row * conv.stride.0) * conv.input.1 + col * conv.stride.1;
            to.row_mut(index).copy_from_slice(self.input.row(from));
        }
    }

    /// Copies rows of the padded images, counted through the batch from `first` on.
    fn copy_padded(&self, first: usize, mut to: RowsMut<'_>) {
        let (conv, pixel) = (&self.direct.conv, self.direct.pixel());
        let (padding, (height, width)) = (conv.padding, conv.input);
        let rows = self.direct.padded_rows();
        for index in 0..to.count() {
            let (image, row) = ((first + index) / rows, (first + index) % rows);
            let line = to.row_mut(index);
            let Some(row) = row.checked_sub(padding.top).filter(|&row| row < height) else {
                line.fill(0.0);
                continue;
            };
            let (left, rest) = line.split_at_mut(padding.left * pixel);
            let (middle, right) = rest.split_at_mut(width * pixel);
            left.fill(0.0);
            right.fill(0.0);
            let from = self.input.rows((image * height + row) * width, width);
            if pixel == from.channels() && pixel == from.stride() {
                middle.copy_from_slice(from.as_slice());
            } else {
                for (i, to) in middle.chunks_exact_mut(pixel.max(1)).enumerate() {
                    to[..from.channels()].copy_from_slice(from.row(i));
                }
            }
        }
    }

    /// Kernels over what each task gathers: for each output pixel the input under the kernel.
    fn gathered_windows(&self, output: RowsMut<'_>, scratch: &mut [f32]) {
        let (conv, len) = (&self.direct.conv, self.direct.window_len());
        let stride = roomy_stride(len);
        output.for_each_tile_with(self.pixel_tiling(), scratch, self.direct.task.0 * stride, {
            |copy, tile| {
                let count = tile.rows.count();
                let mut windows = RowsMut::new(copy, count, len, stride);
                for index in 0..count {
                    self.gather_window(tile.first_row + index, windows.row_mut(index));
                }
                let group = tile.first_channel / conv.group_out();
                let lhs = Lhs {
                    data: &copy[(group * conv.group_in()).min(copy.len())..],
                    lines: 1,
                    line_stride: 0,
                    rows: count,
                    row_stride: stride,
                    segments: &self.direct.segments,
                    segment_unit: conv.in_channels,
                    depth: conv.group_in(),
                };
                self.multiply(&lhs, tile);
            }
        });
    }

    /// Copies the input pixels under output pixel `index`, with zeros for padding.
    fn gather_window(&self, index: usize, to: &mut [f32]) {
        let conv = &self.direct.conv;
        let (image, i, j) = conv.output_position(index);
        let channels = conv.in_channels.max(1);
        for (tap, pixel) in to.chunks_exact_mut(channels).enumerate() {
            let y = conv.input_coordinate(Axis::Rows, i, tap / conv.kernel.1);
            let x = conv.input_coordinate(Axis::Cols, j, tap % conv.kernel.1);
            match (y, x) {
                (Some(y), Some(x)) => {
                    let from = (image * conv.input.0 + y) * conv.input.1 + x;
                    pixel.copy_from_slice(self.input.row(from));
                }
                _ => pixel.fill(0.0),
            }
        }
    }

    /// Kernels over the input itself, which needs no padding.
    fn windows(&self, output: RowsMut<'_>) {
        let conv = &self.direct.conv;
        let (data, stride) = (self.input.as_slice(), self.input.stride());
        output.for_each_tile(self.window_tiling(), |tile| {
            let (image, row, _) = conv.output_position(tile.first_row);
            let first = (image * conv.input.0 + row * conv.stride.0) * conv.input.1 * stride;
            self.multiply_windows(&data[first..], stride, tile);
        });
    }

    /// Kernels over a band of the padded input that each task copies.
    fn banded_windows(&self, output: RowsMut<'_>, scratch: &mut [f32]) {
        let (conv, line) = (&self.direct.conv, self.direct.line());
        let len = self.direct.band_rows() * line;
        output.for_each_tile_with(self.window_tiling(), scratch, len, |band, tile| {
            let (image, row, _) = conv.output_position(tile.first_row);
            let lines = tile.rows.count() / conv.output.1;
            let needed = (lines - 1) * conv.stride.0 + self.direct.window_rows();
            let first = image * self.direct.padded_rows() + row * conv.stride.0;
            self.copy_padded(first, RowsMut::dense(&mut band[..needed * line], line));
            self.multiply_windows(band, self.direct.pixel(), tile);
        });
    }

    /// Kernels over padded images.
    fn copied_windows(&self, copy: &[f32], output: RowsMut<'_>) {
        let (conv, line) = (&self.direct.conv, self.direct.line());
        output.for_each_tile(self.window_tiling(), |tile| {
            let (image, row, _) = conv.output_position(tile.first_row);
            let first = image * self.direct.padded_rows() + row * conv.stride.0;
            self.multiply_windows(&copy[first * line..], self.direct.pixel(), tile);
        });
    }

    /// Multiplies output rows whose windows begin at the start of `source`, in which pixels lie
    /// `pixel` apart.
    fn multiply_windows(&self, source: &[f32], pixel: usize, tile: Tile<'_>) {
        let (direct, conv) = (self.direct, &self.direct.conv);
        let group = tile.first_channel / conv.group_out();
        let taps = if direct.joined() { conv.kernel.1 } else { 1 };
        let lhs = Lhs {
            data: &source[(group * conv.group_in()).min(source.len())..],
            lines: tile.rows.count() / conv.output.1,
            line_stride: conv.stride.0 * direct.source_width() * pixel,
            rows: conv.output.1,
            row_stride: conv.stride.1 * pixel,
            segments: &direct.segments,
            segment_unit: pixel,
            depth: taps * conv.group_in(),
        };
        self.multiply(&lhs, tile);
    }

    /// Multiplies pixels one by one.
    fn multiply_pixels(&self, pixels: Rows<'_>, tile: Tile<'_>) {
        let conv = &self.direct.conv;
        let group = tile.first_channel / conv.group_out();
        let pixels = pixels.columns(group * conv.group_in(), conv.group_in());
        self.multiply(&Lhs::matrix(&pixels), tile);
    }

    fn multiply(&self, lhs: &Lhs<'_>, tile: Tile<'_>) {
        let group_out = self.direct.conv.group_out();
        let (group, first) = (tile.first_channel / group_out, tile.first_channel % group_out);
        let Tile { first_row, first_channel, rows } = tile;
        let residual = self.epilogue.residual.map(|residual| {
            residual.rows(first_row, rows.count()).columns(first_channel, rows.channels())
        });
        // Of several groups each has its own padded bias.
        let bias = self.bias.map(|bias| &bias[bias.len() / self.direct.weights.len() * group..]);
        let bounds = self.epilogue.activation.bounds();
        let finish = Finish { bias, residual, bounds, stream: self.stream };
        self.direct.weights[group].multiply(lhs, (0, first), rows, finish);
    }
}
