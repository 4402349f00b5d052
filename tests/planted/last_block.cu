// Partial sums by four CTAs; the one that finishes last adds them up. out[0] is the result, out[1..5) the
// parts, out[5] the counter.
// launch: grid=4 block=64 inp=256 out=6 zeroed
// bug 1 race: no fence between writing the part and counting
// bug 2 race: the first CTA adds up, whether the others are done or not
// bug 3 race: the flag is read before it is written
// bug 4 race: counting without atomics
// bug 5 race: the thread that writes the part is not the one that fences and counts
extern "C" __global__ void kernel(const int* inp, int* out, int n) {
    __shared__ int sums[64];
    __shared__ int last;
    int t = threadIdx.x;
    sums[t] = inp[blockIdx.x * 64 + t];
    __syncthreads();
    if (t == (BUG == 5 ? 32 : 0)) {
        int sum = 0;
        for (int i = 0; i < 64; ++i) sum += sums[i];
        out[1 + blockIdx.x] = sum;
    }
    if (t == 0) {
        if (BUG != 1) __threadfence();
        if (BUG == 4)
            last = ++out[5] == 4;
        else
            last = BUG == 2 ? blockIdx.x == 0 : atomicAdd(&out[5], 1) == 3;
        if (BUG != 1) __threadfence();
    }
    if (BUG != 3) __syncthreads();
    if (last && t == 0) out[0] = out[1] + out[2] + out[3] + out[4];
}

extern "C" __global__ void reference(const int* inp, int* out, int n) {
    for (int b = 0; b < 4; ++b) {
        out[1 + b] = 0;
        for (int i = 0; i < 64; ++i) out[1 + b] += inp[b * 64 + i];
    }
    out[0] = out[1] + out[2] + out[3] + out[4];
    out[5] = 4;
}
