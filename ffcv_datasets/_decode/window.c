#include "window.h"

#include <stdio.h>
#include <string.h>

enum { SOI = 0xD8, EOI = 0xD9, SOF0 = 0xC0, SOF1 = 0xC1, DHT = 0xC4, DAC = 0xCC, SOS = 0xDA, DRI = 0xDD, RST0 = 0xD0 };

/* What the markers before a JPEG's only scan say (ITU-T T.81, annex B). */
struct header {
    size_t frame; /* where the frame header's height and width stand */
    size_t scan;  /* where the entropy-coded data begin */
    int height, width;
    int components;
    int mcu_height, mcu_width; /* pixels */
    int interval;              /* MCUs in a restart interval */
};

static int read_16(const uint8_t *bytes)
{
    return bytes[0] << 8 | bytes[1];
}

static void write_16(uint8_t *bytes, int value)
{
    bytes[0] = (uint8_t)(value >> 8);
    bytes[1] = (uint8_t)value;
}

/* `body` holds the `length` bytes after the length field of a baseline or extended sequential frame header. */
static bool read_frame(struct header *header, const uint8_t *body, int length)
{
    if (length < 6 || body[5] < 1 || length < 6 + 3 * body[5])
        return false;
    header->height = read_16(body + 1);
    header->width = read_16(body + 3);
    header->components = body[5];
    int rows = 1, columns = 1;
    for (int c = 0; c < header->components; c++) {
        int sampling = body[6 + 3 * c + 1];
        columns = sampling >> 4 > columns ? sampling >> 4 : columns;
        rows = (sampling & 15) > rows ? sampling & 15 : rows;
    }
    /* The MCU of a lone component is one block, whatever its sampling factors. */
    header->mcu_height = header->components > 1 ? 8 * rows : 8;
    header->mcu_width = header->components > 1 ? 8 * columns : 8;
    return rows <= 4 && columns <= 4 && header->height > 0 && header->width > 0;
}

static bool read_header(struct header *header, const uint8_t *bytes, size_t size)
{
    *header = (struct header){0};
    if (size < 4 || bytes[0] != 0xFF || bytes[1] != SOI)
        return false;
    for (size_t at = 2; at + 4 <= size;) {
        int marker = bytes[at + 1], length = read_16(bytes + at + 2);
        const uint8_t *body = bytes + at + 4;
        if (bytes[at] != 0xFF || length < 2 || (size_t)length > size - at - 2)
            return false;
        if (marker == SOF0 || marker == SOF1) {
            if (!read_frame(header, body, length - 2))
                return false;
            header->frame = at + 5;
        } else if (marker > SOF1 && marker < RST0 && marker != DHT && marker != DAC) {
            return false;
        } else if (marker == DRI && length == 4) {
            header->interval = read_16(body);
        }
        at += 2 + (size_t)length;
        if (marker == SOS) {
            header->scan = at;
            return header->frame && length > 2 && body[0] == header->components;
        }
    }
    return false;
}

static int divide_up(int value, int by)
{
    return (value + by - 1) / by;
}

/* Restart intervals in a row of MCUs; 0 where they do not divide it. */
static int intervals_per_row(const struct header *header)
{
    int mcus = divide_up(header->width, header->mcu_width);
    return header->interval && mcus % header->interval == 0 ? mcus / header->interval : 0;
}

size_t window_index(const uint8_t *bytes, size_t size, uint8_t *index)
{
    struct header header;
    if (!read_header(&header, bytes, size) || !intervals_per_row(&header))
        return 0;
    size_t wanted = (size_t)intervals_per_row(&header) * (size_t)divide_up(header.height, header.mcu_height), found = 0;
    const uint8_t *start = bytes + header.scan, *end = bytes + size;
    for (const uint8_t *at = start; (at = memchr(at, 0xFF, (size_t)(end - at))) && end - at >= 2; at += 2) {
        bool last = found + 1 == wanted;
        if (at[1] == 0)
            continue;
        if (at[1] != (last ? EOI : RST0 + (int)(found % 8)) || at + 2 - start > UINT16_MAX)
            return 0;
        if (index) {
            index[2 * found] = (uint8_t)(at + 2 - start);
            index[2 * found + 1] = (uint8_t)((at + 2 - start) >> 8);
        }
        found++;
        start = at + 2;
        if (last)
            return start == end ? wanted : 0;
    }
    return 0;
}

static size_t length_at(const uint8_t *index, size_t interval)
{
    return (size_t)index[2 * interval] | (size_t)index[2 * interval + 1] << 8;
}

static size_t sum_lengths(const uint8_t *index, size_t first, size_t end)
{
    size_t sum = 0;
    for (size_t i = first; i < end; i++)
        sum += length_at(index, i);
    return sum;
}

/* The intervals [first, end) of each row, in rows [top, bottom). */
struct grid {
    int per_row, first, end, top, bottom;
};

/* Copy the grid's intervals to `out`, their markers numbered anew. Returns the end of what was written. */
static uint8_t *copy_intervals(const struct grid *grid, const uint8_t *scan, const uint8_t *index, uint8_t *out)
{
    size_t row = (size_t)grid->top * (size_t)grid->per_row;
    const uint8_t *source = scan + sum_lengths(index, 0, row);
    unsigned number = 0;
    for (int r = grid->top; r < grid->bottom; r++, row += (size_t)grid->per_row) {
        size_t first = row + (size_t)grid->first, end = row + (size_t)grid->end, next = row + (size_t)grid->per_row;
        source += sum_lengths(index, row, first);
        size_t bytes = sum_lengths(index, first, end);
        memcpy(out, source, bytes);
        source += bytes + sum_lengths(index, end, next);
        for (size_t i = first; i < end; i++) {
            out += length_at(index, i);
            out[-1] = (uint8_t)(RST0 + number++ % 8);
        }
    }
    out[-1] = EOI;
    return out;
}

static bool has_index(const struct header *header, const uint8_t *bytes, const struct sample *sample)
{
    size_t per_row = (size_t)intervals_per_row(header), rows = (size_t)divide_up(header->height, header->mcu_height);
    if (!per_row || sample->index_size != per_row * rows * sizeof(uint16_t))
        return false;
    const uint8_t *index = bytes + sample->size;
    for (size_t i = 0; i < per_row * rows; i++)
        if (length_at(index, i) < 2)
            return false;
    return header->scan + sum_lengths(index, 0, per_row * rows) == sample->size;
}

bool window_cut(struct scratch *scratch, const uint8_t *bytes, const struct sample *sample, struct region region,
                struct window *window, char message[MESSAGE_LENGTH])
{
    struct header header;
    if (!read_header(&header, bytes, sample->size) || !has_index(&header, bytes, sample) ||
        header.height != sample->stored_height || header.width != sample->stored_width) {
        snprintf(message, MESSAGE_LENGTH, "its restart index is not that of its JPEG");
        return false;
    }
    int step = header.interval * header.mcu_width;
    struct grid grid = {intervals_per_row(&header), region.left / step, divide_up(region.right, step),
                        region.top / header.mcu_height, divide_up(region.bottom, header.mcu_height)};
    uint8_t *file = buffer_reserve(&scratch->window, sample->size);
    if (!file) {
        snprintf(message, MESSAGE_LENGTH, "out of memory");
        return false;
    }
    int bottom = grid.bottom * header.mcu_height, right = grid.end * step;
    window->region = (struct region){grid.top * header.mcu_height, bottom < header.height ? bottom : header.height,
                                     grid.first * step, right < header.width ? right : header.width};
    memcpy(file, bytes, header.scan);
    write_16(file + header.frame, window->region.bottom - window->region.top);
    write_16(file + header.frame + 2, window->region.right - window->region.left);
    uint8_t *end = copy_intervals(&grid, bytes + header.scan, bytes + sample->size, file + header.scan);
    window->bytes = file;
    window->size = (size_t)(end - file);
    return true;
}
