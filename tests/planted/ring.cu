// A producer thread brings 1 kB pieces by bulk copies into a ring of three stages; a warp adds one to each
// number, and another bulk copy takes them away.
// launch: grid=1 block=64 inp=2048 out=2048
// bug 1 init/async/sync: the consumers wait for the wrong parity
// bug 2 sync: the barrier is told to expect 16 bytes more than come
// bug 3 async: the barrier is told to expect 16 bytes fewer than come
// bug 4 race: a stage is given back before it is read
// bug 5 sync: a stage is given back by nobody
// bug 6 async: no proxy fence between writing the stage and copying it out
// bug 7 async: a stage is given back while its copy out still reads it
// bug 8 memory: a bulk copy of a size that is no multiple of 16
// bug 9 init/race/sync: the barriers are used before the threads know that they are set up
// bug 10 sync: the full barrier counts one arrival more than there is
// bug 11 memory: the last piece reaches past the end
// bug 12 init/sync: a barrier that nobody has set up
typedef unsigned u32;
typedef unsigned long long u64;
#define STAGES 3
#define PIECE 256

__device__ u32 at(const void* p) { return (u32)__cvta_generic_to_shared(p); }
__device__ void barrier_init(u64* b, int count) { asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at(b)), "r"(count) : "memory"); }
__device__ void expect(u64* b, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at(b)), "r"(bytes) : "memory");
}
__device__ void arrive(u64* b) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at(b)) : "memory"); }
__device__ void wait(u64* b, int parity) {
    asm volatile(
        "{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra.uni DONE;\n"
        "bra.uni AGAIN;\nDONE:\n}" ::"r"(at(b)), "r"(parity) : "memory");
}

extern "C" __global__ void kernel(const int* inp, int* out, int n) {
    __shared__ __align__(128) int stage[STAGES][PIECE];
    __shared__ __align__(8) u64 full[STAGES], empty[STAGES];
    int pieces = n / PIECE, t = threadIdx.x;
    if (t == (BUG == 9 ? 32 : 0)) {
        for (int s = 0; s < STAGES; ++s) {
            barrier_init(&full[s], 1 + (BUG == 10));
            if (BUG != 12) barrier_init(&empty[s], 1);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    if (BUG != 9) __syncthreads();
    if (t == 0) {
        for (int i = 0; i < pieces; ++i) {
            int s = i % STAGES, round = i / STAGES;
            wait(&empty[s], (round & 1) ^ 1);
            int bytes = PIECE * 4, from = i * PIECE + (BUG == 11 && i == pieces - 1 ? 4 : 0);
            expect(&full[s], bytes + (BUG == 2 ? 16 : BUG == 3 ? -16 : 0));
            asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(at(stage[s])),
                         "l"(inp + from), "r"(bytes - (BUG == 8 ? 4 : 0)), "r"(at(&full[s])) : "memory");
        }
    } else if (t >= 32) {
        for (int i = 0; i < pieces; ++i) {
            int s = i % STAGES, round = i / STAGES, lane = t - 32;
            wait(&full[s], (round & 1) ^ (BUG == 1));
            if (BUG == 4 && lane == 0) arrive(&empty[s]);
            for (int j = lane; j < PIECE; j += 32) stage[s][j] += 1;
            if (BUG != 6) asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
            __syncwarp();
            if (lane == 0) {
                asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(out + i * PIECE), "r"(at(stage[s])),
                             "r"(PIECE * 4) : "memory");
                asm volatile("cp.async.bulk.commit_group;" ::: "memory");
                if (BUG != 7) asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
                if (BUG != 4 && BUG != 5) arrive(&empty[s]);
            }
            __syncwarp();
        }
        if (t == 32) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
    }
}

extern "C" __global__ void reference(const int* inp, int* out, int n) {
    for (int i = 0; i < n; ++i) out[i] = inp[i] + 1;
}
