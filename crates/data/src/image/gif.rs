//! GIF: the first frame on its canvas, as Pillow shows it.

use gif::{ColorOutput, DecodeOptions, MemoryLimit};

use super::decode::{Limits, Source};
use super::{Image, orientation};
use crate::Error;

pub(super) fn decode(source: &Source<'_>, limits: &Limits) -> Result<Image, Error> {
    let damaged = |detail: &dyn std::fmt::Display| source.damaged(&detail.to_string());
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    let budget = std::num::NonZeroU64::new(limits.max_pixels.max(1)).expect("at least 1");
    options.set_memory_limit(MemoryLimit::Bytes(budget));
    let mut decoder = options.read_info(source.bytes).map_err(|e| damaged(&e))?;
    let (screen_width, screen_height) = (u32::from(decoder.width()), u32::from(decoder.height()));
    let global: Option<Vec<u8>> = decoder.global_palette().map(<[u8]>::to_vec);

    // The frame's header first: its size is checked before a pixel is unpacked.
    let frame = decoder
        .next_frame_info()
        .map_err(|e| damaged(&e))?
        .ok_or_else(|| source.damaged("no frame"))?;
    let (left, top) = (u32::from(frame.left), u32::from(frame.top));
    let (frame_width, frame_height) = (u32::from(frame.width), u32::from(frame.height));
    let transparent = frame.transparent;
    let palette = frame.palette.clone().or(global);
    source.check_size(frame_width.into(), frame_height.into(), limits)?;
    // A frame that reaches beyond the screen enlarges the canvas.
    let width = screen_width.max(left + frame_width);
    let height = screen_height.max(top + frame_height);
    source.check_size(width.into(), height.into(), limits)?;

    let mut indices = vec![0; decoder.buffer_size()];
    decoder
        .read_into_buffer(&mut indices)
        .map_err(|e| damaged(&e))?;

    // Alpha is dropped, not blended: a transparent pixel shows its palette entry.
    let colour = |index: u8| -> [u8; 3] {
        let at = usize::from(index) * 3;
        match &palette {
            Some(palette) => palette
                .get(at..at + 3)
                .map_or([0; 3], |c| [c[0], c[1], c[2]]),
            None => [index; 3],
        }
    };
    let background = colour(transparent.unwrap_or(0));
    let (width_px, frame_px) = (width as usize, frame_width as usize);
    let mut rgb = background.repeat(width_px * height as usize);
    for (row, line) in indices.chunks_exact(frame_px).enumerate() {
        let start = ((top as usize + row) * width_px + left as usize) * 3;
        for (out, &index) in rgb[start..start + frame_px * 3]
            .chunks_exact_mut(3)
            .zip(line)
        {
            out.copy_from_slice(&colour(index));
        }
    }
    let image = Image::from_rgb(width, height, rgb)?;
    let turn = orientation::from_metadata(None, decoder.xmp_metadata());
    Ok(orientation::apply(image, turn))
}
