// Counts of 16 values, in shared memory and then added up.
// launch: grid=4 block=64 inp=256 out=16 zeroed
// bug 1 race: the shared counts grow without atomics
// bug 2 race: the total grows without atomics, from several CTAs
// bug 3 init: the shared counts begin with whatever is there
// bug 4 race: the counts are read before all have counted
// bug 5 race: counting begins before the counts are zero
// bug 6 memory: the value is taken for the bin
extern "C" __global__ void kernel(const int* inp, int* out, int n) {
    __shared__ int bins[16];
    int t = threadIdx.x;
    if (BUG != 3 && t < 16) bins[t] = 0;
    if (BUG != 5) __syncthreads();
    int i = blockIdx.x * 64 + t;
    int bin = inp[i] & (BUG == 6 ? 0xfff : 15);
    if (i < n) {
        if (BUG == 1)
            bins[bin] += 1;
        else
            atomicAdd(&bins[bin], 1);
    }
    if (BUG != 4) __syncthreads();
    if (t >= 16) return;
    if (BUG == 2)
        out[t] += bins[t];
    else
        atomicAdd(&out[t], bins[t]);
}

extern "C" __global__ void reference(const int* inp, int* out, int n) {
    for (int i = 0; i < n; ++i) out[inp[i] & 15] += 1;
}
