//! Which algorithm computes a convolution: one function of its geometry.
//!
//! Winograd trades multiplications for transforms and memory, so the choice is an estimate of time:
//! the products at the speed of the micro-kernel, the transforms and the weights at the speeds at
//! which memory delivers them. The four rates below were fitted to measurements of every 3 x 3 layer
//! of VGG-16 and ResNet on two cores of a Zen 5; on a slower or faster machine all of them change
//! together, and the choice with them hardly at all. Nothing here depends on the number of threads
//! or the batch: results must not.

use std::fmt;

use super::geometry::Conv2d;
use super::grouped;
use super::options::{Options, Precision};
use super::winograd::{self, TileSize};
use crate::gemm::Storage;

/// Multiply-accumulate operations per nanosecond of the products.
const PRODUCTS: f64 = 210.0;
/// Floats of V and M per nanosecond: each is written once and read once, from the second-level
/// cache or the third.
const TRANSFORMS: f64 = 8.0;
/// Floats of weights per nanosecond, from memory. A network's weights do not fit a cache together,
/// so that a layer finds its own there only in a benchmark of one layer.
const WEIGHTS: f64 = 10.0;
/// Passes of packed weights through memory where a call packs them: written, which reads what was
/// there, and read.
const PACKING: f64 = 3.0;
/// Sums of fewer channels do not fill the tiles of a product.
const NARROW: usize = 16;
/// Nanoseconds that a second pass over the image costs, beyond its bytes.
const PASS: f64 = 5_000.0;

/// Up to this many output pixels a layer waits for its weights rather than for its products: each
/// weight is used once a pixel, and memory delivers one while some 25 products are computed; half of
/// the time is still memory's at twice that.
const FEW_PIXELS: usize = 64;

/// How a convolution is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Direct sums by an implicit matrix product.
    Direct,
    /// Direct sums over vectors of several groups' channels: depthwise, and few channels a group.
    Grouped,
    /// Winograd's algorithm with tiles of this size.
    Winograd(TileSize),
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Algorithm::Direct => write!(f, "direct"),
            Algorithm::Grouped => write!(f, "grouped"),
            Algorithm::Winograd(size) => write!(f, "winograd f({}, 3)", size.outputs()),
        }
    }
}

impl Algorithm {
    /// Those that can compute `conv`.
    pub fn candidates(conv: &Conv2d) -> Vec<Algorithm> {
        let mut candidates = vec![Algorithm::Direct];
        if grouped::applies(conv) {
            candidates.push(Algorithm::Grouped);
        }
        if winograd::applies(conv) {
            let sizes = [TileSize::F2, TileSize::F4, TileSize::F6];
            candidates.extend(sizes.map(Algorithm::Winograd));
        }
        candidates
    }

    /// The one to use for images of this geometry.
    pub fn choose(conv: &Conv2d, options: Options) -> Algorithm {
        if grouped::applies(conv) {
            return Algorithm::Grouped;
        }
        // Winograd's transform back would magnify the rounding of its stored weights.
        let rounded = Self::storage(conv, options) != Storage::F32;
        if options.precision == Precision::Direct || rounded {
            return Algorithm::Direct;
        }
        let image = Conv2d { batch: 1, ..*conv };
        Self::cheapest(conv, |algorithm| algorithm.cost(&image, 1.0))
    }

    /// The one to use for one call on a batch, which has to pack the weights as well.
    pub fn for_one_call(conv: &Conv2d, precision: Precision) -> Algorithm {
        if grouped::applies(conv) {
            return Algorithm::Grouped;
        }
        match precision {
            Precision::Direct => Algorithm::Direct,
            _ => Self::cheapest(conv, |algorithm| algorithm.cost(conv, PACKING)),
        }
    }

    /// The one to use for the gradient of the weights.
    pub fn of_weight_gradient(conv: &Conv2d, precision: Precision) -> Algorithm {
        let narrow = conv.in_channels.min(conv.out_channels) < NARROW;
        if precision == Precision::Direct || narrow || !winograd::applies(conv) {
            return Algorithm::Direct;
        }
        Self::cheapest(conv, |algorithm| algorithm.cost(conv, 1.0))
    }

    fn cheapest(conv: &Conv2d, cost: impl Fn(Algorithm) -> f64) -> Algorithm {
        let cheaper = |a: &Algorithm, b: &Algorithm| cost(*a).total_cmp(&cost(*b));
        Self::candidates(conv).into_iter().min_by(cheaper).unwrap_or(Algorithm::Direct)
    }

    /// How the layer stores its weights: as asked for where that saves time, else as they are.
    pub fn storage(conv: &Conv2d, options: Options) -> Storage {
        let few = conv.output.0 * conv.output.1 <= FEW_PIXELS;
        if few { options.storage } else { Storage::F32 }
    }

    /// Estimated nanoseconds on two cores, weights going through memory `passes` times.
    fn cost(self, conv: &Conv2d, passes: f64) -> f64 {
        let (c, o) = (conv.in_channels as f64, conv.out_channels as f64);
        match self {
            Algorithm::Direct | Algorithm::Grouped => {
                conv.macs() as f64 / PRODUCTS + passes * conv.weight_len() as f64 / WEIGHTS
            }
            Algorithm::Winograd(size) => {
                let (rows, cols) = size.tiles(conv.output);
                let tiles = (conv.batch * rows * cols) as f64;
                let positions = size.positions() as f64;
                let products = tiles * positions * c * o / PRODUCTS;
                let transforms = tiles * positions * (c + o) / TRANSFORMS + PASS;
                products + transforms + passes * positions * c * o / WEIGHTS
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::geometry::Padding;
    use super::*;

    fn choice(size: usize, channels: usize, stride: usize, precision: Precision) -> String {
        let conv = Conv2d::new(
            (1, size, size, channels),
            (3, 3, channels, channels),
            (stride, stride),
            Padding::symmetric(1, 1),
            (1, 1),
            1,
        );
        let options = Options { precision, storage: Storage::F32 };
        Algorithm::choose(&conv.unwrap(), options).to_string()
    }

    #[test]
    fn large_images_get_large_tiles_and_small_ones_direct_sums() {
        let winograd = |size, channels| choice(size, channels, 1, Precision::Winograd);
        assert_eq!(winograd(224, 64), "winograd f(6, 3)");
        assert_eq!(winograd(28, 512), "winograd f(4, 3)");
        assert_eq!(winograd(7, 512), "winograd f(2, 3)");
        assert_eq!(winograd(4, 512), "direct");
        assert_eq!(choice(56, 64, 2, Precision::Winograd), "direct");
        assert_eq!(choice(224, 64, 1, Precision::Direct), "direct");
        assert_eq!(choice(224, 64, 1, Precision::Bf16), winograd(224, 64));
    }

    #[test]
    fn weights_are_rounded_only_where_that_saves_time() {
        let stored = |size| {
            let (x, w) = ((1, size, size, 32), (3, 3, 32, 32));
            let one = Padding::symmetric(1, 1);
            let conv = Conv2d::new(x, w, (1, 1), one, (1, 1), 1).unwrap();
            let options = Options { precision: Precision::Winograd, storage: Storage::F16 };
            (Algorithm::storage(&conv, options), Algorithm::choose(&conv, options))
        };
        assert_eq!(stored(8), (Storage::F16, Algorithm::Direct));
        assert_eq!(stored(9).0, Storage::F32);
    }
}
