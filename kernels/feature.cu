// From tokens to unit features, and back: one token's row of each sequence, and L2 normalisation.
//
//   token_gather         out[b] = inp[b][at]         at = row[b], or 0 where there is no `row`: the class token
//   token_scatter        dinp[b][t] = t == at ? dout[b] : 0
//   normalize_forward    norm = |inp|,  out = inp / norm
//   normalize_backward   dinp = (dout - out <out, dout>) / norm
//
//   tokens: inp, dinp (B, T, C) float   out, dout (B, C) float   row (B,) i32, or null
//   features: inp, out, dout (B, C) float   norm (B,) float   dinp (B, C) E: what the projection's backward products take
//   all outputs written (=). Features stay float32: their product with the text features is small, and is one in float32.
//
// Grid: token_gather a CTA of 192 threads per b; token_scatter one per (b, t); normalize a warp per b, 4 a CTA.
// W is WIDTH: neighbours that are read at once, of which C is a multiple.

#include "element.cuh"

#ifndef WIDTH
#define WIDTH 1
#endif
#define W WIDTH

extern "C" __global__ void __launch_bounds__(192)
token_gather(float* __restrict__ out, const float* __restrict__ inp, const int* __restrict__ row, int T, int C) {
    u64 b = blockIdx.x;
    const float* from = inp + (b * T + (row ? row[b] : 0)) * C;
    for (int c = threadIdx.x * W; c < C; c += blockDim.x * W) {
        float x[W];
        load_pack<W>(x, from + c);
        store_pack<W>(out + b * C + c, x);
    }
}

extern "C" __global__ void __launch_bounds__(192)
token_scatter(float* __restrict__ dinp, const float* __restrict__ dout, const int* __restrict__ row, int T, int C) {
    u64 b = blockIdx.x / T;
    bool here = blockIdx.x % T == (row ? row[b] : 0);
    for (int c = threadIdx.x * W; c < C; c += blockDim.x * W) {
        float x[W] = {};
        if (here) load_pack<W>(x, dout + b * C + c);
        store_pack<W>(dinp + (u64)blockIdx.x * C + c, x);
    }
}

extern "C" __global__ void __launch_bounds__(128)
normalize_forward(float* __restrict__ out, float* __restrict__ norm, const float* __restrict__ inp, int B, int C) {
    int b = blockIdx.x * warp_count() + warp_id();
    if (b >= B) return;
    const float* from = inp + (u64)b * C;
    float x[W], squares = 0.f;
    for (int c = lane_id() * W; c < C; c += 32 * W) {
        load_pack<W>(x, from + c);
#pragma unroll
        for (int i = 0; i < W; ++i) squares = fmaf(x[i], x[i], squares);
    }
    float length = sqrtf(warp_sum(squares));
    if (lane_id() == 0) norm[b] = length;
    for (int c = lane_id() * W; c < C; c += 32 * W) {
        load_pack<W>(x, from + c);
#pragma unroll
        for (int i = 0; i < W; ++i) x[i] = x[i] / length;
        store_pack<W>(out + (u64)b * C + c, x);
    }
}

extern "C" __global__ void __launch_bounds__(128)
normalize_backward(E* __restrict__ dinp, const float* __restrict__ dout, const float* __restrict__ out,
                   const float* __restrict__ norm, int B, int C) {
    int b = blockIdx.x * warp_count() + warp_id();
    if (b >= B) return;
    float y[W], dy[W], along = 0.f, length = norm[b];
    for (int c = lane_id() * W; c < C; c += 32 * W) {
        load_pack<W>(y, out + (u64)b * C + c);
        load_pack<W>(dy, dout + (u64)b * C + c);
#pragma unroll
        for (int i = 0; i < W; ++i) along = fmaf(y[i], dy[i], along);
    }
    along = warp_sum(along);
    for (int c = lane_id() * W; c < C; c += 32 * W) {
        load_pack<W>(y, out + (u64)b * C + c);
        load_pack<W>(dy, dout + (u64)b * C + c);
#pragma unroll
        for (int i = 0; i < W; ++i) dy[i] = (dy[i] - y[i] * along) / length;
        store_pack<W>(dinp + (u64)b * C + c, dy);
    }
}
