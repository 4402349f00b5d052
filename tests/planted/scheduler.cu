// A thread of one warp hands out tiles, the lanes of the other take each together: one waits for its number and tells
// the rest, who have come round to the head of the loop meanwhile.
// launch: grid=1 block=64 inp=512 out=512
// bug 1 sync: a lane leaves the loop before the others, and never comes to their collectives
// bug 2 sync: half of the lanes skip a collective that names all
// bug 3 sync: a collective is executed by a lane that its mask leaves out
// bug 4 sync: a lane that others wait for has exited
// bug 5 sync: nobody says that a number has been taken
typedef unsigned u32;
typedef unsigned long long u64;

__device__ u32 at(const void* p) { return (u32)__cvta_generic_to_shared(p); }
__device__ void barrier_init(u64* b, int count) { asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at(b)), "r"(count) : "memory"); }
__device__ void arrive(u64* b) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at(b)) : "memory"); }
__device__ void wait(u64* b, int parity) {
    asm volatile(
        "{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra.uni DONE;\n"
        "bra.uni AGAIN;\nDONE:\n}" ::"r"(at(b)), "r"(parity) : "memory");
}

extern "C" __global__ void kernel(const int* inp, int* out, int n) {
    __shared__ __align__(8) u64 full, empty;
    __shared__ int number;
    int tiles = n / 32, lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        barrier_init(&full, 1);
        barrier_init(&empty, 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        int tile = 0;
#pragma unroll 1
        for (int i = 0;; ++i) {
            __syncwarp();
            if (lane == 0) {
                wait(&full, i & 1);
                tile = number;
                if (BUG != 5) arrive(&empty);
            }
            if (BUG != 2 || lane < 16) tile = __shfl_sync(~0u, tile, 0);
            if (tile == tiles) break;
            if (BUG == 1 && lane == 31 && i == 3) break;
            if (BUG == 4 && lane == 31 && i == 3) return;
            int value = inp[tile * 32 + lane];
            out[tile * 32 + lane] = value + (int)__reduce_add_sync(BUG == 3 ? ~0u >> 1 : ~0u, value & 15);
        }
    } else if (lane == 0) {
#pragma unroll 1
        for (int i = 0; i <= tiles; ++i) {
            wait(&empty, (i & 1) ^ 1);
            number = i < tiles ? (i * 7 + 3) % tiles : tiles;
            arrive(&full);
        }
    }
    __syncthreads();
}

extern "C" __global__ void reference(const int* inp, int* out, int n) {
    for (int i = 0; i < n; ++i) {
        int sum = 0;
        for (int lane = 0; lane < 32; ++lane) sum += inp[i / 32 * 32 + lane] & 15;
        out[i] = inp[i] + sum;
    }
}
