//! Region proposals: anchors, and what the three creators of Faster R-CNN compute.
//!
//! | module | its question |
//! |---|---|
//! | [`anchors`] | which reference boxes does a feature map stand for |
//! | [`anchor_targets`] | what should the RPN say about each anchor |
//! | [`proposals`] | which boxes does the RPN's answer propose |
//! | [`roi_targets`] | what should the head say about each proposal |
//! | [`matcher`] | which object does a prediction stand for, by a matrix of qualities |
//!
//! Targets and matches come from maxima along both axes of a matrix (`matching`), which is IoU and
//! never in memory for the creators.
//!
//! Nothing here is random. The creators sample among candidates; the candidates come from here and
//! the draws stay with the caller, who owns the generator.

pub mod anchor_targets;
pub mod anchors;
pub mod matcher;
mod matching;
pub mod proposals;
pub mod roi_targets;
