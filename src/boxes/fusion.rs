//! Weighted boxes fusion (Solovyev et al., 2019): boxes of several models become one box for each
//! cluster, instead of the best of them staying.
//!
//! ```text
//! for each class, boxes by descending weighted score:
//!     join the cluster whose fused box overlaps most, if by more than the threshold; else found one
//!     fused box = mean of its members, weighted by their scores
//! ```

use super::nms::{overlap, rank};
use super::{BBox, check_length};
use crate::{Error, Result};

/// The score of a fused box, from those of its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confidence {
    /// Their mean, times the share of the models (by weight, one for each box) that see it.
    Mean,
    /// The highest.
    Highest,
    /// The weighted mean, times the weight of the different models among them.
    MeanOfBoxesAndModels,
    /// The weighted mean, with the models that do not see it counting as 0.
    MeanWithAbsent,
}

/// How boxes are fused.
#[derive(Debug, Clone)]
pub struct Fusion<'a> {
    /// Weight of each model.
    pub weights: &'a [f64],
    /// Overlap above which a box joins a cluster.
    pub threshold: f64,
    /// What the score of a cluster is.
    pub confidence: Confidence,
    /// Whether [`Confidence::Mean`] may count a model more than once.
    pub overflow: bool,
}

/// One box of one model.
#[derive(Debug, Clone, Copy)]
pub struct Vote {
    /// The box.
    pub corners: BBox<f64>,
    /// Its score, without the model's weight.
    pub score: f64,
    /// Its class.
    pub class: i64,
    /// The model, an index into the weights.
    pub model: usize,
}

/// Boxes that belong together.
struct Cluster {
    fused: BBox<f64>,
    /// Weighted scores times corners.
    sum: BBox<f64>,
    /// Sum of the weighted scores, and the highest.
    scores: f64,
    highest: f64,
    /// Sum of the weights of the boxes.
    weight: f64,
    boxes: usize,
    /// Which models are there.
    seen: Vec<bool>,
}

impl Cluster {
    fn new(models: usize) -> Self {
        Cluster {
            fused: [0.0; 4],
            sum: [0.0; 4],
            scores: 0.0,
            highest: f64::NEG_INFINITY,
            weight: 0.0,
            boxes: 0,
            seen: vec![false; models],
        }
    }

    fn add(&mut self, vote: &Vote, weight: f64) {
        let score = vote.score * weight;
        self.scores += score;
        self.highest = self.highest.max(score);
        self.weight += weight;
        self.boxes += 1;
        self.seen[vote.model] = true;
        for axis in 0..4 {
            self.sum[axis] += score * vote.corners[axis];
            self.fused[axis] = self.sum[axis] / self.scores;
        }
        if self.boxes == 1 {
            self.fused = vote.corners; // to the bit, and with a score of 0, too
        }
    }

    fn score(&self, fusion: &Fusion<'_>) -> f64 {
        let weights = fusion.weights;
        let total: f64 = weights.iter().sum();
        let present: f64 = weights.iter().zip(&self.seen).filter(|w| *w.1).map(|w| w.0).sum();
        match fusion.confidence {
            Confidence::Mean => {
                let most = if fusion.overflow { self.boxes } else { weights.len() };
                let mean = self.scores / self.boxes as f64;
                mean * self.boxes.min(most) as f64 / total
            }
            Confidence::Highest => {
                self.highest / weights.iter().copied().fold(f64::NEG_INFINITY, f64::max)
            }
            Confidence::MeanOfBoxesAndModels => self.scores / self.weight * present / total,
            Confidence::MeanWithAbsent => self.scores / (self.weight + (total - present)),
        }
    }
}

/// The boxes of all models as one list; `models` holds the index of each box's model.
pub fn votes(
    boxes: &[BBox<f64>],
    scores: &[f64],
    classes: &[i64],
    models: &[i64],
) -> Result<Vec<Vote>> {
    check_length("scores", scores.len(), boxes.len())?;
    check_length("labels", classes.len(), boxes.len())?;
    check_length("models", models.len(), boxes.len())?;
    (0..boxes.len())
        .map(|row| {
            let model = usize::try_from(models[row]).map_err(|_| {
                Error::row("models", "models from 0 on", models[row].to_string(), row)
            })?;
            Ok(Vote { corners: boxes[row], score: scores[row], class: classes[row], model })
        })
        .collect()
}

/// A fused box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fused {
    /// The box.
    pub corners: BBox<f64>,
    /// Its score.
    pub score: f64,
    /// Its class.
    pub class: i64,
}

/// Fused boxes by descending score. Equal scores go by the order of their classes' first boxes,
/// then of the clusters' highest.
pub fn fuse(votes: &[Vote], fusion: &Fusion<'_>) -> Result<Vec<Fused>> {
    let models = fusion.weights.len();
    if let Some(row) = votes.iter().position(|vote| vote.model >= models) {
        let expected = format!("models below {models}");
        return Err(Error::row("models", expected, votes[row].model.to_string(), row));
    }
    let weighted: Vec<f64> = votes.iter().map(|v| v.score * fusion.weights[v.model]).collect();
    let mut order = rank(&weighted);
    // Classes in the order in which they appear; `order` is by score within each.
    let mut first = std::collections::HashMap::new();
    for (i, vote) in votes.iter().enumerate() {
        first.entry(vote.class).or_insert(i);
    }
    order.sort_by_key(|&i| first[&votes[i].class]);
    let mut all = vec![];
    for class in order.chunk_by(|&i, &j| votes[i].class == votes[j].class) {
        let mut clusters: Vec<Cluster> = vec![];
        for &i in class {
            let vote = &votes[i];
            let mut best = None;
            let mut most = fusion.threshold;
            for (number, cluster) in clusters.iter().enumerate() {
                let iou = overlap(&cluster.fused, &vote.corners);
                if iou > most {
                    (best, most) = (Some(number), iou);
                }
            }
            let joined = best.unwrap_or_else(|| {
                clusters.push(Cluster::new(models));
                clusters.len() - 1
            });
            clusters[joined].add(vote, fusion.weights[vote.model]);
        }
        all.extend(clusters.iter().map(|cluster| Fused {
            corners: cluster.fused,
            score: cluster.score(fusion),
            class: votes[class[0]].class,
        }));
    }
    let scores: Vec<f64> = all.iter().map(|fused| fused.score).collect();
    Ok(rank(&scores).into_iter().map(|i| all[i]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn votes() -> Vec<Vote> {
        // Two models see nearly the same; a class of its own; one more box of the first model.
        let rows = [
            ([0.0, 0.0, 0.4, 0.4], 0.9, 1, 0),
            ([0.0, 0.0, 0.4, 0.5], 0.6, 1, 1),
            ([0.0, 0.0, 0.4, 0.4], 0.5, 7, 1),
            ([0.5, 0.5, 0.9, 0.9], 0.3, 1, 0),
        ];
        rows.map(|(corners, score, class, model)| Vote { corners, score, class, model }).into()
    }

    fn scores(confidence: Confidence, weights: [f64; 2]) -> Vec<f64> {
        let fusion = Fusion { weights: &weights, threshold: 0.55, confidence, overflow: false };
        let mut fused = fuse(&votes(), &fusion).unwrap();
        fused.sort_by(|a, b| a.corners[0].total_cmp(&b.corners[0]).then(a.class.cmp(&b.class)));
        fused.iter().map(|f| f.score).collect()
    }

    #[test]
    fn members_pull_by_their_scores() {
        let fusion = Fusion {
            weights: &[1.0, 1.0],
            threshold: 0.55,
            confidence: Confidence::Mean,
            overflow: false,
        };
        let fused = fuse(&votes(), &fusion).unwrap();
        assert_eq!(fused.iter().map(|f| f.class).collect::<Vec<_>>(), [1, 7, 1]);
        assert!((fused[0].corners[3] - (0.9 * 0.4 + 0.6 * 0.5) / 1.5).abs() < 1e-15);
        assert!((fused[0].score - 0.75).abs() < 1e-15);
        assert!(fuse(&[], &fusion).unwrap().is_empty());
        let stray = Vote { model: 2, ..votes()[0] };
        let error = fuse(&[stray], &fusion).unwrap_err().to_string();
        assert_eq!(error, "models: expected models below 2, got 2 in row 0");
    }

    #[test]
    fn four_ways_to_score_a_cluster() {
        let cases = [
            (Confidence::Mean, [(0.9 + 1.8) / 2.0 * 2.0 / 4.0, 1.5 / 4.0, 0.3 / 4.0]),
            (Confidence::Highest, [0.6, 0.5, 0.1]),
            (Confidence::MeanOfBoxesAndModels, [2.7 / 4.0, 0.5 * 3.0 / 4.0, 0.3 / 4.0]),
            (Confidence::MeanWithAbsent, [2.7 / 4.0, 1.5 / 4.0, 0.3 / 4.0]),
        ];
        for (confidence, expected) in cases {
            for (got, expected) in scores(confidence, [1.0, 3.0]).iter().zip(expected) {
                assert!((got - expected).abs() < 1e-12, "{confidence:?}: {got} {expected}");
            }
        }
    }
}
