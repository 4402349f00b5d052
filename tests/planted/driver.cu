// What the programs in driver.rs launch.

extern "C" __global__ void copy(const int* inp, int* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = inp[i];
}

// A launch must say how many CTAs a cluster has.
extern "C" __global__ void __cluster_dims__() copy_in_clusters(const int* inp, int* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = inp[i];
}

extern "C" __global__ void __launch_bounds__(64) bounded(int* out) { out[threadIdx.x] = threadIdx.x; }

// The last word of so many bytes of dynamic shared memory.
extern "C" __global__ void shared_end(int* out, int bytes) {
    extern __shared__ int words[];
    words[bytes / 4 - 1] = 7;
    *out = words[bytes / 4 - 1];
}

// All CTAs count themselves, and wait until the others have.
extern "C" __global__ void meet(int* count) {
    if (threadIdx.x == 0) {
        atomicAdd(count, 1);
        while (atomicAdd(count, 0) < gridDim.x) {}
    }
}

struct __align__(64) Map { char bytes[128]; };

// 8 rows of 32 numbers, through a tensor map: their sum.
extern "C" __global__ void tile_sum(const __grid_constant__ Map map, int* out) {
    __shared__ __align__(128) int tile[256];
    __shared__ __align__(8) unsigned long long loaded;
    unsigned at = __cvta_generic_to_shared(tile), barrier = __cvta_generic_to_shared(&loaded);
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(barrier) : "memory");
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], 1024;" ::"r"(barrier) : "memory");
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %3}], [%2];"
                     ::"r"(at), "l"(&map), "r"(barrier), "r"(0) : "memory");
    }
    __syncthreads();
    unsigned done = 0;
    while (!done)
        asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], 0; selp.u32 %0, 1, 0, p;}"
                     : "=r"(done) : "r"(barrier) : "memory");
    if (threadIdx.x == 0) {
        int sum = 0;
        for (int i = 0; i < 256; ++i) sum += tile[i];
        *out = sum;
    }
}
