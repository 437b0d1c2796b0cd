//! Vectors of sixteen floats: AVX-512.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Kernel, Simd};

/// Proof that the CPU has AVX-512 F, VL, BW and DQ, and AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub struct Avx512(());

impl Avx512 {
    /// The token, if the CPU has the instructions.
    #[inline]
    pub fn new() -> Option<Self> {
        // The same features as in `run`. CPUs with F but without the others exist (Knights
        // Landing); they take the AVX2 kernels.
        let found = std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512vl")
            && std::is_x86_feature_detected!("avx512bw")
            && std::is_x86_feature_detected!("avx512dq")
            && std::is_x86_feature_detected!("avx2")
            && std::is_x86_feature_detected!("fma")
            && std::is_x86_feature_detected!("f16c");
        found.then_some(Avx512(()))
    }

    /// The token without asking the CPU.
    ///
    /// # Safety
    /// - [`new`](Self::new) would give a token.
    #[inline(always)]
    pub unsafe fn assume() -> Self {
        Avx512(())
    }

    /// Runs a kernel inside a function compiled for these instructions.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")]
        fn inside<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: `self` proves that the CPU has the features that `inside` is compiled for.
        unsafe { inside(self, kernel) }
    }

    /// The first `count` lanes.
    #[inline(always)]
    fn mask(self, count: usize) -> __mmask16 {
        ((1_u32 << count) - 1) as __mmask16
    }
}

// SAFETY of every block below: `self` proves that the CPU has the instructions; addresses are valid
// by the contract of the method.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one reason for all, given above")]
impl Simd for Avx512 {
    type Vector = __m512;
    type Indices = __m512i;
    const LANES: usize = 16;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn mul_sub(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmsub_ps(a, b, c) }
    }

    // The second operand comes out where one of them is NaN.
    #[inline(always)]
    fn at_least(self, x: __m512, low: __m512) -> __m512 {
        unsafe { _mm512_max_ps(low, x) }
    }

    #[inline(always)]
    fn at_most(self, x: __m512, high: __m512) -> __m512 {
        unsafe { _mm512_min_ps(high, x) }
    }

    #[inline(always)]
    fn permute(self, x: __m512, indices: __m512i) -> __m512 {
        unsafe { _mm512_permutexvar_ps(indices, x) }
    }

    #[inline(always)]
    unsafe fn load_indices(self, from: *const i32) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_partial(self, from: *const f32, count: usize) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(self.mask(count), from) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> __m512 {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: __m512) {
        unsafe { _mm512_storeu_ps(to, x) }
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut f32, x: __m512) {
        unsafe { _mm512_stream_ps(to, x) }
    }

    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, x: __m512, count: usize) {
        unsafe { _mm512_mask_storeu_ps(to, self.mask(count), x) }
    }

    #[inline(always)]
    unsafe fn transpose(self, from: (*const f32, usize), to: (*mut f32, usize)) {
        // Four columns at a time: row `k` of a quad of them, of row `k + 4`, ... side by side, so that
        // all quads are transposed together.
        for quad in (0..Self::LANES).step_by(4) {
            // (No closure: it would be compiled without the instructions.)
            let mut r = [self.splat(0.0); 4];
            for (k, v) in r.iter_mut().enumerate() {
                // SAFETY: four floats of rows `k`, `k + 4`, ... from column `quad` on; the token
                // proves the instructions.
                unsafe {
                    let at = from.0.add(k * from.1 + quad);
                    *v = _mm512_castps128_ps512(_mm_loadu_ps(at));
                    *v = _mm512_insertf32x4::<1>(*v, _mm_loadu_ps(at.add(4 * from.1)));
                    *v = _mm512_insertf32x4::<2>(*v, _mm_loadu_ps(at.add(8 * from.1)));
                    *v = _mm512_insertf32x4::<3>(*v, _mm_loadu_ps(at.add(12 * from.1)));
                }
            }
            // SAFETY: as above; four rows of `to` from row `quad` on.
            unsafe {
                let [r0, r1, r2, r3] = r;
                let (a, b) = (_mm512_unpacklo_ps(r0, r1), _mm512_unpackhi_ps(r0, r1));
                let (c, d) = (_mm512_unpacklo_ps(r2, r3), _mm512_unpackhi_ps(r2, r3));
                let at = to.0.add(quad * to.1);
                self.store(at, _mm512_shuffle_ps::<0x44>(a, c));
                self.store(at.add(to.1), _mm512_shuffle_ps::<0xEE>(a, c));
                self.store(at.add(2 * to.1), _mm512_shuffle_ps::<0x44>(b, d));
                self.store(at.add(3 * to.1), _mm512_shuffle_ps::<0xEE>(b, d));
            }
        }
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
}
