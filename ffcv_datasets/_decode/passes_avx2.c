#include "passes.h"

#ifdef __x86_64__

#include <immintrin.h>
#include <string.h>

#include "blend.h"

#define AVX2 __attribute__((target("avx2")))

enum { PIXELS_AT_ONCE = 4 };

AVX2 static void blend_rows(int16_t *blended, const uint8_t *const *rows, const int16_t *weights, int count, int n)
{
    blend(blended, rows, weights, count, n);
}

AVX2 static inline __m128i both_weights(const int16_t *weights)
{
    int32_t pair;
    memcpy(&pair, weights, sizeof pair);
    return _mm_set1_epi32(pair);
}

/* Output pixels o and o + 1, in a half each, three channels as 32 bits and a fourth of no meaning. */
AVX2 static inline __m256i two_pixels(const int16_t *blended, const struct axis *axis, int taps, int o, int bias)
{
    /* A channel's number of one tap beside that of the next one. */
    const __m256i order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11, 0, 1, 6, 7));
    const int16_t *source = blended + CHANNELS * axis->first[o], *other = blended + CHANNELS * axis->first[o + 1];
    const int16_t *weights = axis->weights + (size_t)o * (size_t)taps;
    __m256i sum = _mm256_set1_epi32(bias);
    for (int k = 0; k < taps; k += TAPS_AT_ONCE) {
        __m256i numbers = _mm256_set_m128i(_mm_loadu_si128((const __m128i *)(other + CHANNELS * k)),
                                           _mm_loadu_si128((const __m128i *)(source + CHANNELS * k)));
        __m256i pairs = _mm256_set_m128i(both_weights(weights + taps + k), both_weights(weights + k));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_shuffle_epi8(numbers, order), pairs));
    }
    return _mm256_srai_epi32(sum, TOTAL_SHIFT);
}

AVX2 static inline void four_pixels(const int16_t *blended, const struct axis *axis, int taps, int o, int bias,
                                    uint8_t *out)
{
    __m256i first = two_pixels(blended, axis, taps, o, bias), second = two_pixels(blended, axis, taps, o + 2, bias);
    __m256i words = _mm256_packs_epi32(first, second); /* pixels 0 and 2 in one half, 1 and 3 in the other */
    __m256i bytes = _mm256_packus_epi16(words, words);
    __m128i pixels = _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
    pixels = _mm_shuffle_epi8(pixels, _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
    memcpy(out, &pixels, PIXELS_AT_ONCE * CHANNELS);
}

AVX2 static inline void row_of_pixels(const int16_t *blended, const struct axis *axis, int taps, int bias, uint8_t *out,
                                      int width)
{
    for (int o = 0; o < width; o += PIXELS_AT_ONCE) {
        int from = o > width - PIXELS_AT_ONCE ? width - PIXELS_AT_ONCE : o; /* at the end some come twice */
        four_pixels(blended, axis, taps, from, bias, out + CHANNELS * from);
    }
}

/* The usual numbers of taps are spelled out, for the compiler to unroll. */
AVX2 static void resample_columns(const int16_t *blended, const struct axis *axis, int bias, uint8_t *out, int width)
{
    if (width < PIXELS_AT_ONCE)
        portable_passes.resample_columns(blended, axis, bias, out, width);
    else if (axis->taps == 2)
        row_of_pixels(blended, axis, 2, bias, out, width);
    else if (axis->taps == 4)
        row_of_pixels(blended, axis, 4, bias, out, width);
    else
        row_of_pixels(blended, axis, axis->taps, bias, out, width);
}

const struct passes avx2_passes = {blend_rows, resample_columns};

#endif
