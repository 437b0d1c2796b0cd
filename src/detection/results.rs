//! From the scores and offsets of a head to objects.
//!
//! ```text
//! for each block of regions:                                          one task each
//!     softmax; where a class scores above the threshold: decode, clip
//! for each image, each class:                                         one task each
//!     suppress
//! for each image:
//!     torchvision: the best of all classes         chainercv: class after class
//! ```
//!
//! Of 91000 boxes that a head makes of 1000 regions some hundreds pass the threshold, and no others
//! are decoded.

use std::collections::BTreeMap;

use super::spread;
use crate::boxes::{self, BBox, Coder, Cutoff};
use crate::layers::softmax::softmax_into;
use crate::rows::{Rows, RowsMut};
use crate::{Error, Result};

/// Regions of a task.
const BLOCK: usize = 64;
/// Scores that outweigh waking a second thread.
const SCORES_FOR_THREADS: usize = 1 << 13;
/// Boxes to suppress that do.
const BOXES_FOR_THREADS: usize = 1 << 11;

/// What a head says about the regions of a batch, image after image.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Classes, of which the first is the background.
    pub classes: usize,
    /// A logit for each region and class.
    pub logits: &'a [f32],
    /// As many offsets.
    pub offsets: &'a [[f32; 4]],
    /// The regions.
    pub regions: &'a [BBox<f32>],
    /// Number of regions of each image.
    pub counts: &'a [usize],
}

/// Thresholds and limit.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// An object scores above this.
    pub score: f32,
    /// What counts as an overlap.
    pub cutoff: Cutoff<f32>,
    /// Objects of an image, at most.
    pub most: usize,
}

/// Objects of an image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objects {
    /// Where they are.
    pub boxes: Vec<BBox<f32>>,
    /// Their classes; the background is 0 and none of them.
    pub classes: Vec<u32>,
    /// Probabilities.
    pub scores: Vec<f32>,
}

/// A box that passed the threshold.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    image: usize,
    class: u32,
    score: f32,
    corners: BBox<f32>,
}

/// Candidates of one image and class, by descending score.
struct Group {
    image: usize,
    class: u32,
    /// Numbers in the ranking of the image.
    ranks: Vec<usize>,
    corners: Vec<BBox<f32>>,
}

/// The best objects of every image, best first. Offsets are weighted; boxes are limited to the image
/// of a height and width and have at least `min_size` on both sides (torchvision's
/// `postprocess_detections`).
pub fn best_objects(
    head: &Head<'_>,
    sizes: &[(f32, f32)],
    coder: &Coder<f32>,
    min_size: f32,
    rule: &Rule,
) -> Result<Vec<Objects>> {
    head.check_images("image_sizes", sizes.len())?;
    let decode = |image: usize, offset: &[f32; 4], region: &BBox<f32>| {
        let (height, width) = sizes[image];
        let b = boxes::clip_one(&coder.decode_one(offset, region), (width, height));
        (b[2] - b[0] >= min_size && b[3] - b[1] >= min_size).then_some(b)
    };
    let (ranked, groups) = survivors(head, decode, rule)?;
    let mut kept: Vec<Vec<usize>> = vec![vec![]; ranked.len()];
    groups.into_iter().for_each(|group| kept[group.image].extend(group.ranks));
    let of_image = |(mut ranks, candidates): (Vec<usize>, &Vec<Candidate>)| {
        ranks.sort_unstable();
        ranks.truncate(rule.most);
        ranks.into_iter().map(|rank| candidates[rank]).collect()
    };
    Ok(kept.into_iter().zip(&ranked).map(of_image).collect())
}

/// How the offsets of one image become boxes of the original image.
#[derive(Debug, Clone, Copy)]
pub struct Original {
    /// Height and width of the original.
    pub size: (f32, f32),
    /// Pixels of the network's input for a pixel of the original.
    pub scale: f32,
}

/// The objects of every image, class after class, each best first, in the coordinates of the
/// original images and (y, x) (`predict` of chainercv and simple-faster-rcnn). Offsets were
/// normalised by `mean` and `std`.
pub fn objects_by_class(
    head: &Head<'_>,
    originals: &[Original],
    (mean, std): ([f32; 4], [f32; 4]),
    rule: &Rule,
) -> Result<Vec<Objects>> {
    head.check_images("sizes", originals.len())?;
    let decode = |image: usize, offset: &[f32; 4], region: &BBox<f32>| {
        let Original { size, scale } = originals[image];
        let mut loc = *offset;
        for k in 0..4 {
            loc[k] = loc[k] * std[k] + mean[k];
        }
        Some(boxes::clip_one(&boxes::decode_one(&region.map(|x| x / scale), &loc), size))
    };
    let (ranked, groups) = survivors(head, decode, rule)?;
    let mut kept: Vec<BTreeMap<u32, Vec<usize>>> = vec![BTreeMap::new(); ranked.len()];
    for group in groups {
        kept[group.image].insert(group.class, group.ranks);
    }
    let of_image = |(classes, candidates): (BTreeMap<u32, Vec<usize>>, &Vec<Candidate>)| {
        classes.into_values().flatten().take(rule.most).map(|rank| candidates[rank]).collect()
    };
    Ok(kept.into_iter().zip(&ranked).map(of_image).collect())
}

impl FromIterator<Candidate> for Objects {
    fn from_iter<I: IntoIterator<Item = Candidate>>(candidates: I) -> Self {
        let mut objects = Objects::default();
        for Candidate { class, score, corners, .. } in candidates {
            objects.boxes.push(corners);
            objects.classes.push(class);
            objects.scores.push(score);
        }
        objects
    }
}

/// Candidates of each image by descending score, and for every class those that survive.
fn survivors(
    head: &Head<'_>,
    decode: impl Fn(usize, &[f32; 4], &BBox<f32>) -> Option<BBox<f32>> + Sync,
    rule: &Rule,
) -> Result<(Vec<Vec<Candidate>>, Vec<Group>)> {
    let ranked = ranked(head, decode, rule.score)?;
    let mut groups = vec![];
    for (image, candidates) in ranked.iter().enumerate() {
        let classes: Vec<i64> = candidates.iter().map(|c| i64::from(c.class)).collect();
        let (ranks, ranges) = boxes::by_class(&classes);
        groups.extend(ranges.into_iter().map(|range| {
            let ranks = ranks[range].to_vec();
            let corners = ranks.iter().map(|&rank| candidates[rank].corners).collect();
            Group { image, class: candidates[ranks[0]].class, ranks, corners }
        }));
    }
    let total: usize = ranked.iter().map(Vec::len).sum();
    let mut groups: Vec<Result<Group>> = groups.into_iter().map(Ok).collect();
    spread(&mut groups, total >= BOXES_FOR_THREADS, |_, group| {
        let suppressed = |Group { image, class, ranks, corners }: &Group| {
            let kept = boxes::nms(corners, None::<&[f32]>, rule.cutoff, Some(rule.most))?;
            let ranks = kept.into_iter().map(|k| ranks[k]).collect();
            Ok(Group { image: *image, class: *class, ranks, corners: vec![] })
        };
        if let Ok(all) = group {
            *group = suppressed(all);
        }
    })?;
    Ok((ranked, groups.into_iter().collect::<Result<_>>()?))
}

/// Boxes of foreground classes that score above the threshold, for each image by descending score;
/// equal scores by region, then by class.
fn ranked(
    head: &Head<'_>,
    decode: impl Fn(usize, &[f32; 4], &BBox<f32>) -> Option<BBox<f32>> + Sync,
    threshold: f32,
) -> Result<Vec<Vec<Candidate>>> {
    let Head { classes, logits, offsets, regions, counts } = *head;
    let numbers = counts.iter().enumerate();
    let image_of: Vec<usize> =
        numbers.flat_map(|(image, &count)| std::iter::repeat_n(image, count)).collect();
    let mut blocks = vec![vec![]; regions.len().div_ceil(BLOCK)];
    spread(&mut blocks, logits.len() >= SCORES_FOR_THREADS, |task, found| {
        let block = task * BLOCK..regions.len().min((task + 1) * BLOCK);
        let mut scores = vec![0.0; block.len() * classes];
        let logits = &logits[block.start * classes..block.end * classes];
        softmax_into(Rows::dense(logits, classes), RowsMut::dense(&mut scores, classes));
        for (region, scores) in block.zip(scores.chunks_exact(classes)) {
            let image = image_of[region];
            let foreground = scores.iter().enumerate().skip(1);
            for (class, &score) in foreground.filter(|&(_, &score)| score > threshold) {
                let offset = &offsets[region * classes + class];
                if let Some(corners) = decode(image, offset, &regions[region]) {
                    found.push(Candidate { image, class: class as u32, score, corners });
                }
            }
        }
    })?;
    let mut of_images = vec![vec![]; counts.len()];
    blocks.into_iter().flatten().for_each(|found| of_images[found.image].push(found));
    let by_score = |candidates: Vec<Candidate>| {
        let scores: Vec<f32> = candidates.iter().map(|c| c.score).collect();
        boxes::rank(&scores).into_iter().map(|i| candidates[i]).collect()
    };
    Ok(of_images.into_iter().map(by_score).collect())
}

impl Head<'_> {
    /// `images` are described by `argument`, and there must be as many of everything else.
    fn check_images(&self, argument: &'static str, images: usize) -> Result<()> {
        let Head { classes, logits, offsets, regions, counts } = *self;
        if classes == 0 {
            return Err(Error::shape("class_logits", "at least one class", "none"));
        }
        if images != counts.len() {
            let expected = format!("{} rows, one for each image", counts.len());
            return Err(Error::shape(argument, expected, images.to_string()));
        }
        let total = counts.iter().try_fold(0_usize, |sum, &count| sum.checked_add(count));
        if total != Some(regions.len()) {
            let expected = format!("{} rows, as its counts add up to", regions.len());
            return Err(Error::shape("proposals", expected, format!("{total:?}")));
        }
        for (argument, got) in [("class_logits", logits.len()), ("box_regression", offsets.len())] {
            if regions.len().checked_mul(classes) != Some(got) {
                let expected = format!("a row of {classes} for each of {} regions", regions.len());
                return Err(Error::shape(argument, expected, got.to_string()));
            }
        }
        Ok(())
    }
}
