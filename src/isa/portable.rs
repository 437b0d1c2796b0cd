//! Vectors without special instructions: four floats, which every baseline with vectors at all
//! (SSE2, NEON) holds in one register. This is the readable definition of the trait.

use half::{bf16, f16};

use super::Simd;

/// The target's baseline; every CPU has it.
#[derive(Debug, Clone, Copy)]
pub struct Portable;

const LANES: usize = 4;

#[inline(always)]
fn lanes(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    [f(0), f(1), f(2), f(3)]
}

impl Simd for Portable {
    type Vector = [f32; LANES];
    type Indices = [i32; LANES];
    const LANES: usize = LANES;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::Vector {
        [x; LANES]
    }

    #[inline(always)]
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        lanes(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        lanes(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        lanes(|i| a[i] * b[i])
    }

    // `f32::mul_add` would be a library call on a CPU without FMA.
    #[inline(always)]
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        lanes(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn mul_sub(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        lanes(|i| a[i] * b[i] - c[i])
    }

    #[inline(always)]
    fn at_least(self, x: Self::Vector, low: Self::Vector) -> Self::Vector {
        lanes(|i| if x[i] < low[i] { low[i] } else { x[i] })
    }

    #[inline(always)]
    fn at_most(self, x: Self::Vector, high: Self::Vector) -> Self::Vector {
        lanes(|i| if x[i] > high[i] { high[i] } else { x[i] })
    }

    #[inline(always)]
    fn permute(self, x: Self::Vector, indices: Self::Indices) -> Self::Vector {
        lanes(|i| x[indices[i] as usize % LANES])
    }

    #[inline(always)]
    unsafe fn load_indices(self, from: *const i32) -> Self::Indices {
        // SAFETY: valid for LANES numbers by the caller's contract.
        unsafe { from.cast::<[i32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::Vector {
        // SAFETY: valid for LANES floats by the caller's contract.
        unsafe { from.cast::<[f32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_partial(self, from: *const f32, count: usize) -> Self::Vector {
        // SAFETY: lanes below `count` are valid by the caller's contract.
        lanes(|i| if i < count { unsafe { *from.add(i) } } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> Self::Vector {
        // SAFETY: valid for LANES numbers by the caller's contract.
        let x = unsafe { from.cast::<[f16; LANES]>().read_unaligned() };
        lanes(|i| x[i].to_f32())
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> Self::Vector {
        // SAFETY: valid for LANES numbers by the caller's contract.
        let x = unsafe { from.cast::<[bf16; LANES]>().read_unaligned() };
        lanes(|i| f32::from_bits(u32::from(x[i].to_bits()) << 16))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: Self::Vector) {
        // SAFETY: valid for LANES floats by the caller's contract.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(x) }
    }

    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, x: Self::Vector, count: usize) {
        for (i, &value) in x.iter().enumerate().take(count) {
            // SAFETY: lanes below `count` are valid by the caller's contract.
            unsafe { *to.add(i) = value }
        }
    }

    #[inline(always)]
    unsafe fn transpose(self, from: (*const f32, usize), to: (*mut f32, usize)) {
        for i in 0..Self::LANES {
            for j in 0..Self::LANES {
                // SAFETY: the caller vouches for all rows of both squares.
                unsafe { *to.0.add(j * to.1 + i) = *from.0.add(i * from.1 + j) }
            }
        }
    }

    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
}
