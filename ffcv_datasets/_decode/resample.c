#include "resample.h"

#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

bool resampler_plan(struct resampler *resampler, int width, struct span rows, struct span columns, int out_height,
                    int out_width, bool flip)
{
    if (!axis_plan(&resampler->rows, rows, out_height, false, ROW_UNIT, 1) ||
        !axis_plan(&resampler->columns, columns, out_width, flip, COLUMN_UNIT, TAPS_AT_ONCE))
        return false;
    resampler->width = width;
    /* Columns are read four channels and TAPS_AT_ONCE taps at a time: a little beyond the last pixel, at weight 0. */
    size_t length = (size_t)CHANNELS * (size_t)(width + resampler->columns.taps) + 4;
    return buffer_reserve(&resampler->blended, length * sizeof(int16_t)) != NULL;
}

/*
 * Vertical pass: blended = sum of weight * row, minus 32768 so that the 16 bits read as a signed number.
 * Sums wrap modulo 2^16 on the way and are right in the end, since the result fits. Two rows at a time, three at first:
 * most outputs need no more, and each pass over `blended` costs as much as a row.
 */
static void blend_one(int16_t *restrict blended, const uint8_t *restrict a, int wa, int n)
{
    for (int i = 0; i < n; i++)
        blended[i] = (int16_t)(a[i] * wa - 32768);
}

static void blend_two(int16_t *restrict blended, const uint8_t *restrict a, const uint8_t *restrict b, int wa, int wb, int n)
{
    for (int i = 0; i < n; i++)
        blended[i] = (int16_t)(a[i] * wa + b[i] * wb - 32768);
}

static void blend_three(int16_t *restrict blended, const uint8_t *restrict a, const uint8_t *restrict b,
                        const uint8_t *restrict c, int wa, int wb, int wc, int n)
{
    for (int i = 0; i < n; i++)
        blended[i] = (int16_t)(a[i] * wa + b[i] * wb + c[i] * wc - 32768);
}

static void add_two(int16_t *restrict blended, const uint8_t *restrict a, const uint8_t *restrict b, int wa, int wb, int n)
{
    for (int i = 0; i < n; i++)
        blended[i] = (int16_t)(blended[i] + a[i] * wa + b[i] * wb);
}

static void blend_rows(int16_t *blended, const uint8_t *const *rows, const int16_t *weights, int count, int n)
{
    if (count == 1) {
        blend_one(blended, rows[0], weights[0], n);
        return;
    }
    if (count == 2) {
        blend_two(blended, rows[0], rows[1], weights[0], weights[1], n);
        return;
    }
    blend_three(blended, rows[0], rows[1], rows[2], weights[0], weights[1], weights[2], n);
    int k = 3;
    for (; k + 1 < count; k += 2)
        add_two(blended, rows[k], rows[k + 1], weights[k], weights[k + 1], n);
    if (k < count)
        add_two(blended, rows[k], rows[k], weights[k], 0, n);
}

/*
 * Added to the sum of columns it undoes the vertical pass's -32768, and rounds; a shift by both units' bits then leaves
 * the byte. Halves are rounded up in even rows and down in odd ones: else an image of half the size, where every second
 * value ends in a half, would be brighter by a quarter of a grey level.
 */
static int rounding(int row)
{
    return 32768 * COLUMN_UNIT + ROW_UNIT * COLUMN_UNIT / 2 - row % 2;
}

enum { TOTAL_SHIFT = 8 + 14 };

#ifdef __SSE2__
static inline __m128i column_pixel(const int16_t *source, const int16_t *weights, int taps, int bias)
{
    __m128i sum = _mm_set1_epi32(bias);
    for (int k = 0; k < taps; k += TAPS_AT_ONCE, source += TAPS_AT_ONCE * CHANNELS) {
        int32_t pair;
        memcpy(&pair, weights + k, sizeof pair);
        __m128i here = _mm_loadl_epi64((const __m128i *)source);
        __m128i next = _mm_loadl_epi64((const __m128i *)(source + CHANNELS));
        sum = _mm_add_epi32(sum, _mm_madd_epi16(_mm_unpacklo_epi16(here, next), _mm_set1_epi32(pair)));
    }
    return _mm_srai_epi32(sum, TOTAL_SHIFT);
}

static inline void store_pixel(uint8_t *out, __m128i pixel, int bytes)
{
    __m128i words = _mm_packs_epi32(pixel, pixel);
    int32_t packed = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    memcpy(out, &packed, (size_t)bytes);
}

static inline void row_of_pixels(const int16_t *blended, const struct axis *axis, int taps, int bias, uint8_t *out,
                                 int width)
{
    const int16_t *weights = axis->weights;
    /* A fourth byte goes where the next pixel will be written; after the last pixel there is none. */
    for (int o = 0; o < width - 1; o++, weights += taps, out += CHANNELS)
        store_pixel(out, column_pixel(blended + CHANNELS * axis->first[o], weights, taps, bias), 4);
    store_pixel(out, column_pixel(blended + CHANNELS * axis->first[width - 1], weights, taps, bias), CHANNELS);
}
#else
static inline void row_of_pixels(const int16_t *blended, const struct axis *axis, int taps, int bias, uint8_t *out,
                                 int width)
{
    const int16_t *weights = axis->weights;
    for (int o = 0; o < width; o++, weights += taps, out += CHANNELS) {
        const int16_t *source = blended + CHANNELS * axis->first[o];
        int32_t sum[CHANNELS] = {bias, bias, bias};
        for (int k = 0; k < taps; k++)
            for (int c = 0; c < CHANNELS; c++)
                sum[c] += source[CHANNELS * k + c] * weights[k];
        for (int c = 0; c < CHANNELS; c++)
            out[c] = (uint8_t)(sum[c] >> TOTAL_SHIFT);
    }
}
#endif

/* Horizontal pass. The usual numbers of taps are spelled out, for the compiler to unroll. */
static void resample_columns(const int16_t *blended, const struct axis *axis, int bias, uint8_t *out, int width)
{
    switch (axis->taps) {
    case 2:
        row_of_pixels(blended, axis, 2, bias, out, width);
        break;
    case 4:
        row_of_pixels(blended, axis, 4, bias, out, width);
        break;
    case 6:
        row_of_pixels(blended, axis, 6, bias, out, width);
        break;
    default:
        row_of_pixels(blended, axis, axis->taps, bias, out, width);
    }
}

void resampler_emit(struct resampler *resampler, int o, const uint8_t *const *sources, uint8_t *out, int out_width)
{
    const struct axis *rows = &resampler->rows;
    int16_t *blended = resampler->blended.data;
    blend_rows(blended, sources, rows->weights + (size_t)o * (size_t)rows->taps, rows->count[o],
               resampler->width * CHANNELS);
    resample_columns(blended, &resampler->columns, rounding(o), out, out_width);
}

void resampler_free(struct resampler *resampler)
{
    axis_free(&resampler->rows);
    axis_free(&resampler->columns);
    buffer_free(&resampler->blended);
}
