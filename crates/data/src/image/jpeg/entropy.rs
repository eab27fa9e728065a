//! Huffman-coded scans: from bits to coefficients (ITU-T T.81, annexes F and G).

use super::{Component, Frame, ZIGZAG};

/// Codes up to this length are found with one look.
const FAST_BITS: u32 = 9;

const END_OF_FILE: &str = "the file ends before its picture does";

/// A canonical Huffman code.
pub(super) struct HuffmanTable {
    /// For each possible next `FAST_BITS` bits: symbol and code length, 0 where the code is longer.
    fast: Box<[(u8, u8); 1 << FAST_BITS]>,
    /// For each length: the first code beyond it, aligned to 16 bits; `u32::MAX` ends the search.
    limit: [u32; 18],
    /// For each length: what to add to a code to get its symbol's index.
    offset: [i32; 17],
    symbols: Vec<u8>,
}

impl HuffmanTable {
    /// `counts` says how many codes there are of each length from 1 to 16. None where they do not
    /// fit.
    pub fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        if symbols.len() > 256 {
            return None;
        }
        let mut fast = Box::new([(0, 0); 1 << FAST_BITS]);
        let mut limit = [0; 18];
        let mut offset = [0; 17];
        let (mut code, mut index) = (0u32, 0usize);
        for length in 1..=16u32 {
            offset[length as usize] = index as i32 - code as i32;
            for _ in 0..counts[length as usize - 1] {
                if code >= 1 << length {
                    return None;
                }
                if length <= FAST_BITS {
                    let free = FAST_BITS - length;
                    let start = (code << free) as usize;
                    fast[start..start + (1 << free)].fill((symbols[index], length as u8));
                }
                code += 1;
                index += 1;
            }
            limit[length as usize] = code << (16 - length);
            code <<= 1;
        }
        limit[17] = u32::MAX;
        Some(Self {
            fast,
            limit,
            offset,
            symbols: symbols.to_vec(),
        })
    }
}

/// Bits of a scan, most significant first, without the stuffed zero bytes.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next bits, from the top.
    window: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub fn new(bytes: &'a [u8], at: usize) -> Self {
        Self {
            bytes,
            at,
            window: 0,
            count: 0,
        }
    }

    /// At least 32 bits into the window.
    fn fill(&mut self) {
        while self.count <= 56 {
            let byte = match self.bytes.get(self.at..) {
                Some([0xFF, 0, ..]) => {
                    self.at += 2;
                    0xFF
                }
                // Fill bytes in front of a marker.
                Some([0xFF, 0xFF, ..]) => {
                    self.at += 1;
                    continue;
                }
                // A marker or the end of the file: zeros, as libjpeg supplies them.
                Some([0xFF, ..] | []) | None => 0,
                Some([byte, ..]) => {
                    self.at += 1;
                    *byte
                }
            };
            self.window |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    fn skip(&mut self, count: u32) {
        self.window <<= count;
        self.count -= count;
    }

    /// `count` bits, at most 16.
    fn take(&mut self, count: u32) -> u32 {
        if count == 0 {
            return 0;
        }
        if self.count < count {
            self.fill();
        }
        let bits = (self.window >> (64 - count)) as u32;
        self.skip(count);
        bits
    }

    /// The next symbol; 0 for bits that are no code, as libjpeg answers them.
    fn symbol(&mut self, table: &HuffmanTable) -> u8 {
        if self.count < 16 {
            self.fill();
        }
        let (symbol, length) = table.fast[(self.window >> (64 - FAST_BITS)) as usize];
        if length > 0 {
            self.skip(length.into());
            return symbol;
        }
        let next = (self.window >> 48) as u32;
        let mut length = FAST_BITS as usize + 1;
        while next >= table.limit[length] {
            length += 1;
        }
        if length > 16 {
            self.skip(16);
            return 0;
        }
        self.skip(length as u32);
        let index = (next >> (16 - length)) as i32 + table.offset[length];
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        table.symbols.get(index).copied().unwrap_or(0)
    }

    /// A signed number of `size` bits (T.81, F.2.2.1 EXTEND).
    fn signed(&mut self, size: u32) -> i32 {
        if size == 0 {
            return 0;
        }
        let bits = self.take(size) as i32;
        if bits < 1 << (size - 1) {
            bits - (1 << size) + 1
        } else {
            bits
        }
    }

    /// To the restart marker that should come here; another marker is left for its reader.
    fn restart(&mut self) {
        self.window = 0;
        self.count = 0;
        while let Some([first, second, ..]) = self.bytes.get(self.at..) {
            match (first, second) {
                (0xFF, 0xD0..=0xD7) => {
                    self.at += 2;
                    return;
                }
                (0xFF, 1..=0xFE) => return,
                _ => self.at += 1,
            }
        }
    }

    /// Whether bits were used that a file cut short no longer has.
    fn past_the_end(&self) -> bool {
        self.at >= self.bytes.len()
    }
}

/// The part of the coefficients that a progressive scan carries.
pub(super) struct Progression {
    /// First and last coefficient in zigzag order.
    pub start: usize,
    pub end: usize,
    /// Bit positions: of the scan before (0 in the first), and of this one.
    pub high: u8,
    pub low: u8,
}

impl Progression {
    pub fn is_valid(&self, components: usize) -> bool {
        let range = if self.start == 0 {
            self.end == 0
        } else {
            self.start <= self.end && self.end < 64 && components == 1
        };
        range && self.low <= 13 && (self.high == 0 || self.high == self.low + 1)
    }
}

/// One scan over some of the components.
pub(super) struct Scan<'a> {
    pub bits: Bits<'a>,
    pub dc: &'a [Option<HuffmanTable>; 4],
    pub ac: &'a [Option<HuffmanTable>; 4],
    /// None in a sequential frame.
    pub progression: Option<Progression>,
    /// (component, its DC table, its AC table).
    pub parts: Vec<(usize, usize, usize)>,
    /// In MCUs; 0 where there are none.
    pub restart_interval: usize,
}

/// What is carried from block to block.
#[derive(Default)]
struct State {
    /// Last DC value of each part.
    dc: [i32; 4],
    /// Blocks that are known to hold nothing more.
    end_of_band_run: u32,
}

impl Scan<'_> {
    /// Decodes the scan into the frame's coefficients and gives the position behind it.
    pub fn decode(&mut self, frame: &mut Frame) -> Result<usize, &'static str> {
        let interleaved = self.parts.len() > 1;
        let (across, down) = if interleaved {
            (frame.mcus_across, frame.mcus_down)
        } else {
            let component = &frame.components[self.parts[0].0];
            (component.blocks_across, component.blocks_down)
        };
        let mut state = State::default();
        let mut until_restart = self.restart_interval;
        for y in 0..down {
            for x in 0..across {
                if self.restart_interval > 0 {
                    if until_restart == 0 {
                        self.bits.restart();
                        state = State::default();
                        until_restart = self.restart_interval;
                    }
                    until_restart -= 1;
                }
                for part in 0..self.parts.len() {
                    let component = &mut frame.components[self.parts[part].0];
                    if !interleaved {
                        self.block(part, component, (x, y), &mut state)?;
                        continue;
                    }
                    for v in 0..component.v {
                        for h in 0..component.h {
                            let at = (x * component.h + h, y * component.v + v);
                            self.block(part, component, at, &mut state)?;
                        }
                    }
                }
            }
            // Rows of invented zeros would only cost time.
            if self.bits.past_the_end() {
                return Err(END_OF_FILE);
            }
        }
        Ok(self.bits.at)
    }

    fn block(
        &mut self,
        part: usize,
        component: &mut Component,
        (x, y): (usize, usize),
        state: &mut State,
    ) -> Result<(), &'static str> {
        let at = (y * component.stride + x) * 64;
        let block: &mut [i16; 64] = (&mut component.coefficients[at..at + 64])
            .try_into()
            .expect("64 coefficients");
        let (_, dc, ac) = self.parts[part];
        let missing = "a scan without its Huffman table";
        let dc = || self.dc.get(dc).and_then(Option::as_ref).ok_or(missing);
        let ac = || self.ac.get(ac).and_then(Option::as_ref).ok_or(missing);
        let bits = &mut self.bits;
        match &self.progression {
            None => sequential(bits, block, dc()?, ac()?, &mut state.dc[part]),
            Some(p) if p.start == 0 && p.high == 0 => {
                let size = u32::from(bits.symbol(dc()?)).min(16);
                state.dc[part] = state.dc[part].wrapping_add(bits.signed(size));
                block[0] = (state.dc[part] << p.low) as i16;
            }
            Some(p) if p.start == 0 => block[0] |= (bits.take(1) as i16) << p.low,
            Some(p) if p.high == 0 => {
                ac_first(bits, block, ac()?, p, &mut state.end_of_band_run);
            }
            Some(p) => ac_refine(bits, block, ac()?, p, &mut state.end_of_band_run),
        }
        Ok(())
    }
}

fn sequential(
    bits: &mut Bits<'_>,
    block: &mut [i16; 64],
    dc: &HuffmanTable,
    ac: &HuffmanTable,
    last_dc: &mut i32,
) {
    let size = u32::from(bits.symbol(dc)).min(16);
    *last_dc = last_dc.wrapping_add(bits.signed(size));
    block[0] = *last_dc as i16;
    let mut k = 1;
    while k < 64 {
        let symbol = bits.symbol(ac);
        let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if size == 0 {
            if run != 15 {
                break;
            }
            k += 16;
            continue;
        }
        k += run;
        let value = bits.signed(size);
        if let Some(&position) = ZIGZAG.get(k) {
            block[usize::from(position)] = value as i16;
        }
        k += 1;
    }
}

fn ac_first(
    bits: &mut Bits<'_>,
    block: &mut [i16; 64],
    table: &HuffmanTable,
    p: &Progression,
    end_of_band_run: &mut u32,
) {
    if *end_of_band_run > 0 {
        *end_of_band_run -= 1;
        return;
    }
    let mut k = p.start;
    while k <= p.end {
        let symbol = bits.symbol(table);
        let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        if size == 0 {
            if run != 15 {
                *end_of_band_run = (1 << run) + bits.take(run) - 1;
                return;
            }
            k += 16;
            continue;
        }
        k += run as usize;
        let value = bits.signed(size) << p.low;
        if let Some(&position) = ZIGZAG.get(k) {
            block[usize::from(position)] = value as i16;
        }
        k += 1;
    }
}

fn ac_refine(
    bits: &mut Bits<'_>,
    block: &mut [i16; 64],
    table: &HuffmanTable,
    p: &Progression,
    end_of_band_run: &mut u32,
) {
    let bit = 1i16 << p.low;
    // A coefficient that is not zero yet gets one more bit of precision.
    let refine = |bits: &mut Bits<'_>, value: &mut i16| {
        if bits.take(1) == 1 && *value & bit == 0 {
            *value = value.wrapping_add(if *value >= 0 { bit } else { -bit });
        }
    };
    let mut k = p.start;
    if *end_of_band_run == 0 {
        while k <= p.end {
            let symbol = bits.symbol(table);
            let (mut run, size) = (u32::from(symbol >> 4), symbol & 15);
            let mut value = 0;
            if size != 0 {
                value = if bits.take(1) == 1 { bit } else { -bit };
            } else if run != 15 {
                *end_of_band_run = (1 << run) + bits.take(run);
                break;
            }
            // Over `run` zeros, refining what lies between them.
            while k <= p.end {
                let coefficient = &mut block[usize::from(ZIGZAG[k])];
                if *coefficient != 0 {
                    refine(bits, coefficient);
                } else if run == 0 {
                    *coefficient = value;
                    k += 1;
                    break;
                } else {
                    run -= 1;
                }
                k += 1;
            }
        }
    }
    if *end_of_band_run > 0 {
        for &position in ZIGZAG.iter().take(p.end + 1).skip(k) {
            let coefficient = &mut block[usize::from(position)];
            if *coefficient != 0 {
                refine(bits, coefficient);
            }
        }
        *end_of_band_run -= 1;
    }
}
