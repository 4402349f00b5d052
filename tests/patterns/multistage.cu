// As on sm_80: groups of cp.async run STAGES - 1 steps ahead of four warps of 32 x 32, which read the next fragments by
// ldmatrix while they multiply these.
//
// bug 1 async: one group more may be under way than there are stages ahead
// bug 2 async STAGES=3: no groups are committed once there is nothing to copy, so the last are not waited for
// bug 3 init/race/async: no barrier between a thread's wait and the others' reads
// bug 4 race: the stage that is still read is filled before the barrier
// bug 5 result SPAN=128: the fragments that are multiplied are those being read
// bug 6 race: no barrier between the last reads of a tile and the first copies of the next
// bug 7 result: B is read as if it were not transposed, or the other way round
constexpr u32 STAGE = 2 * BLOCK;

// The block of 64 rows of the operand from `row`, BK columns from `k`; the matrix has `rows` rows and `columns` columns.
template <int TRANSPOSED>
DEVICE void copy_block(u32 to, const u16* from, int rows, int columns, int row, int k) {
    constexpr int CHUNKS = SPAN / 16;
    for (int i = threadIdx.x; i < 64 * CHUNKS; i += 128) {
        int r = i / CHUNKS, x = i % CHUNKS * 8;
        const u16* piece = TRANSPOSED ? from + (k + r % BK) * rows + row + r / BK * BK + x : from + (row + r) * columns + k + x;
        copy16(to + swizzled<SPAN>(i * 16), piece);
    }
}

// Sixteen rows of the operand, sixteen of the sum, in the order of A's fragment.
template <int TRANSPOSED>
DEVICE void load_fragment(u32 (&f)[4], u32 block, int row, int k) {
    int lane = threadIdx.x % 32, i = lane % 8;
    row += lane / 8 % 2 * 8 + (TRANSPOSED ? 0 : i);
    k += lane / 16 * 8 + (TRANSPOSED ? i : 0);
    u32 at = block + swizzled<SPAN>(TRANSPOSED ? (row / BK * BK + k) * SPAN + row % BK * 2 : row * SPAN + k * 2);
    if (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(f[0]), "=r"(f[1]), "=r"(f[2]), "=r"(f[3]) : "r"(at) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(f[0]), "=r"(f[1]), "=r"(f[2]), "=r"(f[3]) : "r"(at) : "memory");
}

DEVICE void mma(float* d, const u32* a, u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Fragments of a warp for one step of sixteen.
struct Fragments {
    u32 a[2][4], b[2][4];
    DEVICE void load(u32 stage, int warp, int k) {
        for (int i = 0; i < 2; i++) {
            load_fragment<TA>(a[i], stage, warp / 2 * 32 + i * 16, k);
            load_fragment<TB ^ (BUG == 7)>(b[i], stage + BLOCK, warp % 2 * 32 + i * 16, k);
        }
    }
};

extern "C" __global__ void __launch_bounds__(128) kernel(const __grid_constant__ Problem p) {
    extern __shared__ __align__(1024) unsigned char shared[];
    u32 stages = shared_address(shared);
    int rows = p.m / 64, tiles = rows * (p.n / 64), steps = p.k / BK, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        int row = tile % rows * 64, column = tile / rows * 64;
        auto copy = [&](int step) {
            if (step < steps) {
                u32 stage = stages + step % STAGES * STAGE;
                copy_block<TA>(stage, p.a, p.m, p.k, row, step * BK);
                copy_block<TB>(stage + BLOCK, p.b, p.n, p.k, column, step * BK);
            }
            if (step < steps || BUG != 2) copies_commit();
        };
        for (int step = 0; step < STAGES - 1; step++) copy(step);
        float d[2][4][4] = {};
        Fragments fragments[2];
        for (int step = 0; step < steps; step++) {
            if (BUG == 4) copy(step + STAGES - 1);
            copies_wait<STAGES - 2 + (BUG == 1)>();
            if (BUG != 3) __syncthreads();
            if (BUG != 4) copy(step + STAGES - 1);
            u32 stage = stages + step % STAGES * STAGE;
            fragments[0].load(stage, warp, 0);
#pragma unroll
            for (int i = 0; i < STEPS; i++) {
                if (i + 1 < STEPS) fragments[(i + 1) % 2].load(stage, warp, (i + 1) * 16);
                const Fragments& f = fragments[(i + (BUG == 5)) % 2];
#pragma unroll
                for (int j = 0; j < 8; j++) mma(d[j / 4][j % 4], f.a[j / 4], f.b[j % 4 / 2][j % 2], f.b[j % 4 / 2][j % 2 + 2]);
            }
        }
        if (BUG != 6) __syncthreads();
#pragma unroll
        for (int i = 0; i < 32; i++) {
            int r = row + warp / 2 * 32 + i / 16 * 16 + lane / 4 + i / 2 % 2 * 8;
            p.d[r * p.n + column + warp % 2 * 32 + i / 4 % 4 * 8 + lane % 4 * 2 + i % 2] = d[i / 16][i / 4 % 4][i % 4];
        }
    }
}
