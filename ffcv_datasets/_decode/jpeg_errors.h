/* libjpeg's errors and warnings as a return to where the caller has set `escape`. */
#ifndef RESOLUTE_JPEG_ERRORS_H
#define RESOLUTE_JPEG_ERRORS_H

#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>

#include <jpeglib.h>

#include "sample.h"

struct jpeg_errors {
    struct jpeg_error_mgr manager; /* first: libjpeg knows only this part */
    jmp_buf escape;
    char *message; /* [MESSAGE_LENGTH] */
};

/* The manager for a decompressor or compressor. Damage, of which libjpeg only warns, is an error as well. */
struct jpeg_error_mgr *jpeg_errors_begin(struct jpeg_errors *errors, char *message);

/* Escape with a reason of one's own. */
_Noreturn void jpeg_refuse(j_common_ptr cinfo, const char *reason);

#endif
