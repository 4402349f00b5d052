// A warp brings pieces by cp.async into two stages, and another reverses them; mbarriers say when a stage is full, by the
// copies' own arrivals, and when it is empty.
// launch: grid=1 block=64 inp=1024 out=1024
// bug 1 race: the reader waits until the stage is full when it has read it
// bug 2 async: an ordinary arrival, which does not wait for the copies
// bug 3 sync: an arrival that the barrier has not been told to expect
// bug 4 race: a stage is given back before it is read
typedef unsigned u32;
typedef unsigned long long u64;
#define PIECE 128

__device__ u32 at(const void* p) { return (u32)__cvta_generic_to_shared(p); }
__device__ void barrier_init(u64* b, int count) { asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at(b)), "r"(count) : "memory"); }
__device__ void arrive(u64* b) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at(b)) : "memory"); }
__device__ void arrive_after_copies(u64* b) {
    if (BUG == 3) asm volatile("cp.async.mbarrier.arrive.shared::cta.b64 [%0];" ::"r"(at(b)) : "memory");
    else asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(at(b)) : "memory");
}
__device__ void wait(u64* b, int parity) {
    asm volatile(
        "{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra.uni DONE;\n"
        "bra.uni AGAIN;\nDONE:\n}" ::"r"(at(b)), "r"(parity) : "memory");
}

extern "C" __global__ void kernel(const int* inp, int* out, int n) {
    __shared__ __align__(16) int stage[2][PIECE];
    __shared__ __align__(8) u64 full[2], empty[2];
    int pieces = n / PIECE, lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        for (int s = 0; s < 2; ++s) {
            barrier_init(&full[s], 32);
            barrier_init(&empty[s], 32);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    for (int i = 0; i < pieces; ++i) {
        int s = i & 1, parity = i >> 1 & 1;
        if (threadIdx.x < 32) {
            wait(&empty[s], parity ^ 1);
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at(&stage[s][4 * lane])), "l"(inp + i * PIECE + 4 * lane) : "memory");
            if (BUG == 2) arrive(&full[s]);
            else arrive_after_copies(&full[s]);
        } else {
            if (BUG != 1) wait(&full[s], parity);
            if (BUG == 4) arrive(&empty[s]);
            for (int j = lane; j < PIECE; j += 32) out[i * PIECE + j] = stage[s][PIECE - 1 - j];
            if (BUG == 1) wait(&full[s], parity);
            if (BUG != 4) arrive(&empty[s]);
        }
    }
    if (BUG == 2) asm volatile("cp.async.wait_all;" ::: "memory");
}

extern "C" __global__ void reference(const int* inp, int* out, int n) {
    for (int i = 0; i < n; ++i) out[i] = inp[i / PIECE * PIECE + PIECE - 1 - i % PIECE];
}
