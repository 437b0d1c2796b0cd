//! RoI max pooling, RoI align and their position-sensitive kin: a grid of features out of every region of interest.
//!
//! Feature maps are N, H, W, C (or N, C, H, W, see [`Layout`]); regions are rows
//! `(batch_index, x1, y1, x2, y2)` in image coordinates, which `scale` takes to feature coordinates;
//! results are R, oh, ow, C (or R, C, oh, ow). The operators cut a region into `oh * ow` bins, and a
//! bin is a product of a row part and a column part. So each region first becomes two short lists,
//! one an axis, and then every bin is a loop over the pixels of the product whose innermost loop
//! runs over channels:
//!
//! ```text
//! for each bin, each pixel (y, x) under it:
//!     channels of the bin  <-  channels of the pixel        (max, or weighted sum)
//! ```
//!
//! The gradients scatter into pixels that regions share. They run over blocks of channels or of rows,
//! so that no two tasks add to the same number and the order of the sum is the order of the regions.
//!
//! | file | what it holds |
//! |---|---|
//! | `regions` | feature map geometry; regions and their checks |
//! | `bins` | the loop over blocks of channels, regions and bins, for both layouts |
//! | `max_pool` | RoI max pooling with both roundings |
//! | `align`, `taps` | RoI align as weighted footprints |
//! | `pyramid` | RoI align from one of several maps |
//! | `position_sensitive` | RoI pooling and RoI align whose bins read channels of their own |
//! | `scatter` | the gradients' parallel sum |
//! | `reference` | naive float64 loops, the definition the tests compare with |

mod align;
mod bins;
mod max_pool;
mod position_sensitive;
mod pyramid;
pub mod reference;
mod regions;
mod scatter;
mod taps;

pub use align::{Align, align, align_backward};
pub use bins::Layout;
pub use max_pool::{Edges, MaxPool, Rounding, max_pool, max_pool_backward, max_pool_with_argmax};
pub use position_sensitive::{ps_align, ps_align_backward, ps_pool, ps_pool_backward};
pub use pyramid::{Level, LevelRule, PyramidAlign};
pub use regions::{FeatureMap, Region, parse_regions};
