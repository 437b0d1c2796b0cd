//! How good are detections: average precision as PASCAL VOC and as COCO define it.
//!
//! | file | what it holds |
//! |---|---|
//! | `rows` | boxes of all images, one row each; rows by class and image; ranking by score |
//! | [`voc`] | VOC: matching at one IoU threshold, area under precision over recall |
//! | [`coco`] | COCO: matching at ten thresholds in four ranges of areas, precision at recalls |

pub mod coco;
mod rows;
pub mod voc;

pub use rows::Rows;
