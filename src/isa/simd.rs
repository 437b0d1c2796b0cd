//! The vector trait: what kernels may ask of an instruction set.

use std::fmt::Debug;

use half::{bf16, f16};

/// A set of vector instructions over `f32`.
///
/// A value of an implementing type is the proof that the CPU has them. All methods are inlined into
/// a function that was compiled for these instructions (see [`dispatch`](super::dispatch)).
pub trait Simd: Copy + Debug + Send + Sync + 'static {
    /// A vector of [`LANES`](Self::LANES) floats.
    type Vector: Copy;
    /// One number a lane, for [`permute`](Self::permute).
    type Indices: Copy;
    /// Floats in a vector.
    const LANES: usize;

    /// Every lane the same.
    fn splat(self, x: f32) -> Self::Vector;
    /// `a + b`.
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a - b`.
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b`.
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b + c`, rounded once where the instructions can.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `a * b - c`, rounded once where the instructions can.
    fn mul_sub(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `x`, or `low` where `x` is below it; NaN stays NaN.
    fn at_least(self, x: Self::Vector, low: Self::Vector) -> Self::Vector;
    /// `x`, or `high` where `x` is above it; NaN stays NaN.
    fn at_most(self, x: Self::Vector, high: Self::Vector) -> Self::Vector;

    /// Lane `i` of the result is the lane of `x` that index `i` names.
    fn permute(self, x: Self::Vector, indices: Self::Indices) -> Self::Vector;

    /// Reads indices for [`permute`](Self::permute); of each only its remainder by `LANES` counts.
    ///
    /// # Safety
    /// - `from` is valid for reading `LANES` numbers.
    unsafe fn load_indices(self, from: *const i32) -> Self::Indices;

    /// Reads a vector.
    ///
    /// # Safety
    /// - `from` is valid for reading `LANES` floats; it need not be aligned to a vector.
    unsafe fn load(self, from: *const f32) -> Self::Vector;

    /// Reads `count <= LANES` floats; the other lanes are zero.
    ///
    /// # Safety
    /// - `from` is valid for reading `count` floats.
    unsafe fn load_partial(self, from: *const f32, count: usize) -> Self::Vector;

    /// Reads a vector of half-precision numbers.
    ///
    /// # Safety
    /// - `from` is valid for reading `LANES` numbers.
    unsafe fn load_f16(self, from: *const f16) -> Self::Vector;

    /// Reads a vector of bfloat16 numbers.
    ///
    /// # Safety
    /// - `from` is valid for reading `LANES` numbers.
    unsafe fn load_bf16(self, from: *const bf16) -> Self::Vector;

    /// Writes a vector.
    ///
    /// # Safety
    /// - `to` is valid for writing `LANES` floats; it need not be aligned to a vector.
    unsafe fn store(self, to: *mut f32, x: Self::Vector);

    /// Writes a vector past the caches, where the instruction set can: for results that nobody reads
    /// before they would have left the caches anyway. Memory is then written without being read
    /// first.
    ///
    /// # Safety
    /// - `to` is valid for writing `LANES` floats, and aligned to a vector.
    /// - Nobody reads or writes there before this thread has called
    ///   [`finish_streams`](super::finish_streams).
    unsafe fn stream(self, to: *mut f32, x: Self::Vector) {
        // SAFETY: the caller's contract is stricter.
        unsafe { self.store(to, x) }
    }

    /// Writes the first `count <= LANES` floats.
    ///
    /// # Safety
    /// - `to` is valid for writing `count` floats.
    unsafe fn store_partial(self, to: *mut f32, x: Self::Vector, count: usize);

    /// Writes the transpose of a square of `LANES x LANES` floats, whose rows are `stride` apart.
    ///
    /// # Safety
    /// - Each of the `LANES` rows of `from` is valid for reading, each of `to` for writing `LANES`
    ///   floats; the squares do not overlap.
    unsafe fn transpose(self, from: (*const f32, usize), to: (*mut f32, usize));

    /// Asks for the cache line at `at` to be brought into the second-level cache. Any address will
    /// do.
    fn prefetch(self, at: *const u8);
}

/// A type in which weights may be stored; kernels compute in `f32`.
pub trait Element: Copy + Debug + Default + Send + Sync + 'static {
    /// Reads a vector of these as `f32`.
    ///
    /// # Safety
    /// - `from` is valid for reading `S::LANES` numbers.
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::Vector;
    /// The nearest number of this type.
    fn from_f32(x: f32) -> Self;
    /// The number as `f32`, exactly.
    fn to_f32(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const f32) -> S::Vector {
        // SAFETY: the caller's contract is the same.
        unsafe { simd.load(from) }
    }
    fn from_f32(x: f32) -> f32 {
        x
    }
    fn to_f32(self) -> f32 {
        self
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const f16) -> S::Vector {
        // SAFETY: the caller's contract is the same.
        unsafe { simd.load_f16(from) }
    }
    fn from_f32(x: f32) -> f16 {
        f16::from_f32(x)
    }
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
}

impl Element for bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const bf16) -> S::Vector {
        // SAFETY: the caller's contract is the same.
        unsafe { simd.load_bf16(from) }
    }
    fn from_f32(x: f32) -> bf16 {
        bf16::from_f32(x)
    }
    fn to_f32(self) -> f32 {
        bf16::to_f32(self)
    }
}
