// Layer norm over the last dimension, and its gradient (Ba et al., arXiv 1607.06450), of S images' rows in a batch.
//
//   mean = sum_c x / C      rstd = 1 / sqrt(sum_c (x - mean)² / C + eps)      h = (x - mean) rstd
//   out  = h w + b
//   dx   = rstd (g - sum_c g / C - h sum_c (g h) / C) + residual       g = dout w
//   per image, over its rows:   dw[c] = sum dout h      db[c] = sum dout      sum[c] = sum dx
//
//   inp (rows, C) float, out (rows, C) E; or in two terms of float16 with INP_TERMS, OUT_TERMS: a row has C first ones, then C
//   second ones, that many times what they are. Backward takes inp's first ones alone, which are as exact as dout is
//   mean, rstd (rows,) float   w, b (C,) float, or a set for each group or image, `param_step` apart
//   dout (rows, C) E   dx (rows, C) E, which may be dout itself
//   residual (rows / every, C) E, or null: of each `every`-th row from the first (1: of all; T: of class tokens)
//   partial (S, 3, chunks, C) float: dw, db, sum over each 64 rows of an image, for segment.cu to finish. All written (=).
//
// With TOKENS=T the rows are the tokens that enter a tower, of sequences of T: the class embedding, then the projected patches,
// each with its position's embedding. Nobody writes them:
//
//   x[v][0] = class + position[0]      x[v][t] = inp[v][t - 1] + position[t]      inp (sequences, T - 1, C) float
//
//   class (C,) and position (T, C) float, shared, or each group's own, so many elements apart   dx (sequences, T - 1, C) E, of
//   patches alone   partial (S, 3, T, C): a chunk is all of an image's rows of a token, so the third are dposition itself, and
//   dclass its first
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

#ifndef TOKENS
#define TOKENS 0
#endif
#ifndef INP_TERMS
#define INP_TERMS 0
#endif
#if INP_TERMS
typedef E Inp;
#else
typedef float Inp;
#endif
#ifndef OUT_TERMS
#define OUT_TERMS 0
#endif

constexpr int C = COLUMNS;
constexpr int INP_ROW = INP_TERMS ? 2 * C : C, OUT_ROW = OUT_TERMS ? 2 * C : C;
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

// What is normed.
struct Input {
    const Inp* rows;
#if TOKENS
    const float *class_embedding, *position;
#endif
};

// This thread's columns of a row; where it is in terms, of both or of the first.
template <bool BOTH>
__device__ __forceinline__ void load_input(float (&x)[PACKS][W], const Input& input, u64 row) {
#if TOKENS
    u32 sequence = (u32)row / TOKENS, token = (u32)row % TOKENS;
    float place[PACKS][W];
    load_row(x, token > 0 ? input.rows + (row - sequence - 1) * C : input.class_embedding);
    load_row(place, input.position + token * C);
#pragma unroll
    for (int p = 0; p < PACKS; ++p)
#pragma unroll
        for (int i = 0; i < W; ++i) x[p][i] += place[p][i];
#else
    load_row(x, input.rows + row * INP_ROW);
#if INP_TERMS
    if (BOTH) {
        float second[PACKS][W];
        load_row(second, input.rows + row * INP_ROW + C);
#pragma unroll
        for (int p = 0; p < PACKS; ++p)
#pragma unroll
            for (int i = 0; i < W; ++i) x[p][i] = fmaf(1.f / INP_TERMS, second[p][i], x[p][i]);
    }
#endif
#endif
}

#if TOKENS
#define TOKEN_PARAMS \
    , const float* __restrict__ class_embedding, const float* __restrict__ position, int class_step, int position_step
#define TOKENS_OF_GROUP , class_embedding + (u64)blockIdx.y * class_step, position + (u64)blockIdx.y * position_step
#else
#define TOKEN_PARAMS
#define TOKENS_OF_GROUP
#endif

// What else a multiprocessor could run is no reason to spill.
extern "C" __global__ void __launch_bounds__(THREADS, 512 / THREADS)
norm_forward(E* __restrict__ out, float* __restrict__ mean, float* __restrict__ rstd, const Inp* __restrict__ inp,
             const float* __restrict__ weight, const float* __restrict__ bias, int param_step, int rows, int each,
             float eps TOKEN_PARAMS) {
    Input input = {inp TOKENS_OF_GROUP};
    float w[PACKS][W], b[PACKS][W], x[PACKS][W];
    load_row(w, weight + (u64)blockIdx.y * param_step);
    load_row(b, bias + (u64)blockIdx.y * param_step);
    int end = min((int)(blockIdx.x + 1) * each, rows);
    for (int first = blockIdx.x * each; first < end; first += AT_ONCE) {
        bool here = first + slot() < end;
        if (ROW_WARPS == 1 && !here) break;
        u64 row = (u64)blockIdx.y * rows + (here ? first + slot() : first);
        load_input<true>(x, input, row);
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
                store_pack<W>(out + row * OUT_ROW + column(p), x[p]);
                if (OUT_TERMS) {
#pragma unroll
                    for (int i = 0; i < W; ++i) {
                        E high;
                        from_float(high, x[p][i]);
                        x[p][i] = OUT_TERMS * (x[p][i] - to_float(high));
                    }
                    store_pack<W>(out + row * OUT_ROW + C + column(p), x[p]);
                }
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
norm_backward(E* dx, float* __restrict__ partial, const E* dout, const Inp* __restrict__ inp,
              const float* __restrict__ mean, const float* __restrict__ rstd, const float* __restrict__ weight, int param_step,
              const E* __restrict__ residual, int every, int rows TOKEN_PARAMS) {
    Input input = {inp TOKENS_OF_GROUP};
    float w[PACKS][W], h[PACKS][W], g[PACKS][W];
    float dw[PACKS][W] = {}, db[PACKS][W] = {}, along_rows[PACKS][W] = {};
    load_row(w, weight + (u64)blockIdx.y * param_step);
#if TOKENS
    int begin = 0, end = rows / TOKENS, apart = TOKENS, token = blockIdx.x;
#else
    int begin = blockIdx.x * CHUNK, end = min(begin + CHUNK, rows), apart = 1, token = 0;
#endif
    for (int first = begin; first < end; first += AT_ONCE) {
        bool here = first + slot() < end;
        if (ROW_WARPS == 1 && !here) break;
        u64 row = (u64)blockIdx.y * rows + (here ? first + slot() : first) * apart + token;
        load_input<false>(h, input, row);
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
#if TOKENS
        u64 to = (row - (u32)row / TOKENS - 1) * C;
#else
        u64 to = row * C;
#endif
#pragma unroll
        for (int p = 0; p < PACKS; ++p)
            if (exists(p)) {
                float d[W] = {};
                if (adds) load_pack<W>(d, residual + from + column(p));
#pragma unroll
                for (int i = 0; i < W; ++i) {
                    d[i] = fmaf(r, fmaf(-slope, h[p][i], g[p][i] - level), d[i]);
                    along_rows[p][i] += d[i];
                }
                if (!TOKENS || token > 0) store_pack<W>(dx + to + column(p), d);
            }
    }
    u64 kind = (u64)gridDim.x * C;
    float* sums = partial + blockIdx.y * 3 * kind + blockIdx.x * C;
    store_sums(sums, dw);
    store_sums(sums + kind, db);
    store_sums(sums + 2 * kind, along_rows);
}
