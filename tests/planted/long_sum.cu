// A 16x8 product of 16x3072 and 3072x8 numbers of one to two in float16 by mma, to the nearest whole number: sums of many
// positive numbers, which a GPU's tensor cores cut at each step.
// launch: grid=1 block=32 inp=4096 out=128
// bug 1 sums: the tensor core adds all 3072 products, rather than 16 whose sums are added in float32
typedef unsigned u32;
constexpr int K = 3072;

__device__ u32 half(int x) {
    unsigned short h;
    asm("{\n.reg .f32 f;\ncvt.rn.f32.s32 f, %1;\nmul.rn.f32 f, f, 0f3A800000;\ncvt.rn.f16.f32 %0, f;\n}" : "=h"(h) : "r"(x));
    return h;
}
__device__ int a(const int* inp, int n, int row, int k) { return 1024 + (inp[(row * K + k) * 5 % n] & 1023); }
__device__ int b(const int* inp, int n, int k, int column) { return 1024 + (inp[(column * K + k) * 3 % n] & 1023); }

extern "C" __global__ void kernel(const int* inp, int* out, int n) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    float total[4] = {};
    for (int k = 0; k < K; k += 16) {
        u32 x[4], y[2];
        for (int i = 0; i < 4; ++i) {
            int row = g + i % 2 * 8, at = k + 2 * t + i / 2 * 8;
            x[i] = half(a(inp, n, row, at)) | half(a(inp, n, row, at + 1)) << 16;
        }
        for (int i = 0; i < 2; ++i) {
            int at = k + 2 * t + i * 8;
            y[i] = half(b(inp, n, at, g)) | half(b(inp, n, at + 1, g)) << 16;
        }
        float d[4];
        for (int i = 0; i < 4; ++i) d[i] = BUG == 1 ? total[i] : 0.f;
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
        for (int i = 0; i < 4; ++i) total[i] = BUG == 1 ? d[i] : total[i] + d[i];
    }
    for (int i = 0; i < 4; ++i) out[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = (int)(total[i] + 0.5f);
}

extern "C" __global__ void reference(const int* inp, int* out, int n) {
    for (int row = 0; row < 16; ++row)
        for (int column = 0; column < 8; ++column) {
            long long sum = 0;
            for (int k = 0; k < K; ++k) sum += a(inp, n, row, k) * b(inp, n, k, column);
            out[row * 8 + column] = (int)((sum + (1 << 19)) >> 20);
        }
}
