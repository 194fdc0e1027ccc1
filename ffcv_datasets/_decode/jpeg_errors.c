#include "jpeg_errors.h"

#include <jerror.h>

static void stop(j_common_ptr cinfo)
{
    char text[JMSG_LENGTH_MAX];
    cinfo->err->format_message(cinfo, text);
    jpeg_refuse(cinfo, text);
}

/* libjpeg only warns of damaged data, and goes on with pixels of its own invention. */
static void stop_at_damage(j_common_ptr cinfo, int level)
{
    int code = cinfo->err->msg_code;
    if (level < 0 && code != JWRN_ADOBE_XFORM && code != JWRN_JFIF_MAJOR)
        stop(cinfo);
}

struct jpeg_error_mgr *jpeg_errors_begin(struct jpeg_errors *errors, char *message)
{
    jpeg_std_error(&errors->manager);
    errors->manager.error_exit = stop;
    errors->manager.emit_message = stop_at_damage;
    errors->message = message;
    return &errors->manager;
}

_Noreturn void jpeg_refuse(j_common_ptr cinfo, const char *reason)
{
    struct jpeg_errors *errors = (struct jpeg_errors *)cinfo->err;
    snprintf(errors->message, MESSAGE_LENGTH, "%s", reason);
    longjmp(errors->escape, 1);
}
