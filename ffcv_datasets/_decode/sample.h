/* One sample: its bytes are read, the box is cut from its image, resampled to the output size, and perhaps mirrored. */
#ifndef RESOLUTE_SAMPLE_H
#define RESOLUTE_SAMPLE_H

#include "resample.h"

enum { MESSAGE_LENGTH = 256 };
enum sample_mode { SAMPLE_JPEG = 0, SAMPLE_RAW = 1 };

/* What to do, laid out as decoder.py's SAMPLE dtype. */
struct sample {
    uint64_t offset, size;                    /* bytes in the file */
    uint64_t index_size;                      /* bytes of restart index after them; 0: none */
    uint64_t checksum;                        /* of both; 0: none is known. Raw images are read in part, so not checked */
    int32_t height, width;                    /* of the picture, in pixels, as the file's tables say */
    int32_t stored_height, stored_width;      /* of what is stored of it: fewer pixels in a further level */
    int32_t top, left, box_height, box_width; /* in the picture's pixels */
    int32_t mode;                             /* enum sample_mode */
    int32_t flip;
};

/* Where to put it: out_height rows of out_width RGB pixels. */
struct target {
    uint8_t *pixels;
    int height, width;
};

static inline uint8_t *target_row(const struct target *target, int row)
{
    return target->pixels + (size_t)row * (size_t)target->width * CHANNELS;
}

/* A thread's memory: grows to what the largest image needs, and is used again for the next. */
struct scratch {
    bool plain; /* see scratch_begin */
    struct resampler resampler;
    struct buffer bytes;   /* uint8_t: the stored sample, or the raw rows of it */
    struct buffer window;  /* uint8_t: the JPEG file of a part of it */
    struct buffer huffman; /* tables, see huffman.h */
    struct buffer ring;    /* uint8_t: the last few decoded rows */
    struct buffer sources; /* const uint8_t *: the rows of one output row */
};

/* Holding nothing. A plain one does without AVX2 and our own entropy decoding: what these do is held against it. */
struct scratch scratch_begin(bool plain);

/* Returns false, with the reason in `message`, when the sample cannot be had. */
bool sample_decode(struct scratch *scratch, int file, const struct sample *sample, const struct target *target,
                   char message[MESSAGE_LENGTH]);

void scratch_free(struct scratch *scratch);

#endif
