/*
 * One input is a sample of a .beton file and what is asked of it: CONTROL bytes, the stored bytes, the restart index.
 * Whatever they hold, the C core must give pixels or a reason, touch no memory that is not its own, and end. Pixels must be
 * those that it gives without AVX2 and its own entropy decoding.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "checksum.h"
#include "sample.h"
#include "transcode.h"
#include "window.h"

enum { CONTROL = 16, MAX_SIDE = 1024, MAX_OUT = 48 };

/* Laid out as CONTROL bytes; see seeds.py. */
struct control {
    uint8_t out_height, out_width;
    uint8_t flags;
    uint8_t box[4]; /* top, left, height and width, in 256ths of the room there is */
    uint8_t level;  /* 1: the picture is as large as what is stored; 2: twice as large, and so on */
    uint8_t index_size[2], height[2], width[2], unused[2];
};
_Static_assert(sizeof(struct control) == CONTROL, "control bytes");
enum { FLIP = 1, RAW = 2, GIVEN_SIZE = 4, SUM = 8, TRANSCODE = 16 };

static int both(const uint8_t bytes[2])
{
    return bytes[0] | bytes[1] << 8;
}

/* Height and width as the first frame header says, so that most inputs pass the check against the file's tables. */
static void frame_size(const uint8_t *jpeg, size_t size, int *height, int *width)
{
    for (size_t i = 2; i + 9 < size && jpeg[i] == 0xFF; i += 2 + (size_t)(jpeg[i + 2] << 8 | jpeg[i + 3])) {
        if (jpeg[i + 1] >= 0xC0 && jpeg[i + 1] <= 0xC2) {
            *height = jpeg[i + 5] << 8 | jpeg[i + 6];
            *width = jpeg[i + 7] << 8 | jpeg[i + 8];
        }
    }
}

static size_t target_size(const struct target *target)
{
    return (size_t)target->height * (size_t)target->width * CHANNELS;
}

static int part(int room, uint8_t share)
{
    return (int)((int64_t)room * share / 255);
}

static struct sample describe(const struct control *control, const uint8_t *stored, size_t size)
{
    struct sample sample = {.size = size, .mode = control->flags & RAW ? SAMPLE_RAW : SAMPLE_JPEG};
    sample.stored_height = both(control->height);
    sample.stored_width = both(control->width);
    if (!(control->flags & GIVEN_SIZE))
        frame_size(stored, size, &sample.stored_height, &sample.stored_width);
    int level = control->level ? control->level : 1;
    sample.height = sample.stored_height * level;
    sample.width = sample.stored_width * level;
    sample.top = part(sample.height, control->box[0]);
    sample.left = part(sample.width, control->box[1]);
    sample.box_height = part(sample.height - sample.top - 1, control->box[2]) + 1;
    sample.box_width = part(sample.width - sample.left - 1, control->box[3]) + 1;
    sample.flip = control->flags & FLIP;
    return sample;
}

static void transcode(const uint8_t *stored, size_t size)
{
    uint8_t *result;
    unsigned long result_size;
    char message[MESSAGE_LENGTH] = "";
    if (!add_restart_markers(stored, size, &result, &result_size, message))
        return;
    uint8_t *index = malloc(2 * window_index(result, result_size, NULL) + 1);
    if (index)
        window_index(result, result_size, index);
    free(index);
    free(result);
}

/* Pixels of malloc'ed memory, of the exact size for the sanitizer; NULL where the sample cannot be had. */
static uint8_t *decode(struct scratch *scratch, int file, const struct sample *sample, struct target target)
{
    char message[MESSAGE_LENGTH] = "";
    target.pixels = malloc(target_size(&target));
    if (!target.pixels || sample_decode(scratch, file, sample, &target, message))
        return target.pixels;
    if (!message[0])
        abort(); /* a failure without a reason */
    free(target.pixels);
    return NULL;
}

static void compare(int file, const struct sample *sample, const struct target *target)
{
    static struct scratch fast, plain; /* kept from input to input, as a thread of the pool does */
    if (!fast.resampler.passes) {
        fast = scratch_begin(false);
        plain = scratch_begin(true);
    }
    uint8_t *found = decode(&fast, file, sample, *target), *right = decode(&plain, file, sample, *target);
    /* libjpeg lets some damage pass that our own entropy decoding does not; not the other way round. */
    if (found && (!right || memcmp(found, right, target_size(target))))
        abort();
    free(found);
    free(right);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int file = -1;
    if (size < CONTROL)
        return 0;
    if (file < 0)
        file = memfd_create("input", 0);
    if (ftruncate(file, 0) || pwrite(file, data, size, 0) != (ssize_t)size)
        abort();

    struct control control;
    memcpy(&control, data, CONTROL);
    size_t stored = size - CONTROL, index_size = (size_t)both(control.index_size);
    if (index_size > stored)
        index_size = 0;
    struct sample sample = describe(&control, data + CONTROL, stored - index_size);
    sample.offset = CONTROL;
    sample.index_size = index_size;
    if (control.flags & SUM)
        sample.checksum = checksum(data + CONTROL, stored);
    if (sample.stored_height > MAX_SIDE || sample.stored_width > MAX_SIDE) /* large ones are slow, and no different */
        return 0;

    struct target target = {.height = control.out_height % MAX_OUT + 1, .width = control.out_width % MAX_OUT + 1};
    compare(file, &sample, &target);
    if (control.flags & TRANSCODE && sample.stored_height > 0)
        transcode(data + CONTROL, stored - index_size);
    return 0;
}
