// Layer norm over the last dimension, and its gradient (Ba et al., arXiv 1607.06450).
//
//   mean = sum_c x / C      rstd = 1 / sqrt(sum_c (x - mean)² / C + eps)      h = (x - mean) rstd
//   out  = h w + b
//   dinp = rstd (g - sum_c g / C - h sum_c (g h) / C)       g = dout w
//   dw[c] = sum_n dout h      db[c] = sum_n dout
//
//   inp, out, dinp, dout (N, C) fp32   mean, rstd (N,) fp32   w, b, dw, db (C,) fp32
//   out, mean, rstd written (=); dinp written (=), or added (+=) where `accumulate`;
//   the parameters' gradients as partial sums (chunks, 2, C), dw then db, for reduce.cu to finish.
//
// Grid: forward and backward a warp per row, 4 a CTA; params a thread per column, 128 a CTA, times
// chunks of 64 rows in y.

#include "prelude.cuh"

#define CHUNK 64

extern "C" __global__ void __launch_bounds__(128)
layernorm_forward(float* __restrict__ out, float* __restrict__ mean, float* __restrict__ rstd,
                  const float* __restrict__ inp, const float* __restrict__ weight, const float* __restrict__ bias, int N,
                  int C, float eps) {
    int n = blockIdx.x * warp_count() + warp_id();
    if (n >= N) return;
    const float* x = inp + (size_t)n * C;
    float sum = 0.f, squares = 0.f;
    for (int c = lane_id(); c < C; c += 32) sum += x[c];
    float m = warp_sum(sum) / C;
    for (int c = lane_id(); c < C; c += 32) squares += (x[c] - m) * (x[c] - m);
    float r = 1.f / sqrtf(warp_sum(squares) / C + eps);
    for (int c = lane_id(); c < C; c += 32) out[(size_t)n * C + c] = (x[c] - m) * r * weight[c] + bias[c];
    if (lane_id() == 0) {
        mean[n] = m;
        rstd[n] = r;
    }
}

extern "C" __global__ void __launch_bounds__(128)
layernorm_backward(float* __restrict__ dinp, const float* __restrict__ dout, const float* __restrict__ inp,
                   const float* __restrict__ weight, const float* __restrict__ mean, const float* __restrict__ rstd, int N,
                   int C, int accumulate) {
    int n = blockIdx.x * warp_count() + warp_id();
    if (n >= N) return;
    const float* x = inp + (size_t)n * C;
    const float* dy = dout + (size_t)n * C;
    float* dx = dinp + (size_t)n * C;
    float m = mean[n], r = rstd[n], sum = 0.f, along = 0.f;
    for (int c = lane_id(); c < C; c += 32) {
        float g = dy[c] * weight[c];
        sum += g;
        along += g * (x[c] - m) * r;
    }
    sum = warp_sum(sum) / C;
    along = warp_sum(along) / C;
    for (int c = lane_id(); c < C; c += 32) {
        float d = r * (dy[c] * weight[c] - sum - (x[c] - m) * r * along);
        dx[c] = accumulate ? dx[c] + d : d;
    }
}

extern "C" __global__ void __launch_bounds__(128)
layernorm_backward_params(float* __restrict__ partial, const float* __restrict__ dout, const float* __restrict__ inp,
                          const float* __restrict__ mean, const float* __restrict__ rstd, int N, int C) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= C) return;
    int end = min((int)(blockIdx.y + 1) * CHUNK, N);
    float dw = 0.f, db = 0.f;
    for (int n = blockIdx.y * CHUNK; n < end; ++n) {
        float dy = dout[(size_t)n * C + c];
        dw += dy * (inp[(size_t)n * C + c] - mean[n]) * rstd[n];
        db += dy;
    }
    partial[(size_t)blockIdx.y * 2 * C + c] = dw;
    partial[(size_t)blockIdx.y * 2 * C + C + c] = db;
}
