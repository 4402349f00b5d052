// A map of 32 x 32 numbers that is built on the device from zeros, and the quarter of it that a tensor copy brings.
// launch: grid=1 block=32 inp=1024 out=256 nvrtc=1203
// bug 1 instruction: the second dimension is never set
// bug 2 instruction: the elements' type is never set
// bug 3 instruction: rows that do not begin at multiples of 16 bytes
// bug 4 instruction: a rank that counts from 1
// bug 5 result: the rows of a tensor of another width
typedef unsigned u32;
typedef unsigned long long u64;

#define REPLACE(field, type, ...) asm volatile("tensormap.replace.tile." field ".shared::cta.b1024." type " [%0], " __VA_ARGS__ : "memory")

__device__ __align__(128) char published[128];

extern "C" __global__ void kernel(const int* inp, int* out, int n) {
    __shared__ __align__(128) u32 map[32];
    __shared__ __align__(128) int tile[256];
    __shared__ __align__(8) u64 loaded;
    u32 t = threadIdx.x, at = (u32)__cvta_generic_to_shared(map), barrier = (u32)__cvta_generic_to_shared(&loaded);
    map[t] = 0;
    if (t == 0) asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(barrier) : "memory");
    __syncwarp();
    if (t == 0) {
        REPLACE("global_address", "b64", "%1;" ::"r"(at), "l"(inp));
        REPLACE("rank", "b32", "%1;" ::"r"(at), "r"(BUG == 4 ? 2 : 1));
        REPLACE("box_dim", "b32", "0, %1;" ::"r"(at), "r"(16));
        REPLACE("box_dim", "b32", "1, %1;" ::"r"(at), "r"(16));
        REPLACE("global_dim", "b32", "0, %1;" ::"r"(at), "r"(32));
        if (BUG != 1) REPLACE("global_dim", "b32", "1, %1;" ::"r"(at), "r"(n / 32));
        REPLACE("global_stride", "b64", "0, %1;" ::"r"(at), "l"(BUG == 3 ? 124ull : BUG == 5 ? 64ull : 128ull));
        REPLACE("element_stride", "b32", "0, %1;" ::"r"(at), "r"(1));
        REPLACE("element_stride", "b32", "1, %1;" ::"r"(at), "r"(1));
        if (BUG != 2) REPLACE("elemtype", "b32", "3;" ::"r"(at));
        REPLACE("interleave_layout", "b32", "0;" ::"r"(at));
        REPLACE("swizzle_mode", "b32", "0;" ::"r"(at));
        REPLACE("fill_mode", "b32", "0;" ::"r"(at));
    }
    __syncwarp();
    asm volatile("tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned [%0], [%1], 128;"
                 ::"l"(published), "r"(at) : "memory");
    asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(published) : "memory");
    if (t == 0) {
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], 1024;" ::"r"(barrier) : "memory");
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %3}], [%2];"
                     ::"r"((u32)__cvta_generic_to_shared(tile)), "l"(published), "r"(barrier), "r"(8) : "memory");
    }
    u32 done = 0;
    while (!done)
        asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], 0; selp.u32 %0, 1, 0, p;}"
                     : "=r"(done) : "r"(barrier) : "memory");
    for (int i = t; i < 256; i += 32) out[i] = tile[i];
}

extern "C" __global__ void reference(const int* inp, int* out, int n) {
    for (int row = 0; row < 16; ++row)
        for (int column = 0; column < 16; ++column) out[row * 16 + column] = inp[(row + 8) * 32 + column + 8];
}
