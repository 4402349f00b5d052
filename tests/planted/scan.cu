// Running sums of 256 numbers: within warps by shuffles, across them through shared memory.
// launch: grid=1 block=256 inp=256 out=256
// bug 1 sync: a shuffle names lanes that are not there
// bug 2 race: the warps' sums are read before they are all written
// bug 3 race: the first warp's result is read without waiting for it
// bug 4 race: lanes of a warp hand values on through shared memory without __syncwarp
// bug 5 memory: a warp's sum goes to its thread's place
extern "C" __global__ void kernel(const int* inp, int* out, int n) {
    __shared__ int sums[8];
    __shared__ int lanes[256];
    int t = threadIdx.x, lane = t % 32, warp = t / 32;
    int x = inp[t];
    if (BUG == 4) {
        for (int by = 1; by < 32; by *= 2) {
            lanes[t] = x;
            if (lane >= by) x += lanes[t - by];
        }
    } else if (BUG == 1) {
        if (lane < 31) {
            for (int by = 1; by < 32; by *= 2) {
                int y = __shfl_up_sync(0xffffffff, x, by);
                if (lane >= by) x += y;
            }
        }
    } else {
        for (int by = 1; by < 32; by *= 2) {
            int y = __shfl_up_sync(0xffffffff, x, by);
            if (lane >= by) x += y;
        }
    }
    if (lane == 31) sums[BUG == 5 ? t : warp] = x;
    if (BUG != 2) __syncthreads();
    if (t == 0)
        for (int w = 1; w < 8; ++w) sums[w] += sums[w - 1];
    if (BUG != 3) __syncthreads();
    out[t] = x + (warp ? sums[warp - 1] : 0);
    lanes[t] = 0;
}

extern "C" __global__ void reference(const int* inp, int* out, int n) {
    for (int i = 0; i < n; ++i) out[i] = inp[i] + (i ? out[i - 1] : 0);
}
