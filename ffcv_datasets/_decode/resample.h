/* One output row from the source rows that it covers. */
#ifndef RESOLUTE_RESAMPLE_H
#define RESOLUTE_RESAMPLE_H

#include "passes.h"

struct resampler {
    struct axis rows, columns;
    const struct passes *passes;
    int width;             /* pixels in a source row */
    struct buffer blended; /* int16_t: one source row after the vertical pass */
};

/* Prepare for source rows of `width` pixels, of which the two spans are wanted. Returns false when out of memory. */
bool resampler_plan(struct resampler *resampler, int width, struct span rows, struct span columns, int out_height,
                    int out_width, bool flip);

/* Write output row o from its source rows, rows.first[o] and the rows.count[o] - 1 after it. */
void resampler_emit(struct resampler *resampler, int o, const uint8_t *const *sources, uint8_t *out, int out_width);

void resampler_free(struct resampler *resampler);

#endif
