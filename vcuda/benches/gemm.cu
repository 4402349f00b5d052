// The products of speed.rs. C = A Bᵀ, A (M,K) and B (N,K) fp16, C (M,N) fp32, sums fp32, sizes multiples of the tiles. Those
// that come first bring their tiles through registers, the others by asynchronous copies into a ring of stages.
// speed.rs runs gemm.ptx, which NVRTC 13.0 made of this for compute_90a with -default-device.
typedef unsigned u32;
typedef unsigned long long u64;

__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// ---------------------------------------------------------------------------------------------------
// mma.sync: tiles of 128x128, four warps of 64x64. Rows in shared memory are padded by 16 bytes.

struct Warp {
    int lane, row, column;
    __device__ Warp() : lane(threadIdx.x & 31), row((threadIdx.x >> 6) * 64), column((threadIdx.x >> 5 & 1) * 64) {}
};

// d (64, 64) += A (64, K) · B (K, 64), of the tiles of A and then B at a shared address.
template <int K>
__device__ __forceinline__ void mma(float (&d)[4][8][4], Warp w, u32 tiles) {
    constexpr int ROW = 2 * K + 16, TILE = 128 * ROW;
    u32 at_a = tiles + (w.row + (w.lane & 15)) * ROW + (w.lane >> 4) * 16;
    u32 at_b = tiles + TILE + (w.column + (w.lane & 7) + (w.lane >> 4) * 8) * ROW + (w.lane >> 3 & 1) * 16;
    #pragma unroll
    for (int kk = 0; kk < K / 16; kk++) {
        u32 x[4][4], y[4][4];
        #pragma unroll
        for (int i = 0; i < 4; i++) {
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                : "=r"(x[i][0]), "=r"(x[i][1]), "=r"(x[i][2]), "=r"(x[i][3]) : "r"(at_a + i * 16 * ROW + kk * 32));
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                : "=r"(y[i][0]), "=r"(y[i][1]), "=r"(y[i][2]), "=r"(y[i][3]) : "r"(at_b + i * 16 * ROW + kk * 32));
        }
        #pragma unroll
        for (int i = 0; i < 4; i++)
            #pragma unroll
            for (int j = 0; j < 8; j++)
                asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                    : "+f"(d[i][j][0]), "+f"(d[i][j][1]), "+f"(d[i][j][2]), "+f"(d[i][j][3])
                    : "r"(x[i][0]), "r"(x[i][1]), "r"(x[i][2]), "r"(x[i][3]), "r"(y[j / 2][j % 2 * 2]), "r"(y[j / 2][j % 2 * 2 + 1]));
    }
}

__device__ __forceinline__ void write(float* c, int n, const float (&d)[4][8][4], Warp w) {
    #pragma unroll
    for (int i = 0; i < 4; i++)
        #pragma unroll
        for (int j = 0; j < 8; j++)
            #pragma unroll
            for (int h = 0; h < 2; h++) {
                size_t row = blockIdx.y * 128 + w.row + i * 16 + h * 8 + w.lane / 4;
                *(float2*)(c + row * n + blockIdx.x * 128 + w.column + j * 8 + w.lane % 4 * 2) = make_float2(d[i][j][2 * h], d[i][j][2 * h + 1]);
            }
}

// Steps of 32. 20 KiB of shared memory.
extern "C" __global__ void __launch_bounds__(128) gemm_mma(const uint4* a, const uint4* b, float* c, int n, int k) {
    constexpr int ROW = 80, TILE = 128 * ROW;
    __shared__ __align__(16) unsigned char tiles[2 * TILE];
    Warp w;
    float d[4][8][4] = {};
    for (int k0 = 0; k0 < k; k0 += 32) {
        #pragma unroll
        for (int i = 0; i < 4; i++) {
            int r = i * 32 + threadIdx.x / 4, chunk = threadIdx.x & 3;
            *(uint4*)&tiles[r * ROW + chunk * 16] = a[((size_t)(blockIdx.y * 128 + r) * k + k0) / 8 + chunk];
            *(uint4*)&tiles[TILE + r * ROW + chunk * 16] = b[((size_t)(blockIdx.x * 128 + r) * k + k0) / 8 + chunk];
        }
        __syncthreads();
        mma<32>(d, w, shared_address(tiles));
        __syncthreads();
    }
    write(c, n, d, w);
}

// Steps of 64, in a ring of three stages: 108 KiB of dynamic shared memory.
extern "C" __global__ void __launch_bounds__(128) gemm_mma_async(const uint4* a, const uint4* b, float* c, int n, int k) {
    extern __shared__ __align__(1024) unsigned char shared[];
    constexpr int ROW = 144, TILE = 128 * ROW;
    Warp w;
    int r = threadIdx.x / 8, chunk = threadIdx.x & 7;
    const uint4* from_a = a + (size_t)(blockIdx.y * 128 + r) * k / 8 + chunk;
    const uint4* from_b = b + (size_t)(blockIdx.x * 128 + r) * k / 8 + chunk;
    u32 to = shared_address(shared) + r * ROW + chunk * 16;
    auto bring = [&](int k0) {
        if (k0 < k)
            #pragma unroll
            for (int i = 0; i < 8; i++) {
                u32 at = to + k0 / 64 % 3 * (2 * TILE) + i * 16 * ROW;
                size_t step = (size_t)i * 16 * k / 8 + k0 / 8;
                asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(at), "l"(from_a + step) : "memory");
                asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(at + TILE), "l"(from_b + step) : "memory");
            }
        asm volatile("cp.async.commit_group;" ::: "memory");
    };
    float d[4][8][4] = {};
    bring(0);
    bring(64);
    #pragma unroll 1
    for (int k0 = 0; k0 < k; k0 += 64) {
        asm volatile("cp.async.wait_group 1;" ::: "memory");
        __syncthreads();
        bring(k0 + 128);
        mma<64>(d, w, shared_address(shared) + k0 / 64 % 3 * (2 * TILE));
    }
    write(c, n, d, w);
}

// ---------------------------------------------------------------------------------------------------
// wgmma: 128x256x64 tiles, two warpgroups of 64x256, both matrices in shared memory, K-major with the 128-byte swizzle.

#define F8(d, i) \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define F32(d, i) F8(d, i), F8(d, i + 8), F8(d, i + 16), F8(d, i + 24)

// d (64, 256) += A (64, 16) · B (16, 256)
__device__ __forceinline__ void wgmma(float (&d)[128], u64 a, u64 b) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.eq.u32 p, 1, 1;\nwgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, "
        "%23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, "
        "%44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, "
        "%65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, "
        "%86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, "
        "%106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, "
        "%124, %125, %126, %127"
        "}, %128, %129, p, 1, 1, 0, 0;\n}"
        : F32(d, 0), F32(d, 32), F32(d, 64), F32(d, 96) : "l"(a), "l"(b));
}

// Such a matrix: start and stride between groups of eight rows in units of 16 bytes; swizzle mode 1 is 128 bytes.
__device__ __forceinline__ u64 matrix(u32 address) { return (u64)1 << 62 | (u64)(1024 >> 4) << 32 | (u64)1 << 16 | address >> 4; }

// A warpgroup's 64 rows.
__device__ __forceinline__ void write(float* c, int n, const float (&d)[128], int row) {
    int lane = threadIdx.x & 31;
    row += blockIdx.y * 128 + (threadIdx.x >> 5 & 3) * 16 + lane / 4;
    #pragma unroll
    for (int i = 0; i < 64; i++)
        *(float2*)(c + (size_t)(row + i % 2 * 8) * n + blockIdx.x * 256 + i / 2 * 8 + lane % 4 * 2) = make_float2(d[2 * i], d[2 * i + 1]);
}

// 48 KiB of dynamic shared memory.
extern "C" __global__ void __launch_bounds__(256) gemm_wgmma(const uint4* a, const uint4* b, float* c, int n, int k) {
    extern __shared__ __align__(1024) unsigned char shared[];
    int thread = threadIdx.x, group = thread >> 7;
    u64 of_a = matrix(shared_address(shared) + group * 8192), of_b = matrix(shared_address(shared) + 16384);
    float d[128] = {};
    for (int k0 = 0; k0 < k; k0 += 64) {
        #pragma unroll
        for (int i = 0; i < 12; i++) {
            int r = i * 32 + thread / 8, chunk = thread & 7; // 128 rows of A, then 256 of B
            const uint4* from = i < 4 ? a + ((size_t)(blockIdx.y * 128 + r) * k + k0) / 8 : b + ((size_t)(blockIdx.x * 256 + r - 128) * k + k0) / 8;
            *(uint4*)(shared + r * 128 + (chunk ^ (r & 7)) * 16) = from[chunk];
        }
        asm volatile("fence.proxy.async;" ::: "memory");
        __syncthreads();
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
        #pragma unroll
        for (int kk = 0; kk < 4; kk++) wgmma(d, of_a + 2 * kk, of_b + 2 * kk);
        asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
        __syncthreads();
    }
    write(c, n, d, group * 64);
}

struct alignas(64) TensorMap { u64 words[16]; };

// A third warpgroup brings the tiles (boxes of 64 by 128 and by 256) into four stages: 192 KiB of dynamic shared memory.
extern "C" __global__ void __launch_bounds__(384)
gemm_wgmma_async(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, float* c, int n, int k) {
    extern __shared__ __align__(1024) unsigned char shared[];
    __shared__ u64 barriers[8];
    constexpr u32 A_BYTES = 128 * 128, BYTES = 3 * A_BYTES;
    u32 tiles = shared_address(shared), full = shared_address(barriers), empty = full + 32;
    if (threadIdx.x == 0) {
        for (int i = 0; i < 4; i++) {
            asm volatile("mbarrier.init.shared.b64 [%0], 1;" :: "r"(full + 8 * i));
            asm volatile("mbarrier.init.shared.b64 [%0], 2;" :: "r"(empty + 8 * i));
        }
        asm volatile("fence.mbarrier_init.release.cluster;");
    }
    __syncthreads();
    auto wait = [](u32 barrier, u32 parity) {
        asm volatile("{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n@!done bra AGAIN;\n}" :: "r"(barrier), "r"(parity) : "memory");
    };
    int group = threadIdx.x >> 7;
    if (group == 2) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 256)
            #pragma unroll 1
            for (int i = 0; i < k / 64; i++) {
                u32 stage = i % 4, barrier = full + 8 * stage, to = tiles + stage * BYTES;
                wait(empty + 8 * stage, (i / 4 + 1) % 2);
                asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" :: "r"(barrier), "r"(BYTES) : "memory");
                asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
                    :: "r"(to), "l"(&a), "r"(barrier), "r"(i * 64), "r"(blockIdx.y * 128) : "memory");
                asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
                    :: "r"(to + A_BYTES), "l"(&b), "r"(barrier), "r"(i * 64), "r"(blockIdx.x * 256) : "memory");
            }
        return;
    }
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    float d[128] = {};
    #pragma unroll 1
    for (int i = 0; i < k / 64; i++) {
        u32 stage = i % 4, at = tiles + stage * BYTES;
        u64 of_a = matrix(at + group * 8192), of_b = matrix(at + A_BYTES);
        wait(full + 8 * stage, i / 4 % 2);
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
        #pragma unroll
        for (int kk = 0; kk < 4; kk++) wgmma(d, of_a + 2 * kk, of_b + 2 * kk);
        asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 1;" ::: "memory");
        if (i > 0 && threadIdx.x % 128 == 0)
            asm volatile("mbarrier.arrive.shared.b64 _, [%0];" :: "r"(empty + 8 * ((i - 1) % 4)) : "memory");
    }
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    write(c, n, d, group * 64);
}
