// Four numbers at a time, the rest one by one; a window of each thread's own in local memory.
// launch: grid=1 block=64 inp=250 out=250
// bug 1 memory: a vector load from an address that is no multiple of 16 bytes
// bug 2 memory: the last vector reaches past the end
// bug 3 init: the window's last place is never written
// bug 4 memory: the window is indexed past its end
// bug 5 init: the last numbers are read from the result before anybody wrote them
extern "C" __global__ void kernel(const int* inp, int* out, int n) {
    int i = threadIdx.x * 4;
    volatile int window[4];
    if (BUG == 2 ? i < n : i + 3 < n) {
        int4 v = *(const int4*)(inp + i + (BUG == 1));
        window[0] = v.x, window[1] = v.y, window[2] = v.z;
        if (BUG != 3) window[3] = v.w;
        for (int j = 0; j < 4; ++j) out[i + j] = window[BUG == 4 ? j + inp[0] % 2 + 4 : j] * 3;
    } else {
        for (; i < n; ++i) out[i] = (BUG == 5 ? out[i] : inp[i]) * 3;
    }
}

extern "C" __global__ void reference(const int* inp, int* out, int n) {
    for (int i = 0; i < n; ++i) out[i] = inp[i] * 3;
}
