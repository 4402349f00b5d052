// Sums over each image's rows, in two steps of one fixed order, which is the same whatever the number of images.
//
//   segment_partial   out[s][chunk][n] = sum of inp[s][r][n] over the `each` rows r of a chunk
//   segment_finish    the same of what that has written, or of anything in float, in one chunk
//
//   inp (S, R, N) E, or float for segment_finish   out (S, ceil(R / each), N) float written (=)
//
// Grid: a CTA per 32 W columns, chunks in y, images in z; its four warps take every fourth row, and are added in their order.
// W is WIDTH: neighbours that are read at once, 16 bytes at most, of which N is a multiple. Shared: 128 W floats, of a warp's
// sums four of every lane beside those of the next, then the other four: so no access has a bank conflict.

#include "element.cuh"

#ifndef WIDTH
#define WIDTH 1
#endif
#define WARPS 4

template <int W, typename T>
__device__ __forceinline__ void segment_sum(float* out, const T* inp, int R, int N, int each) {
    constexpr int AT_ONCE = W < 4 ? W : 4, PARTS = W / AT_ONCE;
    __shared__ alignas(16) float of_warps[WARPS][PARTS][32 * AT_ONCE];
    int n = (blockIdx.x * 32 + lane_id()) * W;
    int end = min((int)(blockIdx.y + 1) * each, R);
    float sum[PARTS][AT_ONCE] = {};
    if (n < N) {
        const T* from = inp + (u64)blockIdx.z * R * N + n;
#pragma unroll 4
        for (int r = blockIdx.y * each + warp_id(); r < end; r += WARPS) {
            float x[W];
            load_pack<W>(x, from + (u64)r * N);
#pragma unroll
            for (int i = 0; i < W; ++i) sum[i / AT_ONCE][i % AT_ONCE] += x[i];
        }
    }
#pragma unroll
    for (int part = 0; part < PARTS; ++part) store_pack<AT_ONCE>(&of_warps[warp_id()][part][lane_id() * AT_ONCE], sum[part]);
    __syncthreads();
    if (warp_id() > 0 || n >= N) return;
#pragma unroll
    for (int part = 0; part < PARTS; ++part) {
#pragma unroll
        for (int warp = 1; warp < WARPS; ++warp) {
            float x[AT_ONCE];
            load_pack<AT_ONCE>(x, &of_warps[warp][part][lane_id() * AT_ONCE]);
#pragma unroll
            for (int i = 0; i < AT_ONCE; ++i) sum[part][i] += x[i];
        }
        store_pack<AT_ONCE>(out + ((u64)blockIdx.z * gridDim.y + blockIdx.y) * N + n + part * AT_ONCE, sum[part]);
    }
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
segment_partial(float* __restrict__ out, const E* __restrict__ inp, int R, int N, int each) {
    segment_sum<WIDTH>(out, inp, R, N, each);
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
segment_finish(float* __restrict__ out, const float* __restrict__ inp, int R, int N) {
    segment_sum<(WIDTH > 4 ? 4 : WIDTH)>(out, inp, R, N, R);
}
