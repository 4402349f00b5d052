// PTX in functions, one instruction each, and the blocks that the patterns share. SPAN is the swizzle in bytes, and a
// row of a block: BK elements of the sum, or of M or N where TA or TB is 1. A block is 64 x BK elements, BLOCK bytes.
//
//   TA 0: A (M, K) row-major, 1: A (K, M)      TB 0: B (N, K) row-major, 1: B (K, N)

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
struct alignas(64) TensorMap { u64 words[16]; };

// What every kernel gets: matrices of float16 and their tensor maps, the float32 result, and room for what CTAs tell
// each other. Of the maps, A's and B's have boxes of a block, or of BK x BK where transposed; D's of 32 columns x 64.
struct Problem {
    TensorMap a_map, b_map, d_map;
    const u16 *a, *b;
    float *d, *partial;
    u32* flags;
    int m, n, k, stages;
};

constexpr int BK = SPAN / 2, STEPS = BK / 16;
constexpr u32 BLOCK = 64 * SPAN;

#define DEVICE __device__ __forceinline__

// Where a tensor map with a swizzle of so many bytes has what would be at this offset.
template <int BYTES>
DEVICE u32 swizzled(u32 offset) { return offset ^ (offset >> 3 & (BYTES - 16)); }

DEVICE u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// ---------------------------------------------------------------------------------------------------
// Barriers in shared memory

DEVICE void barrier_init(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
DEVICE void barriers_are_set_up() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
DEVICE void barrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
DEVICE void barrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// At the same barrier of another CTA of the cluster: as CUTLASS writes it, and with what the cluster sees spelled out.
DEVICE void barrier_arrive_at(u32 barrier, u32 cta) {
    asm volatile(
        "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(barrier), "r"(cta) : "memory");
}
DEVICE void barrier_release_at(u32 barrier, u32 cta) {
    asm volatile(
        "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n}" ::"r"(barrier), "r"(cta) : "memory");
}
DEVICE void barrier_wait(u32 barrier, u32 parity) {
    asm volatile(
        "{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra.uni DONE;\nbra.uni AGAIN;\nDONE:\n}" ::"r"(barrier), "r"(parity) : "memory");
}

// ---------------------------------------------------------------------------------------------------
// A ring of stages

// Stages of `bytes` one behind the other, then for each a barrier that says it is full, and one that it is empty.
struct Ring {
    u32 tiles, full, empty, bytes;
    int stages, stage = 0;
    u32 parity = 0;

    DEVICE Ring(u32 tiles, int stages, u32 bytes)
        : tiles(tiles), full(tiles + stages * bytes), empty(full + 8 * stages), bytes(bytes), stages(stages) {}
    DEVICE void set_up(int fills, int releases) {
        for (int i = 0; i < stages; i++) {
            barrier_init(full + 8 * i, fills);
            barrier_init(empty + 8 * i, releases);
        }
    }
    DEVICE u32 tile() { return tiles + stage * bytes; }
    DEVICE u32 is_full() { return full + 8 * stage; }
    DEVICE u32 is_empty() { return empty + 8 * stage; }
    DEVICE void next(int steps = 1) {
        for (stage += steps; stage >= stages; stage -= stages) parity ^= 1;
    }
};

// ---------------------------------------------------------------------------------------------------
// Threads together

DEVICE bool elect() {
    u32 elected;
    asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.u32 %0, 1, 0, p;\n}" : "=r"(elected)::"memory");
    return elected;
}
// Who says for a warpgroup that it has done with a stage, and how many of them there are.
enum { THREAD_0, THREAD_127, LANE_0, LANE_5, ELECTED, ALL };
constexpr int SIGNALS = SIGNAL <= THREAD_127 ? 1 : SIGNAL == ALL ? 128 : 4;
DEVICE bool signals(int thread) {
    switch (SIGNAL) {
        case THREAD_0: return thread == 0;
        case THREAD_127: return thread == 127;
        case LANE_0: return thread % 32 == 0;
        case LANE_5: return thread % 32 == 5;
        case ELECTED: return elect();
        default: return true;
    }
}
DEVICE void named_sync(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
DEVICE void named_arrive(int id, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
DEVICE u32 cluster_rank() {
    u32 rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
DEVICE void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
template <int REGISTERS>
DEVICE void give_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS)); }
template <int REGISTERS>
DEVICE void take_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS)); }

// ---------------------------------------------------------------------------------------------------
// Copies

DEVICE void load_box(u32 to, const TensorMap* map, u32 barrier, int x, int y) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(to),
        "l"(map), "r"(barrier), "r"(x), "r"(y) : "memory");
}
// To the same place of every CTA in `ctas`, whose barriers are told.
DEVICE void load_box_multicast(u32 to, const TensorMap* map, u32 barrier, int x, int y, u16 ctas) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to), "l"(map), "r"(barrier), "r"(x), "r"(y), "h"(ctas) : "memory");
}
// The block of 64 rows of the operand from `row`, BK columns from `k`.
template <int TRANSPOSED>
DEVICE void load_block(u32 to, const TensorMap* map, u32 barrier, int row, int k) {
    if (TRANSPOSED)
        for (int i = 0; i < 64; i += BK) load_box(to + i * SPAN, map, barrier, row + i, k);
    else
        load_box(to, map, barrier, k, row);
}
DEVICE void store_box(const TensorMap* map, u32 from, int x, int y) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map), "r"(from), "r"(x),
                 "r"(y) : "memory");
}
DEVICE void stores_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
template <int GROUPS>
DEVICE void stores_wait_read() { asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(GROUPS) : "memory"); }
template <int GROUPS>
DEVICE void stores_wait() { asm volatile("cp.async.bulk.wait_group %0;" ::"n"(GROUPS) : "memory"); }
// What ordinary accesses of shared memory have done is seen by TMA and wgmma after it.
DEVICE void proxy_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

DEVICE void copy16(u32 to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int GROUPS>
DEVICE void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory"); }
// When all copies that this thread has issued are done: one of the barrier's arrivals, or one that is expected besides.
DEVICE void copies_arrive(u32 barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}
DEVICE void copies_arrive_besides(u32 barrier) {
    asm volatile("cp.async.mbarrier.arrive.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// ---------------------------------------------------------------------------------------------------
// Products of a warpgroup

// A block as wgmma takes it: groups of eight rows of SPAN bytes; transposed, a block's columns are BK apart.
DEVICE u64 matrix(u32 block, int transposed) {
    u64 swizzle = SPAN == 128 ? 1 : SPAN == 64 ? 2 : 3, across = transposed ? BK * SPAN : 16;
    return (u64)((block & 0x3ffff) >> 4) | across >> 4 << 16 | (u64)(8 * SPAN >> 4) << 32 | swizzle << 62;
}

typedef float Sums[32];  // 64 x 64, as wgmma leaves them

#define F8(d, i) \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define SUMS \
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}"

// d (64, 64) = or += A (64, 16) · B (16, 64)
template <int TRANSPOSED_A, int TRANSPOSED_B>
DEVICE void wgmma(Sums& d, u64 a, u64 b, int accumulate) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 " SUMS ", %32, %33, p, 1, 1, %35, %36;\n}"
        : F8(d, 0), F8(d, 8), F8(d, 16), F8(d, 24)
        : "l"(a), "l"(b), "r"(accumulate), "n"(TRANSPOSED_A), "n"(TRANSPOSED_B) : "memory");
}
// The same, A in registers.
template <int TRANSPOSED_B>
DEVICE void wgmma_registers(Sums& d, const u32* a, u64 b, int accumulate) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 " SUMS ", {%32, %33, %34, %35}, %36, p, 1, 1, %38;\n}"
        : F8(d, 0), F8(d, 8), F8(d, 16), F8(d, 24)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(TRANSPOSED_B) : "memory");
}
DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int GROUPS>
DEVICE void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(GROUPS) : "memory"); }

// Tells the compiler that the registers change here: nothing of them moves across.
DEVICE void pin(Sums& d) {
#pragma unroll
    for (int i = 0; i < 32; i++) asm volatile("" : "+f"(d[i])::"memory");
}

// d = or += a block of A · a block of B, transposed as TA and TB have it
DEVICE void multiply(Sums& d, u32 a, u32 b, int accumulate) {
#pragma unroll
    for (int i = 0; i < STEPS; i++)
        wgmma<TA, TB>(d, matrix(a, TA) + i * (TA ? SPAN : 2), matrix(b, TB) + i * (TB ? SPAN : 2), accumulate || i > 0);
}

// The sums to a buffer of two boxes of 32 columns, as D's map has them.
DEVICE void write_shared(u32 buffer, const Sums& d, int thread) {
    int row = thread / 32 * 16 + thread % 32 / 4, column = thread % 4 * 2;
#pragma unroll
    for (int i = 0; i < 32; i += 2) {
        u32 at = i / 16 * 8192 + swizzled<128>((row + i / 2 % 2 * 8) * 128 + (i / 4 % 4 * 8 + column) * 4);
        asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(buffer + at), "f"(d[i]), "f"(d[i + 1]) : "memory");
    }
}

// The sums to rows of `stride` floats, by one thread of the warpgroup.
DEVICE void write(float* to, int stride, const Sums& d, int thread) {
    int row = thread / 32 * 16 + thread % 32 / 4, column = thread % 4 * 2;
#pragma unroll
    for (int i = 0; i < 32; i++) to[(row + i / 2 % 2 * 8) * stride + i / 4 * 8 + column + i % 2] = d[i];
}
