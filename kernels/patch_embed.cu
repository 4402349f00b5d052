// The tokens that enter the vision tower: the class embedding, then the projected patches, each with
// its position's embedding. The projection itself is a product (linear).
//
//   embed    out[b][0] = class + position[0]      out[b][t] = projected[b][t - 1] + position[t]
//   split    dprojected[b][t - 1] = dout[b][t]
//   sum      dposition[t] = sum_b dout[b][t]      dclass = dposition[0]
//
//   out, dout (B, T, C)   projected, dprojected (B, T - 1, C)   class, dclass (C,)
//   position, dposition (T, C): all fp32, outputs written (=). Sums run over b in order.
//
// Grid: embed and split a CTA of 128 threads per (b, t); sum a thread per element of (T, C), 128 a CTA.

#include "prelude.cuh"

extern "C" __global__ void __launch_bounds__(128)
patch_embed_assemble(float* __restrict__ out, const float* __restrict__ projected, const float* __restrict__ class_embedding,
                     const float* __restrict__ position, int T, int C) {
    int b = blockIdx.x / T, t = blockIdx.x % T;
    const float* from = t == 0 ? class_embedding : projected + ((size_t)b * (T - 1) + t - 1) * C;
    for (int c = threadIdx.x; c < C; c += blockDim.x)
        out[(size_t)blockIdx.x * C + c] = from[c] + position[(size_t)t * C + c];
}

extern "C" __global__ void __launch_bounds__(128)
patch_embed_split(float* __restrict__ dprojected, const float* __restrict__ dout, int T, int C) {
    int b = blockIdx.x / (T - 1), t = blockIdx.x % (T - 1) + 1;
    const float* from = dout + ((size_t)b * T + t) * C;
    for (int c = threadIdx.x; c < C; c += blockDim.x) dprojected[(size_t)blockIdx.x * C + c] = from[c];
}

extern "C" __global__ void __launch_bounds__(128)
patch_embed_sum(float* __restrict__ dposition, float* __restrict__ dclass, const float* __restrict__ dout, int B, int T,
                int C) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= T * C) return;
    float sum = 0.f;
    for (int b = 0; b < B; ++b) sum += dout[(size_t)b * T * C + i];
    dposition[i] = sum;
    if (i < C) dclass[i] = sum;
}
