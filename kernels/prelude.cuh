// What every kernel shares: types, limits, warp and block reductions, 16-byte loads.
// No CUDA header is included: NVRTC's wheel has none.

#pragma once

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define FLT_MAX 3.402823466e38f

__device__ __forceinline__ int lane_id() { return threadIdx.x & 31; }
__device__ __forceinline__ int warp_id() { return threadIdx.x >> 5; }
__device__ __forceinline__ int warp_count() { return blockDim.x >> 5; }

// Butterflies: every lane gets the same bits.
__device__ __forceinline__ float warp_sum(float x) {
    for (int mask = 16; mask > 0; mask >>= 1) x += __shfl_xor_sync(0xffffffff, x, mask);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
    for (int mask = 16; mask > 0; mask >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, mask));
    return x;
}

// Sum over a CTA of whole warps; every thread gets it. Holds two barriers, so shared writes made
// before it are seen by all after it, and it may be called again at once.
__device__ __forceinline__ float block_sum(float x) {
    __shared__ float warp_sums[32];
    x = warp_sum(x);
    __syncthreads();
    if (lane_id() == 0) warp_sums[warp_id()] = x;
    __syncthreads();
    return warp_sum(lane_id() < warp_count() ? warp_sums[lane_id()] : 0.f);
}

// As the hardware has it, within 2^-22.
__device__ __forceinline__ float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Shared memory's own addresses have 32 bits.
__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

__device__ __forceinline__ float4 load4(const float* p) { return *reinterpret_cast<const float4*>(p); }
__device__ __forceinline__ void store4(float* p, float4 v) { *reinterpret_cast<float4*>(p) = v; }
