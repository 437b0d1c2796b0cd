//! oxidet: CNN classification and Faster R-CNN detection on the CPU.
//!
//! The crate holds the kernels; `python/oxidet` assembles networks from them. Everything outside
//! `src/python` is free of Python: kernels take slices and a small geometry struct, check what
//! they are given, and return an [`Error`] that names the argument.
//!
//! | module | what it holds |
//! |---|---|
//! | [`isa`] | which vector instructions the CPU has |
//! | [`parallel`] | the private thread pool: size, fork policy, disjoint work splitting |
//! | [`gemm`] | matrix products |
//! | [`conv`] | convolution: geometry, forward, the two backward passes, a naive reference |
//! | [`layers`] | pooling, batch norm and its folding, activations, softmax, losses, dropout |
//! | [`optim`] | steps of optimisers over all parameters of a network |
//! | [`graph`] | networks as graphs: passes, memory plan, executable plans |
//! | [`boxes`] | IoU, box codecs, clipping, NMS |
//! | [`rpn`] | anchors and the three creators |
//! | [`roi`] | RoI pooling, RoI align and their position-sensitive kin |
//! | [`detection`] | what a detector does between its networks: images in, proposals, detections out |
//! | [`rows`](mod@rows) | rows of channels with gaps between them, and cutting them into tiles |
//! | [`memory`] | refusing results that no memory can hold |
//! | [`evaluation`] | average precision as VOC and as COCO define it |
//!
//! # Memory layout
//!
//! Activations are channels-last: an `N, C, H, W` tensor lies in memory as `N, H, W, C`, and every
//! kernel here takes and returns that order. The Python side presents it as an NCHW-shaped view.

pub mod boxes;
pub mod conv;
pub mod detection;
pub mod error;
pub mod evaluation;
pub mod gemm;
pub mod graph;
pub mod isa;
pub mod layers;
pub mod memory;
pub mod optim;
pub mod parallel;
pub mod roi;
pub mod rows;
pub mod rpn;

#[cfg(feature = "python")]
mod python;

pub use error::{Error, Result};
