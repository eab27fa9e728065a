//! Plain arrays, which the compiler turns into whatever vectors the target has.

use super::{Lanes, PANEL};
use half::f16;

#[derive(Clone, Copy)]
pub(in crate::quant) struct Portable;

impl Lanes for Portable {
    type Bytes = [u8; 64];
    type Ints = [i32; PANEL];
    type Floats = [f32; PANEL];
    const BYTE_ZERO: i32 = 128;

    #[inline(always)]
    unsafe fn load(self, p: *const u8) -> [u8; 64] {
        // SAFETY: promised by the caller.
        unsafe { p.cast::<[u8; 64]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut u8, x: [u8; 64]) {
        // SAFETY: promised by the caller.
        unsafe { p.cast::<[u8; 64]>().write_unaligned(x) }
    }
    #[inline(always)]
    fn and(self, x: [u8; 64], mask: u8) -> [u8; 64] {
        x.map(|x| x & mask)
    }
    #[inline(always)]
    fn or(self, x: [u8; 64], y: [u8; 64]) -> [u8; 64] {
        std::array::from_fn(|i| x[i] | y[i])
    }
    #[inline(always)]
    fn shift_left<const N: u32>(self, x: [u8; 64]) -> [u8; 64] {
        x.map(|x| x << N)
    }
    #[inline(always)]
    fn shift_right<const N: u32>(self, x: [u8; 64]) -> [u8; 64] {
        x.map(|x| x >> N)
    }
    #[inline(always)]
    unsafe fn dot<const BITS: u32>(
        self,
        mut sums: [i32; PANEL],
        w: [[u8; 64]; 4],
        a: *const u8,
        stride: usize,
    ) -> [i32; PANEL] {
        for (i, w) in w.iter().enumerate() {
            // SAFETY: promised by the caller.
            let a = unsafe { a.add(i * stride).cast::<[i8; 4]>().read_unaligned() };
            let a = a.map(i32::from);
            for (sum, w) in sums.iter_mut().zip(w.as_chunks::<4>().0) {
                let w = w.map(i32::from);
                let product = w[0] * a[0] + w[1] * a[1] + w[2] * a[2] + w[3] * a[3];
                *sum = sum.wrapping_add(product);
            }
        }
        sums
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> [i32; PANEL] {
        [x; PANEL]
    }
    #[inline(always)]
    unsafe fn load_ints(self, p: *const i32) -> [i32; PANEL] {
        // SAFETY: promised by the caller.
        unsafe { p.cast::<[i32; PANEL]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_ints(self, p: *mut i32, x: [i32; PANEL]) {
        // SAFETY: promised by the caller.
        unsafe { p.cast::<[i32; PANEL]>().write_unaligned(x) }
    }
    #[inline(always)]
    fn to_floats(self, x: [i32; PANEL]) -> [f32; PANEL] {
        x.map(|x| x as f32)
    }
    #[inline(always)]
    fn splat(self, x: f32) -> [f32; PANEL] {
        [x; PANEL]
    }
    #[inline(always)]
    fn mul(self, a: [f32; PANEL], b: [f32; PANEL]) -> [f32; PANEL] {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn mul_add(self, a: [f32; PANEL], b: [f32; PANEL], c: [f32; PANEL]) -> [f32; PANEL] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn neg_mul_add(self, a: [f32; PANEL], b: [f32; PANEL], c: [f32; PANEL]) -> [f32; PANEL] {
        std::array::from_fn(|i| c[i] - a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn load_floats(self, p: *const f32) -> [f32; PANEL] {
        // SAFETY: promised by the caller.
        unsafe { p.cast::<[f32; PANEL]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_floats(self, p: *mut f32, x: [f32; PANEL]) {
        // SAFETY: promised by the caller.
        unsafe { p.cast::<[f32; PANEL]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn load_halves(self, p: *const u8) -> [f32; PANEL] {
        // SAFETY: promised by the caller.
        let halves = unsafe { p.cast::<[[u8; 2]; PANEL]>().read_unaligned() };
        halves.map(|h| f16::from_le_bytes(h).to_f32_const())
    }
    #[inline(always)]
    unsafe fn load_unsigned(self, p: *const u8) -> [f32; PANEL] {
        // SAFETY: promised by the caller.
        unsafe { p.cast::<[u8; PANEL]>().read_unaligned() }.map(f32::from)
    }
    #[inline(always)]
    unsafe fn load_signed(self, p: *const u8) -> [f32; PANEL] {
        // SAFETY: promised by the caller.
        unsafe { p.cast::<[i8; PANEL]>().read_unaligned() }.map(f32::from)
    }
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
    #[inline(always)]
    fn prefetch_write(self, _: *const f32) {}
}
