//! Gathering the input values under output pixels ("im2col"), one block of pixels at a time.
//!
//! In N, H, W, C order the channels of one tap are contiguous, and with dilation 1 so are the taps
//! of one kernel row: a row of columns is at most `kh` copies when the window lies inside.

use std::ops::Range;

use super::geometry::{Axis, Conv2d};
use crate::rows::Rows;

/// Floats of the column buffer: 256 KiB, a quarter of the smallest L2 cache in use today, so that
/// the block, the packed weights and the output block stay there together.
const BUFFER: usize = 64 * 1024;

/// Output pixels of one block. Depends on the geometry alone.
pub(super) fn pixels_per_block(conv: &Conv2d) -> usize {
    let fitting = BUFFER / conv.depth().max(1);
    // At least 64 rows keep a product efficient; at most 512, and about an eighth of the pixels,
    // so that small layers still make work for several threads.
    let shared = conv.output_pixels().div_ceil(8).next_multiple_of(16);
    fitting.clamp(64, 512).min(shared).max(1)
}

/// Writes the `depth` input values under each output pixel of `pixels` as one row of `columns`.
pub(super) fn gather(
    conv: &Conv2d,
    group: usize,
    input: Rows<'_>,
    pixels: Range<usize>,
    columns: &mut [f32],
) {
    let channels = conv.group_in();
    if channels == 0 {
        return;
    }
    let (kh, kw) = conv.kernel;
    let contiguous_taps =
        conv.dilation.1 == 1 && conv.groups == 1 && input.stride() == input.channels();
    let rows = columns.chunks_exact_mut(conv.depth());
    for (pixel, row) in pixels.zip(rows) {
        let (image, out_row, out_col) = conv.output_position(pixel);
        for u in 0..kh {
            let target = &mut row[u * kw * channels..(u + 1) * kw * channels];
            let Some(y) = conv.input_coordinate(Axis::Rows, out_row, u) else {
                target.fill(0.0);
                continue;
            };
            let line = (image * conv.input.0 + y) * conv.input.1;
            let first = conv.input_coordinate(Axis::Cols, out_col, 0);
            let last = conv.input_coordinate(Axis::Cols, out_col, kw - 1);
            if let (true, Some(x), Some(_)) = (contiguous_taps, first, last) {
                target.copy_from_slice(input.rows(line + x, kw).as_slice());
                continue;
            }
            for (v, tap) in target.chunks_exact_mut(channels).enumerate() {
                copy_pixel(conv, group, input, line, (out_col, v), tap);
            }
        }
    }
}

fn copy_pixel(
    conv: &Conv2d,
    group: usize,
    input: Rows<'_>,
    line: usize,
    (out_col, v): (usize, usize),
    target: &mut [f32],
) {
    match conv.input_coordinate(Axis::Cols, out_col, v) {
        Some(x) => {
            let pixel = input.row(line + x);
            target.copy_from_slice(&pixel[group * target.len()..][..target.len()]);
        }
        None => target.fill(0.0),
    }
}
