// Token and position embeddings of the text tower.
//
//   out[b][t] = table[ids[b][t]] + position[t]
//
//   out (B, T, C) fp32 written (=)   ids (B, T) i32   table (V, C) fp32   position (T, C) fp32
//
// Grid: a CTA of 128 threads per (b, t).

#include "prelude.cuh"

extern "C" __global__ void __launch_bounds__(128)
token_embed_forward(float* __restrict__ out, const int* __restrict__ ids, const float* __restrict__ table,
                    const float* __restrict__ position, int T, int C) {
    const float* token = table + (size_t)ids[blockIdx.x] * C;
    const float* place = position + (size_t)(blockIdx.x % T) * C;
    for (int c = threadIdx.x; c < C; c += blockDim.x) out[(size_t)blockIdx.x * C + c] = token[c] + place[c];
}
