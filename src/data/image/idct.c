// libjpeg's accurate integer inverse DCT (jidctint.c), eight columns at once: the same integers, and so the same bits. Its own C takes two
// fifths of a JPEG's time; its assembly, which does it like this, wants nasm.

#define JPEG_INTERNALS
#include <stddef.h>
#include <stdio.h>

#include <jpeglib.h>
#include <jdct.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))
#define INLINE static inline AVX2 __attribute__((always_inline))

enum { CONST_BITS = 13, PASS1_BITS = 2 };

INLINE __m256i add(__m256i a, __m256i b) {
    return _mm256_add_epi32(a, b);
}

INLINE __m256i sub(__m256i a, __m256i b) {
    return _mm256_sub_epi32(a, b);
}

INLINE __m256i times(__m256i a, int by) {
    return _mm256_mullo_epi32(a, _mm256_set1_epi32(by));
}

// x[k], of coefficient k, becomes value k, in each lane; divided by 2^bits and rounded. Constants are of 13 bits: sqrt(2)
// times sums of cosines, as jidctint.c names them.
INLINE void transform(__m256i x[8], int bits) {
    __m256i z1 = times(add(x[2], x[6]), 4433);
    __m256i t2 = add(z1, times(x[6], -15137)), t3 = add(z1, times(x[2], 6270));
    __m256i t0 = _mm256_slli_epi32(add(x[0], x[4]), CONST_BITS);
    __m256i t1 = _mm256_slli_epi32(sub(x[0], x[4]), CONST_BITS);
    __m256i half = _mm256_set1_epi32(1 << (bits - 1));
    __m256i even[4] = {add(add(t0, t3), half), add(add(t1, t2), half), add(sub(t1, t2), half), add(sub(t0, t3), half)};

    __m256i z2 = add(x[5], x[3]), z3 = add(x[7], x[3]), z4 = add(x[5], x[1]);
    z1 = add(x[7], x[1]);
    __m256i z5 = times(add(z3, z4), 9633);
    z1 = times(z1, -7373);
    z2 = times(z2, -20995);
    z3 = add(times(z3, -16069), z5);
    z4 = add(times(z4, -3196), z5);
    __m256i odd[4] = {
        add(times(x[1], 12299), add(z1, z4)),
        add(times(x[3], 25172), add(z2, z3)),
        add(times(x[5], 16819), add(z2, z4)),
        add(times(x[7], 2446), add(z1, z3)),
    };
    for (int k = 0; k < 4; k++) {
        x[k] = _mm256_srai_epi32(add(even[k], odd[k]), bits);
        x[7 - k] = _mm256_srai_epi32(sub(even[k], odd[k]), bits);
    }
}

INLINE void transpose(__m256i x[8]) {
    __m256i a[8], b[8];
    for (int k = 0; k < 8; k += 2) {
        a[k] = _mm256_unpacklo_epi32(x[k], x[k + 1]);
        a[k + 1] = _mm256_unpackhi_epi32(x[k], x[k + 1]);
    }
    for (int k = 0; k < 8; k += 4)
        for (int i = 0; i < 2; i++) {
            b[k + 2 * i] = _mm256_unpacklo_epi64(a[k + i], a[k + 2 + i]);
            b[k + 2 * i + 1] = _mm256_unpackhi_epi64(a[k + i], a[k + 2 + i]);
        }
    for (int k = 0; k < 4; k++) {
        x[k] = _mm256_permute2x128_si256(b[k], b[k + 4], 0x20);
        x[k + 4] = _mm256_permute2x128_si256(b[k], b[k + 4], 0x31);
    }
}

// As libjpeg's table of limits has it: of ten bits, the sign's among them, and clamped around the middle by packing.
INLINE __m256i limited(__m256i x) {
    return add(_mm256_srai_epi32(_mm256_slli_epi32(x, 22), 22), _mm256_set1_epi32(CENTERJSAMPLE));
}

static AVX2 void inverse_dct(j_decompress_ptr info, jpeg_component_info *component, JCOEFPTR coefficients,
                             JSAMPARRAY rows, JDIMENSION column) {
    const ISLOW_MULT_TYPE *steps = (const ISLOW_MULT_TYPE *)component->dct_table;
    __m256i x[8];
    (void)info;
    for (int k = 0; k < 8; k++) {
        __m128i stored = _mm_loadu_si128((const __m128i *)(coefficients + 8 * k));
        __m256i step = sizeof *steps == 4 ? _mm256_loadu_si256((const __m256i *)(steps + 8 * k))
                                          : _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(steps + 8 * k)));
        x[k] = _mm256_mullo_epi32(_mm256_cvtepi16_epi32(stored), step);
    }
    transform(x, CONST_BITS - PASS1_BITS);
    transpose(x);
    transform(x, CONST_BITS + PASS1_BITS + 3);
    transpose(x);
    for (int k = 0; k < 8; k += 4) {
        __m256i upper = _mm256_packs_epi32(limited(x[k]), limited(x[k + 1]));
        __m256i lower = _mm256_packs_epi32(limited(x[k + 2]), limited(x[k + 3]));
        __m256i four = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(upper, lower),
                                                   _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        __m128i pairs[2] = {_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1)};
        for (int i = 0; i < 2; i++) {
            _mm_storel_epi64((__m128i *)(rows[k + 2 * i] + column), pairs[i]);
            _mm_storeh_pd((double *)(rows[k + 2 * i + 1] + column), _mm_castsi128_pd(pairs[i]));
        }
    }
}

// Takes the place of libjpeg's own, once decompression has started.
void memo_faster_dct(j_decompress_ptr info) {
    if (info->dct_method != JDCT_ISLOW || !__builtin_cpu_supports("avx2"))
        return;
    for (int c = 0; c < info->num_components; c++)
        if (info->comp_info[c].DCT_scaled_size == DCTSIZE)
            info->idct->inverse_DCT[c] = inverse_dct;
}

#else

void memo_faster_dct(j_decompress_ptr info) {
    (void)info;
}

#endif
