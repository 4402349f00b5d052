#!/usr/bin/env python3
"""Writes tests/fixtures/images: small files of every kind that people bring, and what becomes of each.

images.json has, for each file, [width, height, SHA-256 of Pillow's convert("RGB")], or the words that a refusal has.

pip install pillow==13.0.0 numpy==2.4.6 opencv-python-headless==5.0.0.93 tifffile==2026.3.3 imagecodecs==2026.3.6
(x86-64 Linux: arithmetic coding is switched on in Pillow's own libjpeg.)
"""

import ctypes
import hashlib
import io
import json
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import PIL
import tifffile
from PIL import Image

OUT = Path(__file__).resolve().parent / "fixtures/images"
assert (PIL.__version__, cv2.__version__, tifffile.__version__) == ("13.0.0", "5.0.0", "2026.3.3")
RANDOM = np.random.default_rng(13)
FILES, REFUSED = {}, {}


def picture(w, h):
    """Colours that change fast, over slow ones: where decoders differ, they differ here."""
    y, x = np.mgrid[:h, :w]
    slow = np.stack([x * 255 // max(w - 1, 1), y * 255 // max(h - 1, 1), (x + y) * 127 // max(w + h - 2, 1)], -1)
    return (slow * 3 // 4 + RANDOM.integers(0, 64, (h, w, 3))).astype(np.uint8)


W, H = 37, 21
RGB = picture(W, H)
GREY = RGB.mean(2).astype(np.uint8)
ALPHA = RANDOM.integers(0, 256, (H, W), dtype=np.uint8)
ALPHA[:4] = 0
RGBA = np.dstack([RGB, ALPHA])
CMYK = np.dstack([RGB, GREY])


def pillow(name, image, **options):
    image.save(out := io.BytesIO(), name.rsplit(".", 1)[1].replace("jpg", "jpeg").replace("tif", "tiff"), **options)
    FILES[name] = out.getvalue()
    return FILES[name]


def opencv(name, pixels, *options):
    FILES[name] = cv2.imencode("." + name.rsplit(".", 1)[1], pixels[..., ::-1] if pixels.ndim == 3 else pixels, options)[1].tobytes()
    return FILES[name]


def tiff(name, pixels, **options):
    tifffile.imwrite(out := io.BytesIO(), pixels, **{"photometric": "rgb", "metadata": None, "software": False, **options})
    FILES[name] = out.getvalue()
    return FILES[name]


def refused(name, words, data=None):
    FILES[name], REFUSED[name] = FILES[name] if data is None else data, words


def arithmetic(pixels, progressive):
    """An arithmetic-coded JPEG by the libjpeg-turbo inside Pillow's wheel, at the offsets of its `jpeg_compress_struct`."""
    [library] = (Path(PIL.__file__).parent.parent / "pillow.libs").glob("libjpeg-*")
    jpeg = ctypes.CDLL(str(library))
    errors, info = ctypes.create_string_buffer(1024), ctypes.create_string_buffer(520)
    jpeg.jpeg_std_error.restype = ctypes.c_void_p
    struct.pack_into("Q", info, 0, jpeg.jpeg_std_error(errors))
    jpeg.jpeg_CreateCompress(info, 62, ctypes.c_size_t(520))
    out, size = ctypes.c_void_p(), ctypes.c_ulong()
    jpeg.jpeg_mem_dest(info, ctypes.byref(out), ctypes.byref(size))
    h, w, _ = pixels.shape
    struct.pack_into("IIii", info, 48, w, h, 3, 2)  # image_width, image_height, input_components, JCS_RGB
    jpeg.jpeg_set_defaults(info)
    if progressive:
        jpeg.jpeg_simple_progression(info)
    struct.pack_into("i", info, 260, 1)  # arith_code
    jpeg.jpeg_start_compress(info, 1)
    for row in np.ascontiguousarray(pixels):
        pointer = ctypes.c_void_p(row.ctypes.data)
        assert jpeg.jpeg_write_scanlines(info, ctypes.byref(pointer), 1) == 1
    jpeg.jpeg_finish_compress(info)
    return ctypes.string_at(out, size.value)


def jpegs():
    samplings = {"411": 0x411111, "420": 0x221111, "422": 0x211111, "440": 0x121111, "444": 0x111111}
    for name, factors in samplings.items():
        sampling = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factors)
        opencv(f"{name}.jpg", RGB, *sampling)
        opencv(f"{name}_progressive_restarts.jpg", RGB, *sampling, cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 1)
        for inks in ("CMYK", "YCCK"):
            data = imagecodecs.jpeg8_encode(CMYK, level=80, colorspace="CMYK", outcolorspace=inks, subsampling=name)
            FILES[f"{inks.lower()}_{name}.jpg"] = data
    for w, h in ((1, 1), (8, 8), (16, 16), (17, 33), (2, 130)):
        pillow(f"{w}x{h}.jpg", Image.fromarray(picture(w, h)))
    pillow("grey.jpg", Image.fromarray(GREY))
    pillow("grey_progressive.jpg", Image.fromarray(GREY), progressive=True)
    pillow("cmyk_adobe.jpg", Image.fromarray(CMYK, "CMYK"))
    FILES["rgb_stored.jpg"] = imagecodecs.jpeg8_encode(RGB, level=80, colorspace="RGB", outcolorspace="RGB")
    FILES["arithmetic.jpg"] = arithmetic(RGB, False)
    FILES["arithmetic_progressive.jpg"] = arithmetic(RGB, True)
    exif = Image.Exif()
    exif[0x0112] = 6
    pillow("orientation_6_is_left_alone.jpg", Image.fromarray(RGB), exif=exif)
    pillow("two_pictures.mpo", Image.fromarray(RGB), save_all=True, append_images=[Image.fromarray(RGB[::-1])])
    for name in ("420", "420_progressive_restarts"):
        whole = FILES[f"{name}.jpg"]
        FILES[f"{name}_trailing_junk.jpg"] = whole + b"junk" * 50
        FILES[f"{name}_cut_but_ended.jpg"] = whole[: len(whole) * 2 // 3] + b"\xff\xd9"
        for part in (1, 2, 3):
            refused(f"{name}_cut_{part}.jpg", "it is cut", whole[: len(whole) * part // 4])
        refused(f"{name}_not_ended.jpg", "it is cut", whole[:-2])
    refused("12_bits.jpg", "libjpeg says", imagecodecs.jpeg8_encode(RGB.astype(np.uint16) * 16, bitspersample=12))
    refused("header_alone.jpg", "it is cut", b"\xff\xd8\xff\xe0")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(name, bits, colour, channels, interlaced=0, extra=()):
    """Random samples of any depth, which no library writes."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    raw = b""
    for x, y, dx, dy in passes if interlaced else [(0, 0, 1, 1)]:
        w, h = -(-(W - x) // dx), -(-(H - y) // dy)
        for _ in range(h):
            raw += b"\0" + RANDOM.bytes((w * bits * channels + 7) // 8)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", W, H, bits, colour, 0, 0, interlaced)), *extra]
    chunks += [(b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    FILES[name] = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


def pngs():
    kinds = {"grey": (0, 1, (1, 2, 4, 8, 16)), "grey_alpha": (4, 2, (8, 16)), "rgb": (2, 3, (8, 16)), "rgba": (6, 4, (8, 16)),
             "palette": (3, 1, (1, 2, 4, 8))}
    for kind, (colour, channels, depths) in kinds.items():
        for bits in depths:
            palette = [(b"PLTE", RANDOM.bytes(3 * min(2**bits, 200)))] if kind == "palette" else []
            png(f"{kind}_{bits}.png", bits, colour, channels, extra=palette)
            if bits in (1, 16):
                png(f"{kind}_{bits}_interlaced.png", bits, colour, channels, 1, palette)
    png("grey_16_transparent.png", 16, 0, 1, extra=[(b"tRNS", b"\0\3")])
    png("palette_8_transparent.png", 8, 3, 1, extra=[(b"PLTE", RANDOM.bytes(768)), (b"tRNS", b"\0\1\2")])
    frames = [Image.fromarray(RGB[::-1]), Image.fromarray(RGB[:, ::-1])]
    for shown, name in ((False, "animated.png"), (True, "animated_default_image.png")):
        pillow(name, Image.fromarray(RGB), save_all=True, append_images=frames, default_image=shown)


def gif(name, pixels, screen, at, palettes=(None, None), transparent=None, interlaced=0):
    """A frame anywhere on a screen; palettes of the file and of the frame."""
    def table(palette):
        size = max(1, (len(palette) - 1).bit_length())
        return size - 1, palette.tobytes() + bytes(3 * ((1 << size) - len(palette)))

    (first, of_file), (second, of_frame) = [(0, b"") if p is None else table(p) for p in palettes]
    data = b"GIF89a" + struct.pack("<HHBBB", *screen, (0x80 if of_file else 0) | first, 7, 0) + of_file
    if transparent is not None:
        data += b"!\xf9\x04\x01\0\0" + bytes([transparent]) + b"\0"
    image = Image.fromarray(pixels, "P")
    image.putpalette(bytes(range(256)) * 3)
    image.save(whole := io.BytesIO(), "GIF", optimize=False, interlace=interlaced)
    at_frame = whole.getvalue().index(b",\0\0\0\0")
    flags = whole.getvalue()[at_frame + 9]
    packed = whole.getvalue()[at_frame + 10 + (3 << (flags & 7) + 1 if flags & 0x80 else 0) :]
    flags = flags & 0x40 | (0x80 if of_frame else 0) | second
    FILES[name] = data + b"," + struct.pack("<HHHHB", *at, *pixels.shape[::-1], flags) + of_frame + packed


def gifs():
    indices = RANDOM.integers(0, 256, (9, 12), dtype=np.uint8)
    colours, others = RANDOM.integers(0, 256, (2, 100, 3), dtype=np.uint8)
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)
    gif("plain.gif", indices, (12, 9), (0, 0), (colours, None))
    gif("interlaced.gif", indices, (12, 9), (0, 0), (colours, None), interlaced=1)
    gif("smaller_frame.gif", indices, (30, 20), (5, 6), (colours, None))
    gif("smaller_frame_transparent.gif", indices, (30, 20), (5, 6), (colours, others), transparent=50)
    gif("larger_frame.gif", indices, (10, 8), (3, 3), (colours, others))
    gif("no_palette.gif", indices, (30, 20), (5, 6), transparent=9)
    gif("grey_palette.gif", indices, (12, 9), (0, 0), (ramp[:16], None))
    gif("frames_grey_palette.gif", indices, (12, 9), (0, 0), (colours, ramp))
    frames = [Image.fromarray(RGB[::-1]).quantize(40), Image.fromarray(RGB).quantize(9)]
    pillow("animated.gif", Image.fromarray(RGB).quantize(60), save_all=True, append_images=frames, disposal=2)
    refused("cut.gif", "cut.gif", FILES["plain.gif"][:-40])


def bmp(name, bits, compression=0, masks=(), header=40, down=False, colours=0, data=None):
    stride = (W * bits + 31) // 32 * 4
    data = RANDOM.bytes(stride * H) if data is None else data
    each = 3 if header == 12 else 4
    palette = RANDOM.bytes(each * (colours or 2**bits)) if bits <= 8 else b""
    if header == 12:
        head = struct.pack("<IHHHH", 12, W, H, 1, bits)
    else:
        head = struct.pack("<IiiHHIIiiII", header, W, -H if down else H, 1, bits, compression, len(data), 0, 0, colours, 0)
        packed = struct.pack(f"<{len(masks)}I", *masks)
        head = head + packed if header == 40 else (head + packed).ljust(header, b"\0")
    offset = 14 + len(head) + len(palette)
    FILES[name] = b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + head + palette + data


def runs(bits):
    """Run lengths of all kinds: runs, literals, skips, ends of lines."""
    data = b""
    for row in range(H):
        left = W
        while left:
            n = min(left, int(RANDOM.integers(3, 9)))
            kind = RANDOM.integers(3) if n >= 3 else 0
            if kind == 1:
                literal = RANDOM.bytes(n if bits == 8 else (n + 1) // 2)
                data += bytes([0, n]) + literal + bytes(len(literal) % 2)
            elif kind == 2:
                data += bytes([0, 2, n, 0])
            else:
                data += bytes([n]) + RANDOM.bytes(1)
            left -= n
        data += b"\0\0"
    return data + b"\0\1"


def bmps():
    for bits in (1, 4, 8, 16, 24, 32):
        bmp(f"{bits}_bits.bmp", bits)
        bmp(f"{bits}_bits_down.bmp", bits, header=124, down=True)
    bmp("old_header.bmp", 8, header=12)
    bmp("few_colours.bmp", 8, colours=50)
    bmp("565.bmp", 16, 3, (0xF800, 0x7E0, 0x1F))
    bmp("555.bmp", 16, 3, (0x7C00, 0x3E0, 0x1F), header=56)
    bmp("argb.bmp", 32, 3, (0xFF0000, 0xFF00, 0xFF, 0xFF000000), header=124)
    bmp("rgba.bmp", 32, 3, (0xFF000000, 0xFF0000, 0xFF00, 0xFF), header=108)
    bmp("run_lengths_8.bmp", 8, 1, data=runs(8))
    bmp("run_lengths_4.bmp", 4, 2, data=runs(4))
    bmp("444.bmp", 16, 3, (0xF00, 0xF0, 0xF))
    refused("444.bmp", "its colours are in the bits")
    bmp("2_bits.bmp", 2)
    refused("2_bits.bmp", "it has 2 bits a pixel")
    refused("cut.bmp", "it is cut", FILES["24_bits.bmp"][:-9])


def pnms():
    for kind, channels in ((2, 1), (3, 3), (5, 1), (6, 3)):
        for most in (1, 100, 255, 1000, 65535):
            values = RANDOM.integers(0, most + 1, (H, W * channels))
            if kind < 4:
                body = "\n".join(" ".join(map(str, row)) for row in values).encode()
            else:
                body = values.astype(">u2" if most > 255 else "u1").tobytes()
            FILES[f"p{kind}_{most}.pnm"] = f"P{kind} # a comment\n{W}\n{H} #c\n{most}\n".encode() + body
    bits = RANDOM.integers(0, 2, (H, W))
    FILES["p1.pbm"] = f"P1\n{W} {H}\n".encode() + b"".join(b"%d" % bit for bit in bits.ravel())
    FILES["p4.pbm"] = f"P4\n{W} {H}\n".encode() + np.packbits(bits, axis=1).tobytes()
    FILES["floats.pfm"] = f"Pf\n{W} {H}\n-1.0\n".encode() + RANDOM.normal(120, 120, (H, W)).astype("<f4").tobytes()
    refused("p6_cut.ppm", "it is cut", FILES["p6_255.pnm"][:-1])
    refused("p3_cut.ppm", "it is cut", FILES["p3_255.pnm"][:-9])
    refused("p3_too_large.ppm", "value 1 is 200", b"P3\n2 1\n100\n1 200 3 4 5 6")
    refused("p6_maximum.ppm", "its maximum is 70000", b"P6\n1 1\n70000\n" + bytes(6))
    refused("p7.pam", "portable arbitrary", b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 3\nMAXVAL 255\nENDHDR\n" + bytes(3))


def webps():
    for name, options in {"lossy": {"quality": 60}, "best": {"quality": 100, "method": 6}, "lossless": {"lossless": True}}.items():
        pillow(f"{name}.webp", Image.fromarray(RGB), **options)
        pillow(f"{name}_alpha.webp", Image.fromarray(RGBA), exact=True, **options)
    pillow("animated.webp", Image.fromarray(RGBA), save_all=True, append_images=[Image.fromarray(RGBA[::-1])], lossless=True)
    refused("cut.webp", "cut.webp", FILES["lossy.webp"][:-60])


def tiffs():
    rows = {"rowsperstrip": 5}
    forms = {
        "plain": {}, "big_endian": {"byteorder": ">"}, "rows": rows, "tiles": {"tile": (16, 32)}, "big": {"bigtiff": True},
        "lzw": {"compression": "lzw"}, "lzw_predicted": {"compression": "lzw", "predictor": True, **rows},
        "deflate_tiles": {"compression": "zlib", "predictor": True, "tile": (16, 16)}, "packbits": {"compression": "packbits"},
        "zstd": {"compression": "zstd", "predictor": True, **rows},
    }
    for name, options in forms.items():
        tiff(f"{name}.tif", RGB, **options)
    for planar in ({}, {"compression": "zlib", "predictor": True}):
        tiff(f"planes_{len(planar)}.tif", np.moveaxis(RGB, 2, 0), planarconfig="separate", **planar)
    kinds = {
        "grey": (GREY, "minisblack"), "white_is_zero": (GREY, "miniswhite"), "bits": (GREY > 100, "minisblack"),
        "16_bits": (GREY.astype(np.uint16) * 3, "minisblack"), "signed_16": (GREY.astype(np.int16) * 3 - 200, "minisblack"),
        "32_bits": (GREY.astype(np.uint32) * 3, "minisblack"), "signed_32": (GREY.astype(np.int32) * 3 - 200, "minisblack"),
        "floats": (GREY.astype(np.float32) * 1.5 - 30, "minisblack"), "rgb_16": (RGB.astype(np.uint16) * 250, "rgb"),
        "cmyk": (CMYK, "separated"), "cmyk_16": (CMYK.astype(np.uint16) * 250, "separated"),
    }
    for name, (pixels, photometric) in kinds.items():
        tiff(f"{name}.tif", pixels, photometric=photometric)
        if name != "32_bits":  # of which Pillow knows little-endian ones alone
            tiff(f"{name}_big_endian.tif", pixels, photometric=photometric, byteorder=">")
        if name != "bits":
            tiff(f"{name}_deflate.tif", pixels, photometric=photometric, compression="zlib", predictor=True)
    for extra, name in ((0, "unspecified"), (1, "premultiplied"), (2, "alpha")):
        tiff(f"rgba_{name}.tif", RGBA, extrasamples=[extra], compression="lzw")
        tiff(f"rgba_16_{name}.tif", RGBA.astype(np.uint16) * 250, extrasamples=[extra])
    tiff("grey_alpha.tif", np.dstack([GREY, ALPHA]), photometric="minisblack", extrasamples=[2])
    tiff("palette.tif", GREY, photometric="palette", colormap=RANDOM.integers(0, 65536, (3, 256)).astype(np.uint16))
    for bits in (1, 4):
        pillow(f"palette_{bits}.tif", Image.fromarray(RGB).quantize(2**bits), compression="tiff_lzw")
    pillow("ycbcr.tif", Image.fromarray(RGB).convert("YCbCr"))
    for sampling in ((1, 1), (2, 1), (2, 2)):
        tiff(f"jpeg_{sampling[0]}{sampling[1]}.tif", picture(64, 48), photometric="ycbcr", compression="jpeg", subsampling=sampling, tile=(32, 32))
    tiff("jpeg_rgb.tif", RGB, compression="jpeg")
    tiff("jpeg_grey.tif", GREY, photometric="minisblack", compression="jpeg")
    for orientation in range(1, 10):
        pillow(f"orientation_{orientation}.tif", Image.fromarray(RGB[:5, :7]), tiffinfo={274: orientation})
    pillow("orientation_of_xmp.tif", Image.fromarray(RGB[:5, :7]), tiffinfo={700: b'<x tiff:Orientation="6"/>'})
    pillow("two_pages.tif", Image.fromarray(RGB), save_all=True, append_images=[Image.fromarray(GREY)])

    def retagged(name, order, old, new, pixels, **options):
        """With another number for a tag of one short: tifffile does not write such files."""
        data = tiff(name, pixels, **options)
        at = data.index(struct.pack(order + "HHI", old, 3, 1))
        FILES[name] = data[:at] + struct.pack(order + "H", new) + data[at + 2 :]

    nobodys = lambda value: {"extratags": [(65000, "H", 1, value, True)]}
    # Prediction (317) is not for PackBits, whatever is written.
    words = RGB.astype(np.uint16) * 250
    retagged("packbits_16_predicted.tif", ">", 65000, 317, words, compression="packbits", byteorder=">", **nobodys(3))
    planes = {"planarconfig": "separate"}
    retagged("planes_reversed.tif", "<", 65000, 266, np.moveaxis(RGB, 2, 0), **planes, **nobodys(2))  # FillOrder
    refused("planes_reversed.tif", "in separate planes")
    for name, pixels in (("planes_rgba_8.tif", RGBA), ("planes_rgba_16.tif", RGBA.astype(np.uint16) * 250)):
        extra = {"compression": "zlib", "extrasamples": [0]}
        retagged(name, "<", 338, 65000, np.moveaxis(pixels, 2, 0), **planes, **extra)  # no ExtraSamples
        refused(name, "in separate planes")

    tiff("floats_big_endian_deflate.tif", GREY.astype(np.float32), photometric="minisblack", byteorder=">", compression="zlib")
    refused("floats_big_endian_deflate.tif", "Pillow misreads")
    tiff("doubles.tif", GREY.astype(np.float64), photometric="minisblack")
    refused("doubles.tif", "1 floating-point samples of 64 bits (grey")
    tiff("lzma.tif", RGB, compression="lzma")
    refused("lzma.tif", "compression 34925 (LZMA) is not read")
    pillow("fax.tif", Image.fromarray(GREY).convert("1"), compression="group4")
    refused("fax.tif", "compression 4 (fax) is not read")
    pillow("ycbcr_lzw.tif", Image.fromarray(RGB).convert("YCbCr"), compression="tiff_lzw")
    refused("ycbcr_lzw.tif", "YCbCr with compression 5")
    pillow("lab.tif", Image.fromarray(RGB).convert("LAB"))
    refused("lab.tif", "Lab, photometric 8")
    refused("cut.tif", "it is cut", FILES["plain.tif"][:-100])
    refused("cut_lzw.tif", "it is cut", FILES["lzw.tif"][:-100])


def others():
    refused("page.jpg", "a web page (HTML)", b"<!DOCTYPE html>\n<html><body>404</body></html>\n")
    refused("jpeg_xl.jpg", "JPEG XL", imagecodecs.jpegxl_encode(RGB))
    pillow("avif.avif", Image.fromarray(RGB))
    refused("avif.jpg", "AVIF", FILES.pop("avif.avif"))
    refused("pointer.png", "git lfs pull", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    refused("empty.png", "the file is empty", b"")
    refused("zeros.jpg", "nothing but zeros", bytes(1000))
    FILES["png_inside.jpg"] = FILES["rgb_8.png"]
    header = struct.pack(">IIBBBBB", 65536, 65536, 8, 2, 0, 0, 0)
    refused("bomb.png", "65536x65536; 178956970 pixels are the most", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b""))
    pillow("panorama.png", Image.fromarray(np.tile(np.repeat(GREY[:1], 352, 1)[:, :13000], (500, 1))), optimize=True)


def main():
    for make in (jpegs, pngs, gifs, bmps, pnms, webps, tiffs, others):
        make()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    answers = {}
    for name, data in sorted(FILES.items()):
        (OUT / name).write_bytes(data)
        if name in REFUSED:
            answers[name] = REFUSED[name]
            continue
        image = Image.open(OUT / name).convert("RGB")
        answers[name] = [*image.size, hashlib.sha256(image.tobytes()).hexdigest()]
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(answer)}" for name, answer in answers.items())
    (OUT / "images.json").write_text("{\n" + lines + "\n}\n")
    print(f"{len(FILES)} files, {sum(map(len, FILES.values()))} bytes, {len(REFUSED)} of them refused")


if __name__ == "__main__":
    main()
