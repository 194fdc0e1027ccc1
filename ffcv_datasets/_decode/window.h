/* The part of a JPEG file that shows a region, as a small JPEG file. */
#ifndef RESOLUTE_WINDOW_H
#define RESOLUTE_WINDOW_H

#include "sample.h"

/* Half-open, in pixels of the stored image. */
struct region {
    int top, bottom, left, right;
};

struct window {
    const uint8_t *bytes;
    size_t size;
    struct region region; /* what it shows: the region asked for, and what surrounds it up to whole restart intervals */
};

/*
 * Cut from a baseline JPEG whose restart intervals divide its rows of MCUs; after its sample->size bytes stands the index:
 * each interval's length, markers included, as 16 bits, little-endian. A pixel shown a pixel or more (of chroma, where that
 * is coarser) away from the window's inner borders equals the whole image's. Returns false, with the reason in `message`.
 */
bool window_cut(struct scratch *scratch, const uint8_t *bytes, const struct sample *sample, struct region region,
                struct window *window, char message[MESSAGE_LENGTH]);

/*
 * Write the index of such a file. Returns how many intervals it has, 0 if it is no such file; `index` may be NULL,
 * otherwise it holds twice that many bytes.
 */
size_t window_index(const uint8_t *bytes, size_t size, uint8_t *index);

#endif
