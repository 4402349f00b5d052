// E: the type of operands and of what is kept for the gradient. float, or float16 where the source is compiled with
// ELEMENT_HALF=1. Sums and statistics are float either way; a value becomes E only where it is stored.

#pragma once

#include "prelude.cuh"

// A float16, of which only the bits are known here: there is no CUDA header to include.
struct alignas(2) half {
    unsigned short bits;
};

__device__ __forceinline__ float to_float(half x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
__device__ __forceinline__ float to_float(float x) { return x; }

// To the nearest, ties to even; past 65504 infinity.
__device__ __forceinline__ void from_float(half& y, float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }
__device__ __forceinline__ void from_float(float& y, float x) { y = x; }

// W neighbours, read and written 16 bytes at a time, or all at once where they are fewer.
template <typename T, int W>
struct alignas(W * sizeof(T) < 16 ? W * sizeof(T) : 16) Pack {
    T x[W];
};

template <int W, typename T>
__device__ __forceinline__ void load_pack(float (&to)[W], const T* from) {
    Pack<T, W> pack = *(const Pack<T, W>*)from;
#pragma unroll
    for (int i = 0; i < W; ++i) to[i] = to_float(pack.x[i]);
}

template <int W, typename T>
__device__ __forceinline__ void store_pack(T* to, const float (&from)[W]) {
    Pack<T, W> pack;
#pragma unroll
    for (int i = 0; i < W; ++i) from_float(pack.x[i], from[i]);
    *(Pack<T, W>*)to = pack;
}

#if ELEMENT_HALF
typedef half E;
#else
typedef float E;
#endif
