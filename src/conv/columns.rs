//! Gathering the input values under output pixels ("im2col"), some pixels at a time.
//!
//! In N, H, W, C order the channels of one tap are contiguous, and with dilation 1 so are the taps
//! of one kernel row: a row of columns is at most `kh` copies when the window lies inside.

use std::ops::Range;

use super::geometry::{Axis, Conv2d};
use crate::rows::{Rows, RowsMut};

/// Writes the `depth` input values under each output pixel of `pixels` as one row of `columns`. For
/// convolutions of one group.
pub(super) fn gather(
    conv: &Conv2d,
    input: Rows<'_>,
    pixels: Range<usize>,
    mut columns: RowsMut<'_>,
) {
    let (channels, (kh, kw)) = (conv.in_channels, conv.kernel);
    if channels == 0 {
        return;
    }
    let contiguous_taps = conv.dilation.1 == 1 && input.stride() == input.channels();
    for (index, pixel) in pixels.enumerate() {
        let row = columns.row_mut(index);
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
                match conv.input_coordinate(Axis::Cols, out_col, v) {
                    Some(x) => tap.copy_from_slice(input.row(line + x)),
                    None => tap.fill(0.0),
                }
            }
        }
    }
}
