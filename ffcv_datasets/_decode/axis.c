#include "axis.h"

#include <assert.h>
#include <string.h>

static bool reserve(struct axis *axis, int out, int taps)
{
    size_t weights = (size_t)out * (size_t)taps * sizeof *axis->weights;
    axis->first = buffer_reserve(&axis->first_memory, (size_t)out * sizeof *axis->first);
    axis->count = buffer_reserve(&axis->count_memory, (size_t)out * sizeof *axis->count);
    axis->weights = buffer_reserve(&axis->weights_memory, weights);
    if (!axis->first || !axis->count || !axis->weights)
        return false;
    memset(axis->weights, 0, weights);
    axis->taps = taps;
    return true;
}

/* One output pixel's interval [begin, begin + length), the source pixels being `pixel` long. */
static void area_weights(struct axis *axis, int slot, int64_t begin, int64_t length, int64_t pixel, int unit)
{
    int64_t end = begin + length, first = begin / pixel, last = (end - 1) / pixel;
    int16_t *weights = axis->weights + (size_t)slot * (size_t)axis->taps;
    int64_t before = 0;
    axis->first[slot] = (int32_t)first;
    axis->count[slot] = (int32_t)(last - first + 1);
    for (int64_t i = first; i <= last; i++) {
        /* The interval's inner borders are rounded, not the weights, so that these always sum to the unit. */
        int64_t covered = (i < last ? (i + 1) * pixel : end) - begin;
        int64_t upto = (covered * unit + length / 2) / length;
        weights[i - first] = (int16_t)(upto - before);
        before = upto;
    }
}

/* One output pixel centred on `centre`, in units of 1/pixel, between the centres of the pixels low and high. */
static void bilinear_weights(struct axis *axis, int slot, int64_t centre, int64_t pixel, int64_t low, int64_t high, int unit)
{
    int64_t clamped = centre < low * pixel ? low * pixel : centre > high * pixel ? high * pixel : centre;
    int64_t first = clamped / pixel, beyond = clamped % pixel;
    int16_t *weights = axis->weights + (size_t)slot * (size_t)axis->taps;
    int64_t second = (beyond * unit + pixel / 2) / pixel;
    axis->first[slot] = (int32_t)first;
    axis->count[slot] = second ? 2 : 1;
    weights[0] = (int16_t)(unit - second);
    weights[1] = (int16_t)second;
}

bool axis_plan(struct axis *axis, struct span span, int out, bool mirrored, int unit, int round_taps_to)
{
    bool shrinks = span.length >= out * span.pixel;
    int64_t most = shrinks ? (span.length + out * span.pixel - 1) / (out * span.pixel) + 1 : 2;
    int taps = (int)((most + round_taps_to - 1) / round_taps_to) * round_taps_to;
    if (!reserve(axis, out, taps))
        return false;
    assert(shrinks || (span.start % span.pixel == 0 && span.length % span.pixel == 0));
    for (int o = 0; o < out; o++) {
        int slot = mirrored ? out - 1 - o : o;
        if (shrinks) {
            /* In units of 1/out of the span's every border is a whole number. */
            area_weights(axis, slot, span.start * out + o * span.length, span.length, out * span.pixel, unit);
        } else {
            /* Half-pixel convention: (o + 1/2) * length / out - 1/2, in units of 1/(2 out) pixel. */
            int64_t low = span.start / span.pixel, pixels = span.length / span.pixel;
            int64_t centre = 2 * out * low + (2 * o + 1) * pixels - out;
            bilinear_weights(axis, slot, centre, 2 * (int64_t)out, low, low + pixels - 1, unit);
        }
    }
    return true;
}

void axis_free(struct axis *axis)
{
    buffer_free(&axis->first_memory);
    buffer_free(&axis->count_memory);
    buffer_free(&axis->weights_memory);
}
