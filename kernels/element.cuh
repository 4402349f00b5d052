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

// Two halves in a register, the first in its low bits.
__device__ __forceinline__ u32 to_halves(float first, float second) {
    u32 pair;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
#else
    half low, high;
    from_float(low, first);
    from_float(high, second);
    pair = low.bits | (u32)high.bits << 16;
#endif
    return pair;
}
__device__ __forceinline__ void from_halves(float& first, float& second, u32 pair) {
    asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %2;\ncvt.f32.f16 %0, low;\ncvt.f32.f16 %1, high;\n}"
        : "=f"(first), "=f"(second)
        : "r"(pair));
}

// W neighbours, read and written 16 bytes at a time, or all at once where they are fewer.
template <typename T, int W>
struct alignas(W * sizeof(T) < 16 ? W * sizeof(T) : 16) Pack {
    T x[W];
};

template <int W>
__device__ __forceinline__ void load_pack(float (&to)[W], const float* from) {
    Pack<float, W> pack = *(const Pack<float, W>*)from;
#pragma unroll
    for (int i = 0; i < W; ++i) to[i] = pack.x[i];
}

template <int W>
__device__ __forceinline__ void load_pack(float (&to)[W], const half* from) {
    if constexpr (W == 1) {
        to[0] = to_float(*from);
    } else {
        Pack<u32, W / 2> pack = *(const Pack<u32, W / 2>*)from;
#pragma unroll
        for (int i = 0; i < W; i += 2) from_halves(to[i], to[i + 1], pack.x[i / 2]);
    }
}

template <int W>
__device__ __forceinline__ void store_pack(float* to, const float (&from)[W]) {
    if constexpr (W % 4 == 0) {
#pragma unroll
        for (int i = 0; i < W; i += 4) store4(to + i, make_float4(from[i], from[i + 1], from[i + 2], from[i + 3]));
    } else {
        Pack<float, W> pack;
#pragma unroll
        for (int i = 0; i < W; ++i) pack.x[i] = from[i];
        *(Pack<float, W>*)to = pack;
    }
}

template <int W>
__device__ __forceinline__ void store_pack(half* to, const float (&from)[W]) {
    if constexpr (W == 1) {
        from_float(*to, from[0]);
    } else {
        Pack<u32, W / 2> pack;
#pragma unroll
        for (int i = 0; i < W; i += 2) pack.x[i / 2] = to_halves(from[i], from[i + 1]);
        *(Pack<u32, W / 2>*)to = pack;
    }
}

#if ELEMENT_HALF
typedef half E;
#else
typedef float E;
#endif
