/* Reads the entropy-coded bits of a JPEG file. */
#ifndef RESOLUTE_BITS_H
#define RESOLUTE_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MOST_BITS = 16 + 15 }; /* in one go: a code and the value after it */

/* The bits that come next. */
struct bits {
    uint64_t window; /* the first one is its highest */
    int count;       /* how many it holds; below 0: how many were taken beyond the last one */
    const uint8_t *next, *end;
};

/* Big-endian, as bits are stored; compilers make it one load. */
static inline uint64_t load_word(const uint8_t *bytes)
{
    uint64_t word = 0;
    for (int i = 0; i < 8; i++)
        word = word << 8 | bytes[i];
    return word;
}

/* Whether one of a word's bytes is 0xFF. */
static inline bool has_ff(uint64_t word)
{
    return ((~word - 0x0101010101010101u) & word & 0x8080808080808080u) != 0;
}

/* Byte by byte, up to a marker: 0xFF 0x00 stands for 0xFF. */
static inline struct bits bits_refilled_slowly(struct bits bits)
{
    while (bits.count <= 56 && bits.next < bits.end) {
        uint64_t byte = *bits.next;
        if (byte == 0xFF && (bits.end - bits.next < 2 || bits.next[1] != 0))
            break;
        bits.next += byte == 0xFF ? 2 : 1;
        bits.window |= byte << 56 >> bits.count;
        bits.count += 8;
    }
    return bits;
}

static inline void bits_refill(struct bits *bits)
{
    uint64_t word = bits->end - bits->next >= 8 ? load_word(bits->next) : UINT64_MAX;
    if (has_ff(word)) {
        *bits = bits_refilled_slowly(*bits);
        return;
    }
    int bytes = (63 - bits->count) / 8;
    bits->window |= word >> bits->count; /* and some of the byte after those: the next refill sets the same bits */
    bits->next += bytes;
    bits->count += 8 * bytes;
}

static inline void bits_drop(struct bits *bits, int number)
{
    bits->window <<= number;
    bits->count -= number;
}

#endif
