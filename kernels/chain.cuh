// Views by chains of operations on 8-bit pixels: what the kernels of chain.cu and mix.cu say of them.
//
// View i of S·N is of image i / N; it has L chains of up to K = STEPS / L steps. The pictures that they work on are of
// H × H pixels, or with side = 0 of their image's size; A is the most pixels of one.
//
//   descs   (S,) ImageDesc          read
//   params  (S, N) ViewParams       read; views of other kinds are passed over
//   bases   (S·N, A) u32            what a view's chains begin with: red, green and blue from the lowest byte
//   layers  (S·N, L, 2, A) u32      a chain's picture after its odd steps that move pixels, and after its even ones
//   levels  (S·N, L, 3, 256) u8     what has become of the picture's levels since then
//   ends    (S·N, L) End
//   lines   (S·N, L, lines) Line    of a shear's rows or columns; `lines` is the longer side of the largest picture
//
// A step that changes each level by itself is not made until pixels move: a table holds what it comes to, at the end `levels`.

#pragma once

#include "jitter.cuh"

struct Shape { int N, L, side, area, lines; };

#define CHAIN_THREADS 512  // that take a chain through its steps

// Of a chain: how often pixels have changed, and whether levels have since.
struct End { u32 times, has_levels; };

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
};

// The picture of chain `item` of S·N·L after it has changed so often.
__device__ __forceinline__ u32* picture(u32* layers, int item, const Shape& shape, u32 times) {
    return layers + (2 * (size_t)item + (times - 1 & 1)) * shape.area;
}

__device__ __forceinline__ const u32* picture(const u32* bases, u32* layers, int item, const Shape& shape, u32 times) {
    return times == 0 ? bases + (size_t)(item / shape.L) * shape.area : picture(layers, item, shape, times);
}

__device__ __forceinline__ u32 with_levels(const u8 (*table)[256], u32 p) {
    return packed((int)table[0][p & 255], (int)table[1][p >> 8 & 255], (int)table[2][p >> 16]);
}
