//! Two-dimensional convolution (cross-correlation): geometry, forward, and the two backward passes.
//!
//! Activations are N, H, W, C. Weights are `kh, kw, C / groups, O` ("HWIO"), so that the weights of
//! one group form a row-major matrix of `K = kh * kw * C / groups` rows whose columns are output
//! channels, and a forward pass is one matrix product per block of output pixels:
//!
//! ```text
//! for each block of output pixels:            (one task; block size depends on geometry alone)
//!     columns = the K input values under each pixel   (gathered into a buffer that fits L2)
//!     output block = columns * weights + bias
//! ```
//!
//! | file | pass |
//! |---|---|
//! | `geometry` | sizes, padding, checks; the one place that computes an output size |
//! | `columns` | gathering the input values under an output pixel |
//! | `forward` | the product above |
//! | `backward_data` | gradient of the input, as a gather over output pixels |
//! | `backward_weight` | gradient of the weights, one task per range of weight rows |
//! | `prepared` | a layer with its algorithm chosen and its weights packed, as plans run it |
//! | `reference` | naive float64 loops, the definition the tests compare with |

mod algorithm;
mod backward_data;
mod backward_weight;
mod columns;
mod direct;
mod forward;
mod geometry;
mod grouped;
mod prepared;
pub mod reference;
mod winograd;

pub use crate::gemm::Storage;
pub use algorithm::Algorithm;
pub use backward_data::backward_data;
pub use backward_weight::{backward_bias, backward_weight};
pub use forward::forward;
pub use geometry::{Conv2d, Padding, output_size};
pub use prepared::{Activation, Epilogue, Options, Packing, Precision, PreparedConv};
pub use winograd::TileSize;
