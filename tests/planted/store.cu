// All lanes of a warp issue the same bulk copy of what they have made: equal bytes to equal places.
// launch: grid=2 block=32 inp=512 out=512
// bug 1 race: every other lane stores the second half where the first one goes
// bug 2 race: each lane stores 16 bytes more than its own
// bug 3 async: what is stored is written again before it has been read
// bug 4 async: no proxy fence before the copy
typedef unsigned u32;
#define PIECE 256

extern "C" __global__ void kernel(const int* inp, int* out, int n) {
    __shared__ __align__(128) int piece[PIECE];
    int lane = threadIdx.x, first = blockIdx.x * PIECE;
    for (int i = lane; i < PIECE; i += 32) piece[i] = inp[first + i] ^ 21;
    if (BUG != 4) asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncwarp();
    int* to = out + first;
    const int* from = piece;
    int bytes = 4 * PIECE;
    if (BUG == 1) {
        from += lane % 2 * (PIECE / 2);
        bytes /= 2;
    }
    if (BUG == 2) {
        to += lane * 8;
        from += lane * 8;
        bytes = lane < 31 ? 48 : 32;
    }
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"((u32)__cvta_generic_to_shared(from)), "r"(bytes) : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
    if (BUG != 3) asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
    __syncwarp();
    piece[lane] = lane;
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

extern "C" __global__ void reference(const int* inp, int* out, int n) {
    for (int i = 0; i < n; ++i) out[i] = inp[i] ^ 21;
}
