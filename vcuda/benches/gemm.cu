// The two products of speed.rs. C = A Bᵀ, A (M,K) and B (N,K) fp16, C (M,N) fp32, sums fp32, sizes multiples of the tiles.
// speed.rs runs gemm.ptx, which NVRTC 13.0 made of this for compute_90a with -default-device.
typedef unsigned u32;
typedef unsigned long long u64;

// 128x128x32 tiles, four warps of 64x64, mma.sync. Rows in shared memory are padded to 80 bytes. 20 KiB of shared memory.
extern "C" __global__ void __launch_bounds__(128) gemm_mma(const uint4* a, const uint4* b, float* c, int n, int k) {
    __shared__ __align__(16) unsigned char tile[2][128 * 80];
    int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5, m0 = blockIdx.y * 128, n0 = blockIdx.x * 128;
    int row = (warp >> 1) * 64, column = (warp & 1) * 64;
    u32 at_a = (u32)__cvta_generic_to_shared(tile[0]) + (row + (lane & 15)) * 80 + (lane >> 4) * 16;
    u32 at_b = (u32)__cvta_generic_to_shared(tile[1]) + (column + (lane & 7) + (lane >> 4) * 8) * 80 + (lane >> 3 & 1) * 16;
    float d[4][8][4] = {};
    for (int k0 = 0; k0 < k; k0 += 32) {
        #pragma unroll
        for (int i = 0; i < 4; i++) {
            int r = i * 32 + thread / 4, chunk = thread & 3;
            *(uint4*)&tile[0][r * 80 + chunk * 16] = a[((size_t)(m0 + r) * k + k0) / 8 + chunk];
            *(uint4*)&tile[1][r * 80 + chunk * 16] = b[((size_t)(n0 + r) * k + k0) / 8 + chunk];
        }
        __syncthreads();
        #pragma unroll
        for (int kk = 0; kk < 2; kk++) {
            u32 x[4][4], y[4][4];
            #pragma unroll
            for (int i = 0; i < 4; i++) {
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                    : "=r"(x[i][0]), "=r"(x[i][1]), "=r"(x[i][2]), "=r"(x[i][3]) : "r"(at_a + i * 16 * 80 + kk * 32));
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                    : "=r"(y[i][0]), "=r"(y[i][1]), "=r"(y[i][2]), "=r"(y[i][3]) : "r"(at_b + i * 16 * 80 + kk * 32));
            }
            #pragma unroll
            for (int i = 0; i < 4; i++)
                #pragma unroll
                for (int j = 0; j < 8; j++)
                    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                        : "+f"(d[i][j][0]), "+f"(d[i][j][1]), "+f"(d[i][j][2]), "+f"(d[i][j][3])
                        : "r"(x[i][0]), "r"(x[i][1]), "r"(x[i][2]), "r"(x[i][3]), "r"(y[j / 2][j % 2 * 2]), "r"(y[j / 2][j % 2 * 2 + 1]));
        }
        __syncthreads();
    }
    #pragma unroll
    for (int i = 0; i < 4; i++)
        #pragma unroll
        for (int j = 0; j < 8; j++)
            #pragma unroll
            for (int h = 0; h < 2; h++) {
                size_t at = (size_t)(m0 + row + i * 16 + h * 8 + lane / 4) * n + n0 + column + j * 8 + lane % 4 * 2;
                *(float2*)(c + at) = make_float2(d[i][j][2 * h], d[i][j][2 * h + 1]);
            }
}

// 128x256x64 tiles, two warpgroups of 64x256, wgmma from 128-byte-swizzled K-major tiles. 48 KiB of dynamic shared memory.
extern "C" __global__ void __launch_bounds__(256) gemm_wgmma(const uint4* a, const uint4* b, float* c, int n, int k) {
    extern __shared__ __align__(1024) unsigned char tiles[];
    int thread = threadIdx.x, lane = thread & 31, group = thread >> 7, m0 = blockIdx.y * 128, n0 = blockIdx.x * 256;
    u32 shared = (u32)__cvta_generic_to_shared(tiles);
    // Start and stride between groups of eight rows in units of 16 bytes; swizzle mode 1 is 128 bytes.
    u64 layout = (u64)1 << 62 | (u64)(1024 >> 4) << 32 | (u64)1 << 16;
    u64 of_a = layout | (shared + group * 8192) >> 4, of_b = layout | (shared + 16384) >> 4;
    float d[128];
    #pragma unroll
    for (int i = 0; i < 128; i++) d[i] = 0;
    for (int k0 = 0; k0 < k; k0 += 64) {
        #pragma unroll
        for (int i = 0; i < 12; i++) {
            int r = i * 32 + thread / 8, chunk = thread & 7; // 128 rows of A, then 256 of B
            const uint4* from = i < 4 ? a + ((size_t)(m0 + r) * k + k0) / 8 : b + ((size_t)(n0 + r - 128) * k + k0) / 8;
            *(uint4*)(tiles + r * 128 + (chunk ^ (r & 7)) * 16) = from[chunk];
        }
        asm volatile("fence.proxy.async;" ::: "memory");
        __syncthreads();
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
        #pragma unroll
        for (int kk = 0; kk < 4; kk++)
            asm volatile("{\n.reg .pred p;\nsetp.eq.u32 p, 1, 1;\nwgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, %128, %129, p, 1, 1, 0, 0;\n}"
                : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63]), "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71]), "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]), "+f"(d[77]), "+f"(d[78]), "+f"(d[79]), "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]), "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]), "+f"(d[88]), "+f"(d[89]), "+f"(d[90]), "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95]), "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103]), "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), "+f"(d[108]), "+f"(d[109]), "+f"(d[110]), "+f"(d[111]), "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]), "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119]), "+f"(d[120]), "+f"(d[121]), "+f"(d[122]), "+f"(d[123]), "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127]) : "l"(of_a + 2 * kk), "l"(of_b + 2 * kk));
        asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
        __syncthreads();
    }
    int row = m0 + (thread >> 5) * 16 + lane / 4;
    #pragma unroll
    for (int i = 0; i < 64; i++) {
        size_t at = (size_t)(row + i % 2 * 8) * n + n0 + i / 2 * 8 + lane % 4 * 2;
        *(float2*)(c + at) = make_float2(d[2 * i], d[2 * i + 1]);
    }
}
