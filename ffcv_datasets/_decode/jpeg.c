#include <setjmp.h>
#include <stdio.h>

#include <jpeglib.h>

#include <jerror.h>

#include "jpeg.h"

#ifndef LIBJPEG_TURBO_VERSION
#error "needs libjpeg-turbo: jpeg_crop_scanline and jpeg_skip_scanlines are its own"
#endif

enum {
    MARGIN = 2,        /* columns beside the box whose colours fancy upsampling mixes into it */
    LEAST_COLUMNS = 32, /* narrower regions libjpeg-turbo may upsample in another way than the whole image */
    LINES_AT_ONCE = 4, /* libjpeg gives the rows of one block row's sampling at a time: at most 4 */
};

struct errors {
    struct jpeg_error_mgr manager; /* first: libjpeg knows only this part */
    jmp_buf escape;
    char *message;
};

static void stop(j_common_ptr cinfo)
{
    struct errors *errors = (struct errors *)cinfo->err;
    char text[JMSG_LENGTH_MAX];
    errors->manager.format_message(cinfo, text);
    snprintf(errors->message, MESSAGE_LENGTH, "%s", text);
    longjmp(errors->escape, 1);
}

/* libjpeg only warns of damaged data, and goes on with pixels of its own invention. */
static void stop_at_damage(j_common_ptr cinfo, int level)
{
    int code = cinfo->err->msg_code;
    if (level < 0 && code != JWRN_ADOBE_XFORM && code != JWRN_JFIF_MAJOR)
        stop(cinfo);
}

static void refuse(struct jpeg_decompress_struct *cinfo, const char *reason)
{
    struct errors *errors = (struct errors *)cinfo->err;
    snprintf(errors->message, MESSAGE_LENGTH, "%s", reason);
    longjmp(errors->escape, 1);
}

/*
 * The smallest scale, in eighths, at which the box is still at least as large as the output. Of libjpeg-turbo's scales
 * only 1, 2, 4 and 8 have fast transforms; 3, 5, 6 and 7 take longer than 8.
 */
static int smallest_scale(const struct sample *sample, const struct target *target)
{
    for (int scale = 1; scale < 8; scale *= 2)
        if ((int64_t)sample->box_height * scale >= (int64_t)target->height * 8 &&
            (int64_t)sample->box_width * scale >= (int64_t)target->width * 8)
            return scale;
    return 8;
}

static void start(struct jpeg_decompress_struct *cinfo, const struct sample *sample, int scale)
{
    jpeg_read_header(cinfo, TRUE);
    if (cinfo->image_height != (JDIMENSION)sample->height || cinfo->image_width != (JDIMENSION)sample->width) {
        char reason[MESSAGE_LENGTH];
        snprintf(reason, sizeof reason, "the JPEG is %u x %u pixels, but the file's table says %d x %d",
                 cinfo->image_width, cinfo->image_height, sample->width, sample->height);
        refuse(cinfo, reason);
    }
    cinfo->scale_num = (unsigned)scale;
    cinfo->scale_denom = 8;
    /* The fast transform shifts colours by about a grey level, and differently at each scale. */
    cinfo->dct_method = JDCT_ISLOW;
    cinfo->do_fancy_upsampling = TRUE;
    cinfo->out_color_space = cinfo->num_components == 4 ? JCS_CMYK : JCS_EXT_RGB;
    jpeg_start_decompress(cinfo);
}

/* Decode only the columns around [first, end); returns the first one decoded. */
static int crop_columns(struct jpeg_decompress_struct *cinfo, int first, int end)
{
    int width = (int)cinfo->output_width;
    int more = end - first < LEAST_COLUMNS ? LEAST_COLUMNS : MARGIN;
    JDIMENSION left = (JDIMENSION)(first > more ? first - more : 0);
    JDIMENSION columns = (JDIMENSION)(width - end > more ? end + more : width) - left;
    if (columns < (JDIMENSION)width)
        jpeg_crop_scanline(cinfo, &left, &columns);
    return (int)left;
}

/* To RGB in place. Adobe's programs, which are the ones that write such files, store the inks inverted. */
static void convert_cmyk(uint8_t *row, int width, bool inverted)
{
    for (int i = 0; i < width; i++) {
        const uint8_t *ink = row + 4 * i;
        int white = inverted ? ink[3] : 255 - ink[3];
        for (int c = 0; c < CHANNELS; c++)
            row[CHANNELS * i + c] = (uint8_t)(((inverted ? ink[c] : 255 - ink[c]) * white + 127) / 255);
    }
}

/* Decode rows have .. end - 1 or fewer into the ring; returns how many. */
static int read_lines(struct jpeg_decompress_struct *cinfo, uint8_t *ring, size_t stride, int slots, int have, int end)
{
    JSAMPROW lines[LINES_AT_ONCE];
    int wanted = end - have < LINES_AT_ONCE ? end - have : LINES_AT_ONCE;
    for (int k = 0; k < wanted; k++)
        lines[k] = ring + (size_t)((have + k) % slots) * stride;
    int got = (int)jpeg_read_scanlines(cinfo, lines, (JDIMENSION)wanted);
    if (got < 1)
        refuse(cinfo, "it ends before the last row of the box");
    if (cinfo->out_color_space == JCS_CMYK)
        for (int k = 0; k < got; k++)
            convert_cmyk(lines[k], (int)cinfo->output_width, cinfo->saw_Adobe_marker);
    return got;
}

/* From the started decompressor to the target. The box, in subpixels, is [top, top + height) x [left, left + width). */
static void resample_region(struct jpeg_decompress_struct *cinfo, struct scratch *scratch, const struct target *target,
                            int64_t top, int64_t height, int64_t left, int64_t width, bool flip)
{
    struct resampler *resampler = &scratch->resampler;
    const struct axis *rows = &resampler->rows;
    int first_row = (int)(top / SUBPIXELS), end_row = (int)((top + height + SUBPIXELS - 1) / SUBPIXELS);
    int first_column = (int)(left / SUBPIXELS), end_column = (int)((left + width + SUBPIXELS - 1) / SUBPIXELS);
    int unwanted = first_column - crop_columns(cinfo, first_column, end_column);

    if (!resampler_plan(resampler, end_column - first_column, top - (int64_t)first_row * SUBPIXELS, height,
                        left - (int64_t)first_column * SUBPIXELS, width, target->height, target->width, flip))
        refuse(cinfo, "out of memory");
    int slots = rows->taps + LINES_AT_ONCE;
    size_t stride = (size_t)cinfo->output_width * (size_t)cinfo->output_components;
    uint8_t *ring = buffer_reserve(&scratch->ring, (size_t)slots * stride);
    const uint8_t **sources = buffer_reserve(&scratch->sources, (size_t)rows->taps * sizeof *sources);
    if (!ring || !sources)
        refuse(cinfo, "out of memory");

    if (first_row > 0)
        jpeg_skip_scanlines(cinfo, (JDIMENSION)first_row);
    int have = 0;
    for (int o = 0; o < target->height; o++) {
        while (have < rows->first[o] + rows->count[o])
            have += read_lines(cinfo, ring, stride, slots, have, end_row - first_row);
        for (int k = 0; k < rows->count[o]; k++)
            sources[k] = ring + (size_t)((rows->first[o] + k) % slots) * stride + (size_t)unwanted * CHANNELS;
        resampler_emit(resampler, o, sources, target_row(target, o), target->width);
    }
}

bool jpeg_resample(struct scratch *scratch, const uint8_t *bytes, const struct sample *sample,
                   const struct target *target, char message[MESSAGE_LENGTH])
{
    /*
     * A decompressor for each image, a microsecond: a used one keeps tables, with which an image that lacks its own would
     * decode to whatever its predecessor left, and pointers that libjpeg-turbo has been seen to use after they were freed.
     */
    struct jpeg_decompress_struct cinfo = {0};
    struct errors errors = {.message = message};
    cinfo.err = jpeg_std_error(&errors.manager);
    errors.manager.error_exit = stop;
    errors.manager.emit_message = stop_at_damage;
    if (setjmp(errors.escape)) {
        jpeg_destroy_decompress(&cinfo);
        return false;
    }
    jpeg_create_decompress(&cinfo);
    jpeg_mem_src(&cinfo, bytes, sample->size);
    int scale = smallest_scale(sample, target);
    start(&cinfo, sample, scale);
    resample_region(&cinfo, scratch, target, (int64_t)sample->top * scale, (int64_t)sample->box_height * scale,
                    (int64_t)sample->left * scale, (int64_t)sample->box_width * scale, sample->flip);
    jpeg_destroy_decompress(&cinfo);
    return true;
}
