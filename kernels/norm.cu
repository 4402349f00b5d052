// Layer norm over the last dimension, and its gradient (Ba et al., arXiv 1607.06450), of S images' rows in a batch.
//
//   mean = sum_c x / C      rstd = 1 / sqrt(sum_c (x - mean)² / C + eps)      h = (x - mean) rstd
//   out  = h w + b
//   dx   = rstd (g - sum_c g / C - h sum_c (g h) / C) + residual       g = dout w
//   per image, over its rows:   dw[c] = sum dout h      db[c] = sum dout      sum[c] = sum dx
//
//   inp (rows, C) float   out, dout (rows, C) E   mean, rstd (rows,) float
//   w, b (C,) float, or a set for each group or image, `param_step` apart
//   dx (rows, C) E, and what E's digits leave of it, over `second`, in low (rows, C) E, or null; or float with DX_FLOAT=1, and
//   then it may be dout itself
//   residual, residual_low (rows / every, C) E, likewise, or null: of each `every`-th row from the first (1: of all, and then
//   residual_low may be low; T: of class tokens)
//   partial (S, chunks, 3, C) float: dw, db, sum over each 64 rows of an image, for segment.cu to finish. All written (=).
//
// C is COLUMNS. A row is read once, by as many warps as have 24 columns a lane at most, and stays in their registers, as do
// the weights and a lane's columns of the sums; rows that a warp has follow one another, and no CTA has two images'.
// Grid: forward a CTA per `each` rows of a group, groups in y; backward a CTA per chunk, images in y. norm_threads() threads.
// Shared: the sums of a CTA's warps are added in their order, one kind after another: up to 12 KiB.

#include "element.cuh"

#ifndef COLUMNS
#define COLUMNS 768
#endif
#define CHUNK 64

#if DX_FLOAT
typedef float Gradient;
#else
typedef E Gradient;
#endif

constexpr int C = COLUMNS;
constexpr int W = C % 4 == 0 ? 4 : C % 2 == 0 ? 2 : 1;  // read at once
constexpr int ROW_WARPS = (C + 24 * 32 - 1) / (24 * 32);
constexpr int AT_ONCE = ROW_WARPS < 4 ? 4 / ROW_WARPS : 1;  // rows that a CTA has in hand
constexpr int THREADS = 32 * ROW_WARPS * AT_ONCE;           // `norm_threads` of src/ops/norm.rs
constexpr int STRIDE = 32 * ROW_WARPS * W;                  // columns from one of a thread's packs to the next
constexpr int PACKS = (C + STRIDE - 1) / STRIDE;

__device__ __forceinline__ int slot() { return threadIdx.x / (32 * ROW_WARPS); }
__device__ __forceinline__ int column(int pack) { return threadIdx.x % (32 * ROW_WARPS) * W + pack * STRIDE; }
__device__ __forceinline__ bool exists(int pack) { return (pack + 1) * STRIDE <= C || column(pack) < C; }

// N sums over the threads of a row, each of which gets them. All of the CTA's threads are here.
template <int N>
__device__ __forceinline__ void row_sums(float (&x)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = warp_sum(x[i]);
    if constexpr (ROW_WARPS > 1) {
        __shared__ float of_warps[AT_ONCE][ROW_WARPS][N];
        __syncthreads();
        if (lane_id() == 0)
            for (int i = 0; i < N; ++i) of_warps[slot()][warp_id() % ROW_WARPS][i] = x[i];
        __syncthreads();
#pragma unroll
        for (int i = 0; i < N; ++i) {
            x[i] = of_warps[slot()][0][i];
#pragma unroll
            for (int warp = 1; warp < ROW_WARPS; ++warp) x[i] += of_warps[slot()][warp][i];
        }
    }
}

// This thread's columns of a row.
template <typename T>
__device__ __forceinline__ void load_row(float (&x)[PACKS][W], const T* row) {
#pragma unroll
    for (int p = 0; p < PACKS; ++p)
        if (exists(p)) load_pack<W>(x[p], row + column(p));
        else
#pragma unroll
            for (int i = 0; i < W; ++i) x[p][i] = 0.f;
}

// What else a multiprocessor could run is no reason to spill.
extern "C" __global__ void __launch_bounds__(THREADS, 512 / THREADS)
norm_forward(E* __restrict__ out, float* __restrict__ mean, float* __restrict__ rstd, const float* __restrict__ inp,
             const float* __restrict__ weight, const float* __restrict__ bias, int param_step, int rows, int each, float eps) {
    float w[PACKS][W], b[PACKS][W], x[PACKS][W];
    load_row(w, weight + (u64)blockIdx.y * param_step);
    load_row(b, bias + (u64)blockIdx.y * param_step);
    int end = min((int)(blockIdx.x + 1) * each, rows);
    for (int first = blockIdx.x * each; first < end; first += AT_ONCE) {
        bool here = first + slot() < end;
        if (ROW_WARPS == 1 && !here) break;
        u64 row = (u64)blockIdx.y * rows + (here ? first + slot() : first);
        load_row(x, inp + row * C);
        float sum[1] = {0.f}, squares[1] = {0.f};
#pragma unroll
        for (int p = 0; p < PACKS; ++p)
#pragma unroll
            for (int i = 0; i < W; ++i) sum[0] += x[p][i];
        row_sums(sum);
        float m = sum[0] / C;
#pragma unroll
        for (int p = 0; p < PACKS; ++p)
            if (exists(p))
#pragma unroll
                for (int i = 0; i < W; ++i) {
                    x[p][i] -= m;
                    squares[0] = fmaf(x[p][i], x[p][i], squares[0]);
                }
        row_sums(squares);
        float r = 1.f / sqrtf(squares[0] / C + eps);
        if (!here) continue;
#pragma unroll
        for (int p = 0; p < PACKS; ++p)
            if (exists(p)) {
#pragma unroll
                for (int i = 0; i < W; ++i) x[p][i] = fmaf(x[p][i] * r, w[p][i], b[p][i]);
                store_pack<W>(out + row * C + column(p), x[p]);
            }
        if (column(0) == 0) {
            mean[row] = m;
            rstd[row] = r;
        }
    }
}

// The CTA's sums of one kind: each thread's columns of all slots, added in the order of the slots.
__device__ __forceinline__ void store_sums(float* to, const float (&x)[PACKS][W]) {
    if constexpr (AT_ONCE == 1) {
#pragma unroll
        for (int p = 0; p < PACKS; ++p)
            if (exists(p)) store_pack<W>(to + column(p), x[p]);
    } else {
        __shared__ alignas(16) float of_slots[AT_ONCE][C];
        __syncthreads();
#pragma unroll
        for (int p = 0; p < PACKS; ++p)
            if (exists(p)) store_pack<W>(&of_slots[slot()][column(p)], x[p]);
        __syncthreads();
        for (int c = threadIdx.x * W; c < C; c += THREADS * W) {
            float sum[W], more[W];
            load_pack<W>(sum, &of_slots[0][c]);
#pragma unroll
            for (int s = 1; s < AT_ONCE; ++s) {
                load_pack<W>(more, &of_slots[s][c]);
#pragma unroll
                for (int i = 0; i < W; ++i) sum[i] += more[i];
            }
            store_pack<W>(to + c, sum);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, THREADS > 256 ? 1 : 256 / THREADS)
norm_backward(Gradient* dx, E* low, float* __restrict__ partial, const E* dout, const float* __restrict__ inp,
              const float* __restrict__ mean, const float* __restrict__ rstd, const float* __restrict__ weight, int param_step,
              const E* __restrict__ residual, const E* residual_low, int every, float second, int rows) {
    float w[PACKS][W], h[PACKS][W], g[PACKS][W];
    float dw[PACKS][W] = {}, db[PACKS][W] = {}, along_rows[PACKS][W] = {};
    load_row(w, weight + (u64)blockIdx.y * param_step);
    float scale = 1.f / second;
    int end = min((int)(blockIdx.x + 1) * CHUNK, rows);
    for (int first = blockIdx.x * CHUNK; first < end; first += AT_ONCE) {
        bool here = first + slot() < end;
        if (ROW_WARPS == 1 && !here) break;
        u64 row = (u64)blockIdx.y * rows + (here ? first + slot() : first);
        load_row(h, inp + row * C);
        load_row(g, dout + row * C);
        float m = mean[row], r = rstd[row], sums[2] = {0.f, 0.f};
#pragma unroll
        for (int p = 0; p < PACKS; ++p)
#pragma unroll
            for (int i = 0; i < W; ++i) {
                h[p][i] = (h[p][i] - m) * r;
                if (ROW_WARPS == 1 || here) {
                    dw[p][i] = fmaf(g[p][i], h[p][i], dw[p][i]);
                    db[p][i] += g[p][i];
                }
                g[p][i] *= w[p][i];
                sums[0] += g[p][i];
                sums[1] = fmaf(g[p][i], h[p][i], sums[1]);
            }
        row_sums(sums);
        if (!here) continue;
        float level = sums[0] / C, slope = sums[1] / C;
        bool adds = residual && row % every == 0;
        u64 from = row / every * C;
#pragma unroll
        for (int p = 0; p < PACKS; ++p)
            if (exists(p)) {
                float d[W] = {}, rest[W] = {};
                if (adds) {
                    load_pack<W>(d, residual + from + column(p));
                    if (residual_low) load_pack<W>(rest, residual_low + from + column(p));
                }
#pragma unroll
                for (int i = 0; i < W; ++i) {
                    d[i] = fmaf(r, fmaf(-slope, h[p][i], g[p][i] - level), fmaf(second, rest[i], d[i]));
                    along_rows[p][i] += d[i];
                }
                store_pack<W>(dx + row * C + column(p), d);
                if (low) {
#pragma unroll
                    for (int i = 0; i < W; ++i) {
                        Gradient high;
                        from_float(high, d[i]);
                        rest[i] = scale * (d[i] - to_float(high));
                    }
                    store_pack<W>(low + row * C + column(p), rest);
                }
            }
    }
    float* to = partial + ((u64)blockIdx.y * gridDim.x + blockIdx.x) * 3 * C;
    store_sums(to, dw);
    store_sums(to + C, db);
    store_sums(to + 2 * C, along_rows);
}
