//! JPEG: baseline and progressive, grey, YCbCr, RGB, CMYK and YCCK, with libjpeg-turbo's pixels.
//!
//! The field's pictures are decoded by libjpeg-turbo (Pillow, torchvision, OpenCV). Rust's
//! decoders round differently, above all where chroma is upsampled: up to nine grey levels on small
//! pictures. So this follows libjpeg-turbo's integer arithmetic (the accurate IDCT, "fancy"
//! upsampling, 16-bit colour conversion) and is equal to it bit for bit.
//!
//! Damage is treated as there: what is missing in front of a marker counts as zeros, and a file
//! that ends before its end-of-image marker is an error.

mod entropy;
mod idct;
mod pixels;

use self::entropy::{Bits, HuffmanTable, Progression, Scan};
use super::decode::{Limits, Source};
use super::{Image, orientation};
use crate::Error;

/// More scans than any encoder writes; a hostile file could ask for millions.
const MAX_SCANS: usize = 256;

/// Positions of coefficients in the order in which they are stored.
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// One colour component of a frame.
struct Component {
    id: u8,
    /// Sampling factors, 1 to 4.
    h: usize,
    v: usize,
    quantization: usize,
    /// The table as it was when the component's first scan began.
    quantization_table: Option<[u16; 64]>,
    /// Samples that carry the picture.
    width: usize,
    height: usize,
    /// Blocks that carry the picture.
    blocks_across: usize,
    blocks_down: usize,
    /// Blocks stored in a row, padded to whole MCUs.
    stride: usize,
    /// `[blocks down, stride, 64]`, in natural order.
    coefficients: Vec<i16>,
}

struct Frame {
    width: usize,
    height: usize,
    progressive: bool,
    h_max: usize,
    v_max: usize,
    mcus_across: usize,
    mcus_down: usize,
    components: Vec<Component>,
}

/// How a file's components are to be understood.
#[derive(Clone, Copy, PartialEq)]
enum ColourSpace {
    Grey,
    YCbCr,
    Rgb,
    Cmyk,
    Ycck,
}

pub(super) fn decode(source: &Source<'_>, limits: &Limits) -> Result<Image, Error> {
    let mut decoder = Decoder::new(source);
    decoder.read(limits)?;
    let colours = decoder.colour_space()?;
    let frame = decoder
        .frame
        .as_ref()
        .ok_or_else(|| source.damaged("no frame header"))?;
    let rgb = pixels::to_rgb(frame, colours).map_err(|e| source.damaged(e))?;
    let image = Image::from_rgb(frame.width as u32, frame.height as u32, rgb)?;
    let turn = orientation::from_metadata(decoder.exif, decoder.xmp);
    Ok(orientation::apply(image, turn))
}

/// Everything that markers set while the file is read.
struct Decoder<'a> {
    source: &'a Source<'a>,
    bytes: &'a [u8],
    at: usize,
    quantization: [Option<[u16; 64]>; 4],
    dc: [Option<HuffmanTable>; 4],
    ac: [Option<HuffmanTable>; 4],
    restart_interval: usize,
    frame: Option<Frame>,
    scans: usize,
    jfif: bool,
    /// Adobe's colour transform, where its marker is present.
    adobe: Option<u8>,
    exif: Option<&'a [u8]>,
    xmp: Option<&'a [u8]>,
}

impl<'a> Decoder<'a> {
    fn new(source: &'a Source<'a>) -> Self {
        Self {
            source,
            bytes: source.bytes,
            at: 2, // after the start-of-image marker
            quantization: [None; 4],
            dc: [const { None }; 4],
            ac: [const { None }; 4],
            restart_interval: 0,
            frame: None,
            scans: 0,
            jfif: false,
            adobe: None,
            exif: None,
            xmp: None,
        }
    }

    fn truncated(&self) -> Error {
        self.source.damaged("the file ends before its picture does")
    }

    /// Reads marker after marker up to the end of the image.
    fn read(&mut self, limits: &Limits) -> Result<(), Error> {
        loop {
            let marker = self.next_marker()?;
            match marker {
                0xD9 => break,
                0x01 | 0xD0..=0xD8 => continue, // stand alone
                _ => {}
            }
            let segment = self.segment()?;
            match marker {
                0xC0..=0xC2 => self.start_frame(segment, marker == 0xC2, limits)?,
                0xC4 => self.huffman_tables(segment)?,
                0xC3 | 0xC5..=0xCF => {
                    let found = format!("coding process {:#04x}", marker);
                    return Err(self.source.unsupported(&found));
                }
                0xDA => self.scan(segment)?,
                0xDB => self.quantization_tables(segment)?,
                0xDD => match *segment {
                    [high, low] => self.restart_interval = word(high, low),
                    _ => return Err(self.source.damaged("restart interval of wrong length")),
                },
                0xE0 if segment.starts_with(b"JFIF\0") => self.jfif = true,
                0xE1 => {
                    const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
                    if let Some(exif) = segment.strip_prefix(b"Exif\0\0") {
                        self.exif = self.exif.or(Some(exif));
                    } else if let Some(xmp) = segment.strip_prefix(XMP) {
                        self.xmp = self.xmp.or(Some(xmp));
                    }
                }
                0xEE if segment.starts_with(b"Adobe") => {
                    self.adobe = segment.get(11).copied().or(self.adobe);
                }
                _ => {}
            }
        }
        if self.scans == 0 {
            return Err(self.source.damaged("no scan"));
        }
        Ok(())
    }

    /// The next marker's code; whatever stands in front of it is skipped.
    fn next_marker(&mut self) -> Result<u8, Error> {
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            match *rest {
                [0xFF, code, ..] if code != 0 && code != 0xFF => {
                    self.at += 2;
                    return Ok(code);
                }
                [_, _, ..] => self.at += 1,
                _ => return Err(self.truncated()),
            }
        }
    }

    /// The bytes of the marker's segment.
    fn segment(&mut self) -> Result<&'a [u8], Error> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let [high, low, ..] = *rest else {
            return Err(self.truncated());
        };
        let length = word(high, low);
        if length < 2 {
            return Err(self.source.damaged("a segment of negative length"));
        }
        let segment = rest.get(2..length).ok_or_else(|| self.truncated())?;
        self.at += length;
        Ok(segment)
    }

    fn quantization_tables(&mut self, mut segment: &[u8]) -> Result<(), Error> {
        let wrong = || self.source.damaged("quantization table of wrong length");
        while let Some((&head, rest)) = segment.split_first() {
            let (wide, index) = (head >> 4 != 0, usize::from(head & 15));
            let length = if wide { 128 } else { 64 };
            let (values, rest) = rest.split_at_checked(length).ok_or_else(wrong)?;
            let mut table = [0; 64];
            for (k, &position) in ZIGZAG.iter().enumerate() {
                table[usize::from(position)] = if wide {
                    word(values[2 * k], values[2 * k + 1]) as u16
                } else {
                    values[k].into()
                };
            }
            let slot = self.quantization.get_mut(index);
            *slot.ok_or_else(|| self.source.damaged("quantization table beyond 3"))? = Some(table);
            segment = rest;
        }
        Ok(())
    }

    fn huffman_tables(&mut self, mut segment: &[u8]) -> Result<(), Error> {
        let wrong = || self.source.damaged("Huffman table that is no code");
        while let Some((&head, rest)) = segment.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or_else(wrong)?;
            let total = counts.iter().map(|&n| usize::from(n)).sum();
            let (symbols, rest) = rest.split_at_checked(total).ok_or_else(wrong)?;
            let table = HuffmanTable::new(counts, symbols).ok_or_else(wrong)?;
            let tables = match head >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(wrong()),
            };
            *tables.get_mut(usize::from(head & 15)).ok_or_else(wrong)? = Some(table);
            segment = rest;
        }
        Ok(())
    }

    fn start_frame(
        &mut self,
        segment: &[u8],
        progressive: bool,
        limits: &Limits,
    ) -> Result<(), Error> {
        let source = self.source;
        if self.frame.is_some() {
            return Err(source.damaged("a second frame header"));
        }
        let [precision, h1, h0, w1, w0, count, specs @ ..] = segment else {
            return Err(source.damaged("frame header of wrong length"));
        };
        if *precision != 8 {
            return Err(source.unsupported(&format!("{precision} bits a sample")));
        }
        let (height, width) = (word(*h1, *h0), word(*w1, *w0));
        source.check_size(width as u64, height as u64, limits)?;
        if !matches!(count, 1 | 3 | 4) {
            return Err(source.unsupported(&format!("{count} colour components")));
        }
        if specs.len() != usize::from(*count) * 3 {
            return Err(source.damaged("frame header of wrong length"));
        }
        let factors = |spec: &[u8]| (usize::from(spec[1] >> 4), usize::from(spec[1] & 15));
        let all: Vec<(usize, usize)> = specs.chunks_exact(3).map(factors).collect();
        if all
            .iter()
            .any(|&(h, v)| !(1..=4).contains(&h) || !(1..=4).contains(&v))
        {
            return Err(source.damaged("sampling factor beyond 1 to 4"));
        }
        let h_max = all.iter().map(|f| f.0).max().unwrap_or(1);
        let v_max = all.iter().map(|f| f.1).max().unwrap_or(1);
        if all.iter().any(|&(h, v)| h_max % h != 0 || v_max % v != 0) {
            return Err(source.unsupported("fractional sampling factors"));
        }
        let mcus_across = width.div_ceil(8 * h_max);
        let mcus_down = height.div_ceil(8 * v_max);
        let components = specs.chunks_exact(3).map(|spec| {
            let (h, v) = factors(spec);
            let (width, height) = ((width * h).div_ceil(h_max), (height * v).div_ceil(v_max));
            let stride = mcus_across * h;
            Component {
                id: spec[0],
                h,
                v,
                quantization: spec[2].into(),
                quantization_table: None,
                width,
                height,
                blocks_across: width.div_ceil(8),
                blocks_down: height.div_ceil(8),
                stride,
                coefficients: vec![0; stride * mcus_down * v * 64],
            }
        });
        self.frame = Some(Frame {
            width,
            height,
            progressive,
            h_max,
            v_max,
            mcus_across,
            mcus_down,
            components: components.collect(),
        });
        Ok(())
    }

    fn scan(&mut self, segment: &[u8]) -> Result<(), Error> {
        let source = self.source;
        let damaged = |detail: &str| source.damaged(detail);
        self.scans += 1;
        if self.scans > MAX_SCANS {
            return Err(damaged("more than 256 scans"));
        }
        let frame = self
            .frame
            .as_mut()
            .ok_or_else(|| damaged("a scan without a frame header"))?;
        let (&count, rest) = segment
            .split_first()
            .ok_or_else(|| damaged("scan header of wrong length"))?;
        let count = usize::from(count);
        if !(1..=4).contains(&count) || rest.len() != count * 2 + 3 {
            return Err(damaged("scan header of wrong length"));
        }
        let (selectors, range) = rest.split_at(count * 2);
        let mut parts: Vec<(usize, usize, usize)> = Vec::with_capacity(count);
        for pair in selectors.chunks_exact(2) {
            let index = frame
                .components
                .iter()
                .position(|c| c.id == pair[0])
                .ok_or_else(|| damaged("a scan of a component that the frame lacks"))?;
            if parts.iter().any(|&(other, ..)| other == index) {
                return Err(damaged("a scan that names a component twice"));
            }
            let component = &mut frame.components[index];
            if component.quantization_table.is_none() {
                let table = self.quantization.get(component.quantization);
                component.quantization_table = table.copied().flatten();
            }
            parts.push((index, usize::from(pair[1] >> 4), usize::from(pair[1] & 15)));
        }
        let progression = if frame.progressive {
            let progression = Progression {
                start: range[0].into(),
                end: range[1].into(),
                high: range[2] >> 4,
                low: range[2] & 15,
            };
            if !progression.is_valid(count) {
                return Err(damaged("a progressive scan out of range"));
            }
            Some(progression)
        } else {
            None
        };
        let blocks: usize = parts
            .iter()
            .map(|&(i, ..)| frame.components[i].h * frame.components[i].v)
            .sum();
        if count > 1 && blocks > 10 {
            return Err(damaged("more than 10 blocks in an MCU"));
        }
        let mut scan = Scan {
            bits: Bits::new(self.bytes, self.at),
            dc: &self.dc,
            ac: &self.ac,
            progression,
            parts,
            restart_interval: self.restart_interval,
        };
        let end = scan.decode(frame).map_err(damaged)?;
        self.at = end;
        Ok(())
    }

    /// As libjpeg's `default_decompress_parms` guesses it.
    fn colour_space(&self) -> Result<ColourSpace, Error> {
        let Some(frame) = &self.frame else {
            return Err(self.source.damaged("no frame header"));
        };
        let ids: Vec<u8> = frame.components.iter().map(|c| c.id).collect();
        Ok(match (ids.as_slice(), self.adobe) {
            ([_], _) => ColourSpace::Grey,
            ([_, _, _], _) if self.jfif => ColourSpace::YCbCr,
            ([_, _, _], Some(0)) => ColourSpace::Rgb,
            (b"RGB", None) => ColourSpace::Rgb,
            ([_, _, _], _) => ColourSpace::YCbCr,
            (_, None | Some(0)) => ColourSpace::Cmyk,
            (_, Some(_)) => ColourSpace::Ycck,
        })
    }
}

fn word(high: u8, low: u8) -> usize {
    usize::from(u16::from_be_bytes([high, low]))
}
