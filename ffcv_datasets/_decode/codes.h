/* The Huffman codes of a JPEG file, as tables to look bits up in. */
#ifndef RESOLUTE_CODES_H
#define RESOLUTE_CODES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <jpeglib.h>

enum {
    LOOK = 10,         /* bits looked up at once to decode: longer codes are rare */
    LOOK_TO_SKIP = 12, /* to skip */
    LONGEST = 16,      /* code */
};

/* What a code says: `advance` coefficients on stands a value of `size` bits. Of size 0: 16 zeros, or the block's end. */
struct code {
    uint8_t length; /* of the code; 0: longer than LOOK */
    uint8_t size;   /* of the value after it */
    uint8_t bits;   /* both */
    uint8_t advance;
};

/* All codes, with their values, that lie whole in LOOK_TO_SKIP bits. */
struct run {
    uint8_t bits; /* 0: not even one does */
    uint8_t advance;
    bool ends; /* the last one ends the block */
};

struct table {
    JHUFF_TBL source; /* what it was made of */
    unsigned image;   /* for which it was made */
    bool has_runs;
    int32_t limit[LONGEST + 1];         /* by length: the first LONGEST bits that are beyond its codes */
    int32_t place[LONGEST + 1];         /* by length: to be added to a code for its place in source.huffval */
    struct code codes[1 << LOOK];       /* by the next bits */
    struct run runs[1 << LOOK_TO_SKIP]; /* likewise */
};

static inline struct code code_of(int symbol, int length)
{
    int size = symbol & 15;
    return (struct code){(uint8_t)length, (uint8_t)size, (uint8_t)(length + size), (uint8_t)((symbol >> 4) + 1)};
}

static inline bool ends_block(struct code code)
{
    return !code.size && code.advance < 16;
}

/* Make the table that of an image's codes, which libjpeg has found sound. `image` numbers the images. */
void table_update(struct table *table, const JHUFF_TBL *source, unsigned image);

/* The code of more than LOOK bits that `next`, LONGEST bits, begin with; of length 0 if there is none. */
struct code table_long_code(const struct table *table, int32_t next);

#endif
