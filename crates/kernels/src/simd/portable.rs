//! Four lanes in plain Rust: the compiler maps them to whatever the target has.

use super::Simd;
use half::f16;

#[derive(Clone, Copy)]
pub(crate) struct Portable;

type V = [f32; 4];

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

impl Simd for Portable {
    type V = V;
    const LANES: usize = 4;
    const WIDE_FILE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        [x; 4]
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> V {
        if let Some(x) = x.first_chunk::<4>() {
            return *x;
        }
        let mut v = [0.0; 4];
        v[..x.len()].copy_from_slice(x);
        v
    }
    #[inline(always)]
    fn store(self, out: &mut [f32], v: V) {
        if let Some(out) = out.first_chunk_mut::<4>() {
            *out = v;
        } else {
            let n = out.len();
            out.copy_from_slice(&v[..n]);
        }
    }
    #[inline(always)]
    unsafe fn load_ptr(self, p: *const f32) -> V {
        // SAFETY: promised by the caller; arrays of floats need no more alignment than floats.
        unsafe { *p.cast::<V>() }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, p: *mut f32, v: V) {
        // SAFETY: promised by the caller; arrays of floats need no more alignment than floats.
        unsafe { *p.cast::<V>() = v }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> V {
        // SAFETY: promised by the caller; arrays of halves need no more alignment than halves.
        unsafe { *p.cast::<[f16; 4]>() }.map(f16::to_f32_const)
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut f16, v: V) {
        // SAFETY: promised by the caller; arrays of halves need no more alignment than halves.
        unsafe { *p.cast::<[f16; 4]>() = v.map(f16::from_f32_const) }
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn reciprocal(self, a: V) -> V {
        a.map(|a| 1.0 / a)
    }
    #[inline(always)]
    fn mul_add(self, a: V, b: V, c: V) -> V {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn neg_mul_add(self, a: V, b: V, c: V) -> V {
        self.sub(c, self.mul(a, b))
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn sqrt(self, a: V) -> V {
        a.map(f32::sqrt)
    }
    #[inline(always)]
    fn abs(self, a: V) -> V {
        a.map(f32::abs)
    }
    #[inline(always)]
    fn round(self, a: V) -> V {
        // Adding 1.5 * 2^23 leaves no bits for a fraction: exact for |a| < 2^22, and no call.
        const SHIFT: f32 = 12_582_912.0;
        a.map(|a| (a + SHIFT) - SHIFT)
    }
    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut i8, v: V) {
        for (i, v) in v.into_iter().enumerate() {
            // SAFETY: promised by the caller.
            unsafe { *p.add(i) = v as i8 };
        }
    }
    #[inline(always)]
    fn scale_by_power_of_two(self, a: V, n: V) -> V {
        zip(a, n, |a, n| {
            a * f32::from_bits(((n as i32 + 127) as u32) << 23)
        })
    }
    #[inline(always)]
    fn select_less(self, a: V, b: V, x: V, y: V) -> V {
        std::array::from_fn(|i| if a[i] < b[i] { x[i] } else { y[i] })
    }
    #[inline(always)]
    fn keep_first(self, v: V, count: usize, fill: f32) -> V {
        std::array::from_fn(|i| if i < count { v[i] } else { fill })
    }
    #[inline(always)]
    fn sum(self, a: V) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    fn maximum(self, a: V) -> f32 {
        let m = |a: f32, b: f32| if a > b { a } else { b };
        m(m(a[0], a[2]), m(a[1], a[3]))
    }
}
