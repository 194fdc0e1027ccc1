#include "passes.h"

#include "blend.h"

static void blend_rows(int16_t *blended, const uint8_t *const *rows, const int16_t *weights, int count, int n)
{
    blend(blended, rows, weights, count, n);
}

static void resample_columns(const int16_t *blended, const struct axis *axis, int bias, uint8_t *out, int width)
{
    const int16_t *weights = axis->weights;
    for (int o = 0; o < width; o++, weights += axis->taps, out += CHANNELS) {
        const int16_t *source = blended + CHANNELS * axis->first[o];
        int32_t sum[CHANNELS] = {bias, bias, bias};
        for (int k = 0; k < axis->taps; k++)
            for (int c = 0; c < CHANNELS; c++)
                sum[c] += source[CHANNELS * k + c] * weights[k];
        for (int c = 0; c < CHANNELS; c++)
            out[c] = (uint8_t)(sum[c] >> TOTAL_SHIFT);
    }
}

const struct passes portable_passes = {blend_rows, resample_columns};

const struct passes *fastest_passes(void)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2"))
        return &avx2_passes;
#endif
    return &portable_passes;
}
