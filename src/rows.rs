//! Rows of channels: the shape every kernel of a plan reads and writes.
//!
//! A channels-last activation is a list of pixels in N, H, W order, each a row of C values. Rows
//! lie `stride >= C` values apart: a concatenation is several narrow [`RowsMut`] over one wider
//! buffer. [`RowsMut`] can be cut into tiles that share no element, which is how a kernel hands
//! blocks of pixels and of output channels to different threads.

use std::marker::PhantomData;

use crate::parallel;

/// Rows this many floats apart fall into one set of a first-level cache of 4 KiB a way.
const CACHE_WAY: usize = 1024;

/// Floats in a cache line.
const LINE: usize = 16;

/// Bytes that a last-level cache may hold until they are read again; 32 MiB are usual on desktops and
/// for a part of a server's cores.
const CACHED: usize = 24 << 20;

/// Whether rows so many floats apart compete for one set of the first-level cache.
pub fn conflicting(stride: usize) -> bool {
    stride > 0 && stride.is_multiple_of(CACHE_WAY)
}

/// A distance of rows of `channels` values at which they do not: what plans use for their buffers.
pub fn roomy_stride(channels: usize) -> usize {
    if conflicting(channels) { channels + 16 } else { channels }
}

/// A read-only list of `count` rows of `channels` values.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    data: &'a [f32],
    count: usize,
    channels: usize,
    stride: usize,
}

/// Elements from the first of the first row to the last of the last one.
fn extent(count: usize, channels: usize, stride: usize) -> usize {
    match (count, channels) {
        (0, _) | (_, 0) => 0,
        _ => (count - 1).saturating_mul(stride).saturating_add(channels),
    }
}

impl<'a> Rows<'a> {
    /// `count` rows of `channels` values that start `stride` apart in `data`, the first at 0.
    ///
    /// # Panics
    /// If `data` is too short: sizes are computed by kernels, never by users.
    pub fn new(data: &'a [f32], count: usize, channels: usize, stride: usize) -> Self {
        let needed = extent(count, channels, stride);
        assert!(needed <= data.len(), "{needed} elements needed, got {}", data.len());
        Rows { data, count, channels, stride }
    }

    /// Rows without gaps between them.
    pub fn dense(data: &'a [f32], channels: usize) -> Self {
        let count = data.len().checked_div(channels).unwrap_or(0);
        Rows::new(data, count, channels, channels)
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Values in a row.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Distance between the starts of neighbouring rows.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Row `index`.
    pub fn row(&self, index: usize) -> &'a [f32] {
        assert!(index < self.count, "row {index} of {}", self.count);
        match self.channels {
            0 => &[],
            channels => &self.data[index * self.stride..][..channels],
        }
    }

    /// `count` rows from `first` on.
    pub fn rows(&self, first: usize, count: usize) -> Rows<'a> {
        assert!(first + count <= self.count, "rows {first} + {count} of {}", self.count);
        let start = (first * self.stride).min(self.data.len());
        Rows { data: &self.data[start..], count, ..*self }
    }

    /// `count` channels from `first` on, of every row.
    pub fn columns(&self, first: usize, count: usize) -> Rows<'a> {
        assert!(first + count <= self.channels, "channels {first} + {count} of {}", self.channels);
        let start = first.min(self.data.len());
        Rows { data: &self.data[start..], channels: count, ..*self }
    }

    /// The elements from the first of the first row to the last of the last one.
    pub fn as_slice(&self) -> &'a [f32] {
        &self.data[..extent(self.count, self.channels, self.stride)]
    }
}

/// A list of rows to write, which can be cut into disjoint tiles.
#[derive(Debug)]
pub struct RowsMut<'a> {
    data: *mut f32,
    count: usize,
    channels: usize,
    stride: usize,
    owner: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `RowsMut` is an exclusive borrow of the f32 values it addresses, as `&mut [f32]` is,
// which may be sent to another thread and shared there behind `&`.
unsafe impl Send for RowsMut<'_> {}
// SAFETY: as above; no method writes through `&self`.
unsafe impl Sync for RowsMut<'_> {}

impl<'a> RowsMut<'a> {
    /// `count` rows of `channels` values that start `stride >= channels` apart in `data`.
    ///
    /// # Panics
    /// If `data` is too short or rows would overlap.
    pub fn new(data: &'a mut [f32], count: usize, channels: usize, stride: usize) -> Self {
        assert!(stride >= channels, "rows of an output must not overlap");
        let needed = extent(count, channels, stride);
        assert!(needed <= data.len(), "{needed} elements needed, got {}", data.len());
        RowsMut { data: data.as_mut_ptr(), count, channels, stride, owner: PhantomData }
    }

    /// Rows without gaps between them.
    pub fn dense(data: &'a mut [f32], channels: usize) -> Self {
        let count = data.len().checked_div(channels).unwrap_or(0);
        RowsMut::new(data, count, channels, channels)
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Values in a row.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Distance between the starts of neighbouring rows.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Whether the first of these rows will have left the caches when the last is written: whoever
    /// reads them next has to fetch them from memory, however they were written.
    pub fn outgrow_caches(&self) -> bool {
        size_of::<f32>() * self.count * self.channels >= CACHED
    }

    /// Whether each row begins with a cache line.
    pub fn are_on_lines(&self) -> bool {
        self.data.align_offset(size_of::<f32>() * LINE) == 0 && self.stride.is_multiple_of(LINE)
    }

    /// Address of the first value of the first row.
    pub fn as_mut_ptr(&mut self) -> *mut f32 {
        self.data
    }

    /// Row `index`.
    pub fn row_mut(&mut self, index: usize) -> &mut [f32] {
        assert!(index < self.count, "row {index} of {}", self.count);
        if self.channels == 0 {
            return &mut [];
        }
        // SAFETY: `new` established that row `index < count` lies inside the borrowed slice, and
        // cutting keeps to a part of it that no other `RowsMut` addresses; the result borrows
        // `self` exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(index * self.stride), self.channels) }
    }

    /// Row `index`, to read.
    pub fn row(&self, index: usize) -> &[f32] {
        assert!(index < self.count, "row {index} of {}", self.count);
        if self.channels == 0 {
            return &[];
        }
        // SAFETY: as in `row_mut`; the result borrows `self`, so nothing writes there meanwhile.
        unsafe { std::slice::from_raw_parts(self.data.add(index * self.stride), self.channels) }
    }

    /// Calls `write` with the number and the values of each row.
    pub fn for_each_row(mut self, mut write: impl FnMut(usize, &mut [f32])) {
        (0..self.count).for_each(|index| write(index, self.row_mut(index)));
    }

    /// The same rows, borrowed for a shorter time.
    pub fn reborrow(&mut self) -> RowsMut<'_> {
        RowsMut { owner: PhantomData, ..*self }
    }

    /// Cuts into the first `count` rows and the rest.
    pub fn split_rows(self, count: usize) -> (RowsMut<'a>, RowsMut<'a>) {
        assert!(count <= self.count, "rows {count} of {}", self.count);
        let rest = self.count - count;
        // An address beyond the last row is never formed: there might be no memory there, nor
        // anywhere if rows are empty.
        let start = if rest == 0 || self.channels == 0 { 0 } else { count * self.stride };
        // SAFETY: row `count` exists and is not empty (or the offset is 0), so the address is
        // inside the slice.
        let data = unsafe { self.data.add(start) };
        (RowsMut { count, ..self }, RowsMut { data, count: rest, ..self })
    }

    /// Cuts into the first `channels` channels of every row and the rest.
    pub fn split_columns(self, channels: usize) -> (RowsMut<'a>, RowsMut<'a>) {
        assert!(channels <= self.channels, "channels {channels} of {}", self.channels);
        let rest = self.channels - channels;
        let start = if rest == 0 || self.count == 0 { 0 } else { channels };
        // SAFETY: the first row has more than `channels` values (or the offset is 0).
        let data = unsafe { self.data.add(start) };
        (RowsMut { channels, ..self }, RowsMut { data, channels: rest, ..self })
    }

    /// The tile of at most `rows` x `channels` values at a position.
    ///
    /// # Safety
    /// - The position is that of an existing row and channel.
    /// - No two parts that exist at a time share an element, and none outlives this `RowsMut`.
    unsafe fn part(
        &self,
        first_row: usize,
        first_channel: usize,
        rows: usize,
        channels: usize,
    ) -> RowsMut<'a> {
        // SAFETY: an existing element of the slice, by the contract above.
        let data = unsafe { self.data.add(first_row * self.stride + first_channel) };
        RowsMut {
            data,
            count: rows.min(self.count - first_row),
            channels: channels.min(self.channels - first_channel),
            ..*self
        }
    }

    /// Cuts into tiles and calls `run` once for each, on the threads of
    /// [`parallel::for_each`]. Channels vary slowest: neighbouring tasks use the same weights.
    pub fn for_each_tile(self, tiling: Tiling, run: impl Fn(Tile<'_>) + Sync) {
        self.for_each_tile_with(tiling, &mut [], 0, |_, tile| run(tile));
    }

    /// [`for_each_tile`](Self::for_each_tile) with `len` floats of scratch memory for each tile
    /// that is being worked on, as [`parallel::for_each_with`].
    pub fn for_each_tile_with(
        self,
        tiling: Tiling,
        scratch: &mut [f32],
        len: usize,
        run: impl Fn(&mut [f32], Tile<'_>) + Sync,
    ) {
        let Tiling { group, rows, channels } = tiling;
        assert!(group > 0 && rows > 0 && channels > 0, "{tiling:?}");
        let group = group.min(self.count.max(1));
        let (groups, down) = (self.count.div_ceil(group), group.div_ceil(rows));
        let across = self.channels.div_ceil(channels);
        parallel::for_each_with(groups * down * across, scratch, len, |scratch, task| {
            let first_channel = task / (groups * down) * channels;
            let (index, below) = (task / down % groups, task % down * rows);
            let first_row = index * group + below;
            // The last group may be shorter than the others.
            if first_row >= self.count {
                return;
            }
            let rows = rows.min(group - below);
            // SAFETY: the tile begins at an existing row and channel; tiles of different task
            // numbers share no element, each number is handed out once, and `self` is ours until
            // all of them are done.
            let part = unsafe { self.part(first_row, first_channel, rows, channels) };
            run(scratch, Tile { first_row, first_channel, rows: part });
        });
    }
}

/// How rows are cut into tiles.
#[derive(Debug, Clone, Copy)]
pub struct Tiling {
    /// Rows that belong together (an image): no tile reaches from one group into the next.
    pub group: usize,
    /// Rows of a tile, at most.
    pub rows: usize,
    /// Channels of a tile, at most.
    pub channels: usize,
}

impl Tiling {
    /// Tiles of whole rows, without groups.
    pub fn rows(rows: usize) -> Self {
        Tiling { group: usize::MAX, rows, channels: usize::MAX }
    }
}

/// A list of rows that several threads write, each its own elements, in an order that no tiling
/// describes.
#[derive(Debug)]
pub struct SharedRows<'a>(RowsMut<'a>);

impl<'a> SharedRows<'a> {
    /// The rows, to be shared.
    pub fn new(rows: RowsMut<'a>) -> Self {
        SharedRows(rows)
    }

    /// Address of the first value of row `index`, valid for as many values as a row has. Whoever
    /// writes there answers for it that nobody else reads or writes the same elements.
    pub fn row_ptr(&self, index: usize) -> *mut f32 {
        assert!(index < self.0.count, "row {index} of {}", self.0.count);
        self.0.data.wrapping_add(index * self.0.stride)
    }
}

/// A part of a [`RowsMut`] and where it lies in it.
#[derive(Debug)]
pub struct Tile<'a> {
    /// Index of the tile's first row.
    pub first_row: usize,
    /// Index of the tile's first channel.
    pub first_channel: usize,
    /// The part itself.
    pub rows: RowsMut<'a>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_element_once_and_leave_the_gaps() {
        let sizes = [(7, 5, 8), (1, 1, 1), (4, 6, 6), (0, 3, 3), (3, 0, 2), (10, 2, 2)];
        let tilings = [
            Tiling { group: usize::MAX, rows: 3, channels: 2 },
            Tiling { group: 4, rows: 3, channels: usize::MAX },
            Tiling::rows(2),
        ];
        for ((count, channels, stride), tiling) in
            sizes.into_iter().flat_map(|size| tilings.map(|tiling| (size, tiling)))
        {
            let mut data = vec![0.0; count * stride];
            RowsMut::new(&mut data, count, channels, stride).for_each_tile(tiling, |tile| {
                let last = tile.first_row + tile.rows.count() - 1;
                assert_eq!(tile.first_row / tiling.group, last / tiling.group);
                let mut rows = tile.rows;
                for i in 0..rows.count() {
                    for (j, value) in rows.row_mut(i).iter_mut().enumerate() {
                        *value +=
                            ((tile.first_row + i) * stride + tile.first_channel + j + 1) as f32;
                    }
                }
            });
            for (index, value) in data.iter().enumerate() {
                let inside = index % stride < channels;
                assert_eq!(*value, if inside { (index + 1) as f32 } else { 0.0 });
            }
        }
    }

    #[test]
    fn parts_of_rows_are_where_they_should_be() {
        let data: Vec<f32> = (0..20).map(|i| i as f32).collect();
        let rows = Rows::new(&data, 4, 3, 5);
        assert_eq!(rows.row(2), [10.0, 11.0, 12.0]);
        assert_eq!(rows.rows(1, 2).columns(1, 2).row(1), [11.0, 12.0]);
        assert_eq!(rows.as_slice().len(), 18);
        assert_eq!(rows.rows(4, 0).count(), 0);
    }

    #[test]
    fn empty_rows_and_columns_are_cut_without_leaving_the_slice() {
        let (above, below) = RowsMut::new(&mut [], 3, 0, 2).split_rows(1);
        assert_eq!((above.count(), below.count(), below.channels()), (1, 2, 0));
        let (left, mut right) = RowsMut::new(&mut [], 0, 3, 3).split_columns(2);
        assert_eq!((left.channels(), right.channels()), (2, 1));
        assert_eq!(right.as_mut_ptr(), left.split_rows(0).1.as_mut_ptr());
    }

    #[test]
    #[should_panic(expected = "16 elements needed, got 15")]
    fn rows_beyond_the_slice_are_refused() {
        Rows::new(&[0.0; 15], 4, 1, 5);
    }
}
