//! Vectors of eight floats: AVX2 with FMA and F16C.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Kernel, Simd};

/// Proof that the CPU has AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    /// The token, if the CPU has the instructions.
    #[inline]
    pub fn new() -> Option<Self> {
        // The same features as in `run`.
        let found = std::is_x86_feature_detected!("avx2")
            && std::is_x86_feature_detected!("fma")
            && std::is_x86_feature_detected!("f16c");
        found.then_some(Avx2(()))
    }

    /// The token without asking the CPU.
    ///
    /// # Safety
    /// - [`new`](Self::new) would give a token.
    #[inline(always)]
    pub unsafe fn assume() -> Self {
        Avx2(())
    }

    /// Runs a kernel inside a function compiled for these instructions.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn inside<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: `self` proves that the CPU has the features that `inside` is compiled for.
        unsafe { inside(self, kernel) }
    }

    /// All bits set in the first `count` lanes.
    #[inline(always)]
    fn mask(self, count: usize) -> __m256i {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), index)
        }
    }
}

// SAFETY of every block below: `self` proves that the CPU has the instructions; addresses are valid
// by the contract of the method.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one reason for all, given above")]
impl Simd for Avx2 {
    type Vector = __m256;
    type Indices = __m256i;
    const LANES: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn mul_sub(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmsub_ps(a, b, c) }
    }

    // The second operand comes out where one of them is NaN.
    #[inline(always)]
    fn at_least(self, x: __m256, low: __m256) -> __m256 {
        unsafe { _mm256_max_ps(low, x) }
    }

    #[inline(always)]
    fn at_most(self, x: __m256, high: __m256) -> __m256 {
        unsafe { _mm256_min_ps(high, x) }
    }

    #[inline(always)]
    fn permute(self, x: __m256, indices: __m256i) -> __m256 {
        unsafe { _mm256_permutevar8x32_ps(x, indices) }
    }

    #[inline(always)]
    unsafe fn load_indices(self, from: *const i32) -> __m256i {
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_partial(self, from: *const f32, count: usize) -> __m256 {
        unsafe { _mm256_maskload_ps(from, self.mask(count)) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> __m256 {
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: __m256) {
        unsafe { _mm256_storeu_ps(to, x) }
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut f32, x: __m256) {
        unsafe { _mm256_stream_ps(to, x) }
    }

    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, x: __m256, count: usize) {
        unsafe { _mm256_maskstore_ps(to, self.mask(count), x) }
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
                    *v = _mm256_castps128_ps256(_mm_loadu_ps(at));
                    *v = _mm256_insertf128_ps::<1>(*v, _mm_loadu_ps(at.add(4 * from.1)));
                }
            }
            // SAFETY: as above; four rows of `to` from row `quad` on.
            unsafe {
                let [r0, r1, r2, r3] = r;
                let (a, b) = (_mm256_unpacklo_ps(r0, r1), _mm256_unpackhi_ps(r0, r1));
                let (c, d) = (_mm256_unpacklo_ps(r2, r3), _mm256_unpackhi_ps(r2, r3));
                let at = to.0.add(quad * to.1);
                self.store(at, _mm256_shuffle_ps::<0x44>(a, c));
                self.store(at.add(to.1), _mm256_shuffle_ps::<0xEE>(a, c));
                self.store(at.add(2 * to.1), _mm256_shuffle_ps::<0x44>(b, d));
                self.store(at.add(3 * to.1), _mm256_shuffle_ps::<0xEE>(b, d));
            }
        }
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
}
