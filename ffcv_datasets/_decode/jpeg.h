/* Decodes as little of a JPEG file as its box and the output size ask for, and resamples it. */
#ifndef RESOLUTE_JPEG_H
#define RESOLUTE_JPEG_H

#include "sample.h"

/* `bytes` holds sample->size bytes. Returns false, with the reason in `message`, for a damaged or unsuitable file. */
bool jpeg_resample(struct scratch *scratch, const uint8_t *bytes, const struct sample *sample,
                   const struct target *target, char message[MESSAGE_LENGTH]);

#endif
