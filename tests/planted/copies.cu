// Three-point sums over tiles that cp.async brings, two tiles in flight.
// launch: grid=1 block=64 inp=1024 out=1024
// bug 1 async: no wait before the tile is read
// bug 2 async: one group too many may still be on its way
// bug 3 race: a thread waits for its own copies only
// bug 4 race: the next copy overwrites a tile that others still read
// bug 5 async: the copies are never committed as a group
// bug 6 memory: 16 bytes to an address that is no multiple of 16
// bug 7 async: the CTA ends with copies still on their way
typedef unsigned u32;

__device__ void copy16(void* to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((u32)__cvta_generic_to_shared(to)), "l"(from) : "memory");
}
__device__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
__device__ void wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

extern "C" __global__ void kernel(const int* inp, int* out, int n) {
    __shared__ __align__(16) int tile[2][256 + 4];
    int t = threadIdx.x, tiles = n / 256;
    copy16(&tile[0][t * 4 + (BUG == 6)], inp + t * 4);
    if (BUG != 5) commit();
    for (int k = 0; k < tiles; ++k) {
        if (k + 1 < tiles || BUG == 7) copy16(&tile[(k + 1) & 1][t * 4], inp + (k + 1 < tiles ? (k + 1) * 256 : 0) + t * 4);
        if (BUG != 5) commit();
        if (BUG == 2) wait<2>();
        else if (BUG != 1) wait<1>();
        if (BUG != 3) __syncthreads();
        for (int i = t; i < 256; i += 64)
            out[k * 256 + i] = tile[k & 1][(i + 255) % 256] + tile[k & 1][i] + tile[k & 1][(i + 1) % 256];
        if (BUG != 4) __syncthreads();
    }
    if (BUG != 7 && BUG != 1 && BUG != 5) wait<0>();
}

extern "C" __global__ void reference(const int* inp, int* out, int n) {
    for (int i = 0; i < n; ++i) {
        const int* tile = inp + i / 256 * 256;
        out[i] = tile[(i + 255) % 256] + tile[i % 256] + tile[(i + 1) % 256];
    }
}
