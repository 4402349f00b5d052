// Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
// A counter and a key give four words; no state, so any draw can be made anywhere, alone.

#pragma once

__device__ __forceinline__ uint4 philox4x32_10(uint4 counter, uint2 key) {
    for (int round = 0; round < 10; ++round) {
        u64 a = 0xD2511F53ull * counter.x, b = 0xCD9E8D57ull * counter.z;
        counter = make_uint4((u32)(b >> 32) ^ counter.y ^ key.x, (u32)b,
                             (u32)(a >> 32) ^ counter.w ^ key.y, (u32)a);
        key.x += 0x9E3779B9u;
        key.y += 0xBB67AE85u;
    }
    return counter;
}

// Uniform in [0, 1): the word's upper 24 bits, exact in float.
__device__ __forceinline__ float uniform(u32 word) { return (word >> 8) * 0x1p-24f; }

// Uniform in [low, high].
__device__ __forceinline__ float uniform(u32 word, float low, float high) {
    return fmaf(high - low, uniform(word), low);
}

// Uniform in 0 .. n-1; its bias is at most n / 2^32.
__device__ __forceinline__ u32 uniform_below(u32 word, u32 n) { return ((u64)word * n) >> 32; }
