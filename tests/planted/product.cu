// A 64x8 product of 64x16 and 16x8 small integers in float16 by one wgmma, twice; operands K-major, no swizzle:
// 8x8 cores of 128 contiguous bytes, the two along k 128 bytes apart, along rows 256.
// launch: grid=1 block=128 inp=1152 out=512
// bug 1 async: no proxy fence between writing the operands and the product
// bug 2 async: the accumulators are read before the wait
// bug 3 async: the operands are overwritten before the wait
// bug 4 async: no wgmma.fence before the first product
// bug 5 async: the products are never committed as a group
// bug 6 memory: the descriptor points past the end of shared memory
// bug 7 race: the product begins before all warps have written the operands
// bug 8 memory: the strides between cores are taken for each other
typedef unsigned u32;
typedef unsigned long long u64;

__device__ unsigned short half(int x) {
    unsigned short h;
    asm("cvt.rn.f16.s32 %0, %1;" : "=h"(h) : "r"(x));
    return h;
}
// Where element (row, k) is, in halves.
__device__ int place(int row, int k) { return row / 8 * 128 + k / 8 * 64 + row % 8 * 8 + k % 8; }
__device__ u64 descriptor(const void* p) {
    u32 lead = BUG == 8 ? 256 : 128, stride = BUG == 8 ? 128 : 256;
    u32 at = (u32)__cvta_generic_to_shared(p) + (BUG == 6 ? 4096 : 0);
    return (u64)((at & 0x3ffff) >> 4) | (u64)(lead >> 4) << 16 | (u64)(stride >> 4) << 32;
}

extern "C" __global__ void kernel(const int* inp, int* out, int n) {
    __shared__ __align__(128) unsigned short a[64 * 16];
    __shared__ __align__(128) unsigned short b[8 * 16];
    int t = threadIdx.x;
    for (int i = t; i < 64 * 16; i += 128) a[place(i / 16, i % 16)] = half(inp[i] & 7);
    b[place(t / 16, t % 16)] = half(inp[1024 + t] & 7);
    if (BUG != 1) asm volatile("fence.proxy.async;" ::: "memory");
    if (BUG != 7) __syncthreads();
    float d[4] = {};
    for (int twice = 0; twice < 2; ++twice) {
        asm volatile("" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])::"memory");
        if (BUG != 4) asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
        asm volatile(
            "{\n.reg .pred p;\nsetp.ne.b32 p, %6, 0;\n"
            "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%0, %1, %2, %3}, %4, %5, p, 1, 1, 0, 0;\n}"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "l"(descriptor(a)), "l"(descriptor(b)), "r"(twice));
        if (BUG != 5) asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        if (BUG == 3 && twice == 1) b[t] = 0;
        if (BUG == 2) asm volatile("mov.b32 %0, %0;" : "+f"(d[0]));
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
        asm volatile("" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])::"memory");
    }
    int row = t / 32 * 16 + t % 32 / 4, column = t % 4 * 2;
    for (int i = 0; i < 4; ++i) out[(row + i / 2 * 8) * 8 + column + i % 2] = (int)d[i];
}

extern "C" __global__ void reference(const int* inp, int* out, int n) {
    for (int r = 0; r < 64; ++r)
        for (int c = 0; c < 8; ++c) {
            int sum = 0;
            for (int k = 0; k < 16; ++k) sum += (inp[r * 16 + k] & 7) * (inp[1024 + c * 16 + k] & 7);
            out[r * 8 + c] = 2 * sum;
        }
}
