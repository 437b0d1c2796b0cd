//! Which values share memory, and how many images are worked on at a time.
//!
//! Values live from the step that first writes to their rows to the last one that reads them; two
//! that never live at once may share a buffer. Buffers are given out in the order of the steps:
//! the smallest free one that is large enough, else the largest free one made larger, else a new
//! one.
//!
//! A large batch is cut into groups of images whose values stay in cache together, and each group
//! is taken through several steps before the next begins. Networks shrink as they deepen, so the
//! steps are cut into segments, each with groups of its own size: late layers then see many images
//! at once and read their weights once for all of them. A value that lives on into a later segment
//! is kept for the whole batch.

use std::ops::Range;

/// Floats that the values of one group of images may take: 12 MiB, so that they stay in the last
/// level of cache of a small server together with the weights that stream through it. ResNet-50 on
/// eight images takes 6 to 12 % longer with twice as much.
const GROUP_FLOATS: usize = 3 << 20;

/// A segment ends where all that follows needs this many times less memory an image.
const SHRINKING: usize = 4;

/// What one step reads and writes.
#[derive(Debug, Clone)]
pub(super) struct Access {
    /// Values whose rows it reads.
    pub reads: Vec<usize>,
    /// Value to whose rows it writes.
    pub writes: usize,
}

/// Where the rows of a value are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    /// In the caller's input of this number.
    Input(usize),
    /// In the output of this number.
    Output(usize),
    /// In this buffer of the arena.
    Arena(usize),
}

impl Home {
    /// Whether all images of a batch have their rows there, rather than those of one group.
    pub(super) fn is_whole(self, buffers: &[Buffer]) -> bool {
        match self {
            Home::Input(_) | Home::Output(_) => true,
            Home::Arena(index) => buffers[index].whole,
        }
    }
}

/// A buffer of the arena.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Buffer {
    /// Whether it holds the whole batch.
    pub whole: bool,
    /// Floats an image that it needs in each segment.
    floats: Vec<usize>,
}

impl Buffer {
    /// Floats needed for a batch.
    pub(super) fn len(&self, batch: usize, segments: &[Segment]) -> usize {
        let images = |segment: &Segment| if self.whole { batch } else { segment.group(batch) };
        let need = |(floats, segment)| images(segment) * floats;
        self.floats.iter().zip(segments).map(need).max().unwrap_or(0)
    }

    fn per_image(&self) -> usize {
        self.floats.iter().copied().max().unwrap_or(0)
    }
}

/// Steps that a group of images is taken through before the next group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// The steps.
    pub steps: Range<usize>,
    /// Most images of a group.
    images: usize,
}

impl Segment {
    /// Images of a group: as even as possible.
    pub(super) fn group(&self, batch: usize) -> usize {
        batch.div_ceil(batch.div_ceil(self.images).max(1))
    }
}

/// The result of planning.
#[derive(Debug)]
pub(super) struct MemoryPlan {
    /// Where each value's rows are; `None` for values that have none of their own.
    pub homes: Vec<Option<Home>>,
    pub buffers: Vec<Buffer>,
    pub segments: Vec<Segment>,
}

/// Plans the memory of steps over values of `floats` elements an image; `given` are the homes of
/// inputs and outputs.
pub(super) fn plan(steps: &[Access], floats: &[usize], given: Vec<Option<Home>>) -> MemoryPlan {
    let lives = lives(steps, floats.len());
    let segments = segments(steps.len(), &lives, floats);
    let mut homes = given;
    let mut buffers: Vec<Buffer> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let segment_of =
        |step: usize| segments.iter().position(|s| s.steps.contains(&step)).unwrap_or(0);
    // (value, first step, last step, whole, segment): what lives across segments lives while any
    // group of either is worked on.
    let tenants: Vec<_> = (0..floats.len())
        .filter(|&value| homes[value].is_none())
        .filter_map(|value| {
            let life = lives[value].clone()?;
            let (first, last) = (segment_of(*life.start()), segment_of(*life.end()));
            let whole = first != last;
            let (start, end) = match whole {
                true => (segments[first].steps.start, segments[last].steps.end - 1),
                false => (*life.start(), *life.end()),
            };
            Some((value, start, end, whole, first..=last))
        })
        .collect();
    for step in 0..steps.len() {
        for (value, _, _, whole, range) in tenants.iter().filter(|tenant| tenant.1 == step) {
            let need = floats[*value];
            let fitting = |&&index: &&usize| buffers[index].whole == *whole;
            let smallest = free.iter().filter(fitting).copied();
            let chosen = smallest
                .filter(|&index| buffers[index].per_image() >= need)
                .min_by_key(|&index| buffers[index].per_image())
                .or_else(|| {
                    let rest = free.iter().filter(fitting).copied();
                    rest.max_by_key(|&index| buffers[index].per_image())
                })
                .unwrap_or_else(|| {
                    buffers.push(Buffer { whole: *whole, floats: vec![0; segments.len()] });
                    buffers.len() - 1
                });
            free.retain(|&index| index != chosen);
            for segment in range.clone() {
                let floats = &mut buffers[chosen].floats[segment];
                *floats = need.max(*floats);
            }
            homes[*value] = Some(Home::Arena(chosen));
        }
        for (value, ..) in tenants.iter().filter(|tenant| tenant.2 == step) {
            if let Some(Home::Arena(index)) = homes[*value] {
                free.push(index);
            }
        }
    }
    MemoryPlan { homes, buffers, segments }
}

/// First and last step that touch each value.
fn lives(steps: &[Access], values: usize) -> Vec<Option<std::ops::RangeInclusive<usize>>> {
    let mut lives = vec![None; values];
    for (step, access) in steps.iter().enumerate() {
        for &value in access.reads.iter().chain([&access.writes]) {
            let first = lives[value]
                .as_ref()
                .map_or(step, |life: &std::ops::RangeInclusive<_>| *life.start());
            lives[value] = Some(first..=step);
        }
    }
    lives
}

fn segments(
    steps: usize,
    lives: &[Option<std::ops::RangeInclusive<usize>>],
    floats: &[usize],
) -> Vec<Segment> {
    // Floats alive at each step, and the most from it on.
    let mut most = vec![0; steps];
    for (life, floats) in lives.iter().zip(floats) {
        for step in life.clone().into_iter().flatten() {
            most[step] += floats;
        }
    }
    for step in (1..steps).rev() {
        most[step - 1] = most[step].max(most[step - 1]);
    }
    let mut segments = Vec::new();
    let mut start = 0;
    while start < steps {
        let end = (start + 1..steps).find(|&step| most[step] * SHRINKING <= most[start]);
        let end = end.unwrap_or(steps);
        let images = (GROUP_FLOATS / most[start].max(1)).max(1);
        segments.push(Segment { steps: start..end, images });
        start = end;
    }
    segments
}

/// Floats that begin at a cache line, whatever the allocator does: kernels that load whole vectors
/// then never touch two lines at once.
#[derive(Debug, Default)]
pub(super) struct AlignedBuffer {
    data: Vec<f32>,
    start: usize,
}

impl AlignedBuffer {
    /// Makes room for at least `len` floats; keeps what is large enough. Contents are lost.
    pub(super) fn reserve(&mut self, len: usize) {
        const LINE: usize = 64;
        const SLACK: usize = LINE / size_of::<f32>();
        if self.as_slice().len() < len {
            // The old memory goes first: both at once would be the peak.
            self.data = Vec::new();
            self.data = vec![0.0; len + SLACK];
            self.start = self.data.as_ptr().align_offset(LINE).min(SLACK);
        }
    }

    /// Another one with the same contents.
    pub(super) fn copy(&self) -> Self {
        let mut copy = AlignedBuffer::default();
        copy.reserve(self.as_slice().len());
        copy.as_mut_slice().copy_from_slice(self.as_slice());
        copy
    }

    pub(super) fn as_slice(&self) -> &[f32] {
        let slack = self.data.len().min(64 / size_of::<f32>());
        &self.data[self.start..self.data.len() - slack + self.start]
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [f32] {
        let slack = self.data.len().min(64 / size_of::<f32>());
        let end = self.data.len() - slack + self.start;
        &mut self.data[self.start..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(sizes: &[usize]) -> Vec<Access> {
        (1..sizes.len()).map(|v| Access { reads: vec![v - 1], writes: v }).collect()
    }

    #[test]
    fn a_chain_needs_two_buffers() {
        let sizes = [10, 8, 6, 7, 5, 9];
        let mut given = vec![None; sizes.len()];
        given[0] = Some(Home::Input(0));
        given[5] = Some(Home::Output(0));
        let plan = plan(&chain(&sizes), &sizes, given);
        assert_eq!(plan.segments.len(), 1);
        assert_eq!(plan.buffers.len(), 2);
        let total: usize = plan.buffers.iter().map(|b| b.len(3, &plan.segments)).sum();
        assert_eq!(total, 3 * (8 + 6));
    }

    #[test]
    fn values_that_live_at_once_never_share() {
        // A skip connection over three steps.
        let sizes = [4; 6];
        let mut steps = chain(&sizes);
        steps[4].reads.push(1);
        let mut given = vec![None; 6];
        given[0] = Some(Home::Input(0));
        let plan = plan(&steps, &sizes, given);
        for other in 2..6 {
            assert_ne!(plan.homes[1], plan.homes[other]);
        }
        assert_eq!(plan.buffers.len(), 3);
    }

    #[test]
    fn segments_shrink_and_what_crosses_them_is_kept_whole() {
        let sizes = [4 << 20, 4 << 20, 4 << 20, 1000, 1000, 1000];
        let mut given = vec![None; 6];
        given[0] = Some(Home::Input(0));
        given[5] = Some(Home::Output(0));
        let plan = plan(&chain(&sizes), &sizes, given);
        let steps: Vec<_> = plan.segments.iter().map(|s| s.steps.clone()).collect();
        assert_eq!(steps, [0..3, 3..5]);
        assert_eq!(plan.segments.iter().map(|s| s.group(7)).collect::<Vec<_>>(), [1, 7]);
        let whole = |v: usize| plan.homes[v].unwrap().is_whole(&plan.buffers);
        assert_eq!([1, 2, 3, 4].map(whole), [false, false, true, false]);
    }

    #[test]
    fn groups_are_even_and_cover_the_batch() {
        let segment = Segment { steps: 0..1, images: 5 };
        assert_eq!([0, 1, 5, 6, 11, 15].map(|n| segment.group(n)), [0, 1, 5, 3, 4, 5]);
    }

    #[test]
    fn buffers_are_aligned_and_only_grow() {
        let mut buffer = AlignedBuffer::default();
        assert!(buffer.as_slice().is_empty());
        buffer.reserve(100);
        let address = buffer.as_slice().as_ptr();
        assert_eq!((address as usize % 64, buffer.as_mut_slice().len()), (0, 100));
        buffer.reserve(50);
        assert_eq!((buffer.as_slice().as_ptr(), buffer.as_slice().len()), (address, 100));
    }
}
