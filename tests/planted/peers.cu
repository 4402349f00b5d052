// Each CTA of a cluster of four reads its neighbour's numbers out of the neighbour's shared memory.
// launch: grid=8 cluster=4 block=32 inp=256 out=256
// bug 1 race: nothing between writing the numbers and the neighbour's reading them
// bug 2 memory: a CTA ends while its neighbour may still read its shared memory
// bug 3 memory: the neighbour of the last is one that is not there
// bug 4 race: the CTA's own barrier, where the cluster's is needed
typedef unsigned u32;

extern "C" __global__ void __cluster_dims__(4, 1, 1) kernel(const int* inp, int* out, int n) {
    __shared__ int numbers[32];
    int t = threadIdx.x;
    u32 rank, from;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    numbers[t] = inp[blockIdx.x * 32 + t];
    if (BUG == 4)
        __syncthreads();
    else if (BUG != 1)
        asm volatile("barrier.cluster.arrive;\nbarrier.cluster.wait;" ::: "memory");
    u32 mine = (u32)__cvta_generic_to_shared(&numbers[31 - t]), peer = BUG == 3 ? rank + 1 : (rank + 1) % 4;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(from) : "r"(mine), "r"(peer));
    int x;
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(x) : "r"(from) : "memory");
    out[blockIdx.x * 32 + t] = x;
    if (BUG != 2) asm volatile("barrier.cluster.arrive;\nbarrier.cluster.wait;" ::: "memory");
}

extern "C" __global__ void reference(const int* inp, int* out, int n) {
    for (int i = 0; i < n; ++i) {
        int b = i / 32, neighbour = b / 4 * 4 + (b + 1) % 4;
        out[i] = inp[neighbour * 32 + 31 - i % 32];
    }
}
