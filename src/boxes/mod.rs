//! Boxes: IoU, the codec between boxes and offsets, clipping, non-maximum suppression.
//!
//! A box is four numbers `[min_0, min_1, max_0, max_1]` with continuous edges: its extent along an
//! axis is `max - min`, without a pixel added. chainercv reads the axes as (y, x), torchvision as
//! (x, y); nothing here can tell them apart, because every formula is symmetric under swapping
//! both axes together with the image size.
//!
//! Kernels are generic over `f32` and `f64` ([`Scalar`]): what comes in as `f64` stays `f64`. The
//! order of operations is NumPy's in the original tools, so that results agree to the bit wherever
//! only `+ - * /` is involved.

mod clip;
mod codec;
mod coder;
mod fusion;
mod losses;
mod masks;
mod nms;
mod pairs;
mod rotated;
mod scalar;

pub use clip::clip;
pub(crate) use clip::clip_one;
pub use codec::{decode, encode, encoded_rows};
pub(crate) use codec::{decode_one, encode_one};
pub use coder::Coder;
pub use fusion::{Confidence, Fused, Fusion, Vote, fuse, votes};
pub use losses::{BoxLoss, box_loss, box_loss_backward};
pub use masks::mask_boxes;
pub(crate) use nms::by_class;
pub use nms::{Cutoff, Decay, Rescored, Score, batched_nms, best, matrix_nms, nms, rank, soft_nms};
pub use pairs::{Format, Pairwise, areas, iou_matrix, matrix_len, pairwise};
pub use rotated::{RotatedBox, rotated_iou_matrix, rotated_nms};
pub use scalar::Scalar;

use crate::{Error, Result};

/// `[min_0, min_1, max_0, max_1]`.
pub type BBox<T> = [T; 4];

/// Views a flat slice of `4 R` numbers as `R` rows.
pub fn rows<'a, T>(flat: &'a [T], argument: &'static str) -> Result<&'a [BBox<T>]> {
    let (rows, rest) = flat.as_chunks::<4>();
    match rest.len() {
        0 => Ok(rows),
        _ => Err(Error::shape(argument, "shape (R, 4)", format!("{} numbers", flat.len()))),
    }
}

/// Refuses boxes that cannot be a ground truth: a corner that is not finite, or no extent.
///
/// Such a box turns regression targets into infinities or NaN many steps before anybody notices.
pub fn check_ground_truth<T: Scalar>(boxes: &[BBox<T>], argument: &'static str) -> Result<()> {
    let legal = |b: &BBox<T>| b.iter().all(|x| x.is_finite()) && b[0] < b[2] && b[1] < b[3];
    match boxes.iter().position(|b| !legal(b)) {
        None => Ok(()),
        Some(row) => Err(Error::row(
            argument,
            "finite boxes with min < max on both axes",
            format!("{:?}", boxes[row]),
            row,
        )),
    }
}

/// Refuses a companion of the boxes (scores, labels) of another length.
pub(crate) fn check_length(argument: &'static str, got: usize, boxes: usize) -> Result<()> {
    match got == boxes {
        true => Ok(()),
        false => Err(Error::shape(
            argument,
            format!("shape ({boxes},), one for each box"),
            format!("({got},)"),
        )),
    }
}
