// Sums over the rows of a matrix, in two steps of fixed order: the same shape gives the same bits.
//
//   columns_partial   partial[chunk][n] = sum of inp[m][n] over the chunk's 64 rows
//   columns_sum       out[n] = sum of partial[chunk][n] over the chunks
//
//   inp (M, N) fp32   partial (ceil(M / 64), N) fp32 written (=)   out (N,) fp32 written (=)
//
// Grid: a thread per column, 128 a CTA; columns_partial: times the chunks in y.

#include "prelude.cuh"

#define CHUNK 64

extern "C" __global__ void __launch_bounds__(128)
columns_partial(float* __restrict__ partial, const float* __restrict__ inp, int M, int N) {
    int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= N) return;
    int end = min((int)(blockIdx.y + 1) * CHUNK, M);
    float sum = 0.f;
    for (int m = blockIdx.y * CHUNK; m < end; ++m) sum += inp[(size_t)m * N + n];
    partial[(size_t)blockIdx.y * N + n] = sum;
}

extern "C" __global__ void __launch_bounds__(128)
columns_sum(float* __restrict__ out, const float* __restrict__ partial, int chunks, int N) {
    int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= N) return;
    float sum = 0.f;
    for (int chunk = 0; chunk < chunks; ++chunk) sum += partial[(size_t)chunk * N + n];
    out[n] = sum;
}
