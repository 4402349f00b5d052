// From tokens to unit features, and back: the class token's row, and L2 normalisation.
//
//   rows_gather     out[b] = inp[b * T + row[b]]
//   rows_scatter    dinp[b * T + t] = t == row[b] ? dout[b] : 0
//   normalize       norm = |inp|,  out = inp / norm
//                   dinp = (dout - out <out, dout>) / norm
//
//   inp, dinp  (B, T, C) or (B, D) fp32      out, dout  (B, C) or (B, D) fp32      row  (B,) i32
//   all outputs written (=)
//
// Grid: rows_gather a CTA per b; rows_scatter a CTA per (b, t); normalize a CTA of 128 threads per b.
// Shared: 128 bytes (normalize). The logits themselves are a product (linear) with the text features.

#include "prelude.cuh"

extern "C" __global__ void __launch_bounds__(128)
rows_gather(float* __restrict__ out, const float* __restrict__ inp, const int* __restrict__ row, int T, int C) {
    int b = blockIdx.x;
    const float* from = inp + ((size_t)b * T + row[b]) * C;
    for (int c = threadIdx.x; c < C; c += blockDim.x) out[(size_t)b * C + c] = from[c];
}

extern "C" __global__ void __launch_bounds__(128)
rows_scatter(float* __restrict__ dinp, const float* __restrict__ dout, const int* __restrict__ row, int T, int C) {
    int b = blockIdx.x / T, t = blockIdx.x % T;
    float* to = dinp + (size_t)blockIdx.x * C;
    bool here = t == row[b];
    for (int c = threadIdx.x; c < C; c += blockDim.x) to[c] = here ? dout[(size_t)b * C + c] : 0.f;
}

extern "C" __global__ void __launch_bounds__(128)
normalize_forward(float* __restrict__ out, float* __restrict__ norm, const float* __restrict__ inp, int D) {
    const float* x = inp + (size_t)blockIdx.x * D;
    float squares = 0.f;
    for (int d = threadIdx.x; d < D; d += blockDim.x) squares += x[d] * x[d];
    float length = sqrtf(block_sum(squares));
    if (threadIdx.x == 0) norm[blockIdx.x] = length;
    for (int d = threadIdx.x; d < D; d += blockDim.x) out[(size_t)blockIdx.x * D + d] = x[d] / length;
}

extern "C" __global__ void __launch_bounds__(128)
normalize_backward(float* __restrict__ dinp, const float* __restrict__ dout, const float* __restrict__ out,
                   const float* __restrict__ norm, int D) {
    const float* y = out + (size_t)blockIdx.x * D;
    const float* dy = dout + (size_t)blockIdx.x * D;
    float along = 0.f;
    for (int d = threadIdx.x; d < D; d += blockDim.x) along += y[d] * dy[d];
    along = block_sum(along);
    float length = norm[blockIdx.x];
    for (int d = threadIdx.x; d < D; d += blockDim.x)
        dinp[(size_t)blockIdx.x * D + d] = (dy[d] - y[d] * along) / length;
}
