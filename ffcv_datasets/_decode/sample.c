#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64
#include "sample.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "checksum.h"
#include "jpeg.h"

static bool fail(char *message, const char *reason)
{
    snprintf(message, MESSAGE_LENGTH, "%s", reason);
    return false;
}

/*
 * Read into the thread's memory rather than map the file: a map turns a file that was cut, or a disk that fails, into a
 * SIGBUS that ends the process; here it is a sentence. The copy costs about one percent of decoding the bytes.
 */
static bool read_bytes(struct buffer *bytes, int file, uint64_t offset, size_t size, char *message)
{
    uint8_t *data = buffer_reserve(bytes, size);
    if (!data)
        return fail(message, "out of memory");
    for (size_t done = 0; done < size;) {
        ssize_t got = pread(file, data + done, size - done, (off_t)(offset + done));
        if (got > 0)
            done += (size_t)got;
        else if (got == 0)
            return fail(message, "the file ends within it: it was cut after it had been opened");
        else if (errno != EINTR)
            return fail(message, strerror(errno));
    }
    return true;
}

/* `pixels` holds the box's rows, each as wide as the image. */
static bool resample_raw(struct scratch *scratch, const uint8_t *pixels, const struct sample *sample,
                         const struct target *target, char *message)
{
    struct resampler *resampler = &scratch->resampler;
    struct span box_rows = {0, sample->box_height, 1}, box_columns = {0, sample->box_width, 1};
    if (!resampler_plan(resampler, sample->box_width, box_rows, box_columns, target->height, target->width,
                        sample->flip))
        return fail(message, "out of memory");
    const struct axis *rows = &resampler->rows;
    const uint8_t **sources = buffer_reserve(&scratch->sources, (size_t)rows->taps * sizeof *sources);
    if (!sources)
        return fail(message, "out of memory");
    for (int o = 0; o < target->height; o++) {
        for (int k = 0; k < rows->count[o]; k++)
            sources[k] = pixels + CHANNELS * ((size_t)(rows->first[o] + k) * (size_t)sample->width + (size_t)sample->left);
        resampler_emit(resampler, o, sources, target_row(target, o), target->width);
    }
    return true;
}

static bool is_sound(const struct sample *sample)
{
    bool first_level = sample->stored_height == sample->height && sample->stored_width == sample->width;
    return sample->top >= 0 && sample->left >= 0 && sample->box_height > 0 && sample->box_width > 0 &&
           sample->height <= UINT16_MAX && sample->width <= UINT16_MAX &&
           (int64_t)sample->top + sample->box_height <= sample->height &&
           (int64_t)sample->left + sample->box_width <= sample->width &&
           sample->stored_height > 0 && sample->stored_height <= sample->height &&
           sample->stored_width > 0 && sample->stored_width <= sample->width &&
           (sample->mode == SAMPLE_JPEG ||
            (sample->mode == SAMPLE_RAW && first_level &&
             sample->size == (uint64_t)sample->height * (uint64_t)sample->width * CHANNELS));
}

static bool decode_jpeg(struct scratch *scratch, int file, const struct sample *sample, const struct target *target,
                        char *message)
{
    size_t size = sample->size + sample->index_size;
    if (size < sample->size || !read_bytes(&scratch->bytes, file, sample->offset, size, message))
        return false;
    if (sample->checksum && sample->checksum != checksum(scratch->bytes.data, size))
        return fail(message, "its bytes are not those that were written: their checksum differs");
    return jpeg_resample(scratch, scratch->bytes.data, sample, target, message);
}

struct scratch scratch_begin(bool plain)
{
    return (struct scratch){.plain = plain, .resampler.passes = plain ? &portable_passes : fastest_passes()};
}

bool sample_decode(struct scratch *scratch, int file, const struct sample *sample, const struct target *target,
                   char message[MESSAGE_LENGTH])
{
    if (!is_sound(sample))
        return fail(message, "its box does not lie in its image, or its size is not its image's");
    if (!sample->size)
        return fail(message, "nothing is stored for it");
    if (sample->mode == SAMPLE_JPEG)
        return decode_jpeg(scratch, file, sample, target, message);
    size_t stride = (size_t)sample->width * CHANNELS;
    return read_bytes(&scratch->bytes, file, sample->offset + (uint64_t)sample->top * stride,
                      (size_t)sample->box_height * stride, message) &&
           resample_raw(scratch, scratch->bytes.data, sample, target, message);
}

void scratch_free(struct scratch *scratch)
{
    resampler_free(&scratch->resampler);
    buffer_free(&scratch->bytes);
    buffer_free(&scratch->window);
    buffer_free(&scratch->huffman);
    buffer_free(&scratch->ring);
    buffer_free(&scratch->sources);
}
