// Two warps fill a buffer, two empty it; named barriers say when it is full and when empty.
// launch: grid=1 block=128 inp=512 out=512
// bug 1 sync: the full barrier waits for one warp more than there is
// bug 2 race: the consumers do not wait until it is full
// bug 3 race: the consumers say that it is empty before they have read it
// bug 4 sync: the consumers never say that it is empty
// bug 5 sync: a barrier for a number of threads that is no multiple of 32
// bug 6 sync: barrier 16
#define SYNC(ID, N) asm volatile("bar.sync %0, %1;" ::"r"(ID), "r"(N) : "memory")
#define ARRIVE(ID, N) asm volatile("bar.arrive %0, %1;" ::"r"(ID), "r"(N) : "memory")
enum { FULL = 1, EMPTY = 2 };

extern "C" __global__ void kernel(const int* inp, int* out, int n) {
    __shared__ int buffer[64];
    int t = threadIdx.x % 64;
    int full = BUG == 1 ? 160 : BUG == 5 ? 120 : 128;
    if (threadIdx.x < 64) {
        for (int i = 0; i < n; i += 64) {
            if (i) SYNC(EMPTY, 128);
            buffer[t] = inp[i + t];
            ARRIVE(BUG == 6 ? 16 : FULL, full);
        }
    } else {
        for (int i = 0; i < n; i += 64) {
            if (BUG != 2) SYNC(BUG == 6 ? 16 : FULL, full);
            if (i + 64 < n && BUG == 3) ARRIVE(EMPTY, 128);
            out[i + t] = buffer[63 - t] + 1;
            if (i + 64 < n && BUG != 3 && BUG != 4) ARRIVE(EMPTY, 128);
        }
    }
}

extern "C" __global__ void reference(const int* inp, int* out, int n) {
    for (int i = 0; i < n; ++i) out[i] = inp[i / 64 * 64 + 63 - i % 64] + 1;
}
