/* Which source pixels each output pixel of one axis is made of, and how much of each. */
#ifndef RESOLUTE_AXIS_H
#define RESOLUTE_AXIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer.h"

/*
 * A part of an axis, in fractions of a decoded pixel that make all its numbers whole: a DCT scale of M/8 turns a stored
 * pixel into M/8 decoded ones, and a further level holds s stored pixels for the p of the picture that boxes lie in.
 */
struct span {
    int64_t start, length;
    int64_t pixel; /* a decoded pixel's length */
};

struct axis {
    int taps;         /* weights held for each output pixel: the most that any needs, rounded up as asked for */
    int32_t *first;   /* [out] its first source pixel */
    int32_t *count;   /* [out] its source pixels; the weights after those are 0 */
    int16_t *weights; /* [out][taps], each row's sum is the unit */
    struct buffer first_memory, count_memory, weights_memory;
};

/*
 * Divide the span among `out` pixels, in reverse order if `mirrored`.
 *
 * A shrinking axis gets an area filter (each output pixel is the mean of the interval it covers), an enlarging one, which
 * must begin and end on whole pixels, bilinear interpolation that stays within them. All arithmetic is on integers, so
 * every machine, compiler and thread gets the same weights. Returns false when out of memory.
 */
bool axis_plan(struct axis *axis, struct span span, int out, bool mirrored, int unit, int round_taps_to);

void axis_free(struct axis *axis);

#endif
