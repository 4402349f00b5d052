// The greatest of each row of 32 numbers by its place, and a whole quotient by a power of two; rows are the threads'.
// launch: grid=2 block=32 inp=2048 out=128
// bug 1 approx: the place is looked for among exponentials, which need not keep the order
// bug 2 approx: the reciprocal of a power of two is taken for exact

__device__ float ex2(float x) {
    float y;
    asm("ex2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ float rcp(float x) {
    float y;
    asm("rcp.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

extern "C" __global__ void kernel(const int* inp, int* out, int n) {
    int row = blockIdx.x * 32 + threadIdx.x, place = 0;
    float greatest = 0.f;
    for (int i = 0; i < 32; ++i) {
        // Apart by more than the exponential's last place.
        float x = 1.f + row / 64.f + (float)(inp[row * 32 + i] & 63) / (1 << 22);
        float y = BUG == 1 ? ex2(x) : x;
        if (y > greatest) greatest = y, place = i;
    }
    out[2 * row] = place;
    int width = 1 << row % 16, length = (inp[row * 32] % 64 + 1) * width;
    out[2 * row + 1] = (int)(((float)length + (BUG == 2 ? 0.f : 0.5f)) * rcp((float)width));
}

extern "C" __global__ void reference(const int* inp, int* out, int n) {
    for (int row = 0; row < 64; ++row) {
        int place = 0;
        for (int i = 1; i < 32; ++i)
            if ((inp[row * 32 + i] & 63) > (inp[row * 32 + place] & 63)) place = i;
        out[2 * row] = place;
        out[2 * row + 1] = inp[row * 32] % 64 + 1;
    }
}
