//! Half-precision floats as they stand in files.

/// IEEE 754 binary16 to `f32`, exactly; NaNs keep their payload.
#[inline]
pub(super) fn f16_to_f32(bits: u16) -> f32 {
    const SMALLEST: f32 = 1.0 / (1 << 24) as f32;
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10 & 0x1f);
    let fraction = u32::from(bits & 0x3ff);
    let magnitude = match exponent {
        0 => (fraction as f32 * SMALLEST).to_bits(),
        31 => 0x7f80_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

/// The nearest binary16, ties to even; from 65,520 on infinity.
pub(super) fn f32_to_f16(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16 & 0x8000) as u16;
    let x = x.abs();
    let magnitude = if x.is_nan() {
        0x7e00
    } else if x < 1.0 / (1 << 14) as f32 {
        // A multiple of 2^-24; 1024 of them are the smallest normal number, whose bits follow.
        (x * (1 << 24) as f32).round_ties_even() as u16
    } else {
        // Rounding may carry into the exponent, up to that of infinity.
        let bits = x.to_bits();
        let rounded = (bits + 0xfff + (bits >> 13 & 1)) >> 13;
        rounded.saturating_sub(112 << 10).min(0x7c00) as u16
    };
    sign | magnitude
}

/// bfloat16 is the upper half of an `f32`.
#[inline]
pub(super) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_binary16_survives_the_way_to_f32_and_back() {
        for bits in 0..=u16::MAX {
            let x = f16_to_f32(bits);
            if x.is_nan() {
                assert!(f16_to_f32(f32_to_f16(x)).is_nan());
            } else {
                assert_eq!(f32_to_f16(x), bits, "{x}");
            }
        }
    }

    #[test]
    fn conversion_to_binary16_rounds_to_nearest_even() {
        for bits in 0..0x7bff_u16 {
            let (low, high) = (f16_to_f32(bits), f16_to_f32(bits + 1));
            let middle = f32::midpoint(low, high);
            let even = bits + bits % 2;
            assert_eq!(f32_to_f16(middle), even, "tie at {middle}");
            assert_eq!(f32_to_f16(middle.next_down()), bits);
            assert_eq!(f32_to_f16(-middle.next_up()), 0x8000 | (bits + 1));
        }
        assert_eq!(f32_to_f16(65_519.0), 0x7bff);
        assert_eq!(f32_to_f16(65_520.0), 0x7c00);
        assert_eq!(f32_to_f16(f32::INFINITY), 0x7c00);
        assert_eq!(f16_to_f32(0x3c00), 1.0);
        assert_eq!(f16_to_f32(0x0001), 2.0_f32.powi(-24));
    }
}
