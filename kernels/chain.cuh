// Views by chains of operations on 8-bit pixels: what the kernels of chain.cu, move.cu and mix.cu say of them.
//
// View i of S·N is of image i / N; it has L chains of up to K = STEPS / L steps. The pictures that they work on are of
// H × H pixels, or with side = 0 of their image's size; A is the most pixels of one.
//
//   descs   (S,) ImageDesc          read
//   params  (S, N) ViewParams       read; views of other kinds are passed over
//   bases   (S·N, A) u32            what a view's chains begin with: red, green and blue from the lowest byte
//   layers  (S·N, L, 2, A) u32      a chain's picture after its odd steps that move pixels, and after its even ones
//   levels  (S·N, L, 3, 256) u8     what has become of the picture's levels since then
//   plans   (S·N, STEPS) Plan       what each step is and works on
//   lines   (S·N, STEPS, side) Line of a shear: of each row, or column; side is the longer one of the largest picture
//
// A step that changes each level by itself is not made until a pixel is read again: `levels` holds what it comes to. So
// memory sees the pictures only where pixels move, where levels are counted, and at the end.

#pragma once

#include "jitter.cuh"

struct Shape { int N, L, side, area, lines; };

// A step: known before there are pixels, so that no CTA needs to find it out again.
struct Plan {
    double xx, xy, x0, yx, yy, y0;           // of what is turned or sheared: Image.transform's matrix
    long long fxx, fxy, fx0, fyx, fyy, fy0;  // in fixed point: of 40 bits, from a pixel to one; nearest, of 16, to the pixel's
    u32 operation;                           // IDENTITY where it changes no pixels
    float argument;
    u32 times, has_levels;                   // pixels' changes before it, and whether levels have changed since
    u32 end_times, end_has_levels;           // the same of the whole chain
    u32 begins_levels;                       // whether it is the first to change levels since then
    int w, h;
    u32 is_bilinear, fill;
    int right, down;                         // where what is translated comes from
};
static_assert(sizeof(Plan) == 152, "the host allocates 152 bytes a step");

// A row or column that a shear moves along itself: by `offset` whole pixels and a part of one, the same for all its pixels,
// of which `factor` is 65536 times, near enough for every two levels; 0 where none is. `half` is 1 if the part is 1/2 or more.
struct Line { short offset, half; u32 factor; };

struct Chain {
    const ViewParams* params;
    int view, number, w, h;
    u32 depth;
    const Step* steps;
    bool exists;

    // Chain `item` of S·N·L.
    __device__ Chain(const ImageDesc* descs, const ViewParams* all, const Shape& shape, int item) {
        view = item / shape.L;
        number = item % shape.L;
        params = all + view;
        ImageDesc image = descs[view / shape.N];
        w = shape.side ? shape.side : image.w;
        h = shape.side ? shape.side : image.h;
        exists = image.w != 0 && params->kind >= RESIZED_CHAINS;
        depth = exists ? params->depths[number] : 0;
        steps = params->steps + number * (STEPS / shape.L);
    }

    static __device__ bool changes_levels(u32 operation) { return operation < COLOR; }

    __device__ int shift(const Step& step) const {
        return (int)((double)step.argument * (step.operation == TRANSLATE_X ? w : h));
    }

    // A step that changes nothing is left out, as by Image.rotate.
    __device__ bool changes_pixels(const Step& step) const {
        if (step.operation == TRANSLATE_X || step.operation == TRANSLATE_Y) return shift(step) != 0;
        if (step.operation == COLOR || step.operation == SHARPNESS) return step.argument != 1.f;
        return step.operation > SHARPNESS && step.operation != IDENTITY && step.argument != 0.f;
    }

    // Before step k: how often pixels have been changed, and whether levels have since.
    __device__ void before(u32 k, u32* times, u32* has_levels) const {
        *times = *has_levels = 0;
        for (u32 i = 0; i < k; ++i) {
            if (changes_levels(steps[i].operation)) *has_levels = 1;
            if (!changes_pixels(steps[i])) continue;
            ++*times;
            *has_levels = 0;
        }
    }
};

// The picture of chain `item` of S·N·L after it has changed so often.
__device__ __forceinline__ u32* picture(u32* layers, int item, const Shape& shape, u32 times) {
    return layers + (2 * (size_t)item + (times - 1 & 1)) * shape.area;
}

__device__ __forceinline__ const u32* picture(const u32* bases, u32* layers, int item, const Shape& shape, u32 times) {
    return times == 0 ? bases + (size_t)(item / shape.L) * shape.area : picture(layers, item, shape, times);
}

// Of chain `item`'s step k.
__device__ __forceinline__ size_t plan_of(int item, const Shape& shape, int k) {
    return (size_t)(item / shape.L) * STEPS + item % shape.L * (STEPS / shape.L) + k;
}

__device__ __forceinline__ u32 with_levels(const u8 (*table)[256], u32 p) {
    return packed((int)table[0][p & 255], (int)table[1][p >> 8 & 255], (int)table[2][p >> 16]);
}
