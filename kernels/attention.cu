// Multi-head self-attention and its gradient, for any number of tokens; nothing of size (T, T) is kept.
//
//   S = scale Q Kᵀ (causal: keys after the query are left out)      P = softmax(S)      out = P V
//   lse = log sum exp S                                             D = sum_d dout out
//   dV = Pᵀ dout      dS = P (dout Vᵀ - D)      dQ = scale dS K      dK = scale dSᵀ Q
//
//   qkv, dqkv (B, T, 3, NH, HS) fp32   out, dout (B, T, NH, HS) fp32   lse, delta (B, NH, T) fp32
//   out, lse, dqkv, delta written (=).   HS ≤ 128; scale = 1 / sqrt(HS).
//
// Grid: (ceil(T / 32), NH, B) CTAs of 8 warps; a warp has 4 of the CTA's 32 rows (queries; keys in
// backward_kv), all warps share tiles of 32 columns, a lane per column for scores, a lane per
// dimension for sums. The softmax is taken online (Milakov and Gimelshein, arXiv 1805.02867), P is
// recomputed in the backward pass (Dao et al., arXiv 2205.14135).
// Shared: (2 · 32 (HS + 1) + 2 · 32 HS + 512) floats.

#include "prelude.cuh"

#define ROWS 32      // of a CTA
#define TILE 32      // columns at a time
#define WARP_ROWS 4  // of a warp
#define PARTS 4      // dimensions of a lane: HS ≤ 128


struct Shared {
    float* x;       // (TILE, HS + 1) columns; padded: lanes read down a column without conflicts
    float* y;       // (TILE, HS + 1)
    float* row_x;   // (ROWS, HS)
    float* row_y;   // (ROWS, HS)
    float* weight;  // (8 warps, 2, TILE)
};

__device__ __forceinline__ Shared carve(float* shared, int HS) {
    Shared s;
    s.x = shared;
    s.y = s.x + TILE * (HS + 1);
    s.row_x = s.y + TILE * (HS + 1);
    s.row_y = s.row_x + ROWS * HS;
    s.weight = s.row_y + ROWS * HS;
    return s;
}

// Rows first .. first + 32 of one head, each `stride` after the last; absent rows are zero.
__device__ __forceinline__ void load_rows(float* to, int pitch, const float* from, int first, int T, size_t stride, int HS) {
    for (int i = threadIdx.x; i < 32 * HS; i += blockDim.x) {
        int row = i / HS, d = i % HS;
        to[row * pitch + d] = first + row < T ? from[(first + row) * stride + d] : 0.f;
    }
}

__device__ __forceinline__ float dot(const float* a, const float* b, int HS) {
    float sum = 0.f;
    for (int d = 0; d < HS; ++d) sum = fmaf(a[d], b[d], sum);
    return sum;
}

// acc[d] += sum_j weight[j] x[j][d], this lane's dimensions.
__device__ __forceinline__ void add_weighted(float* acc, const float* weight, const float* x, int HS) {
#pragma unroll
    for (int part = 0; part < PARTS; ++part) {
        int d = part * 32 + lane_id();
        if (part * 32 >= HS) break;
        const float* column = x + min(d, HS - 1);
        float sum = acc[part];
        for (int j = 0; j < TILE; ++j) sum = fmaf(weight[j], column[j * (HS + 1)], sum);
        acc[part] = sum;
    }
}

__device__ __forceinline__ void store_row(float* to, const float* acc, float factor, int HS) {
#pragma unroll
    for (int part = 0; part < PARTS; ++part) {
        int d = part * 32 + lane_id();
        if (d < HS) to[d] = acc[part] * factor;
    }
}

extern "C" __global__ void __launch_bounds__(256)
attention_forward(float* __restrict__ out, float* __restrict__ lse, const float* __restrict__ qkv, int T, int NH, int HS,
                  float scale, int causal) {
    extern __shared__ float shared[];
    Shared s = carve(shared, HS);
    int first = blockIdx.x * ROWS, head = blockIdx.y, b = blockIdx.z;
    size_t C = (size_t)NH * HS, stride = 3 * C;
    const float* q = qkv + (size_t)b * T * stride + head * HS;
    float* weight = s.weight + warp_id() * 2 * TILE;

    load_rows(s.row_x, HS, q, first, T, stride, HS);
    float acc[WARP_ROWS][PARTS] = {}, most[WARP_ROWS], sum[WARP_ROWS] = {};
#pragma unroll
    for (int r = 0; r < WARP_ROWS; ++r) most[r] = -FLT_MAX;

    int end = causal ? min(first + ROWS, T) : T;
    for (int tile = 0; tile < end; tile += TILE) {
        __syncthreads();
        load_rows(s.x, HS + 1, q + C, tile, T, stride, HS);
        load_rows(s.y, HS + 1, q + 2 * C, tile, T, stride, HS);
        __syncthreads();
        int key = tile + lane_id();
#pragma unroll
        for (int r = 0; r < WARP_ROWS; ++r) {
            int row = first + warp_id() * WARP_ROWS + r;
            if (row >= T || (causal && tile > row)) continue;
            float score = scale * dot(s.row_x + (row - first) * HS, s.x + lane_id() * (HS + 1), HS);
            bool in = key < T && !(causal && key > row);
            float top = fmaxf(most[r], warp_max(in ? score : -FLT_MAX));
            float p = in ? expf(score - top) : 0.f;
            float keep = expf(most[r] - top);
            sum[r] = sum[r] * keep + warp_sum(p);
            most[r] = top;
            weight[lane_id()] = p;
            __syncwarp();
#pragma unroll
            for (int part = 0; part < PARTS; ++part) acc[r][part] *= keep;
            add_weighted(acc[r], weight, s.y, HS);
            __syncwarp();
        }
    }
#pragma unroll
    for (int r = 0; r < WARP_ROWS; ++r) {
        int row = first + warp_id() * WARP_ROWS + r;
        if (row >= T) continue;
        store_row(out + ((size_t)b * T + row) * C + head * HS, acc[r], 1.f / sum[r], HS);
        if (lane_id() == 0) lse[((size_t)b * NH + head) * T + row] = most[r] + logf(sum[r]);
    }
}

// delta[b][h][t] = sum_d dout out: a warp per (b, t, h), 8 a CTA.
extern "C" __global__ void __launch_bounds__(256)
attention_delta(float* __restrict__ delta, const float* __restrict__ dout, const float* __restrict__ out, int rows, int T,
                int NH, int HS) {
    int i = blockIdx.x * warp_count() + warp_id();  // counts (b, t, h)
    if (i >= rows) return;
    float sum = 0.f;
    for (int d = lane_id(); d < HS; d += 32) sum += dout[(size_t)i * HS + d] * out[(size_t)i * HS + d];
    sum = warp_sum(sum);
    int h = i % NH, t = i / NH % T, b = i / NH / T;
    if (lane_id() == 0) delta[((size_t)b * NH + h) * T + t] = sum;
}

extern "C" __global__ void __launch_bounds__(256)
attention_backward_q(float* __restrict__ dqkv, const float* __restrict__ dout, const float* __restrict__ qkv,
                     const float* __restrict__ lse, const float* __restrict__ delta, int T, int NH, int HS, float scale,
                     int causal) {
    extern __shared__ float shared[];
    Shared s = carve(shared, HS);
    int first = blockIdx.x * ROWS, head = blockIdx.y, b = blockIdx.z;
    size_t C = (size_t)NH * HS, stride = 3 * C;
    const float* q = qkv + (size_t)b * T * stride + head * HS;
    float* weight = s.weight + warp_id() * 2 * TILE;

    load_rows(s.row_x, HS, q, first, T, stride, HS);
    load_rows(s.row_y, HS, dout + (size_t)b * T * C + head * HS, first, T, C, HS);
    float acc[WARP_ROWS][PARTS] = {};
    int end = causal ? min(first + ROWS, T) : T;
    for (int tile = 0; tile < end; tile += TILE) {
        __syncthreads();
        load_rows(s.x, HS + 1, q + C, tile, T, stride, HS);
        load_rows(s.y, HS + 1, q + 2 * C, tile, T, stride, HS);
        __syncthreads();
        int key = tile + lane_id();
#pragma unroll
        for (int r = 0; r < WARP_ROWS; ++r) {
            int row = first + warp_id() * WARP_ROWS + r;
            if (row >= T || (causal && tile > row)) continue;
            size_t at = ((size_t)b * NH + head) * T + row;
            float score = scale * dot(s.row_x + (row - first) * HS, s.x + lane_id() * (HS + 1), HS);
            float dp = dot(s.row_y + (row - first) * HS, s.y + lane_id() * (HS + 1), HS);
            bool in = key < T && !(causal && key > row);
            weight[lane_id()] = in ? expf(score - lse[at]) * (dp - delta[at]) : 0.f;
            __syncwarp();
            add_weighted(acc[r], weight, s.x, HS);
            __syncwarp();
        }
    }
#pragma unroll
    for (int r = 0; r < WARP_ROWS; ++r) {
        int row = first + warp_id() * WARP_ROWS + r;
        if (row < T) store_row(dqkv + ((size_t)b * T + row) * stride + head * HS, acc[r], scale, HS);
    }
}

extern "C" __global__ void __launch_bounds__(256)
attention_backward_kv(float* __restrict__ dqkv, const float* __restrict__ dout, const float* __restrict__ qkv,
                      const float* __restrict__ lse, const float* __restrict__ delta, int T, int NH, int HS, float scale,
                      int causal) {
    extern __shared__ float shared[];
    Shared s = carve(shared, HS);
    int first = blockIdx.x * ROWS, head = blockIdx.y, b = blockIdx.z;
    size_t C = (size_t)NH * HS, stride = 3 * C;
    const float* q = qkv + (size_t)b * T * stride + head * HS;
    float* weight = s.weight + warp_id() * 2 * TILE;  // P, then dS

    load_rows(s.row_x, HS, q + C, first, T, stride, HS);
    load_rows(s.row_y, HS, q + 2 * C, first, T, stride, HS);
    float dk[WARP_ROWS][PARTS] = {}, dv[WARP_ROWS][PARTS] = {};
    for (int tile = causal ? first / TILE * TILE : 0; tile < T; tile += TILE) {
        __syncthreads();
        load_rows(s.x, HS + 1, q, tile, T, stride, HS);
        load_rows(s.y, HS + 1, dout + (size_t)b * T * C + head * HS, tile, T, C, HS);
        __syncthreads();
        int query = tile + lane_id();
        size_t at = ((size_t)b * NH + head) * T + min(query, T - 1);
        float query_lse = lse[at], query_delta = delta[at];
#pragma unroll
        for (int r = 0; r < WARP_ROWS; ++r) {
            int row = first + warp_id() * WARP_ROWS + r;
            if (row >= T) continue;
            float score = scale * dot(s.row_x + (row - first) * HS, s.x + lane_id() * (HS + 1), HS);
            float dp = dot(s.row_y + (row - first) * HS, s.y + lane_id() * (HS + 1), HS);
            bool in = query < T && !(causal && row > query);
            float p = in ? expf(score - query_lse) : 0.f;
            weight[lane_id()] = p;
            weight[TILE + lane_id()] = p * (dp - query_delta);
            __syncwarp();
            add_weighted(dv[r], weight, s.y, HS);
            add_weighted(dk[r], weight + TILE, s.x, HS);
            __syncwarp();
        }
    }
#pragma unroll
    for (int r = 0; r < WARP_ROWS; ++r) {
        int row = first + warp_id() * WARP_ROWS + r;
        if (row >= T) continue;
        float* to = dqkv + ((size_t)b * T + row) * stride + head * HS;
        store_row(to + C, dk[r], scale, HS);
        store_row(to + 2 * C, dv[r], 1.f, HS);
    }
}
