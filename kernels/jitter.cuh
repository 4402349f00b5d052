// Colour jitter of 8-bit pixels with Pillow's results, bit for bit: the definition is src/ops/pillow.rs.
// A pixel's channels are whole numbers of 0 to 255 in float, in which all steps but the hue's are made.
//
// Products are not fused into sums where Pillow rounds each: compile with --fmad=false.

#pragma once

#include "prelude.cuh"
#include "view.cuh"

struct Rgb { float r, g, b; };

__device__ __forceinline__ Rgb unpacked(u32 p) {
    return {(float)(p & 255), (float)(p >> 8 & 255), (float)(p >> 16 & 255)};
}

__device__ __forceinline__ u32 packed(int r, int g, int b) { return r | g << 8 | b << 16; }
__device__ __forceinline__ u32 packed(Rgb p) { return packed((int)p.r, (int)p.g, (int)p.b); }

// Image.convert("L"): the sum is below 2^24, so it is exact.
__device__ __forceinline__ float luma(Rgb p) {
    float sum = fmaf(p.r, 19595.f, fmaf(p.g, 38470.f, fmaf(p.b, 7471.f, 32768.f)));
    return (float)(int)(sum * 0x1p-16f);
}

// Image.blend: float, clamped, truncated.
__device__ __forceinline__ float blend(float degenerate, float value, float factor) {
    float t = degenerate + factor * (value - degenerate);
    return (float)(int)fminf(fmaxf(t, 0.f), 255.f);
}

// a / b rounded to nearest for the few quotients of `turn_hue`: by a reciprocal that may be off by 4 units in the last
// place, and of what that leaves.
__device__ __forceinline__ float quotient(float a, float b, float reciprocal) {
    float q = a * reciprocal;
    return fmaf(fmaf(-q, b, a), reciprocal, q);
}

// To HSV, `shift` further round the wheel, and back: what Pillow's mixture of float and double comes to, for every
// colour and every place on the wheel.
// - The hue, in sectors, is that of the main colour, `base`, more or less 1, less or more a quotient; rounded once.
// - The saturation and the colour of a hue are whole quotients, rounded down and to nearest; none is near a tie.
// Selects rather than branches, since neighbours differ. A grey has saturation 0, and then any hue gives it back.
__device__ __forceinline__ Rgb turn_hue(Rgb p, int shift) {
    float less = fminf(p.r, p.g), more = fmaxf(p.r, p.g);
    float high = fmaxf(more, p.b), low = fminf(less, p.b), middle = fmaxf(less, fminf(more, p.b));
    float range = high - low;
    bool red = p.r == high, green = p.g == high;
    bool back = red ? p.g < p.b : green ? p.b < p.r : p.r < p.g;  // before the main colour
    float base = red ? 0.f : green ? 2.f : 4.f;
    float q = quotient(high - middle, range, __fdividef(1.f, range));
    float place = back ? base - 1.f + q : base + 1.f - q;
    const float sixth = 1.f / 6.f;
    float turn = red && back ? fmaf(place, sixth, 1.f) : quotient(place, 6.f, sixth);
    u32 hue = ((int)(turn * 255.f) + shift) & 255;
    u32 saturation = (int)(fmaf(range, 255.f, 0.5f) * __fdividef(1.f, fmaxf(high, 1.f)));

    u32 top = (int)high, sector = 6 * hue / 255, rest = 6 * hue - 255 * sector;  // at most 6, which is 0, and 254
    u32 bottom = ((255 - saturation) * top + 128) * 257 >> 16;
    u32 side = (top * (65025 - saturation * (sector & 1 ? rest : 255 - rest)) + 32512) / 65025;
    // Red and green by the sector, of 0 top, 1 side, 2 bottom: a byte a sector, red's number in its lower half.
    u32 numbers = __byte_perm(0x12020110, 0x00102021, sector);
    u32 two = __byte_perm(top | side << 8 | bottom << 16, 0, numbers);
    u32 r = two & 255, g = two >> 8 & 255;
    return {(float)r, (float)g, (float)(top + side + bottom - r - g)};
}

__device__ __forceinline__ Rgb blend(float grey, Rgb p, float factor) {
    return {blend(grey, p.r, factor), blend(grey, p.g, factor), blend(grey, p.b, factor)};
}

// What an image's jitter is.
struct Jitters {
    u32 steps;  // from the lowest byte on: a Jitter plus 1 each, 0 where they end
    float brightness, contrast, saturation;
    int hue;  // added to the hue modulo 256
};

// `steps` in their order; `mean` is contrast's grey. N pixels at once, for one look at a step.
template <int N>
__device__ __forceinline__ void jitter(Rgb (&p)[N], u32 steps, const Jitters& by, float mean) {
#pragma unroll 1
    for (; steps != 0; steps >>= 8) {
        int step = (int)(steps & 255) - 1;
        if (step == HUE) {
#pragma unroll
            for (int i = 0; i < N; ++i) p[i] = turn_hue(p[i], by.hue);
        } else if (step == SATURATION) {
#pragma unroll
            for (int i = 0; i < N; ++i) p[i] = blend(luma(p[i]), p[i], by.saturation);
        } else {
            float grey = step == CONTRAST ? mean : 0.f, factor = step == CONTRAST ? by.contrast : by.brightness;
#pragma unroll
            for (int i = 0; i < N; ++i) p[i] = blend(grey, p[i], factor);
        }
    }
}
