/* Memory that grows to the largest size asked for and is then used again. */
#ifndef RESOLUTE_BUFFER_H
#define RESOLUTE_BUFFER_H

#include <stddef.h>
#include <stdlib.h>

struct buffer {
    void *data;
    size_t capacity;
};

/* At least `size` bytes, whose old contents may be gone; NULL when out of memory. */
static inline void *buffer_reserve(struct buffer *buffer, size_t size)
{
    if (size > buffer->capacity) {
        free(buffer->data);
        buffer->capacity = size + size / 4;
        /* Cleared, so that bytes read at weight 0 are defined. */
        buffer->data = calloc(1, buffer->capacity);
        if (!buffer->data)
            buffer->capacity = 0;
    }
    return buffer->data;
}

static inline void buffer_free(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){0};
}

#endif
