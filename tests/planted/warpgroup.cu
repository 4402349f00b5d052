// A producer warp brings pieces of A (64 x 16) and B (8 x 16) into a ring of two stages; a warpgroup multiplies them and
// one of its threads, another each time, gives the stage back for all.
// launch: grid=1 block=160 inp=9216 out=5120
// bug 1 race: a stage is given back before the products that read it are waited for
// bug 2 async: a stage is given back before the products that read it are waited for
// bug 3 race/async: the wait leaves one group under way, and its stage is given back
// bug 4 race: a stage is given back by a warp that has not waited
// bug 5 async: the sums are read before the wait
// bug 6 async: nothing commits the products
// bug 7 async: no wgmma.fence between setting the sums to zero and the product
// bug 8 race: nobody waits for the full barrier
// bug 9 async: nobody waits for the full barrier
// bug 10 sync: one warp leaves out the last product
// bug 11 sync: the warps have descriptors of different stages
// bug 12 race/async: a thread of the warpgroup writes to the stage before the wait
typedef unsigned u32;
typedef unsigned long long u64;
#define STAGES 2
#define PIECES 8
#define BYTES 2304

__device__ u32 at(const void* p) { return (u32)__cvta_generic_to_shared(p); }
__device__ void arrive(u64* b) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at(b)) : "memory"); }
__device__ void wait(u64* b, int parity) {
    asm volatile(
        "{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra.uni DONE;\n"
        "bra.uni AGAIN;\nDONE:\n}" ::"r"(at(b)), "r"(parity) : "memory");
}
// Without a swizzle: cores of 8 rows of 16 bytes, 128 bytes from one to the next along k and 256 along m or n.
__device__ u64 matrix(u32 at) { return (u64)(at >> 4) | (u64)(128 >> 4) << 16 | (u64)(256 >> 4) << 32; }

extern "C" __global__ void kernel(const int* inp, int* out, int n) {
    __shared__ __align__(128) unsigned char stage[STAGES][BYTES];
    __shared__ __align__(8) u64 full[STAGES], empty[STAGES];
    int t = threadIdx.x;
    unsigned short* halves = (unsigned short*)(out + 512);
    for (int i = t; i < n; i += blockDim.x) asm("cvt.rn.f16.s32 %0, %1;" : "=h"(halves[i]) : "r"(inp[i] & 7));
    if (t == 0) {
        for (int s = 0; s < STAGES; ++s) {
            asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(at(&full[s])) : "memory");
            asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(at(&empty[s])) : "memory");
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    asm volatile("fence.proxy.async;" ::: "memory");
    __syncthreads();
    if (t >= 128) {
        for (int i = 0; t == 128 && i < PIECES; ++i) {
            int s = i % STAGES, round = i / STAGES;
            wait(&empty[s], (round & 1) ^ 1);
            asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at(&full[s])), "r"(BYTES) : "memory");
            asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(at(stage[s])),
                         "l"(halves + i * BYTES / 2), "r"(BYTES), "r"(at(&full[s])) : "memory");
        }
        __syncwarp();
    } else {
        float d[4] = {0, 0, 0, 0};
        asm volatile("" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]));
        if (BUG != 7) asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
        for (int i = 0; i < PIECES; ++i) {
            int s = i % STAGES, round = i / STAGES, signaller = i * 37 % 128;
            if (BUG != 8 && BUG != 9) wait(&full[s], round & 1);
            u64 a = matrix(at(stage[BUG == 11 && t >= 64 ? s ^ 1 : s])), b = matrix(at(stage[s]) + 2048);
            if (BUG != 10 || t < 96 || i < PIECES - 1)
                asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%0, %1, %2, %3}, %4, %5, 1, 1, 1, 0, 0;"
                             : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "l"(a), "l"(b));
            if (BUG != 6) asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
            if ((BUG == 1 || BUG == 2) && t == signaller) arrive(&empty[s]);
            if (BUG == 12 && t == signaller) stage[s][0] = 1;
            if (BUG == 3) asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
            else if ((BUG != 4 || t >= 32) && (BUG != 5 || i < PIECES - 1)) asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
            if (BUG == 4) signaller = 0;
            if (BUG != 1 && BUG != 2 && t == signaller) arrive(&empty[s]);
        }
        if (BUG == 3 || BUG == 4) asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
        int row = t / 32 * 16 + t % 32 / 4, column = t % 4 * 2;
        for (int i = 0; i < 4; ++i) out[(row + i / 2 * 8) * 8 + column + i % 2] = (int)d[i];
    }
    __syncthreads();
    for (int i = t; i < n / 2; i += blockDim.x) out[512 + i] = 0;
}

extern "C" __global__ void reference(const int* inp, int* out, int n) {
    for (int r = 0; r < 64; ++r)
        for (int c = 0; c < 8; ++c) {
            int sum = 0;
            for (int i = 0; i < PIECES; ++i)
                for (int k = 0; k < 16; ++k) {
                    const int *a = inp + i * BYTES / 2, *b = a + 1024;
                    sum += (a[r / 8 * 128 + k / 8 * 64 + r % 8 * 8 + k % 8] & 7) * (b[k / 8 * 64 + c * 8 + k % 8] & 7);
                }
            out[r * 8 + c] = sum;
        }
    for (int i = 512; i < 5120; ++i) out[i] = 0;
}
