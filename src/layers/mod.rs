//! The layers between convolutions, each forward and backward.
//!
//! Activations are channels-last, so that whatever treats a pixel's channels alike is a vector loop
//! over C. Work is split over outputs, or into parts fixed by the shape and added in order: results
//! do not depend on the number of threads.
//!
//! | file | what it holds |
//! |---|---|
//! | [`windows`] | which pixels a pooled pixel sees: sliding and adaptive windows |
//! | [`max_pool`], [`avg_pool`] | the two poolings over such windows |
//! | [`gather`] | pixels from elsewhere: padding, nearest-neighbour resizing, slices |
//! | [`bilinear`] | bilinear resizing |
//! | [`batch_norm`] | batch statistics, normalisation, gradients |
//! | [`fold`](mod@fold) | a batch norm folded into the convolution before it |
//! | [`response_norm`] | local response normalisation |
//! | `blocks` | how many rows make a task |
//! | `elementwise` | functions of single elements, over rows or slices |
//! | `exponential` | tanh and sigmoid of one number, without branches |
//! | [`activation`] | ReLU, tanh, sigmoid |
//! | [`softmax`](mod@softmax) | softmax and log-softmax |
//! | [`cross_entropy`](mod@cross_entropy) | classification losses |
//! | [`smooth_l1`](mod@smooth_l1) | the box regression loss |
//! | [`focal`](mod@focal) | the classification loss of dense detectors |
//! | [`dropout`](mod@dropout) | dropout from a counter-based generator |

pub mod activation;
pub mod avg_pool;
pub mod batch_norm;
pub mod bilinear;
mod blocks;
pub mod cross_entropy;
pub mod dropout;
mod elementwise;
mod exponential;
pub mod focal;
pub mod fold;
pub mod gather;
pub mod max_pool;
pub mod response_norm;
pub mod smooth_l1;
pub mod softmax;
#[cfg(test)]
pub(crate) mod testing;
pub mod windows;
