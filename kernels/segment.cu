// Sums over each image's rows, in two steps of one fixed order, which is the same whatever the number of images.
//
//   segment_partial   out[s][chunk][n] = sum of inp[s][r][n] over the `each` rows r of a chunk
//   segment_finish    the same of what that has written, or of anything in float, in one chunk
//
//   inp (S, R, N) E, or float for segment_finish   out (S, ceil(R / each), N) float written (=)
//
// Grid: a CTA per 32 W columns, chunks in y, images in z; its four warps take every fourth row, and are added in their order.
// W is WIDTH: neighbours that are read at once, 16 bytes at most, of which N is a multiple. Shared: 128 W floats.

#include "element.cuh"

#ifndef WIDTH
#define WIDTH 1
#endif
#define WARPS 4

template <int W, typename T>
__device__ __forceinline__ void segment_sum(float* out, const T* inp, int R, int N, int each) {
    __shared__ alignas(16) float of_warps[WARPS][32 * W];
    int n = (blockIdx.x * 32 + lane_id()) * W;
    int end = min((int)(blockIdx.y + 1) * each, R);
    float sum[W] = {};
    if (n < N) {
        const T* from = inp + (u64)blockIdx.z * R * N + n;
#pragma unroll 4
        for (int r = blockIdx.y * each + warp_id(); r < end; r += WARPS) {
            float x[W];
            load_pack<W>(x, from + (u64)r * N);
#pragma unroll
            for (int i = 0; i < W; ++i) sum[i] += x[i];
        }
    }
    store_pack<W>(&of_warps[warp_id()][lane_id() * W], sum);
    __syncthreads();
    if (warp_id() > 0 || n >= N) return;
#pragma unroll
    for (int warp = 1; warp < WARPS; ++warp) {
        float x[W];
        load_pack<W>(x, &of_warps[warp][lane_id() * W]);
#pragma unroll
        for (int i = 0; i < W; ++i) sum[i] += x[i];
    }
    store_pack<W>(out + ((u64)blockIdx.z * gridDim.y + blockIdx.y) * N + n, sum);
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
segment_partial(float* __restrict__ out, const E* __restrict__ inp, int R, int N, int each) {
    segment_sum<WIDTH>(out, inp, R, N, each);
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
segment_finish(float* __restrict__ out, const float* __restrict__ inp, int R, int N) {
    segment_sum<(WIDTH > 4 ? 4 : WIDTH)>(out, inp, R, N, R);
}
