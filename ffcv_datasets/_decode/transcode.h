/* Restart markers for a JPEG file, its pixels untouched. */
#ifndef RESOLUTE_TRANSCODE_H
#define RESOLUTE_TRANSCODE_H

#include "sample.h"

/*
 * The same coefficients as baseline JPEG with optimal Huffman tables, whose rows of MCUs are divided into restart intervals,
 * without comments and application data. *result is to be freed. Returns false, with the reason in `message`.
 */
bool add_restart_markers(const uint8_t *bytes, size_t size, uint8_t **result, unsigned long *result_size,
                         char message[MESSAGE_LENGTH]);

#endif
