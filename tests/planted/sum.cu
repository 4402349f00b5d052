// A CTA's sum in shared memory, a tree of halves; the last CTA is ragged.
// launch: grid=3 block=128 inp=300 out=3
// bug 1 race: nothing between filling the tile and the first halving
// bug 2 race: nothing between two halvings
// bug 3 memory: the bound lets one thread read past the end
// bug 4 memory: the tile is one short
// bug 5 sync: a part of a warp waits at a barrier for whole warps
// bug 6 init: threads past the end leave their part of the tile unwritten
// bug 7 memory: the results are written one place too far
// bug 8 race: every thread writes the result

extern "C" __global__ void kernel(const int* inp, int* out, int n) {
    __shared__ int tile[128 - (BUG == 4)];
    int t = threadIdx.x, i = blockIdx.x * 128 + t;
    bool inside = BUG == 3 ? i <= n : i < n;
    if (BUG == 6) {
        if (inside) tile[t] = inp[i];
    } else {
        tile[t] = inside ? inp[i] : 0;
    }
    if (BUG == 5 && t < 40) __syncthreads();
    if (BUG != 1) __syncthreads();
    for (int half = 64; half > 0; half >>= 1) {
        if (t < half) tile[t] += tile[t + half];
        if (BUG != 2) __syncthreads();
    }
    if (BUG == 8 || t == 0) out[blockIdx.x + (BUG == 7)] = tile[0] + (BUG == 8 ? t : 0);
}

extern "C" __global__ void reference(const int* inp, int* out, int n) {
    for (int b = 0; b < 3; ++b) {
        out[b] = 0;
        for (int i = b * 128; i < n && i < b * 128 + 128; ++i) out[b] += inp[i];
    }
}
