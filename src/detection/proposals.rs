//! From an RPN over several feature maps to proposals (torchvision's `filter_proposals`).
//!
//! ```text
//! for each image, each level:                                        one task each
//!     the `pre_nms` best anchors by logit
//!     decode these, clip to the image, drop what is too small or scores too low
//!     suppress, keep the `post_nms` best
//! for each image:
//!     the `post_nms` best of all levels
//! ```
//!
//! Boxes of different levels never suppress each other. An anchor is made where it is decoded: a map
//! of 200 x 272 cells has 163200, of which a thousand are of interest.

use super::spread;
use crate::boxes::{self, BBox, Coder, Cutoff};
use crate::{Error, Result};

/// Logits that outweigh waking a second thread.
const LOGITS_FOR_THREADS: usize = 1 << 13;
/// Largest logarithm of a size ratio: 16 pixels become 1000.
const EXPONENT: f32 = 4.135_166_6;

/// What the RPN says about one feature map of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Level<'a> {
    /// A logit for each image, row, column and anchor.
    pub logits: &'a [f32],
    /// As many offsets.
    pub offsets: &'a [[f32; 4]],
    /// Anchors of the first cell, (x1, y1, x2, y2).
    pub cells: &'a [BBox<f32>],
    /// Distance of neighbouring cells in pixels, down and across.
    pub stride: (f64, f64),
    /// Rows and columns of the map.
    pub size: (usize, usize),
}

/// Limits.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// How many anchors of a level are decoded.
    pub pre_nms: usize,
    /// How many boxes come out of an image.
    pub post_nms: usize,
    /// What counts as an overlap.
    pub cutoff: Cutoff<f32>,
    /// Least score.
    pub score: f32,
    /// Least side of a box.
    pub min_size: f32,
}

/// Boxes (x1, y1, x2, y2) and their scores, best first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Proposals {
    /// The boxes, clipped to the image.
    pub boxes: Vec<BBox<f32>>,
    /// Sigmoids of their logits.
    pub scores: Vec<f32>,
}

/// Proposals of every image. `sizes` are heights and widths without padding.
pub fn proposals(
    levels: &[Level<'_>],
    sizes: &[(f32, f32)],
    rule: &Rule,
) -> Result<Vec<Proposals>> {
    let images = sizes.len();
    levels.iter().try_for_each(|level| level.check(images))?;
    if images == 0 {
        return Ok(vec![]);
    }
    let logits: usize = levels.iter().map(|level| level.logits.len()).sum();
    // The levels of all images by level: the largest come first.
    let mut found = vec![Ok(Proposals::default()); levels.len() * images];
    spread(&mut found, logits >= LOGITS_FOR_THREADS, |task, found| {
        let (level, image) = (&levels[task / images], task % images);
        *found = level.survivors(image, images, sizes[image], rule);
    })?;
    let found = found.into_iter().collect::<Result<Vec<_>>>()?;
    let of_image = |image: usize| merged(found.iter().skip(image).step_by(images), rule.post_nms);
    Ok((0..images).map(of_image).collect())
}

/// The best of all levels; of equal scores those of the first level.
fn merged<'a>(levels: impl Iterator<Item = &'a Proposals>, most: usize) -> Proposals {
    let mut all = Proposals::default();
    for level in levels {
        all.boxes.extend(&level.boxes);
        all.scores.extend(&level.scores);
    }
    let order = boxes::best(&all.scores, most);
    Proposals {
        boxes: order.iter().map(|&i| all.boxes[i]).collect(),
        scores: order.iter().map(|&i| all.scores[i]).collect(),
    }
}

impl Level<'_> {
    fn check(&self, images: usize) -> Result<()> {
        let (height, width) = self.size;
        let expected = [images, height, width, self.cells.len()];
        for (argument, got) in [("objectness", self.logits.len()), ("deltas", self.offsets.len())] {
            if Some(got) != expected.iter().try_fold(1_usize, |n, &extent| n.checked_mul(extent)) {
                let expected = format!("one for each image, cell and anchor, {expected:?}");
                return Err(Error::shape(argument, expected, got.to_string()));
            }
        }
        Ok(())
    }

    fn survivors(
        &self,
        image: usize,
        images: usize,
        (height, width): (f32, f32),
        rule: &Rule,
    ) -> Result<Proposals> {
        let count = self.logits.len() / images;
        let logits = &self.logits[image * count..][..count];
        let offsets = &self.offsets[image * count..][..count];
        let coder = Coder { weights: [1.0; 4], exponent: EXPONENT };
        let mut candidates = Proposals::default();
        for index in boxes::best(logits, rule.pre_nms) {
            let score = 1.0 / (1.0 + (-logits[index]).exp());
            let b = coder.decode_one(&offsets[index], &self.anchor(index));
            let b = boxes::clip_one(&b, (width, height));
            // Written as comparisons that a NaN fails.
            let is_large = b[2] - b[0] >= rule.min_size && b[3] - b[1] >= rule.min_size;
            if is_large && score >= rule.score {
                candidates.boxes.push(b);
                candidates.scores.push(score);
            }
        }
        let Proposals { boxes, scores } = &candidates;
        let kept = boxes::nms(boxes, Some(scores), rule.cutoff, Some(rule.post_nms))?;
        Ok(Proposals {
            boxes: kept.iter().map(|&k| boxes[k]).collect(),
            scores: kept.iter().map(|&k| scores[k]).collect(),
        })
    }

    /// Anchors are numbered by row, column and place in the cell.
    fn anchor(&self, index: usize) -> BBox<f32> {
        let (cell, anchor) = (index / self.cells.len(), index % self.cells.len());
        let down = (cell / self.size.1) as f64 * self.stride.0;
        let across = (cell % self.size.1) as f64 * self.stride.1;
        let [x1, y1, x2, y2] = self.cells[anchor].map(f64::from);
        [x1 + across, y1 + down, x2 + across, y2 + down].map(|x| x as f32)
    }
}
