// Attention of heads of 64 channels over T <= 64 tokens on tensor cores, forward and backward: float16 operands, float32
// sums and softmax.
//
//   S = Q Kᵀ      P = 2^(c S - lse)      out = P V      dS = P ∘ (dout Vᵀ - Σ P ∘ dout Vᵀ)
//   dQ = scale dS K      dK = scale dSᵀ Q      dV = Pᵀ dout          c = scale log2(e)
//
//   qkv, dqkv (B, T, 3, NH, 64), out, dout (B, T, NH, 64) fp16; lse (B, NH, 64) fp32; outputs written (=)
//
// Grid: (NH, B), 4 warps of 16 query rows. Shared: 64 x 64 tiles of 8,192 bytes, three forward, five backward;
// rows are 128 bytes, their 16-byte chunks exchanged by the row's low three bits, against bank conflicts.

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;
constexpr int T = TOKENS;
constexpr u32 TILE = 8192;

typedef float Sums[8][4];   // 16 rows x 64 columns, as mma leaves them
typedef u32 Rows[4][4];     // 16 rows x 64 of the sum, as mma takes them

__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
__device__ __forceinline__ u32 chunk(u32 tile, int row, int at) { return tile + row * 128 + ((at ^ (row & 7)) << 4); }
__device__ __forceinline__ int lane_id() { return threadIdx.x & 31; }

__device__ __forceinline__ void mma(float* d, const u32* a, u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void load4(u32* r, u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

__device__ __forceinline__ void load4_transposed(u32* r, u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

__device__ __forceinline__ u32 pack(float low, float high) {
    u32 pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

__device__ __forceinline__ float power2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// A tile of T rows, `stride` halves apart; zeros below them.
__device__ __forceinline__ void copy_tile(u32 tile, const u16* from, int stride) {
    for (int i = threadIdx.x; i < 512; i += 128) {
        int row = i >> 3, at = i & 7;
        u32 bytes = row < T ? 16 : 0;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(chunk(tile, row, at)),
                     "l"(from + (size_t)(row < T ? row : 0) * stride + at * 8), "r"(bytes) : "memory");
    }
}

__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int GROUPS>
__device__ __forceinline__ void wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}

__device__ __forceinline__ void load_rows(Rows& a, u32 tile, int row) {
    int l = lane_id();
#pragma unroll
    for (int k = 0; k < 4; k++) load4(a[k], chunk(tile, row + (l & 15), k * 2 + (l >> 4)));
}

__device__ __forceinline__ void load_columns(Rows& a, u32 tile, int column) {
    int l = lane_id();
#pragma unroll
    for (int k = 0; k < 4; k++)
        load4_transposed(a[k], chunk(tile, k * 16 + (l & 7) + (l >> 4 << 3), (column >> 3) + (l >> 3 & 1)));
}

// sums += rows · tileᵀ
__device__ __forceinline__ void multiply_transposed(Sums& sums, const Rows& a, u32 tile) {
    int l = lane_id();
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
        for (int n = 0; n < 4; n++) {
            u32 b[4];
            load4(b, chunk(tile, n * 16 + (l & 7) + (l >> 4 << 3), k * 2 + (l >> 3 & 1)));
            mma(sums[2 * n], a[k], b[0], b[1]);
            mma(sums[2 * n + 1], a[k], b[2], b[3]);
        }
}

// sums += rows · tile
__device__ __forceinline__ void multiply(Sums& sums, const Rows& a, u32 tile) {
    int l = lane_id();
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
        for (int n = 0; n < 4; n++) {
            u32 b[4];
            load4_transposed(b, chunk(tile, k * 16 + (l & 15), n * 2 + (l >> 4)));
            mma(sums[2 * n], a[k], b[0], b[1]);
            mma(sums[2 * n + 1], a[k], b[2], b[3]);
        }
}

__device__ __forceinline__ void clear(Sums& sums) {
#pragma unroll
    for (int i = 0; i < 8; i++) sums[i][0] = sums[i][1] = sums[i][2] = sums[i][3] = 0.f;
}

// What mma has left as what it takes.
__device__ __forceinline__ void take(Rows& a, const Sums& sums) {
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) a[k][i] = pack(sums[2 * k + i / 2][i % 2 * 2], sums[2 * k + i / 2][i % 2 * 2 + 1]);
}

__device__ __forceinline__ void store_tile(u32 tile, int row, const Sums& sums) {
    int l = lane_id();
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 2; j++)
            asm volatile("st.shared.b32 [%0], %1;" ::"r"(chunk(tile, row + 8 * j + (l >> 2), i) + (l & 3) * 4),
                         "r"(pack(sums[i][2 * j], sums[i][2 * j + 1])) : "memory");
}

// Rows below T to memory, times `scale`.
__device__ __forceinline__ void store_rows(u16* to, int stride, int row, const Sums& sums, float scale) {
    int l = lane_id(), column = (l & 3) * 2;
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            int r = row + 8 * j + (l >> 2);
            if (r < T) *(u32*)(to + (size_t)r * stride + i * 8 + column) = pack(sums[i][2 * j] * scale, sums[i][2 * j + 1] * scale);
        }
}

// Over the four lanes that share a row.
__device__ __forceinline__ float row_sum(float x) {
    for (int mask = 1; mask < 4; mask <<= 1) x += __shfl_xor_sync(0xffffffff, x, mask);
    return x;
}
__device__ __forceinline__ float row_max(float x) {
    for (int mask = 1; mask < 4; mask <<= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, mask));
    return x;
}

extern "C" __global__ void __launch_bounds__(128)
forward(const u16* __restrict__ qkv, u16* __restrict__ out, float* __restrict__ lse, int NH, float c) {
    extern __shared__ __align__(128) u8 shared[];
    u32 q = shared_address(shared), k = q + TILE, v = k + TILE;
    int h = blockIdx.x, b = blockIdx.y, C = NH * 64, row = threadIdx.x / 32 * 16, l = lane_id();
    const u16* from = qkv + (size_t)b * T * 3 * C + h * 64;
    copy_tile(q, from, 3 * C);
    copy_tile(k, from + C, 3 * C);
    commit();
    copy_tile(v, from + 2 * C, 3 * C);
    commit();
    wait<1>();
    __syncthreads();

    Rows a;
    Sums s;
    clear(s);
    load_rows(a, q, row);
    multiply_transposed(s, a, k);
    float top[2] = {-1e30f, -1e30f}, total[2] = {};
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (i * 8 + (l & 3) * 2 + j % 2 >= T) s[i][j] = -1e30f;
            top[j / 2] = fmaxf(top[j / 2], s[i][j]);
        }
    top[0] = row_max(top[0]);
    top[1] = row_max(top[1]);
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            s[i][j] = power2((s[i][j] - top[j / 2]) * c);
            total[j / 2] += s[i][j];
        }
    total[0] = row_sum(total[0]);
    total[1] = row_sum(total[1]);
    take(a, s);
    wait<0>();
    __syncthreads();
    clear(s);
    multiply(s, a, v);
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) s[i][j] /= total[j / 2];
    store_rows(out + (size_t)b * T * C + h * 64, C, row, s, 1.f);
    if ((l & 3) == 0) {
        float* to = lse + ((size_t)b * NH + h) * 64 + row + (l >> 2);
        to[0] = top[0] * c + __log2f(total[0]);
        to[8] = top[1] * c + __log2f(total[1]);
    }
}

extern "C" __global__ void __launch_bounds__(128)
backward(const u16* __restrict__ qkv, const u16* __restrict__ dout, const float* __restrict__ lse, u16* __restrict__ dqkv, int NH,
         float c, float scale) {
    extern __shared__ __align__(128) u8 shared[];
    u32 q = shared_address(shared), k = q + TILE, v = k + TILE, o = v + TILE, p_tile = o + TILE, ds_tile = v;
    int h = blockIdx.x, b = blockIdx.y, C = NH * 64, row = threadIdx.x / 32 * 16, l = lane_id();
    const u16* from = qkv + (size_t)b * T * 3 * C + h * 64;
    copy_tile(q, from, 3 * C);
    copy_tile(k, from + C, 3 * C);
    copy_tile(v, from + 2 * C, 3 * C);
    copy_tile(o, dout + (size_t)b * T * C + h * 64, C);
    commit();
    wait<0>();
    __syncthreads();

    Rows a;
    Sums p, d;
    clear(p);
    load_rows(a, q, row);
    multiply_transposed(p, a, k);
    const float* row_lse = lse + ((size_t)b * NH + h) * 64 + row + (l >> 2);
    float base[2] = {row_lse[0], row_lse[8]}, delta[2] = {};
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) p[i][j] = i * 8 + (l & 3) * 2 + j % 2 < T ? power2(p[i][j] * c - base[j / 2]) : 0.f;
    store_tile(p_tile, row, p);
    clear(d);
    load_rows(a, o, row);
    multiply_transposed(d, a, v);
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) delta[j / 2] += p[i][j] * d[i][j];
    delta[0] = row_sum(delta[0]);
    delta[1] = row_sum(delta[1]);
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) d[i][j] = p[i][j] * (d[i][j] - delta[j / 2]);
    __syncthreads();  // dS lies where V was
    store_tile(ds_tile, row, d);
    take(a, d);
    clear(p);
    multiply(p, a, k);
    u16* to = dqkv + (size_t)b * T * 3 * C + h * 64;
    store_rows(to, 3 * C, row, p, scale);
    __syncthreads();
    load_columns(a, p_tile, row);
    clear(p);
    multiply(p, a, o);
    store_rows(to + 2 * C, 3 * C, row, p, 1.f);
    load_columns(a, ds_tile, row);
    clear(p);
    multiply(p, a, q);
    store_rows(to + C, 3 * C, row, p, scale);
}
