//! The smallest box around each mask.

use crate::{Error, Result, parallel};

/// Pixels that take about 10 microseconds, little more than to read them.
const GRAIN: usize = 1 << 18;

/// Writes `[x1, y1, x2, y2]` for each of the `(height, width)` masks in `masks`: the first and last
/// column and row with a pixel that is not 0, both of which belong to the mask. One without such
/// pixels has zeros.
pub fn mask_boxes(masks: &[u8], size: (usize, usize), boxes: &mut [[f32; 4]]) -> Result<()> {
    let (height, width) = size;
    let pixels = height * width;
    if masks.len() != boxes.len() * pixels {
        return Err(Error::shape(
            "masks",
            format!("{} masks of {height} x {width}", boxes.len()),
            format!("{} numbers", masks.len()),
        ));
    }
    let grain = (GRAIN / pixels.max(1)).max(1);
    parallel::fill(boxes, grain, |index, out| {
        *out = mask_box(&masks[index * pixels..][..pixels], width);
    })
}

/// [`mask_boxes`] for one mask. Rows above the first and below the last that are set are read once,
/// those between them only beyond the columns found so far.
fn mask_box(mask: &[u8], width: usize) -> [f32; 4] {
    let rows = || mask.chunks_exact(width.max(1));
    let Some(top) = rows().position(any) else { return [0.0; 4] };
    let bottom = rows().rposition(any).unwrap_or(top);
    let (mut left, mut right) = (width, 0);
    for row in rows().skip(top).take(bottom + 1 - top) {
        left = first(&row[..left]).unwrap_or(left);
        right = last(&row[right..]).map_or(right, |column| right + column);
    }
    [left as f32, top as f32, right as f32, bottom as f32]
}

/// Pixels looked at together, in one vector register or a few.
const STEP: usize = 64;

fn any(row: &[u8]) -> bool {
    // Whole steps without an early exit become vector code.
    row.chunks(STEP).any(|step| step.iter().fold(0, |all, &pixel| all | pixel) != 0)
}

/// Position of the first pixel that is not 0.
fn first(row: &[u8]) -> Option<usize> {
    let step = row.chunks(STEP).position(any)? * STEP;
    row[step..].iter().position(|&pixel| pixel != 0).map(|column| step + column)
}

/// Position of the last pixel that is not 0.
fn last(row: &[u8]) -> Option<usize> {
    let step = row.rchunks(STEP).position(any)? * STEP;
    row[..row.len() - step].iter().rposition(|&pixel| pixel != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pixel looked at.
    fn naive(mask: &[u8], width: usize) -> [f32; 4] {
        let set: Vec<_> = (0..mask.len()).filter(|&i| mask[i] != 0).collect();
        let columns = || set.iter().map(|i| i % width);
        match (set.first(), set.last()) {
            (Some(first), Some(last)) => {
                let (left, right) = (columns().min().unwrap(), columns().max().unwrap());
                [left as f32, (first / width) as f32, right as f32, (last / width) as f32]
            }
            _ => [0.0; 4],
        }
    }

    #[test]
    fn boxes_of_scattered_pixels_agree_with_the_definition() {
        let mut state = 1u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % below
        };
        for (count, height, width) in
            [(0, 3, 4), (1, 1, 1), (9, 5, 7), (40, 1, 9), (40, 9, 1), (70, 130, 130)]
        {
            let mut masks = vec![0; count * height * width];
            for mask in masks.chunks_mut(height * width) {
                for _ in 0..next(4) {
                    mask[next(height * width)] = 1 + next(255) as u8;
                }
            }
            let mut boxes = vec![[9.0; 4]; count];
            mask_boxes(&masks, (height, width), &mut boxes).unwrap();
            for (mask, got) in masks.chunks(height * width).zip(&boxes) {
                assert_eq!(*got, naive(mask, width), "{height} x {width}");
            }
        }
    }

    #[test]
    fn masks_without_pixels_have_no_box_and_lengths_must_agree() {
        let mut boxes = [[9.0; 4]; 2];
        mask_boxes(&[], (0, 5), &mut boxes).unwrap();
        assert_eq!(boxes, [[0.0; 4]; 2]);
        assert!(mask_boxes(&[0; 5], (2, 2), &mut boxes).is_err());
    }
}
