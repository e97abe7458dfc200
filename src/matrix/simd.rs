//! Sixteen lanes of f32 and the choice of an instruction set when a kernel is called.
//!
//! A kernel's body is written once over [`Lanes`]; the macro below compiles it for AVX-512, for AVX2 with FMA and for the
//! baseline (NEON on aarch64), and picks at run time. No build flag is needed for a fast binary.

/// Lanes of one [`Lanes`].
pub(crate) const WIDTH: usize = 16;

/// Sixteen f32 values that the compiler keeps in vector registers.
#[derive(Clone, Copy)]
pub(crate) struct Lanes(pub [f32; WIDTH]);

impl Lanes {
    /// All lanes `v`.
    #[inline(always)]
    pub(crate) fn splat(v: f32) -> Self {
        Self([v; WIDTH])
    }

    /// The first sixteen values of `from`.
    #[inline(always)]
    pub(crate) fn load(from: &[f32]) -> Self {
        let mut out = [0.0; WIDTH];
        out.copy_from_slice(&from[..WIDTH]);
        Self(out)
    }

    /// Writes the lanes to the start of `to`.
    #[inline(always)]
    pub(crate) fn store(self, to: &mut [f32]) {
        to[..WIDTH].copy_from_slice(&self.0);
    }

    /// `self + a * b`, fused where the instruction set fuses.
    #[inline(always)]
    pub(crate) fn add_product<const FUSED: bool>(self, a: Self, b: Self) -> Self {
        let mut out = self.0;
        for i in 0..WIDTH {
            out[i] = if FUSED { a.0[i].mul_add(b.0[i], out[i]) } else { out[i] + a.0[i] * b.0[i] };
        }
        Self(out)
    }

    /// Applies `f` lane by lane.
    #[inline(always)]
    pub(crate) fn map(self, f: impl Fn(f32) -> f32) -> Self {
        let mut out = self.0;
        for v in &mut out {
            *v = f(*v);
        }
        Self(out)
    }

    /// Applies `f` to the lanes of both.
    #[inline(always)]
    pub(crate) fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = self.0;
        for i in 0..WIDTH {
            out[i] = f(out[i], other.0[i]);
        }
        Self(out)
    }

    /// The sum of the lanes, pairwise.
    #[inline(always)]
    pub(crate) fn sum(self) -> f32 {
        let mut v = self.0;
        let mut half = WIDTH / 2;
        while half > 0 {
            for i in 0..half {
                v[i] += v[i + half];
            }
            half /= 2;
        }
        v[0]
    }
}

/// Whether the 512-bit kernels may run.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// Whether the 256-bit kernels may run.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// Compiles `body::<FUSED>` (an `#[inline(always)]` function) for each instruction set and calls the best one.
macro_rules! kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident;) => {
        $(#[$meta])*
        #[allow(unsafe_code, clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx2,fma")]
                fn wide($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn narrow($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                if $crate::matrix::simd::has_avx512() {
                    // SAFETY: the features that `wide` enables were just found on this processor.
                    return unsafe { wide($($arg),*) };
                }
                if $crate::matrix::simd::has_avx2() {
                    // SAFETY: the features that `narrow` enables were just found on this processor.
                    return unsafe { narrow($($arg),*) };
                }
                $body::<false>($($arg),*)
            }
            #[cfg(not(target_arch = "x86_64"))]
            $body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}
pub(crate) use kernel;
