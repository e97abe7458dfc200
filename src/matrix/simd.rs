//! A vector of sixteen f32 lanes, and the choice of an instruction set when a kernel is called.
//!
//! A kernel's body is written once over [`Vector`]; [`kernel`] compiles it for AVX-512, for AVX2
//! with FMA and for the baseline (NEON on aarch64), and chooses one at run time, so that no build
//! flag is needed for a fast binary. Invariant: only [`kernel`] uses the vector types of an
//! instruction set, after it was detected on this processor.
//!
//! A loop that the compiler turns into vectors by itself needs no [`Vector`]: [`vectorised`] compiles
//! it for the same choice of instruction sets.

/// Lanes of a [`Vector`]: one register of AVX-512 and one cache line.
pub(crate) const WIDTH: usize = 16;

/// Sixteen f32 lanes in registers. Arithmetic is lane by lane.
pub(crate) trait Vector: Copy {
    /// The largest width of a tile of sums, in vectors, for which the registers also hold the
    /// operands.
    const TILE: usize;
    /// A vector whose lanes are all `v`.
    fn splat(v: f32) -> Self;
    /// Loads the first sixteen values of `from`, which need not be aligned.
    fn load(from: &[f32]) -> Self;
    /// Stores the lanes into the first sixteen values of `to`.
    fn store(self, to: &mut [f32]);
    /// `self + a * b`, rounded once on an instruction set with fused multiply-add.
    fn add_product(self, a: Self, b: Self) -> Self;
    /// `self - a * b`, rounded once on an instruction set with fused multiply-add.
    fn sub_product(self, a: Self, b: Self) -> Self;
    /// `self + other`.
    fn add(self, other: Self) -> Self;
    /// `self - other`.
    fn sub(self, other: Self) -> Self;
    /// `self * other`.
    fn mul(self, other: Self) -> Self;
    /// `self / other`.
    fn div(self, other: Self) -> Self;
    /// The larger of the two values in each lane.
    fn max(self, other: Self) -> Self;
    /// The square root of each lane.
    fn sqrt(self) -> Self;
    /// The sum of the lanes, by halves: 8 + 8, then 4 + 4, 2 + 2, 1 + 1.
    fn sum(self) -> f32;
    /// Transposes a square of sixteen vectors: lane i of vector j becomes lane j of vector i.
    fn transpose(square: [Self; WIDTH]) -> [Self; WIDTH];
    /// A vector whose lane j is the sum of the lanes of vector j: sixteen sums at once take fewer
    /// shuffles than sixteen calls of [`Self::sum`], from which the last bits may differ.
    #[inline(always)]
    fn sum_each(square: [Self; WIDTH]) -> Self {
        let transposed = Self::transpose(square);
        let mut parts = [transposed[0], transposed[1], transposed[2], transposed[3]];
        for i in 4..WIDTH {
            parts[i % 4] = parts[i % 4].add(transposed[i]);
        }
        parts[0].add(parts[1]).add(parts[2].add(parts[3]))
    }
    /// Prefetches the cache line of `from` into the first-level cache. The address may be invalid.
    fn prefetch(from: *const f32);
    /// Prefetches into the second-level cache, for values that are needed later than the first level
    /// would keep them.
    fn prefetch_l2(from: *const f32);
}

/// The baseline for every target: an array whose loops the compiler vectorises for it.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; WIDTH]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = self.0;
        for (a, b) in out.iter_mut().zip(other.0) {
            *a = f(*a, b);
        }
        Self(out)
    }
}

impl Vector for Portable {
    const TILE: usize = 1;

    #[inline(always)]
    fn splat(v: f32) -> Self {
        Self([v; WIDTH])
    }
    #[inline(always)]
    fn load(from: &[f32]) -> Self {
        let mut out = [0.0; WIDTH];
        out.copy_from_slice(&from[..WIDTH]);
        Self(out)
    }
    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        to[..WIDTH].copy_from_slice(&self.0);
    }
    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        let mut out = self.0;
        for i in 0..WIDTH {
            // `mul_add` is one instruction on aarch64, but a call into the C library on the x86
            // baseline, which has no fused multiply-add.
            out[i] = if cfg!(target_arch = "aarch64") {
                a.0[i].mul_add(b.0[i], out[i])
            } else {
                out[i] + a.0[i] * b.0[i]
            };
        }
        Self(out)
    }
    #[inline(always)]
    fn sub_product(self, a: Self, b: Self) -> Self {
        self.add_product(a.zip(a, |v, _| -v), b)
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, f32::max)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.zip(self, |a, _| a.sqrt())
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        let mut v = self.0;
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                v[i] += v[i + half];
            }
        }
        v[0]
    }
    #[inline(always)]
    fn transpose(square: [Self; WIDTH]) -> [Self; WIDTH] {
        let mut out = [Self([0.0; WIDTH]); WIDTH];
        for (j, v) in square.iter().enumerate() {
            for (to, v) in out.iter_mut().zip(v.0) {
                to.0[j] = v;
            }
        }
        out
    }
    #[inline(always)]
    fn prefetch(_: *const f32) {}
    #[inline(always)]
    fn prefetch_l2(_: *const f32) {}
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
pub(crate) mod x86;

/// Whether this processor has the features that the AVX-512 form of a kernel is compiled for.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
}

/// Whether this processor has the features that the AVX2 form of a kernel is compiled for.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// Runs `f`, compiled for the widest instruction set of this processor. `f` is a closure around plain
/// loops, which are short enough to be inlined into each of the three forms; what they compute does
/// not depend on the form, since products and sums are not fused by the compiler.
#[inline]
pub(crate) fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi1,bmi2")]
        fn wide<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        #[target_feature(enable = "avx2,fma,bmi1,bmi2")]
        fn narrow<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        let bits = is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2");
        if bits
            && has_avx512()
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512cd")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            // SAFETY: the features that `wide` enables were just found on this processor.
            #[allow(unsafe_code)]
            return unsafe { wide(f) };
        }
        if bits && has_avx2() {
            // SAFETY: the features that `narrow` enables were just found on this processor.
            #[allow(unsafe_code)]
            return unsafe { narrow(f) };
        }
    }
    f()
}

/// Defines a function that compiles `body::<V>` (an `#[inline(always)]` function over a [`Vector`])
/// for each instruction set and calls the best one of this processor.
macro_rules! kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident;) => {
        $(#[$meta])*
        #[allow(unsafe_code, clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx2,fma")]
                fn wide($($arg: $ty),*) $(-> $ret)? {
                    $body::<$crate::matrix::simd::x86::Avx512>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn narrow($($arg: $ty),*) $(-> $ret)? {
                    $body::<$crate::matrix::simd::x86::Avx2>($($arg),*)
                }
                if $crate::matrix::simd::has_avx512() {
                    // SAFETY: the features that `wide` enables were just found on this processor.
                    return unsafe { wide($($arg),*) };
                }
                if $crate::matrix::simd::has_avx2() {
                    // SAFETY: the features that `narrow` enables were just found on this processor.
                    return unsafe { narrow($($arg),*) };
                }
            }
            $body::<$crate::matrix::simd::Portable>($($arg),*)
        }
    };
}
pub(crate) use kernel;

#[cfg(test)]
mod tests {
    use super::*;

    fn check<V: Vector>() {
        let a: Vec<f32> = (0..WIDTH).map(|i| i as f32 - 3.5).collect();
        let b: Vec<f32> = (0..WIDTH).map(|i| 1.0 + i as f32).collect();
        let (va, vb) = (V::load(&a), V::load(&b));
        let lane = |v: V, i: usize| {
            let mut out = [0.0; WIDTH];
            v.store(&mut out);
            out[i]
        };
        for i in 0..WIDTH {
            assert_eq!(lane(va.add(vb), i), a[i] + b[i]);
            assert_eq!(lane(va.sub(vb), i), a[i] - b[i]);
            assert_eq!(lane(va.mul(vb), i), a[i] * b[i]);
            assert_eq!(lane(va.div(vb), i), a[i] / b[i]);
            assert_eq!(lane(va.max(V::splat(0.0)), i), a[i].max(0.0));
            assert_eq!(lane(vb.sqrt(), i), b[i].sqrt());
            assert_eq!(lane(va.add_product(va, vb), i), a[i] + a[i] * b[i]);
            assert_eq!(lane(va.sub_product(va, vb), i), a[i] - a[i] * b[i]);
        }
        assert_eq!(va.sum(), a.iter().sum::<f32>());
        let square: [V; WIDTH] = std::array::from_fn(|j| {
            V::load(
                &(0..WIDTH)
                    .map(|i| (j * WIDTH + i) as f32)
                    .collect::<Vec<_>>(),
            )
        });
        for (i, v) in V::transpose(square).into_iter().enumerate() {
            for j in 0..WIDTH {
                assert_eq!(lane(v, j), (j * WIDTH + i) as f32);
            }
        }
        for (j, v) in square.into_iter().enumerate() {
            assert_eq!(lane(V::sum_each(square), j), v.sum());
        }
    }

    #[test]
    fn every_instruction_set_computes_the_same() {
        check::<Portable>();
        #[cfg(target_arch = "x86_64")]
        {
            if has_avx2() {
                check::<x86::Avx2>();
            }
            if has_avx512() {
                check::<x86::Avx512>();
            }
        }
    }
}
