// The steps of a chain that change each level by itself, by a CTA, as Pillow does them, bit for bit. The definition in plain
// loops is src/ops/pillow_steps.rs.
//
// Products are not fused into sums where Pillow rounds each: compile with --fmad=false.

#pragma once

#include "chain.cuh"
#include "ptx.cuh"

// 255.0 / n to the bit, of 1 to 255: by a reciprocal that is made exact, and of what that leaves. A division is a call, for which
// registers are spilled.
__device__ __forceinline__ double share_of_255(int n) {
    double reciprocal = __fdividef(1.f, (float)n);
#pragma unroll
    for (int i = 0; i < 3; ++i) reciprocal = fma(fma(-reciprocal, (double)n, 1.0), reciprocal, reciprocal);
    double q = 255.0 * reciprocal;
    return fma(fma(-q, (double)n, 255.0), reciprocal, q);
}

// ImageOps.autocontrast and .equalize of a channel, of its levels' counts, by a warp: what becomes of each level.
__device__ void spread(bool equalize, const u32* counts, u8* out) {
    u32 sum = 0;
    int low = 256, high = -1;
    for (int i = 0; i < 8; ++i) {
        int level = 8 * lane_id() + i;
        sum += counts[level];
        if (counts[level] == 0) continue;
        low = min(low, level);
        high = level;
    }
    u32 below = sum;  // of the levels up to this lane's last
    for (int delta = 1; delta < 32; delta *= 2) {
        u32 lower = __shfl_up_sync(0xffffffff, below, delta);
        if (lane_id() >= delta) below += lower;
    }
    for (int mask = 16; mask > 0; mask >>= 1) {
        low = min(low, __shfl_xor_sync(0xffffffff, low, mask));
        high = max(high, __shfl_xor_sync(0xffffffff, high, mask));
    }
    u32 step = (__shfl_sync(0xffffffff, below, 31) - counts[high]) / 255;
    u32 before = step / 2 + below - sum;
    double scale = share_of_255(max(high - low, 1)), offset = -low * scale;
    for (int i = 0; i < 8; ++i) {
        int level = 8 * lane_id() + i, value = level;
        if (equalize && low < high && step != 0) value = min(before / step, 255u);
        if (!equalize && low < high) value = min(max((int)(level * scale + offset), 0), 255);
        out[level] = value;
        before += counts[level];
    }
}

// What becomes of a picture's levels.
struct Levels {
    u8 table[3][256];    // so far
    u8 changed[3][256];  // of them by one more step
    u32 counts[3][256];  // in the picture itself
    u32 mapped[3][256];  // in what the table makes of it
    u64 luma_sum;
};

// With no change.
__device__ void begin_levels(Levels& is) {
    for (int i = threadIdx.x; i < 768; i += blockDim.x) is.table[0][i] = i;
    __syncthreads();
}

__device__ void count_levels(const u32* picture, int count, Levels& is) {
    for (int i = threadIdx.x; i < 768; i += blockDim.x) is.counts[0][i] = 0;
    __syncthreads();
    u32 counts = shared_address(is.counts);
#pragma unroll 4
    for (int i = threadIdx.x; i < count; i += CHAIN_THREADS) {
        u32 p = picture[i];
        count_one<0>(word_of<0>(counts, p));
        count_one<1024>(word_of<8>(counts, p));
        count_one<2048>(word_of<16>(counts, p));
    }
    __syncthreads();
}

// One more step. `counts` are those of the picture if the step goes by them.
__device__ void change_levels(const Step& step, const u32* picture, int count, Levels& is) {
    u8* entries = is.table[0];
    bool spreads = step.operation == AUTOCONTRAST || step.operation == EQUALIZE;
    if (spreads) {
        for (int i = threadIdx.x; i < 768; i += blockDim.x) is.mapped[0][i] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < 768; i += blockDim.x) atomicAdd(&is.mapped[i >> 8][entries[i]], is.counts[0][i]);
        __syncthreads();
        if (warp_id() < 3) spread(step.operation == EQUALIZE, is.mapped[warp_id()], is.changed[warp_id()]);
    } else if (step.operation == CONTRAST_OF) {
        if (threadIdx.x == 0) is.luma_sum = 0;
        __syncthreads();
        u32 own = 0;
        for (int i = threadIdx.x; i < count; i += blockDim.x) own += (u32)luma(unpacked(with_levels(is.table, picture[i])));
        atomicAdd(&is.luma_sum, (u64)own);
    }
    __syncthreads();
    u32 mean = 0;  // (2·sum + count) / (2·count), bit by bit, since a division is a call
    for (u32 bit = 128; bit > 0 && step.operation == CONTRAST_OF; bit >>= 1)
        if (2 * (u64)count * (mean + bit) <= 2 * is.luma_sum + count) mean += bit;
    u32 mask = ~((1u << (8 - min((u32)step.argument, 8u))) - 1);
    for (int i = threadIdx.x; i < 768; i += blockDim.x) {
        int value = entries[i];
        if (spreads) value = is.changed[i >> 8][value];
        else if (step.operation == POSTERIZE) value &= mask;
        else if (step.operation == SOLARIZE) value = (float)value < step.argument ? value : 255 - value;
        else value = (int)blend((float)mean, (float)value, step.argument);
        entries[i] = value;
    }
    __syncthreads();
}
