#include "transcode.h"

#include "jpeg_errors.h"

/*
 * Pixels in a restart interval, at most. Shorter ones cost more bytes and more restarts, longer ones more decoding beside
 * the box; 16 and 32 differ by about two percent in time.
 */
enum { LONGEST_INTERVAL = 32 };

/* MCUs: the largest divisor of a row of them that is short enough. */
static unsigned restart_interval(const struct jpeg_decompress_struct *source)
{
    unsigned mcu = source->num_components > 1 ? 8 * (unsigned)source->max_h_samp_factor : 8;
    unsigned row = (source->image_width + mcu - 1) / mcu, best = 1;
    for (unsigned mcus = 1; mcus * mcu <= LONGEST_INTERVAL && mcus <= row; mcus++)
        if (row % mcus == 0)
            best = mcus;
    return best;
}

bool add_restart_markers(const uint8_t *bytes, size_t size, uint8_t **result, unsigned long *result_size,
                         char message[MESSAGE_LENGTH])
{
    struct jpeg_decompress_struct source = {0};
    struct jpeg_compress_struct target = {0};
    struct jpeg_errors errors;
    source.err = target.err = jpeg_errors_begin(&errors, message);
    *result = NULL;
    *result_size = 0;
    if (setjmp(errors.escape)) {
        if (target.dest)
            target.dest->term_destination(&target); /* it knows where the result has grown to */
        jpeg_destroy_compress(&target);
        jpeg_destroy_decompress(&source);
        free(*result);
        return false;
    }
    jpeg_create_decompress(&source);
    jpeg_create_compress(&target);
    jpeg_mem_src(&source, bytes, size);
    jpeg_read_header(&source, TRUE);
    /* How four inks are meant depends on an application marker, which is not kept. */
    if (source.num_components > 3)
        jpeg_refuse((j_common_ptr)&source, "it has more than three colours");
    jvirt_barray_ptr *coefficients = jpeg_read_coefficients(&source);
    jpeg_mem_dest(&target, result, result_size);
    jpeg_copy_critical_parameters(&source, &target);
    target.restart_interval = restart_interval(&source);
    target.optimize_coding = TRUE;
    jpeg_write_coefficients(&target, coefficients);
    jpeg_finish_compress(&target);
    jpeg_finish_decompress(&source);
    jpeg_destroy_compress(&target);
    jpeg_destroy_decompress(&source);
    return true;
}
