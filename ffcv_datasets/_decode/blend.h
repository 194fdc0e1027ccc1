/* The vertical pass, to be compiled for each kind of processor: its loops are what compilers vectorise well. */
#ifndef RESOLUTE_BLEND_H
#define RESOLUTE_BLEND_H

#include <stdint.h>

/* Code of the function that it is inlined into, and so for that one's processor. */
#define INLINED static inline __attribute__((always_inline))

/*
 * Sums wrap modulo 2^16 on the way and are right in the end, since the result fits. Two rows at a time, three at first:
 * most outputs need no more, and each pass over `blended` costs as much as a row.
 */
INLINED void blend_one(int16_t *restrict blended, const uint8_t *restrict a, int wa, int n)
{
    for (int i = 0; i < n; i++)
        blended[i] = (int16_t)(a[i] * wa - 32768);
}

INLINED void blend_two(int16_t *restrict blended, const uint8_t *restrict a, const uint8_t *restrict b, int wa, int wb,
                       int n)
{
    for (int i = 0; i < n; i++)
        blended[i] = (int16_t)(a[i] * wa + b[i] * wb - 32768);
}

INLINED void blend_three(int16_t *restrict blended, const uint8_t *restrict a, const uint8_t *restrict b,
                         const uint8_t *restrict c, int wa, int wb, int wc, int n)
{
    for (int i = 0; i < n; i++)
        blended[i] = (int16_t)(a[i] * wa + b[i] * wb + c[i] * wc - 32768);
}

INLINED void add_two(int16_t *restrict blended, const uint8_t *restrict a, const uint8_t *restrict b, int wa, int wb,
                     int n)
{
    for (int i = 0; i < n; i++)
        blended[i] = (int16_t)(blended[i] + a[i] * wa + b[i] * wb);
}

/* As struct passes' blend_rows. */
INLINED void blend(int16_t *blended, const uint8_t *const *rows, const int16_t *weights, int count, int n)
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

#endif
