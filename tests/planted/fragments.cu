// A 16x8 product of 16x16 and 16x8 small integers in float16, by ldmatrix and mma.sync.
// launch: grid=1 block=64 inp=384 out=128
// bug 1 race: the tiles are read before the other warp has filled its half
// bug 2 memory: a row's address is no multiple of 16 bytes
// bug 3 memory: a row past the end of shared memory
// bug 4 init: the last row of A is never written
// bug 5 result: the fragments of B are taken for those of its transpose
typedef unsigned u32;

__device__ u32 at(const void* p) { return (u32)__cvta_generic_to_shared(p); }
__device__ unsigned short half(int x) {
    unsigned short h;
    asm("cvt.rn.f16.s32 %0, %1;" : "=h"(h) : "r"(x));
    return h;
}

extern "C" __global__ void kernel(const int* inp, int* out, int n) {
    __shared__ __align__(128) unsigned short a[16 * 16];
    __shared__ __align__(128) unsigned short b[16 * 8];
    int t = threadIdx.x;
    for (int i = t; i < 256 - (BUG == 4 ? 16 : 0); i += 64) a[i] = half(inp[i] & 7);
    for (int i = t; i < 128; i += 64) b[i] = half(inp[256 + i] & 7);
    if (BUG != 1) __syncthreads();
    if (t >= 32) return;
    u32 x[4], y[2];
    float d[4] = {};
    int row = t % 16 + (BUG == 3 ? 16 : 0);
    u32 from = at(a) + row * 32 + t / 16 * 16 + (BUG == 2 ? 8 : 0) + (BUG == 3 ? 256 : 0);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(from) : "memory");
    u32 from_b = at(b) + t % 16 * 16;
    if (BUG == 5)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(y[0]), "=r"(y[1]) : "r"(from_b) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(y[0]), "=r"(y[1]) : "r"(from_b) : "memory");
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
    for (int i = 0; i < 4; ++i) out[(t / 4 + i / 2 * 8) * 8 + t % 4 * 2 + i % 2] = (int)d[i];
}

extern "C" __global__ void reference(const int* inp, int* out, int n) {
    for (int r = 0; r < 16; ++r)
        for (int c = 0; c < 8; ++c) {
            int sum = 0;
            for (int k = 0; k < 16; ++k) sum += (inp[r * 16 + k] & 7) * (inp[256 + k * 8 + c] & 7);
            out[r * 8 + c] = sum;
        }
}
