// D = quick_gelu(A · B + bias) on Hopper's tensor cores: float16 operands, float32 sums.
//
//   TA 0: A (M, K) row-major, 1: A (K, M)      TB 0: B (N, K) row-major, 1: B (K, N)
//   A, B, D fp16, by tensor maps with the 128-byte swizzle; bias (N,) fp32; D (M, N) written (=)
//   boxes, in elements from the inside: A {64, 128} or {64, 64}, B {64, 256} or {64, 64}, D {64, 64}
//
// Grid: any number of CTAs of three warpgroups, which walk over tiles of 128 x 256. The first brings tiles of A and B
// into a ring of three stages (TMA, one thread); the others multiply 64 rows each (wgmma) and write them back (TMA).
// Shared: 65,536 bytes of D, three stages of 49,152, and six barriers.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned char u8;
struct alignas(64) TensorMap { u64 words[16]; };

constexpr int BM = 128, BN = 256, BK = 64, STAGES = 3;
constexpr u32 A_BYTES = BM * BK * 2, B_BYTES = BN * BK * 2, STAGE_BYTES = A_BYTES + B_BYTES, D_BYTES = BM * BN * 2;
constexpr u32 PANEL = 64 * 64 * 2;  // 64 rows of 128 bytes

__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// ---------------------------------------------------------------------------------------------------
// Barriers and copies

__device__ __forceinline__ void barrier_init(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}

__device__ __forceinline__ void barrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

__device__ __forceinline__ void barrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ void barrier_wait(u32 barrier, u32 parity) {
    asm volatile(
        "{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra.uni DONE;\nbra.uni AGAIN;\nDONE:\n}" ::"r"(barrier), "r"(parity) : "memory");
}

__device__ __forceinline__ void load_box(u32 to, const TensorMap* map, u32 barrier, int x, int y) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(to),
        "l"(map), "r"(barrier), "r"(x), "r"(y) : "memory");
}

__device__ __forceinline__ void store_box(const TensorMap* map, u32 from, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map), "r"(from), "r"(x),
                 "r"(y) : "memory");
}

// ---------------------------------------------------------------------------------------------------
// Products

// A matrix in shared memory with the 128-byte swizzle: `lead` bytes between 64-wide atoms along M or N where that is
// the contiguous dimension, 1,024 from one group of eight rows to the next.
__device__ __forceinline__ u64 matrix(u32 address, u32 lead) {
    return (u64)((address & 0x3ffff) >> 4) | (u64)(lead >> 4) << 16 | (u64)(1024 >> 4) << 32 | 1ull << 62;
}

#define F8(d, i) \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define F32(d, i) F8(d, i), F8(d, i + 8), F8(d, i + 16), F8(d, i + 24)

// d (64, 256) = or += A (64, 16) · B (16, 256)
__device__ __forceinline__ void wgmma(float (&d)[BN / 2], u64 a, u64 b, int accumulate) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 {"
        "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,"
        "%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,"
        "%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,"
        "%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,"
        "%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127}, "
        "%128, %129, p, 1, 1, %131, %132;\n}"
        : F32(d, 0), F32(d, 32), F32(d, 64), F32(d, 96)
        : "l"(a), "l"(b), "r"(accumulate), "n"(TA), "n"(TB));
}

// Tells the compiler that the registers change here: nothing of them moves across.
__device__ __forceinline__ void pin(float (&d)[BN / 2]) {
#pragma unroll
    for (int i = 0; i < BN / 2; i++) asm volatile("" : "+f"(d[i])::"memory");
}

__device__ __forceinline__ float quick_gelu(float x) { return x / (1.f + __expf(-1.702f * x)); }

__device__ __forceinline__ u32 pack(float low, float high) {
    u32 pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

// ---------------------------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(384, 1)
gemm(const __grid_constant__ TensorMap a_map, const __grid_constant__ TensorMap b_map, const __grid_constant__ TensorMap d_map,
     const float* __restrict__ bias, int M, int N, int K) {
    extern __shared__ __align__(1024) u8 shared[];
    u32 tiles = shared_address(shared + D_BYTES), full = tiles + STAGES * STAGE_BYTES, empty = full + 8 * STAGES;
    int group = __shfl_sync(0xffffffff, threadIdx.x >> 7, 0), thread = threadIdx.x & 127;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(full + 8 * i, 1);
            barrier_init(empty + 8 * i, 2);
        }
        asm volatile("fence.mbarrier_init.release.cluster;");
    }
    __syncthreads();
    asm volatile("griddepcontrol.wait;" ::: "memory");
    int columns = (N + BN - 1) / BN, rows = (M + BM - 1) / BM, steps = (K + BK - 1) / BK;
    u32 stage = 0, parity = 0;

    if (group == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 0) {
            for (int tile = blockIdx.x; tile < columns * rows; tile += gridDim.x) {
                int m = tile % rows * BM, n = tile / rows * BN;
                for (int k = 0; k < steps * BK; k += BK) {
                    u32 barrier = full + 8 * stage, a = tiles + stage * STAGE_BYTES, b = a + A_BYTES;
                    barrier_wait(empty + 8 * stage, parity ^ 1);
                    barrier_expect(barrier, STAGE_BYTES);
                    if (TA == 0) load_box(a, &a_map, barrier, k, m);
                    else
                        for (int i = 0; i < BM / 64; i++) load_box(a + i * PANEL, &a_map, barrier, m + 64 * i, k);
                    if (TB == 0) load_box(b, &b_map, barrier, k, n);
                    else
                        for (int i = 0; i < BN / 64; i++) load_box(b + i * PANEL, &b_map, barrier, n + 64 * i, k);
                    if (++stage == STAGES) stage = 0, parity ^= 1;
                }
            }
        }
        return;
    }

    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    int half = group - 1, lane = threadIdx.x & 31, row = thread / 32 * 16 + (lane & 15);
    u32 out = shared_address(shared) + half * (64 * BN * 2);
    for (int tile = blockIdx.x; tile < columns * rows; tile += gridDim.x) {
        int m = tile % rows * BM, n = tile / rows * BN, before = -1;
        float d[BN / 2] = {};
        for (int k = 0; k < steps; k++) {
            barrier_wait(full + 8 * stage, parity);
            u64 a = matrix(tiles + stage * STAGE_BYTES + half * PANEL, TA ? PANEL : 16);
            u64 b = matrix(tiles + stage * STAGE_BYTES + A_BYTES, TB ? PANEL : 16);
            pin(d);
            asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
            for (int i = 0; i < BK / 16; i++) wgmma(d, a + i * (TA ? 128 : 2), b + i * (TB ? 128 : 2), k > 0 || i > 0);
            asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
            pin(d);
            asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
            if (before >= 0 && thread == 0) barrier_arrive(empty + 8 * before);
            before = stage;
            if (++stage == STAGES) stage = 0, parity ^= 1;
        }
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
        pin(d);
        if (thread == 0) barrier_arrive(empty + 8 * before);

        // Into 64-column panels with the swizzle of the map, once the last tile's have been read.
        if (thread == 0) asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
        asm volatile("bar.sync %0, 128;" ::"r"(group) : "memory");
#pragma unroll
        for (int j = 0; j < BN / 16; j++) {
            u32 pairs[4];
#pragma unroll
            for (int q = 0; q < 2; q++) {
                int column = n + j * 16 + q * 8 + (lane & 3) * 2;
                float b0 = column < N ? bias[column] : 0.f, b1 = column + 1 < N ? bias[column + 1] : 0.f;
#pragma unroll
                for (int r = 0; r < 2; r++)
                    pairs[q * 2 + r] =
                        pack(quick_gelu(d[j * 8 + q * 4 + r * 2] + b0), quick_gelu(d[j * 8 + q * 4 + r * 2 + 1] + b1));
            }
            int chunk = ((j & 3) * 2 + (lane >> 4)) ^ (row & 7);
            u32 to = out + (j >> 2) * PANEL + row * 128 + chunk * 16;
            asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(pairs[0]), "r"(pairs[1]),
                         "r"(pairs[2]), "r"(pairs[3]) : "memory");
        }
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        asm volatile("bar.sync %0, 128;" ::"r"(group) : "memory");
        if (thread == 0) {
            for (int j = 0; j < BN / 64; j++) store_box(&d_map, out + j * PANEL, n + j * 64, m + half * 64);
            asm volatile("cp.async.bulk.commit_group;" ::: "memory");
        }
    }
    if (thread == 0) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;");
}
