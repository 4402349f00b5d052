// A warp's products on tensor cores, sm_75 and up: mma.sync, ldmatrix, cp.async, one instruction a function. Addresses of
// shared memory are 32 bits. sm_75 multiplies half as deep at a time, and its copies have come when the next instruction begins.

#pragma once

#include "prelude.cuh"

// d (16, 8) += a (16, 16) · b (16, 8), float16 operands. A lane has of d rows lane / 4 and that + 8, columns lane % 4 · 2 and the
// next: {d0, d1} and {d2, d3}.
__device__ __forceinline__ void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#if __CUDA_ARCH__ < 800
#pragma unroll
    for (int k = 0; k < 2; ++k)
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(k ? b1 : b0));
#else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// Four 8 x 8 matrices of 16 bits, of whose rows each lane has given one; AT bytes further on.
template <int AT>
__device__ __forceinline__ void load_matrices(u32 (&r)[4], u32 from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4 + %5];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from), "n"(AT)
                 : "memory");
}
template <int AT>
__device__ __forceinline__ void load_matrices_transposed(u32 (&r)[4], u32 from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4 + %5];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from), "n"(AT)
                 : "memory");
}

#if __CUDA_ARCH__ < 800
// 16 bytes to shared memory, of which so many exist: the others are zero, and not read.
__device__ __forceinline__ void copy_16_bytes(u32 to, const void* from, int exist) {
    u32 x[4] = {};
    if (exist == 16) {
        uint4 all = *(const uint4*)from;
        x[0] = all.x, x[1] = all.y, x[2] = all.z, x[3] = all.w;
    } else {
#pragma unroll
        for (int i = 0; i < 8; ++i)
            if (i * 2 < exist) x[i / 2] |= (u32)((const unsigned short*)from)[i] << i % 2 * 16;
    }
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]) : "memory");
}
__device__ __forceinline__ void copy_16_bytes(u32 to, const void* from) { copy_16_bytes(to, from, 16); }
__device__ __forceinline__ void copy_4_bytes(u32 to, const void* from, bool exist) {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(exist ? *(const u32*)from : 0) : "memory");
}
__device__ __forceinline__ void copies_commit() {}
template <int GROUPS>
__device__ __forceinline__ void copies_wait() {}
#else
// 16 bytes to shared memory, of which so many exist: the others are zero, and not read.
__device__ __forceinline__ void copy_16_bytes(u32 to, const void* from, int exist) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(exist) : "memory");
}
__device__ __forceinline__ void copy_16_bytes(u32 to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
__device__ __forceinline__ void copy_4_bytes(u32 to, const void* from, bool exist) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(exist ? 4 : 0) : "memory");
}
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until all but the latest so many groups have come.
template <int GROUPS>
__device__ __forceinline__ void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}
#endif

// 16 bytes of shared memory to global memory, at once: of a float4 on its way the compiler may store one float after another.
__device__ __forceinline__ void copy_16_bytes_out(void* to, u32 from) {
    u32 x[4];
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(from) : "memory");
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]) : "memory");
}

// Two float16, `low` first in memory.
__device__ __forceinline__ u32 pack_halves(float low, float high) {
    u32 pair;
#if __CUDA_ARCH__ < 800
    asm("{\n.reg .b16 low, high;\ncvt.rn.f16.f32 low, %2;\ncvt.rn.f16.f32 high, %1;\nmov.b32 %0, {low, high};\n}"
        : "=r"(pair)
        : "f"(high), "f"(low));
#else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#endif
    return pair;
}

template <int AT>
__device__ __forceinline__ void store_shared(u32 to, u32 x) {
    asm volatile("st.shared.b32 [%0 + %1], %2;" ::"r"(to), "n"(AT), "r"(x) : "memory");
}
template <int AT>
__device__ __forceinline__ void load_shared(float& x, float& y, u32 from) {
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2 + %3];" : "=f"(x), "=f"(y) : "r"(from), "n"(AT) : "memory");
}

// f(Constant<0>), f(Constant<1>), ..: a loop whose index is a constant where one is asked for, as I(i).
template <int N>
struct Constant {
    static constexpr int value = N;
    __device__ constexpr operator int() const { return N; }
};
template <int COUNT, int FIRST = 0, typename F>
__device__ __forceinline__ void unroll(const F& f) {
    if constexpr (FIRST < COUNT) {
        f(Constant<FIRST>{});
        unroll<COUNT, FIRST + 1>(f);
    }
}
#define I(i) (decltype(i)::value)
