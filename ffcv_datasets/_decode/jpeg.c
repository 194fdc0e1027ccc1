#include "jpeg.h"

#include "jpeg_errors.h"
#include "huffman.h"
#include "window.h"

#ifndef LIBJPEG_TURBO_VERSION
#error "needs libjpeg-turbo: jpeg_crop_scanline and jpeg_skip_scanlines are its own"
#endif

enum {
    MARGIN = 2,        /* pixels beside the box whose colours fancy upsampling mixes into it */
    LEAST_PIXELS = 32, /* narrower regions libjpeg-turbo may upsample in another way than the whole image */
    LINES_AT_ONCE = 4, /* libjpeg gives the rows of one block row's sampling at a time: at most 4 */
};

/* The box along one axis, in pixels of a decoder that makes scale / 8 pixels of each of the `stored`. */
static struct span span_of(int begin, int length, int stored, int whole, int scale)
{
    if (stored == whole)
        stored = whole = 1;
    return (struct span){(int64_t)begin * stored * scale, (int64_t)length * stored * scale, (int64_t)8 * whole};
}

static struct span rows_of(const struct sample *sample, int scale)
{
    return span_of(sample->top, sample->box_height, sample->stored_height, sample->height, scale);
}

static struct span columns_of(const struct sample *sample, int scale)
{
    return span_of(sample->left, sample->box_width, sample->stored_width, sample->width, scale);
}

static bool serves(const struct sample *sample, const struct target *target, int scale)
{
    struct span rows = rows_of(sample, scale), columns = columns_of(sample, scale);
    return rows.length >= target->height * rows.pixel && columns.length >= target->width * columns.pixel;
}

/*
 * The smallest scale, in eighths, at which the box is still at least as large as the output. Of libjpeg-turbo's scales
 * only 1, 2, 4 and 8 have fast transforms; 3, 5, 6 and 7 take longer than 8.
 */
static int smallest_scale(const struct sample *sample, const struct target *target)
{
    for (int scale = 1; scale < 8; scale *= 2)
        if (serves(sample, target, scale))
            return scale;
    return 8;
}

static void start(struct jpeg_decompress_struct *cinfo, int height, int width, int scale)
{
    jpeg_read_header(cinfo, TRUE);
    if (cinfo->image_height != (JDIMENSION)height || cinfo->image_width != (JDIMENSION)width) {
        char reason[MESSAGE_LENGTH];
        snprintf(reason, sizeof reason, "the JPEG is %u x %u pixels, but the file's table says %d x %d",
                 cinfo->image_width, cinfo->image_height, width, height);
        jpeg_refuse((j_common_ptr)cinfo, reason);
    }
    cinfo->scale_num = (unsigned)scale;
    cinfo->scale_denom = 8;
    /* The fast transform shifts colours by about a grey level, and differently at each scale. */
    cinfo->dct_method = JDCT_ISLOW;
    cinfo->do_fancy_upsampling = TRUE;
    cinfo->out_color_space = cinfo->num_components == 4 ? JCS_CMYK : JCS_EXT_RGB;
    jpeg_start_decompress(cinfo);
}

/* How many pixels beside [first, end) must be decoded for those to be what the whole image has there. */
static int margin(int first, int end)
{
    return end - first < LEAST_PIXELS ? LEAST_PIXELS : MARGIN;
}

/* Decode only the columns around [first, end); returns the first one decoded. */
static int crop_columns(struct jpeg_decompress_struct *cinfo, int first, int end)
{
    int width = (int)cinfo->output_width;
    int more = margin(first, end);
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
        jpeg_refuse((j_common_ptr)cinfo, "it ends before the last row of the box");
    if (cinfo->out_color_space == JCS_CMYK)
        for (int k = 0; k < got; k++)
            convert_cmyk(lines[k], (int)cinfo->output_width, cinfo->saw_Adobe_marker);
    return got;
}

/* Decoded pixels, half-open. */
struct area {
    int first_row, end_row, first_column, end_column;
};

static struct area area_of(struct span rows, struct span columns)
{
    return (struct area){(int)(rows.start / rows.pixel), (int)((rows.start + rows.length + rows.pixel - 1) / rows.pixel),
                         (int)(columns.start / columns.pixel),
                         (int)((columns.start + columns.length + columns.pixel - 1) / columns.pixel)};
}

/* The same span, counted from a later pixel on. */
static struct span from_pixel(struct span span, int first)
{
    span.start -= first * span.pixel;
    return span;
}

/* From the started decompressor to the target. */
static void resample_region(struct jpeg_decompress_struct *cinfo, struct scratch *scratch, const struct target *target,
                            struct span box_rows, struct span box_columns, bool flip)
{
    struct resampler *resampler = &scratch->resampler;
    const struct axis *rows = &resampler->rows;
    struct area area = area_of(box_rows, box_columns);
    int left = crop_columns(cinfo, area.first_column, area.end_column), unwanted = area.first_column - left;
    if (!scratch->plain)
        huffman_take_over(cinfo, &scratch->huffman, left);

    if (!resampler_plan(resampler, area.end_column - area.first_column, from_pixel(box_rows, area.first_row),
                        from_pixel(box_columns, area.first_column), target->height, target->width, flip))
        jpeg_refuse((j_common_ptr)cinfo, "out of memory");
    int slots = rows->taps + LINES_AT_ONCE;
    size_t stride = (size_t)cinfo->output_width * (size_t)cinfo->output_components;
    uint8_t *ring = buffer_reserve(&scratch->ring, (size_t)slots * stride);
    const uint8_t **sources = buffer_reserve(&scratch->sources, (size_t)rows->taps * sizeof *sources);
    if (!ring || !sources)
        jpeg_refuse((j_common_ptr)cinfo, "out of memory");

    if (area.first_row > 0)
        jpeg_skip_scanlines(cinfo, (JDIMENSION)area.first_row);
    int have = 0;
    for (int o = 0; o < target->height; o++) {
        while (have < rows->first[o] + rows->count[o])
            have += read_lines(cinfo, ring, stride, slots, have, area.end_row - area.first_row);
        for (int k = 0; k < rows->count[o]; k++)
            sources[k] = ring + (size_t)((rows->first[o] + k) % slots) * stride + (size_t)unwanted * CHANNELS;
        resampler_emit(resampler, o, sources, target_row(target, o), target->width);
    }
}

/* The region of the stored image that must be decoded for the area. */
static struct region region_of(struct area area, const struct sample *sample, int scale)
{
    int more_rows = margin(area.first_row, area.end_row), more_columns = margin(area.first_column, area.end_column);
    int shrink = 8 / scale;
    struct region region = {(area.first_row - more_rows) * shrink, (area.end_row + more_rows) * shrink,
                            (area.first_column - more_columns) * shrink, (area.end_column + more_columns) * shrink};
    region.top = region.top < 0 ? 0 : region.top;
    region.left = region.left < 0 ? 0 : region.left;
    region.bottom = region.bottom > sample->stored_height ? sample->stored_height : region.bottom;
    region.right = region.right > sample->stored_width ? sample->stored_width : region.right;
    return region;
}

static bool decode_window(struct scratch *scratch, const struct window *window, int scale, struct span rows,
                          struct span columns, bool flip, const struct target *target, char *message)
{
    /*
     * A decompressor for each image, a microsecond: a used one keeps tables, with which an image that lacks its own would
     * decode to whatever its predecessor left, and pointers that libjpeg-turbo has been seen to use after they were freed.
     */
    struct jpeg_decompress_struct cinfo = {0};
    struct jpeg_errors errors;
    cinfo.err = jpeg_errors_begin(&errors, message);
    if (setjmp(errors.escape)) {
        jpeg_destroy_decompress(&cinfo);
        return false;
    }
    jpeg_create_decompress(&cinfo);
    jpeg_mem_src(&cinfo, window->bytes, window->size);
    const struct region *region = &window->region;
    start(&cinfo, region->bottom - region->top, region->right - region->left, scale);
    /* Exact: inside an image windows begin at whole blocks of 8 pixels. */
    resample_region(&cinfo, scratch, target, from_pixel(rows, region->top * scale / 8),
                    from_pixel(columns, region->left * scale / 8), flip);
    jpeg_destroy_decompress(&cinfo);
    return true;
}

bool jpeg_resample(struct scratch *scratch, const uint8_t *bytes, const struct sample *sample,
                   const struct target *target, char message[MESSAGE_LENGTH])
{
    int scale = smallest_scale(sample, target);
    if ((sample->stored_height < sample->height || sample->stored_width < sample->width) &&
        !serves(sample, target, scale)) {
        snprintf(message, MESSAGE_LENGTH, "its further level has fewer pixels than the output");
        return false;
    }
    struct span rows = rows_of(sample, scale), columns = columns_of(sample, scale);
    struct window window = {bytes, sample->size, {0, sample->stored_height, 0, sample->stored_width}};
    if (sample->index_size && !window_cut(scratch, bytes, sample, region_of(area_of(rows, columns), sample, scale),
                                          &window, message))
        return false;
    return decode_window(scratch, &window, scale, rows, columns, sample->flip, target, message);
}
