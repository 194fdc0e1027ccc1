/* The two passes of resampling: portable, and with AVX2. The bits are the same. */
#ifndef RESOLUTE_PASSES_H
#define RESOLUTE_PASSES_H

#include "axis.h"

enum {
    CHANNELS = 3,
    ROW_UNIT = 1 << 8,     /* what a row's weights sum to: 8 bits, so that a weighted sum of bytes fits 16 */
    COLUMN_UNIT = 1 << 14, /* what a column's weights sum to */
    TOTAL_SHIFT = 8 + 14,
    TAPS_AT_ONCE = 2, /* a multiple of this many column taps is read */
    READ_BEYOND = 4,  /* and this many numbers after them, at no weight */
};

struct passes {
    /* Vertical: blended[i] = the sum of weights[k] * rows[k][i], less 32768 so that its 16 bits can be signed ones. */
    void (*blend_rows)(int16_t *blended, const uint8_t *const *rows, const int16_t *weights, int count, int n);
    /* Horizontal: `width` output pixels. `bias` is added to each sum before TOTAL_SHIFT leaves the byte. */
    void (*resample_columns)(const int16_t *blended, const struct axis *axis, int bias, uint8_t *out, int width);
};

extern const struct passes portable_passes;
extern const struct passes avx2_passes; /* on x86-64 alone */

/* What this processor can do best. */
const struct passes *fastest_passes(void);

#endif
