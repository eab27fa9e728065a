//! From coefficients to RGB: samples, upsampled chroma, colours (libjpeg-turbo's `jdsample.c` and
//! `jdcolor.c`, bit for bit).

use rayon::prelude::*;

use super::{ColourSpace, Component, Frame, idct};

/// A component's samples, `[height, stride]`.
struct Plane {
    samples: Vec<u8>,
    stride: usize,
    /// Samples that carry the picture.
    width: usize,
    height: usize,
    /// Pixels that a sample stands for.
    across: usize,
    down: usize,
}

/// `[height, width, 3]` of the whole frame.
pub(super) fn to_rgb(frame: &Frame, colours: ColourSpace) -> Result<Vec<u8>, &'static str> {
    let planes: Vec<Plane> = frame
        .components
        .iter()
        .map(|component| Plane::new(component, frame))
        .collect::<Option<_>>()
        .ok_or("a component without its quantization table")?;
    let tables = ChromaTables::new();
    let mut rgb = vec![0; frame.width * frame.height * 3];
    // Some rows at a time, so that a thread's buffers are allocated once for many.
    const ROWS: usize = 16;
    rgb.par_chunks_mut(frame.width * 3 * ROWS)
        .enumerate()
        .for_each(|(chunk, out)| {
            let mut rows = vec![Vec::new(); planes.len()];
            for (y, out) in out.chunks_exact_mut(frame.width * 3).enumerate() {
                for (plane, row) in planes.iter().zip(&mut rows) {
                    plane.row(chunk * ROWS + y, row);
                }
                convert(&rows, colours, &tables, out);
            }
        });
    Ok(rgb)
}

impl Plane {
    fn new(component: &Component, frame: &Frame) -> Option<Self> {
        let table = component.quantization_table.as_ref()?;
        let stride = component.stride * 8;
        let mut samples = vec![0; component.blocks_down * stride * 8];
        samples
            .par_chunks_mut(stride * 8)
            .zip(component.coefficients.par_chunks(component.stride * 64))
            .for_each(|(out, blocks)| {
                for (x, block) in blocks.chunks_exact(64).enumerate() {
                    idct::inverse(block, table, &mut out[x * 8..], stride);
                }
            });
        Some(Self {
            samples,
            stride,
            width: component.width,
            height: component.height,
            across: frame.h_max / component.h,
            down: frame.v_max / component.v,
        })
    }

    fn line(&self, y: usize) -> &[u8] {
        &self.samples[y.min(self.height - 1) * self.stride..][..self.width]
    }

    /// Row `y` of the picture, at least as long as the picture is wide.
    fn row(&self, y: usize, out: &mut Vec<u8>) {
        out.clear();
        let near = self.line(y / self.down);
        // The other row that a pixel row between two sample rows takes part of.
        let far = || {
            let sample = y / 2;
            if y.is_multiple_of(2) {
                self.line(sample.saturating_sub(1))
            } else {
                self.line(sample + 1)
            }
        };
        let smooth = self.width > 2; // narrower ones are repeated
        match (self.across, self.down) {
            (1, 1) => out.extend_from_slice(near),
            (2, 1) if smooth => double(near, out),
            (1, 2) => {
                let bias = if y.is_multiple_of(2) { 1 } else { 2 };
                let mix = |(&a, &b): (&u8, &u8)| (u16::from(a) * 3 + u16::from(b) + bias) >> 2;
                out.extend(near.iter().zip(far()).map(mix).map(|v| v as u8));
            }
            (2, 2) if smooth => double_both(near, far(), out),
            (across, _) => out.extend(near.iter().flat_map(|&s| std::iter::repeat_n(s, across))),
        }
    }
}

/// `h2v1_fancy_upsample`: three parts of the nearer sample, one of the farther, ties alternating.
fn double(samples: &[u8], out: &mut Vec<u8>) {
    let last = samples.len() - 1;
    let at = |i: usize| u16::from(samples[i]);
    out.resize(samples.len() * 2, 0);
    out[0] = samples[0];
    out[1] = ((at(0) * 3 + at(1) + 2) >> 2) as u8;
    let middle = out[2..last * 2].chunks_exact_mut(2);
    for (out, three) in middle.zip(samples.windows(3)) {
        let near = u16::from(three[1]) * 3;
        out[0] = ((near + u16::from(three[0]) + 1) >> 2) as u8;
        out[1] = ((near + u16::from(three[2]) + 2) >> 2) as u8;
    }
    out[last * 2] = ((at(last) * 3 + at(last - 1) + 1) >> 2) as u8;
    out[last * 2 + 1] = samples[last];
}

/// `h2v2_fancy_upsample`: the same in both directions, rounded once.
fn double_both(near: &[u8], far: &[u8], out: &mut Vec<u8>) {
    let last = near.len() - 1;
    let sum = |i: usize| u16::from(near[i]) * 3 + u16::from(far[i]);
    out.resize(near.len() * 2, 0);
    out[0] = ((sum(0) * 4 + 8) >> 4) as u8;
    out[1] = ((sum(0) * 3 + sum(1) + 7) >> 4) as u8;
    let middle = out[2..last * 2].chunks_exact_mut(2);
    for (out, (near, far)) in middle.zip(near.windows(3).zip(far.windows(3))) {
        let sum = |i: usize| u16::from(near[i]) * 3 + u16::from(far[i]);
        out[0] = ((sum(1) * 3 + sum(0) + 8) >> 4) as u8;
        out[1] = ((sum(1) * 3 + sum(2) + 7) >> 4) as u8;
    }
    out[last * 2] = ((sum(last) * 3 + sum(last - 1) + 8) >> 4) as u8;
    out[last * 2 + 1] = ((sum(last) * 4 + 7) >> 4) as u8;
}

/// What chroma adds to each colour, in `jdcolor.c`'s 16-bit fixed point.
struct ChromaTables {
    cr_r: [i32; 256],
    cb_b: [i32; 256],
    cr_g: [i32; 256],
    cb_g: [i32; 256],
}

impl ChromaTables {
    fn new() -> Self {
        const HALF: i32 = 1 << 15;
        let fix = |constant: f64| (constant * 65536.0 + 0.5) as i32;
        let table = |entry: &dyn Fn(i32) -> i32| std::array::from_fn(|i| entry(i as i32 - 128));
        Self {
            cr_r: table(&|x| (fix(1.402) * x + HALF) >> 16),
            cb_b: table(&|x| (fix(1.772) * x + HALF) >> 16),
            cr_g: table(&|x| -fix(0.71414) * x),
            cb_g: table(&|x| -fix(0.34414) * x + HALF),
        }
    }

    #[inline(always)]
    fn rgb(&self, y: u8, cb: u8, cr: u8) -> [u8; 3] {
        let (y, cb, cr) = (i32::from(y), usize::from(cb), usize::from(cr));
        [
            y + self.cr_r[cr],
            y + ((self.cb_g[cb] + self.cr_g[cr]) >> 16),
            y + self.cb_b[cb],
        ]
        .map(|v| v.clamp(0, 255) as u8)
    }
}

fn convert(rows: &[Vec<u8>], colours: ColourSpace, tables: &ChromaTables, out: &mut [u8]) {
    let pixels = out.chunks_exact_mut(3);
    match (colours, rows) {
        (ColourSpace::YCbCr, [y, cb, cr]) => {
            for (((out, &y), &cb), &cr) in pixels.zip(y).zip(cb).zip(cr) {
                out.copy_from_slice(&tables.rgb(y, cb, cr));
            }
        }
        (ColourSpace::Cmyk | ColourSpace::Ycck, [a, b, c, key]) => {
            for ((((out, &a), &b), &c), &key) in pixels.zip(a).zip(b).zip(c).zip(key) {
                let paper = if colours == ColourSpace::Ycck {
                    tables.rgb(a, b, c).map(|ink| 255 - ink)
                } else {
                    [a, b, c]
                };
                out.copy_from_slice(&paper.map(|part| share(part, key)));
            }
        }
        (_, [r, g, b]) => {
            for (((out, &r), &g), &b) in pixels.zip(r).zip(g).zip(b) {
                out.copy_from_slice(&[r, g, b]);
            }
        }
        (_, rows) => {
            for (out, &grey) in pixels.zip(&rows[0]) {
                out.fill(grey);
            }
        }
    }
}

/// `part × key / 255`, rounded. Pillow takes every CMYK JPEG for Adobe's inverted kind; its
/// inversion and its `cmyk2rgb` come to this.
fn share(part: u8, key: u8) -> u8 {
    let product = u32::from(part) * u32::from(key) + 128;
    (((product >> 8) + product) >> 8) as u8
}
