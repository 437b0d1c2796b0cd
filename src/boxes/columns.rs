//! Boxes as a structure of arrays, so that one box meets many in vector registers.

use super::{BBox, Scalar};

/// Corners and areas of many boxes, one array each.
#[derive(Debug, Clone)]
pub(crate) struct Columns<T> {
    min_0: Vec<T>,
    min_1: Vec<T>,
    max_0: Vec<T>,
    max_1: Vec<T>,
    area: Vec<T>,
}

/// Product of the extents, whatever their signs.
pub(crate) fn area<T: Scalar>(b: &BBox<T>) -> T {
    (b[2] - b[0]) * (b[3] - b[1])
}

impl<T: Scalar> Columns<T> {
    pub(crate) fn new(boxes: &[BBox<T>]) -> Self {
        let mut columns = Columns::with_capacity(boxes.len());
        boxes.iter().for_each(|b| columns.push(b));
        columns
    }

    pub(crate) fn with_capacity(n: usize) -> Self {
        let column = || Vec::with_capacity(n);
        Columns {
            min_0: column(),
            min_1: column(),
            max_0: column(),
            max_1: column(),
            area: column(),
        }
    }

    pub(crate) fn push(&mut self, b: &BBox<T>) {
        self.min_0.push(b[0]);
        self.min_1.push(b[1]);
        self.max_0.push(b[2]);
        self.max_1.push(b[3]);
        self.area.push(area(b));
    }

    pub(crate) fn len(&self) -> usize {
        self.area.len()
    }

    /// IoU of `b` with every box, in order.
    ///
    /// The intersection is a product of two extents times 0 or 1, and the union `(b + a) - i`, in
    /// the order of the original tools. A NaN corner reaches the result through the area, so the
    /// plain comparisons of `max` and `min` may drop it.
    #[inline(always)]
    pub(crate) fn iou_with<'a>(&'a self, b: &BBox<T>) -> impl Iterator<Item = T> + 'a {
        self.iou_between(b, 0, self.len())
    }

    /// [`Columns::iou_with`] for the boxes `start..end` only.
    #[inline(always)]
    pub(crate) fn iou_between<'a>(
        &'a self,
        b: &BBox<T>,
        start: usize,
        end: usize,
    ) -> impl Iterator<Item = T> + 'a {
        let (b, own_area) = (*b, area(b));
        let mins = self.min_0[start..end].iter().zip(&self.min_1[start..end]);
        let maxs = self.max_0[start..end].iter().zip(&self.max_1[start..end]);
        let larger = |x: T, y: T| if x > y { x } else { y };
        let smaller = |x: T, y: T| if x < y { x } else { y };
        mins.zip(maxs).zip(&self.area[start..end]).map(
            move |(((&min_0, &min_1), (&max_0, &max_1)), &area)| {
                let top = larger(b[0], min_0);
                let left = larger(b[1], min_1);
                let bottom = smaller(b[2], max_0);
                let right = smaller(b[3], max_1);
                let overlap = if (top < bottom) & (left < right) { T::ONE } else { T::ZERO };
                let intersection = (bottom - top) * (right - left) * overlap;
                intersection / (own_area + area - intersection)
            },
        )
    }
}
