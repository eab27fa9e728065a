"""Writes testdata/data: small pictures of every format and mode, and the pixels of the reference.

    python -m venv VENV && VENV/bin/pip install pillow numpy transformers
    VENV/bin/python reference/data_preprocess.py

Made with Pillow 13.0.0, NumPy 2.4.6, transformers 5.23.0 (its PIL-backed processors, no torch).
The reference of decoding is `transformers.image_utils.load_image`, of resizing `PIL.Image.resize`,
of preprocessing the processors named in PROCESSORS.
"""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from transformers.image_utils import load_image
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

OUT = Path(__file__).resolve().parent.parent / "testdata" / "data"
PICTURES = OUT / "pictures"


def scene(width, height, seed=0, channels=3):
    """Smooth colours with hard edges: what shows errors of resizing and of chroma sampling."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = []
    for _ in range(channels):
        fx, fy, phase = rng.uniform(0.02, 0.3, 2).tolist() + [rng.uniform(0, 6)]
        planes.append(127.5 + 127.5 * np.sin(fx * x + fy * y + phase))
    picture = np.stack(planes, -1)
    for _ in range(4):
        x0, y0 = rng.integers(0, width), rng.integers(0, height)
        x1, y1 = x0 + rng.integers(1, width + 1), y0 + rng.integers(1, height + 1)
        picture[y0:y1, x0:x1] = rng.integers(0, 256, channels)
    return picture.round().clip(0, 255).astype(np.uint8)


def png(width, height, depth, colour, rows, *chunks):
    """A PNG written by hand, for the modes that Pillow does not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    extra = b"".join(chunk(*c) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def save(name, image, **options):
    image.save(PICTURES / name, **options)


def resample_jpeg(source, target, factors, width, height):
    """Changes luma's sampling factors and the size in the frame header."""
    data = bytearray((PICTURES / source).read_bytes())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    data[frame + 11] = factors
    (PICTURES / target).write_bytes(data)


def pictures():
    rgb = Image.fromarray(scene(37, 29))
    rgba = scene(37, 29, 1, 4)
    rgba[:4, :, 3] = 0
    rgba = Image.fromarray(rgba, "RGBA")
    grey = Image.fromarray(scene(37, 29, 2, 1)[..., 0])
    palette = rgb.quantize(13)
    bilevel = grey.convert("1")
    deep = np.asarray(scene(37, 29, 3, 4)).astype(np.uint16) * 257 ^ 0x5A
    cmyk = Image.fromarray(scene(37, 29, 4, 4), "CMYK")

    # PNG
    save("rgb.png", rgb)
    save("rgba_soft_alpha.png", rgba)
    save("grey.png", grey)
    save("grey_alpha.png", rgba.convert("LA"))
    save("bilevel.png", bilevel)
    save("palette.png", palette)
    save("palette_transparent.png", palette, transparency=3)
    save("palette_soft_alpha.png", palette, transparency=bytes(range(0, 250, 20)))
    save("grey16.png", Image.fromarray(deep[..., 0]))
    for colour, channels, name in ((2, 3, "rgb16"), (6, 4, "rgba16"), (4, 2, "grey_alpha16")):
        rows = [row[:, :channels].astype(">u2").tobytes() for row in deep]
        (PICTURES / f"{name}.png").write_bytes(png(37, 29, 16, colour, rows))
    for depth in (2, 4):
        samples = np.asarray(grey) >> (8 - depth)
        per_byte = 8 // depth
        padded = np.pad(samples, ((0, 0), (0, -37 % per_byte)))
        shifts = np.arange(8 - depth, -1, -depth)
        rows = [(r.reshape(-1, per_byte) << shifts).sum(1).astype(np.uint8).tobytes() for r in padded]
        (PICTURES / f"grey{depth}.png").write_bytes(png(37, 29, depth, 0, rows))
    exif = rgb.getexif()
    exif[0x0112] = 6
    save("exif.png", rgb, exif=exif)
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="8"/>'
    rows = [row.tobytes() for row in np.asarray(rgb)]
    (PICTURES / "xmp.png").write_bytes(png(37, 29, 8, 2, rows, (b"iTXt", xmp)))
    other = Image.fromarray(scene(37, 29, 5))
    save("animated.png", rgb, save_all=True, append_images=[other], duration=50)
    save("interlaced_name.jpg", rgb, format="PNG")  # the name lies about the format

    # JPEG
    save("baseline_444.jpg", rgb, quality=90, subsampling=0)
    save("baseline_422.jpg", rgb, quality=90, subsampling=1)
    save("baseline_420.jpg", rgb, quality=90, subsampling=2)
    save("progressive_420.jpg", rgb, quality=85, progressive=True)
    save("progressive_444.jpg", rgb, quality=85, progressive=True, subsampling=0)
    save("restart_420.jpg", rgb, quality=85, restart_marker_blocks=2)
    save("grey.jpg", grey, quality=90)
    save("cmyk.jpg", cmyk, quality=95)
    save("rgb_adobe.jpg", rgb, quality=95, keep_rgb=True)
    save("tiny_1x1.jpg", rgb.crop((5, 5, 6, 6)), quality=90)
    save("thin_1x40.jpg", rgb.resize((1, 40)), quality=90)
    save("low_quality.jpg", rgb, quality=10)
    # Samplings that Pillow does not write: the same blocks under another header.
    resample_jpeg("baseline_422.jpg", "baseline_440.jpg", 0x12, 29, 37)
    resample_jpeg("baseline_420.jpg", "baseline_411.jpg", 0x41, 60, 20)
    data = bytearray((PICTURES / "cmyk.jpg").read_bytes())
    data[data.index(b"Adobe") + 11] = 2
    (PICTURES / "ycck.jpg").write_bytes(data)
    marked = rgb.resize((24, 16))
    for tag in range(1, 9):
        exif = marked.getexif()
        exif[0x0112] = tag
        save(f"exif_{tag}.jpg", marked, quality=90, exif=exif)

    # WebP
    save("lossless.webp", rgb, lossless=True)
    save("lossless_alpha.webp", rgba, lossless=True, exact=True)
    save("lossy.webp", rgb, quality=80)
    save("lossy_alpha.webp", rgba, quality=80)
    exif = rgb.getexif()
    exif[0x0112] = 3
    save("exif.webp", rgb, lossless=True, exif=exif)
    save("animated.webp", rgb, save_all=True, append_images=[other, rgb], lossless=True, duration=50)
    save("animated_alpha.webp", rgba, save_all=True, append_images=[other.convert("RGBA")], lossless=True)

    # GIF
    save("still.gif", palette)
    save("transparent.gif", palette, transparency=3)
    save("animated.gif", rgb, save_all=True, append_images=[other, rgb.rotate(90)], duration=50)
    save("interlaced.gif", palette, interlace=1)
    still = (PICTURES / "transparent.gif").read_bytes()
    at = still.index(b"\x2c\0\0\0\0")
    # The first frame moved right and down beyond its screen, which grows.
    moved = still[:at] + b"\x2c" + struct.pack("<HH", 5, 3) + still[at + 5 :]
    (PICTURES / "offset_frame.gif").write_bytes(moved)

    # BMP
    save("rgb.bmp", rgb)
    save("rgba.bmp", rgba)
    save("grey.bmp", grey)
    save("palette.bmp", palette)
    save("bilevel.bmp", bilevel)

    # TIFF
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        save(f"rgb_{compression}.tiff", rgb, compression=compression)
    save("rgba.tiff", rgba, compression="tiff_lzw")
    save("grey.tiff", grey, compression="tiff_lzw")
    save("grey16.tiff", Image.fromarray(deep[..., 0]), compression="tiff_lzw")
    save("bilevel.tiff", bilevel)
    save("palette.tiff", palette, compression="tiff_lzw")
    save("cmyk.tiff", cmyk, compression="tiff_lzw")
    save("exif.tiff", rgb, compression="tiff_lzw", tiffinfo={0x0112: 5})


def reference_pixels(path):
    """`load_image`, but 16-bit grey scaled by 256: Pillow alone saturates it to white."""
    image = Image.open(path)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return np.asarray(image.convert("RGB"))
    return np.asarray(load_image(str(path)))


def decoded():
    index = {}
    for path in sorted(PICTURES.iterdir()):
        array = reference_pixels(path)
        size = {"width": array.shape[1], "height": array.shape[0]}
        index[path.name] = size | {"fnv1a": fnv1a(array.tobytes())}
    return index


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def noise(width, height, seed):
    """The test's own pictures: a linear congruential generator that Rust repeats."""
    state, out = seed, bytearray()
    for _ in range(width * height * 3):
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        out.append(state >> 56)
    return Image.fromarray(np.frombuffer(bytes(out), np.uint8).reshape(height, width, 3))


SHAPES = [(1, 1), (1, 40), (40, 1), (3000, 17), (17, 3000), (37, 29), (224, 224), (97, 61), (64, 150), (333, 250)]


def resized():
    cases = []
    for seed, (width, height) in enumerate(SHAPES):
        image = noise(width, height, seed)
        for to in ((1, 1), (7, 5), (32, 32), (61, 97), (width, 20), (20, height), (width, height), (224, 224)):
            for pil in range(6):
                array = np.asarray(image.resize(to, resample=pil))
                cases.append([width, height, seed, to[0], to[1], pil, fnv1a(array.tobytes())])
    return cases


PROCESSORS = [
    CLIPImageProcessorPil,
    SiglipImageProcessorPil,
    ViTImageProcessorPil,
    DeiTImageProcessorPil,
    BlipImageProcessorPil,
    BitImageProcessorPil,
]
PROCESSORS = {kind.__name__: kind for kind in PROCESSORS}

SMALL_CROP = {"crop_size": {"height": 24, "width": 24}}
CONFIGS = [
    {"image_processor_type": "CLIPImageProcessorPil", "size": 32, "crop_size": 32},
    {"image_processor_type": "CLIPImageProcessorPil", "size": {"shortest_edge": 33}, "crop_size": {"height": 20, "width": 31}},
    {"image_processor_type": "CLIPImageProcessorPil", "size": {"shortest_edge": 21}, "crop_size": 32},
    {"image_processor_type": "CLIPImageProcessorPil", "size": {"shortest_edge": 16}, "crop_size": {"height": 40, "width": 9}},
    {"image_processor_type": "CLIPImageProcessorPil", "size": {"shortest_edge": 20}, "do_normalize": False, **SMALL_CROP},
    {"image_processor_type": "CLIPImageProcessorPil", "do_resize": False, "do_rescale": False, **SMALL_CROP},
    {"image_processor_type": "CLIPImageProcessorPil", "size": {"shortest_edge": 24, "longest_edge": 30}, "do_center_crop": False},
    {"image_processor_type": "SiglipImageProcessorPil", "size": {"height": 30, "width": 18}},
    {"image_processor_type": "SiglipImageProcessorPil", "size": {"height": 30, "width": 18}, "do_pad": True, "pad_size": {"height": 33, "width": 20}},
    {"image_processor_type": "ViTImageProcessorPil", "size": 24, "image_mean": 0.4, "image_std": [0.1, 0.2, 0.3]},
    {"image_processor_type": "ViTImageProcessorPil", "size": [24, 17], "resample": 0},
    {"image_processor_type": "ViTImageProcessorPil", "size": {"max_height": 20, "max_width": 30}, "resample": 1},
    {"image_processor_type": "DeiTImageProcessorPil", "size": 28, "crop_size": 24, "rescale_factor": 0.00392156862745098},
    {"image_processor_type": "BlipImageProcessorPil", "size": {"height": 24, "width": 24}, "do_convert_rgb": True},
    {"image_processor_type": "BitImageProcessorPil", "size": {"shortest_edge": 26}, "resample": 4, **SMALL_CROP},
]


def processed():
    cases = []
    for config in CONFIGS:
        kind = PROCESSORS[config["image_processor_type"]]
        processor = kind(**{k: v for k, v in config.items() if k != "image_processor_type"})
        for seed, (width, height) in enumerate(SHAPES):
            case = {"config": config, "width": width, "height": height, "seed": seed}
            try:
                out = processor(noise(width, height, seed), return_tensors="np")["pixel_values"][0]
            except ValueError as error:  # a side that becomes 0
                case["error"] = str(error)
                cases.append(case)
                continue
            if out.dtype != np.float32:
                out = out.astype(np.float32)
            data = np.ascontiguousarray(out, dtype="<f4")
            flat = data.reshape(-1)
            case |= {
                "shape": list(data.shape),
                "fnv1a": fnv1a(data.tobytes()),
                "first": float(flat[0]),
                "middle": float(flat[flat.size // 2]),
            }
            cases.append(case)
    return cases


def main():
    PICTURES.mkdir(parents=True, exist_ok=True)
    for path in PICTURES.iterdir():
        path.unlink()
    pictures()
    lines = lambda rows: "[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n"  # noqa: E731
    (OUT / "decoded.json").write_text(json.dumps(decoded(), indent=0) + "\n")
    (OUT / "resized.json").write_text(lines(resized()))
    (OUT / "processed.json").write_text(lines(processed()))


if __name__ == "__main__":
    main()
