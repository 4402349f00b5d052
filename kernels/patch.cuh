// Where patches lie, of P pixels a side: `src/ops/patches.rs`.

#pragma once

#include "element.cuh"

// From one to the next. Behind its 3·P·P values are zeros up to a multiple of 8, so that rows of operands begin at multiples
// of 16 bytes.
__device__ __forceinline__ int patch_pitch(int P) { return (3 * P * P + 7) & ~7; }

// These zeros, of `count` patches `step` apart; by `threads` threads.
__device__ __forceinline__ void pad_patches(E* patches, int P, int count, int step, int thread, int threads) {
    int len = 3 * P * P, zeros = patch_pitch(P) - len;
    for (int i = thread; i < count * zeros; i += threads) from_float(patches[(size_t)(i / zeros) * step + len + i % zeros], 0.f);
}
