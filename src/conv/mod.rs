//! Two-dimensional convolution (cross-correlation): geometry, forward, and the two backward passes.
//!
//! Activations are N, H, W, C. Weights are `kh, kw, C / groups, O` ("HWIO"), so that the weights of
//! one group form a row-major matrix of `K = kh * kw * C / groups` rows whose columns are output
//! channels. A forward pass is a layer that was prepared, once for a plan or anew for each call, and
//! is then run; the gradient of the input is such a pass too, that of the weights a sum over pixels.
//!
//! | file | pass |
//! |---|---|
//! | `geometry` | sizes, padding, checks; the one place that computes an output size |
//! | `prepared` | a layer with its algorithm chosen and its weights packed, as plans run it |
//! | `options` | what a caller chooses: precision, how weights are stored |
//! | `epilogue` | what is done to the sums before they are stored |
//! | `algorithm` | which algorithm, from the geometry |
//! | `direct` | direct sums as an implicit matrix product |
//! | `grouped` | direct sums of few channels a group: vectors over channels of several groups |
//! | `winograd` | 3 x 3 kernels in fewer multiplications, and the gradient of their weights |
//! | `forward` | a layer prepared for one call of training |
//! | `backward_data` | gradient of the input, as convolutions of the gradient of the output |
//! | `backward_weight` | gradients of the weights and the bias, as sums over pixels |
//! | `backward_depthwise` | both gradients where groups have one input channel |
//! | `deformable` | gathering with taps moved by offsets, and its gradients |
//! | `columns` | gathering the input values under an output pixel |
//! | `reference` | naive float64 loops, the definition the tests compare with |

mod algorithm;
mod backward_data;
mod backward_depthwise;
mod backward_weight;
mod columns;
mod deformable;
mod direct;
mod epilogue;
mod forward;
mod geometry;
mod grouped;
mod options;
mod prepared;
pub mod reference;
#[cfg(test)]
mod tests;
mod winograd;

pub use crate::gemm::Storage;
pub use algorithm::Algorithm;
pub use backward_data::{backward_data, backward_data_into};
pub use backward_weight::{backward_bias, backward_weight, backward_weight_into};
pub use deformable::Deformable;
pub use epilogue::{Activation, Epilogue};
pub use forward::{forward, forward_into};
pub use geometry::{Conv2d, Padding, output_size};
pub use options::{Options, Precision};
pub use prepared::{Packing, PreparedConv};
pub use winograd::TileSize;
