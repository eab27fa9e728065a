//! The block formats of GGUF files.
//!
//! The layouts are ggml's (`ggml/src/ggml-common.h`, `ggml-quants.c` in ggml-org/ggml), whose
//! numbers must be read bit for bit; the code is our own.

use super::{QuantError, checked_len};
use half::{bf16, f16};

/// Weights of the largest block.
pub(super) const MAX_BLOCK: usize = 256;

/// How rows of weights are stored: blocks of neighbours in a row share a scale.
///
/// A weight is `scale * code`, `scale * (code - zero)` or `scale * code - min`. Numbers are little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockFormat {
    /// 32-bit floats.
    F32,
    /// IEEE half-precision floats.
    F16,
    /// bfloat16.
    Bf16,
    /// 32 weights: f16 scale, 16 bytes of 4-bit codes (low nibbles first), zero at 8.
    Q4_0,
    /// 32 weights: f16 scale, the codes' fifth bits in 32 bits, 16 bytes of low bits, zero at 16.
    Q5_0,
    /// 32 weights: f16 scale, 32 signed bytes.
    Q8_0,
    /// 256 weights: f16 scales of scales and of minima, 12 bytes of 6-bit scales and minima of
    /// eight groups of 32, 128 bytes of 4-bit codes.
    Q4K,
    /// As [`Self::Q4K`] with 32 bytes of fifth bits before the codes.
    Q5K,
    /// 256 weights: 128 bytes of low 4 bits, 64 bytes of high 2 bits, signed 8-bit scales of
    /// 16 groups of 16, f16 scale of scales; zero at 32.
    Q6K,
}

use BlockFormat::*;

/// A block taken apart: what a format makes of it is `scale(g) * (code - zero) - min(g)` for the
/// group `g` of the code.
pub(super) struct Parts {
    /// f16 bits of the scale and (of formats that have one) of the scale of minima.
    pub(super) d: u16,
    pub(super) dmin: u16,
    /// Of the groups: 6 bits unsigned (Q4_K, Q5_K) or 8 bits signed (Q6_K).
    pub(super) scales: [u8; 16],
    pub(super) mins: [u8; 8],
    /// Unsigned; of Q8_0 with 128 added.
    pub(super) codes: [u8; MAX_BLOCK],
}

impl Parts {
    pub(super) const ZERO: Self = Self {
        d: 0,
        dmin: 0,
        scales: [0; 16],
        mins: [0; 8],
        codes: [0; MAX_BLOCK],
    };

    /// The weights of the block into `out`, `[format.block_len()]`, with ggml's order of `f32`
    /// operations.
    pub(super) fn dequantize(&self, format: BlockFormat, out: &mut [f32]) {
        let (d, dmin) = (
            f16::from_bits(self.d).to_f32_const(),
            f16::from_bits(self.dmin).to_f32_const(),
        );
        let zero = format.zero();
        let group = format.group_len();
        for (g, out) in out.chunks_exact_mut(group).enumerate() {
            let codes = &self.codes[g * group..][..group];
            let scale = match format {
                Q4K | Q5K => d * f32::from(self.scales[g]),
                Q6K => d * f32::from(self.scales[g].cast_signed()),
                _ => d,
            };
            if format.has_mins() {
                let min = dmin * f32::from(self.mins[g]);
                for (y, &code) in out.iter_mut().zip(codes) {
                    *y = scale * f32::from(code) - min;
                }
            } else {
                for (y, &code) in out.iter_mut().zip(codes) {
                    *y = scale * (i32::from(code) - zero) as f32;
                }
            }
        }
    }
}

impl BlockFormat {
    /// Every format.
    pub const ALL: [Self; 9] = [F32, F16, Bf16, Q4_0, Q5_0, Q8_0, Q4K, Q5K, Q6K];

    /// Weights per block: rows are multiples of it long.
    #[must_use]
    pub const fn block_len(self) -> usize {
        match self {
            F32 | F16 | Bf16 => 1,
            Q4_0 | Q5_0 | Q8_0 => 32,
            Q4K | Q5K | Q6K => 256,
        }
    }

    /// Bytes per block.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        match self {
            F32 => 4,
            F16 | Bf16 => 2,
            Q4_0 => 2 + 16,
            Q5_0 => 2 + 4 + 16,
            Q8_0 => 2 + 32,
            Q4K => 4 + 12 + 128,
            Q5K => 4 + 12 + 32 + 128,
            Q6K => 128 + 64 + 16 + 2,
        }
    }

    /// Whether weights are integer codes with scales (else floats).
    #[must_use]
    pub const fn is_quantized(self) -> bool {
        !matches!(self, F32 | F16 | Bf16)
    }

    /// The format's number in a GGUF file (`enum ggml_type`).
    #[must_use]
    pub const fn ggml_type(self) -> u32 {
        match self {
            F32 => 0,
            F16 => 1,
            Q4_0 => 2,
            Q5_0 => 6,
            Q8_0 => 8,
            Q4K => 12,
            Q5K => 13,
            Q6K => 14,
            Bf16 => 30,
        }
    }

    /// The format of a number in a GGUF file, if it is one of these.
    #[must_use]
    pub fn from_ggml_type(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.ggml_type() == number)
    }

    /// The format's name in ggml and in the names of files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            F32 => "F32",
            F16 => "F16",
            Bf16 => "BF16",
            Q4_0 => "Q4_0",
            Q5_0 => "Q5_0",
            Q8_0 => "Q8_0",
            Q4K => "Q4_K",
            Q5K => "Q5_K",
            Q6K => "Q6_K",
        }
    }

    /// Bytes of a row of `cols` weights.
    ///
    /// # Errors
    /// `cols` is not a multiple of the block, or the size does not fit a `usize`.
    pub fn row_bytes(self, cols: usize) -> Result<usize, QuantError> {
        let block = self.block_len();
        if !cols.is_multiple_of(block) {
            return Err(QuantError::PartialBlock { format: self, cols });
        }
        checked_len(cols / block, self.block_bytes())
    }

    /// Weights that share a scale.
    pub(super) const fn group_len(self) -> usize {
        match self {
            Q6K => 16,
            F32 | F16 | Bf16 => 1,
            _ => 32,
        }
    }

    /// The code of the weight 0, where there are no minima.
    pub(super) const fn zero(self) -> i32 {
        match self {
            Q4_0 => 8,
            Q5_0 => 16,
            Q6K => 32,
            Q8_0 => 128,
            _ => 0,
        }
    }

    pub(super) const fn has_mins(self) -> bool {
        matches!(self, Q4K | Q5K)
    }

    /// Bits of a code.
    pub(super) const fn bits(self) -> u32 {
        match self {
            Q4_0 | Q4K => 4,
            Q5_0 | Q5K => 5,
            Q6K => 6,
            _ => 8,
        }
    }

    /// Takes one block apart. `self` is quantized, `block` has its size.
    pub(super) fn read_block(self, block: &[u8]) -> Parts {
        assert_eq!(block.len(), self.block_bytes());
        let half = |at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
        let mut parts = Parts::ZERO;
        match self {
            F32 | F16 | Bf16 => unreachable!("{self:?} has no blocks"),
            Q4_0 => {
                parts.d = half(0);
                read_nibbles(&block[2..], &mut parts.codes[..32]);
            }
            Q5_0 => {
                parts.d = half(0);
                read_nibbles(&block[6..], &mut parts.codes[..32]);
                for (i, code) in parts.codes[..32].iter_mut().enumerate() {
                    *code |= (block[2 + i / 8] >> (i % 8) & 1) << 4;
                }
            }
            Q8_0 => {
                parts.d = half(0);
                for (code, byte) in parts.codes.iter_mut().zip(&block[2..]) {
                    *code = byte ^ 0x80;
                }
            }
            Q4K | Q5K => {
                (parts.d, parts.dmin) = (half(0), half(2));
                for g in 0..8 {
                    (parts.scales[g], parts.mins[g]) = read_scale_and_min(&block[4..16], g);
                }
                let (high, low) = block[16..].split_at(if self == Q5K { 32 } else { 0 });
                for (pair, codes) in parts.codes.chunks_exact_mut(64).enumerate() {
                    read_nibbles(&low[pair * 32..][..32], codes);
                    for (i, high) in high.iter().enumerate() {
                        codes[i] |= (high >> (2 * pair) & 1) << 4;
                        codes[32 + i] |= (high >> (2 * pair + 1) & 1) << 4;
                    }
                }
            }
            Q6K => {
                parts.d = half(208);
                parts.scales.copy_from_slice(&block[192..208]);
                for (at, code) in parts.codes.iter_mut().enumerate() {
                    let (low, low_shift, high, high_shift) = q6k_place(at);
                    *code = block[low] >> low_shift & 15 | (block[high] >> high_shift & 3) << 4;
                }
            }
        }
        parts
    }

    /// The inverse of [`Self::read_block`].
    pub(super) fn write_block(self, parts: &Parts, block: &mut [u8]) {
        assert_eq!(block.len(), self.block_bytes());
        block.fill(0);
        match self {
            F32 | F16 | Bf16 => unreachable!("{self:?} has no blocks"),
            Q4_0 => write_nibbles(&parts.codes[..32], &mut block[2..]),
            Q5_0 => {
                write_nibbles(&parts.codes[..32], &mut block[6..]);
                for (i, code) in parts.codes[..32].iter().enumerate() {
                    block[2 + i / 8] |= (code >> 4) << (i % 8);
                }
            }
            Q8_0 => {
                for (code, byte) in parts.codes.iter().zip(&mut block[2..]) {
                    *byte = code ^ 0x80;
                }
            }
            Q4K | Q5K => {
                block[2..4].copy_from_slice(&parts.dmin.to_le_bytes());
                for g in 0..8 {
                    write_scale_and_min(&mut block[4..16], g, parts.scales[g], parts.mins[g]);
                }
                let (high, low) = block[16..].split_at_mut(if self == Q5K { 32 } else { 0 });
                for (pair, codes) in parts.codes.chunks_exact(64).enumerate() {
                    write_nibbles(codes, &mut low[pair * 32..][..32]);
                    for (i, high) in high.iter_mut().enumerate() {
                        *high |= (codes[i] >> 4) << (2 * pair);
                        *high |= (codes[32 + i] >> 4) << (2 * pair + 1);
                    }
                }
            }
            Q6K => {
                block[192..208].copy_from_slice(&parts.scales);
                for (at, code) in parts.codes.iter().enumerate() {
                    let (low, low_shift, high, high_shift) = q6k_place(at);
                    block[low] |= (code & 15) << low_shift;
                    block[high] |= (code >> 4) << high_shift;
                }
            }
        }
        let d_at = if self == Q6K { 208 } else { 0 };
        block[d_at..d_at + 2].copy_from_slice(&parts.d.to_le_bytes());
    }

    /// The weights of whole blocks, `out` as long as they are.
    pub(super) fn dequantize_blocks(self, data: &[u8], out: &mut [f32]) {
        let words = data.as_chunks::<2>().0;
        match self {
            F32 => {
                for (y, bytes) in out.iter_mut().zip(data.as_chunks::<4>().0) {
                    *y = f32::from_le_bytes(*bytes);
                }
            }
            F16 => {
                for (y, bytes) in out.iter_mut().zip(words) {
                    *y = f16::from_le_bytes(*bytes).to_f32_const();
                }
            }
            Bf16 => {
                for (y, bytes) in out.iter_mut().zip(words) {
                    *y = bf16::from_le_bytes(*bytes).to_f32_const();
                }
            }
            _ => {
                let blocks = data.chunks_exact(self.block_bytes());
                for (block, out) in blocks.zip(out.chunks_exact_mut(self.block_len())) {
                    self.read_block(block).dequantize(self, out);
                }
            }
        }
    }
}

/// The first half of the codes are low nibbles, the second half high ones.
fn read_nibbles(bytes: &[u8], codes: &mut [u8]) {
    let (low, high) = codes.split_at_mut(bytes.len());
    for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
}

fn write_nibbles(codes: &[u8], bytes: &mut [u8]) {
    let (low, high) = codes.split_at(bytes.len());
    for ((byte, low), high) in bytes.iter_mut().zip(low).zip(high) {
        *byte = low & 15 | high << 4;
    }
}

/// 6-bit scale and minimum of group `g` in the 12 bytes of Q4_K and Q5_K: the first four groups
/// fill the low 6 bits of bytes 0..4 and 4..8; of the others bytes 8..12 hold the low 4 bits of
/// both, and the two bits left in bytes 0..8 the rest.
fn read_scale_and_min(bytes: &[u8], g: usize) -> (u8, u8) {
    if g < 4 {
        (bytes[g] & 63, bytes[g + 4] & 63)
    } else {
        let low = bytes[g + 4];
        (
            low & 15 | bytes[g - 4] >> 6 << 4,
            low >> 4 | bytes[g] >> 6 << 4,
        )
    }
}

fn write_scale_and_min(bytes: &mut [u8], g: usize, scale: u8, min: u8) {
    if g < 4 {
        bytes[g] |= scale;
        bytes[g + 4] |= min;
    } else {
        bytes[g + 4] |= scale & 15 | min << 4;
        bytes[g - 4] |= scale >> 4 << 6;
        bytes[g] |= min >> 4 << 6;
    }
}

/// Where the low 4 and the high 2 bits of a Q6_K code stand: (byte, shift, byte, shift).
fn q6k_place(at: usize) -> (usize, usize, usize, usize) {
    let (half, quarter, i) = (at / 128, at % 128 / 32, at % 32);
    (
        half * 64 + quarter % 2 * 32 + i,
        quarter / 2 * 4,
        128 + half * 32 + i,
        quarter * 2,
    )
}

/// The weights of one row: `data` holds `out.len()` weights in `format`.
///
/// # Errors
/// `out` is not a multiple of the block long, or `data` has another length.
pub fn dequantize_row(format: BlockFormat, data: &[u8], out: &mut [f32]) -> Result<(), QuantError> {
    let expected = format.row_bytes(out.len())?;
    if data.len() != expected {
        return Err(QuantError::WrongLength {
            format,
            rows: 1,
            cols: out.len(),
            expected,
            found: data.len(),
        });
    }
    format.dequantize_blocks(data, out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_a_read_block_gives_its_bytes_back() {
        for format in BlockFormat::ALL.into_iter().filter(|f| f.is_quantized()) {
            let block: Vec<u8> = (0..format.block_bytes() as u32)
                .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
                .collect();
            let mut found = vec![0xff; block.len()];
            format.write_block(&format.read_block(&block), &mut found);
            assert_eq!(found, block, "{format:?}");
        }
    }
}
