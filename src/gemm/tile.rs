//! The micro-kernel: one tile of MR rows by NR columns of a product, held in registers.
//!
//! ```text
//! acc[MR][NR] = 0
//! for each segment of a row, for each k in it:       (K steps)
//!     b = B panel[k][0..NR]                          (2 vectors)
//!     for i in 0..MR: acc[i] += A[i][k] * b          (a broadcast, 2 fused multiply-adds)
//! C = clamp(acc + C before, in a sum of parts + bias + residual)
//! ```
//!
//! What is added to the sum comes last: sums that begin with a large bias round at its size in each
//! of their steps.
//!
//! Terms of A may lie any distance apart, so that a transposed matrix is read in place too: that is
//! how gradients of weights are summed over pixels.
//!
//! MR is as large as the registers allow: with 32 of them (AVX-512) 14 x 2 accumulators, 2 for b and
//! one for the broadcast; with 16 (AVX2) 6 x 2; the portable kernel keeps 4 x 2 in SSE2's 16. A row
//! of A is read in place, so rows must not lie a multiple of 4 KB apart: 14 lines would then fall
//! into one set of the first-level cache (measured on Zen 5: 110 instead of 215 GFLOP/s).

#[cfg(target_arch = "x86_64")]
use crate::isa::{Avx2, Avx512};
use crate::isa::{Element, Isa, Kernel, Portable, Simd};

/// Vectors in a row of the tile.
const VECTORS: usize = 2;

/// Most floats that a vector of any instruction set has.
const MAX_LANES: usize = 16;

/// Range into which results are clamped; infinities clamp nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Lower end.
    pub low: f32,
    /// Upper end.
    pub high: f32,
}

impl Bounds {
    /// No clamping.
    pub const NONE: Bounds = Bounds { low: f32::NEG_INFINITY, high: f32::INFINITY };
}

/// Arguments of a micro-kernel.
pub(super) struct Call<'a, E> {
    /// First row of A.
    pub a: *const f32,
    /// Distance of the rows of A.
    pub a_stride: usize,
    /// Distance of the terms of a row of A in a segment.
    pub a_step: usize,
    /// Where the segments of a row of A begin.
    pub segments: &'a [usize],
    /// Unit of `segments`.
    pub segment_unit: usize,
    /// Terms in a segment.
    pub depth: usize,
    /// Panel of B: rows of NR elements.
    pub b: *const E,
    /// The row of the panel that each segment begins with; `None` if they follow each other.
    pub b_rows: Option<&'a [usize]>,
    /// Whether to write the result past the caches; it is aligned to vectors then.
    pub stream: bool,
    /// Whether the result holds the sum of other terms, to be added.
    pub onto: bool,
    /// NR values to add to each row.
    pub bias: Option<*const f32>,
    /// First value to add, and the distance of rows.
    pub residual: Option<(*const f32, usize)>,
    /// Clamping.
    pub bounds: Bounds,
    /// First value of the result.
    pub c: *mut f32,
    /// Distance of the rows of the result.
    pub c_stride: usize,
    /// Columns of the result, at most NR.
    pub columns: usize,
    /// Where the weights lie that are needed next; one cache line is asked for in each of the K
    /// steps. Any address will do.
    pub next: *const u8,
    /// Bytes from one of these cache lines to the next.
    pub next_stride: usize,
}

/// A micro-kernel for a fixed number of rows.
///
/// # Safety
/// - The CPU has the instruction set it was compiled for.
/// - Every address that [`Call`] describes is valid for its number of rows and columns, and the
///   result overlaps nothing that is read. With `onto` it has been written before. With `stream`
///   its rows are aligned to vectors, and nobody reads or writes there before this thread has called
///   [`finish_streams`](crate::isa::finish_streams).
pub(super) type TileKernel<E> = unsafe fn(&Call<'_, E>);

/// MR and NR of an instruction set.
pub const fn shape(isa: Isa) -> (usize, usize) {
    match isa {
        Isa::Scalar => (4, VECTORS * Portable::LANES),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => (6, VECTORS * Avx2::LANES),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => (14, VECTORS * Avx512::LANES),
        #[cfg(not(target_arch = "x86_64"))]
        _ => panic!("an instruction set of another architecture"),
    }
}

/// Computes a tile of `ROWS` rows.
///
/// # Safety
/// As [`TileKernel`].
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "indices keep the sums in registers")]
unsafe fn tile<S: Simd, E: Element, const ROWS: usize>(simd: S, call: &Call<'_, E>) {
    let lanes = S::LANES;
    // Addresses are those that the caller vouches for: rows below ROWS, K elements of a row, K * NR
    // elements of the panel, NR values of the bias.
    // What the end of this function reads and writes is asked for now.
    for i in 0..ROWS {
        if !call.stream {
            simd.prefetch(call.c.wrapping_add(i * call.c_stride).cast());
        }
        if let Some((residual, stride)) = call.residual {
            simd.prefetch(residual.wrapping_add(i * stride).cast());
            simd.prefetch(residual.wrapping_add(i * stride + lanes).cast());
        }
    }
    let mut next = call.next;
    let mut acc = [[simd.splat(0.0); VECTORS]; ROWS];
    let a_stride = call.a_stride;
    let mut b = call.b;
    for (index, &segment) in call.segments.iter().enumerate() {
        let mut a = call.a.wrapping_add(segment * call.segment_unit);
        if let Some(rows) = call.b_rows {
            b = call.b.wrapping_add(rows[index] * VECTORS * lanes);
        }
        for _ in 0..call.depth {
            // SAFETY: K elements of A's rows and of the panel; the last step leaves `b` one past
            // the end, and `a` a step further, where it is not read.
            unsafe {
                let b0 = E::load(simd, b);
                let b1 = E::load(simd, b.add(lanes));
                for i in 0..ROWS {
                    let x = simd.splat(*a.add(i * a_stride));
                    acc[i][0] = simd.mul_add(x, b0, acc[i][0]);
                    acc[i][1] = simd.mul_add(x, b1, acc[i][1]);
                }
                simd.prefetch(next);
                next = next.wrapping_add(call.next_stride);
                a = a.wrapping_add(call.a_step);
                b = b.add(VECTORS * lanes);
            }
        }
    }
    // From here on every loop is kept so simple that LLVM unrolls it: one index into `acc` that is
    // not a constant, and all sums would live in memory during the loop above (a third of the speed).
    let (low, high) = (simd.splat(call.bounds.low), simd.splat(call.bounds.high));
    if call.columns < VECTORS * lanes {
        let mut sums = [[[0.0_f32; MAX_LANES]; VECTORS]; ROWS];
        for i in 0..ROWS {
            for v in 0..VECTORS {
                // SAFETY: a vector has at most MAX_LANES lanes.
                unsafe { simd.store(sums[i][v].as_mut_ptr(), acc[i][v]) }
            }
        }
        // SAFETY: the caller vouches for `columns` columns.
        return unsafe { finish_narrow(simd, call, &sums) };
    }
    if call.onto {
        for i in 0..ROWS {
            for v in 0..VECTORS {
                // SAFETY: row `i` has NR columns.
                let x = unsafe { simd.load(call.c.add(i * call.c_stride + v * lanes)) };
                acc[i][v] = simd.add(acc[i][v], x);
            }
        }
    }
    if let Some(bias) = call.bias {
        // SAFETY: NR values.
        let bias = unsafe { [simd.load(bias), simd.load(bias.add(lanes))] };
        for i in 0..ROWS {
            for v in 0..VECTORS {
                acc[i][v] = simd.add(acc[i][v], bias[v]);
            }
        }
    }
    if let Some((residual, stride)) = call.residual {
        for i in 0..ROWS {
            for v in 0..VECTORS {
                // SAFETY: row `i` has NR columns.
                let x = unsafe { simd.load(residual.add(i * stride + v * lanes)) };
                acc[i][v] = simd.add(acc[i][v], x);
            }
        }
    }
    for i in 0..ROWS {
        for v in 0..VECTORS {
            acc[i][v] = simd.at_most(simd.at_least(acc[i][v], low), high);
        }
    }
    if call.stream {
        for i in 0..ROWS {
            for v in 0..VECTORS {
                // SAFETY: as the residual; the caller vouches for the rest.
                unsafe { simd.stream(call.c.add(i * call.c_stride + v * lanes), acc[i][v]) }
            }
        }
        return;
    }
    for i in 0..ROWS {
        for v in 0..VECTORS {
            // SAFETY: as the residual.
            unsafe { simd.store(call.c.add(i * call.c_stride + v * lanes), acc[i][v]) }
        }
    }
}

/// The end of [`tile`] for the last columns of a matrix, fewer than NR.
///
/// # Safety
/// As [`TileKernel`].
#[inline(always)]
unsafe fn finish_narrow<S: Simd, E: Element, const ROWS: usize>(
    simd: S,
    call: &Call<'_, E>,
    sums: &[[[f32; MAX_LANES]; VECTORS]; ROWS],
) {
    let (low, high) = (simd.splat(call.bounds.low), simd.splat(call.bounds.high));
    for (i, row) in sums.iter().enumerate() {
        for (v, sum) in row.iter().enumerate() {
            let first = v * S::LANES;
            let count = S::LANES.min(call.columns.saturating_sub(first));
            // SAFETY: row `i` has `count` columns from `first` on; the bias has NR values.
            unsafe {
                let mut y = simd.load(sum.as_ptr());
                let c = call.c.wrapping_add(i * call.c_stride + first);
                if call.onto {
                    y = simd.add(y, simd.load_partial(c, count));
                }
                if let Some(bias) = call.bias {
                    y = simd.add(y, simd.load(bias.add(first)));
                }
                if let Some((residual, stride)) = call.residual {
                    let at = residual.wrapping_add(i * stride + first);
                    y = simd.add(y, simd.load_partial(at, count));
                }
                let y = simd.at_most(simd.at_least(y, low), high);
                simd.store_partial(c, y, count);
            }
        }
    }
}

/// Runs a micro-kernel on a sum of any length, at most `most` terms at a time (KC). The rounding
/// error of a plain sum grows with its length; longer sums are made of parts, each added to the
/// result of those before. Whoever names the rows of the panel makes the parts.
///
/// # Safety
/// As [`TileKernel`].
pub(super) unsafe fn sum_in_parts<E>(
    kernel: TileKernel<E>,
    call: &Call<'_, E>,
    width: usize,
    most: usize,
) {
    let (count, depth) = (call.segments.len(), call.depth);
    if count * depth <= most || call.b_rows.is_some() {
        // SAFETY: the caller's contract.
        return unsafe { kernel(call) };
    }
    // Several short segments, or an even piece of a long one.
    let (together, piece) = match depth <= most {
        true => (most / depth, depth),
        false => (1, depth.div_ceil(depth.div_ceil(most))),
    };
    let (mut segment, mut offset, mut steps) = (0, 0, 0);
    while segment < count {
        let segments = &call.segments[segment..count.min(segment + together)];
        let depth = piece.min(depth - offset);
        let last = segment + segments.len() == count && offset + depth == call.depth;
        // SAFETY: a part of what the caller vouches for; from the second part on, the result has been
        // written by the first.
        unsafe {
            kernel(&Call {
                a: call.a.add(offset * call.a_step),
                segments,
                depth,
                b: call.b.add(steps * width),
                // Parts leave the result in the caches.
                stream: false,
                onto: call.onto || steps > 0,
                bias: call.bias.filter(|_| last),
                residual: call.residual.filter(|_| last),
                bounds: if last { call.bounds } else { Bounds::NONE },
                next: call.next.wrapping_add(steps * call.next_stride),
                ..*call
            });
        }
        steps += segments.len() * depth;
        offset += depth;
        if offset == call.depth {
            (segment, offset) = (segment + segments.len(), 0);
        }
    }
}

struct Tile<'a, 'b, E, const ROWS: usize>(&'a Call<'b, E>);

impl<E: Element, const ROWS: usize> Kernel for Tile<'_, '_, E, ROWS> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // SAFETY: whoever made this value vouches for the call; see `entry`.
        unsafe { tile::<S, E, ROWS>(simd, self.0) }
    }
}

/// Micro-kernels by instruction set; entry `n` of a table computes `n` rows.
struct Tables<E>(std::marker::PhantomData<E>);

/// A table from one entry function and the row counts 1, 2, ... MR.
macro_rules! table {
    ($entry:ident, $($rows:literal)*) => { &[Self::nothing, $(Self::$entry::<$rows>),*] };
}

impl<E: Element> Tables<E> {
    const SCALAR: &'static [TileKernel<E>] = table!(scalar, 1 2 3 4);
    #[cfg(target_arch = "x86_64")]
    const AVX2: &'static [TileKernel<E>] = table!(avx2, 1 2 3 4 5 6);
    #[cfg(target_arch = "x86_64")]
    const AVX512: &'static [TileKernel<E>] = table!(avx512, 1 2 3 4 5 6 7 8 9 10 11 12 13 14);

    unsafe fn nothing(_: &Call<'_, E>) {}

    unsafe fn scalar<const ROWS: usize>(call: &Call<'_, E>) {
        Tile::<E, ROWS>(call).run(Portable);
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn avx2<const ROWS: usize>(call: &Call<'_, E>) {
        // SAFETY: the caller vouches for the CPU.
        unsafe { Avx2::assume() }.run(Tile::<E, ROWS>(call));
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn avx512<const ROWS: usize>(call: &Call<'_, E>) {
        // SAFETY: the caller vouches for the CPU.
        unsafe { Avx512::assume() }.run(Tile::<E, ROWS>(call));
    }
}

/// The micro-kernels of `isa`: entry `n` computes `n` rows, up to MR.
pub(super) fn kernels<E: Element>(isa: Isa) -> &'static [TileKernel<E>] {
    assert!(isa <= Isa::detect(), "this CPU has no {}", isa.name());
    match isa {
        Isa::Scalar => Tables::<E>::SCALAR,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Tables::<E>::AVX2,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => Tables::<E>::AVX512,
        #[cfg(not(target_arch = "x86_64"))]
        _ => unreachable!("only the portable instruction set is available"),
    }
}

/// Name of the micro-kernel of `isa`, as `show_versions` prints it.
pub fn name(isa: Isa) -> String {
    let (height, width) = shape(isa);
    format!("{}-f32-{height}x{width}", isa.name())
}

/// Floating-point operations per second that the micro-kernel of `isa` reaches on this thread with
/// everything in the first-level cache: the best of several runs of about a millisecond.
pub fn measure_peak(isa: Isa) -> f64 {
    const DEPTH: usize = 128;
    let (height, width) = shape(isa);
    let (a, b) = (vec![1.0_f32; height * DEPTH], vec![0.5_f32; DEPTH * width]);
    let mut c = vec![0.0_f32; height * width];
    let kernel = kernels::<f32>(isa)[height];
    let mut run = |times: usize| {
        let start = std::time::Instant::now();
        for _ in 0..times {
            // SAFETY: the slices have the extents that the call describes.
            unsafe {
                kernel(&Call {
                    a: a.as_ptr(),
                    a_stride: DEPTH,
                    a_step: 1,
                    segments: &[0],
                    segment_unit: 1,
                    depth: DEPTH,
                    b: b.as_ptr(),
                    b_rows: None,
                    stream: false,
                    onto: false,
                    bias: None,
                    residual: None,
                    bounds: Bounds::NONE,
                    c: c.as_mut_ptr(),
                    c_stride: width,
                    columns: width,
                    next: b.as_ptr().cast(),
                    next_stride: 0,
                });
            }
            std::hint::black_box(&mut c);
        }
        (2 * height * width * DEPTH * times) as f64 / start.elapsed().as_secs_f64()
    };
    let times = (run(64) * 1e-3 / (2 * height * width * DEPTH) as f64).ceil() as usize;
    (0..15).map(|_| run(times.max(1))).fold(0.0, f64::max)
}
