//! How good are detections: PASCAL VOC's matching and average precision.

pub mod voc;
