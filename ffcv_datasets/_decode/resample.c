#include "resample.h"

bool resampler_plan(struct resampler *resampler, int width, struct span rows, struct span columns, int out_height,
                    int out_width, bool flip)
{
    if (!axis_plan(&resampler->rows, rows, out_height, false, ROW_UNIT, 1) ||
        !axis_plan(&resampler->columns, columns, out_width, flip, COLUMN_UNIT, TAPS_AT_ONCE))
        return false;
    resampler->width = width;
    size_t length = (size_t)CHANNELS * (size_t)(width + resampler->columns.taps) + READ_BEYOND;
    return buffer_reserve(&resampler->blended, length * sizeof(int16_t)) != NULL;
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

void resampler_emit(struct resampler *resampler, int o, const uint8_t *const *sources, uint8_t *out, int out_width)
{
    const struct passes *passes = resampler->passes;
    const struct axis *rows = &resampler->rows;
    int16_t *blended = resampler->blended.data;
    passes->blend_rows(blended, sources, rows->weights + (size_t)o * (size_t)rows->taps, rows->count[o],
                       resampler->width * CHANNELS);
    passes->resample_columns(blended, &resampler->columns, rounding(o), out, out_width);
}

void resampler_free(struct resampler *resampler)
{
    axis_free(&resampler->rows);
    axis_free(&resampler->columns);
    buffer_free(&resampler->blended);
}
