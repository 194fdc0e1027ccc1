#include "huffman.h"

#if __has_include(<jpegint.h>)

#include <jpegint.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "bits.h"
#include "codes.h"
#include "jpeg_errors.h"

enum { END = 64 }; /* coefficients in a block */

struct huffman {
    struct jpeg_entropy_decoder base; /* first: libjpeg knows only this part */
    struct bits bits;
    unsigned column, first, end; /* MCUs in their row: the next one, and those that are looked at */
    unsigned to_restart, restarts;
    uint32_t last_dc[MAX_COMPS_IN_SCAN];
    struct table *dc[D_MAX_BLOCKS_IN_MCU], *ac[D_MAX_BLOCKS_IN_MCU];
    bool only_dc[D_MAX_BLOCKS_IN_MCU];
    unsigned image;
    struct table tables[2][NUM_HUFF_TBLS]; /* DC and AC */
};

static const uint8_t natural_order[END] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
};

static inline struct code next_code(j_common_ptr cinfo, const struct table *table, struct bits *bits)
{
    if (bits->count < MOST_BITS)
        bits_refill(bits);
    struct code code = table->codes[bits->window >> (64 - LOOK)];
    if (!code.length)
        code = table_long_code(table, (int32_t)(bits->window >> (64 - LONGEST)));
    if (!code.length)
        jpeg_refuse(cinfo, "Corrupt JPEG data: bad Huffman code");
    return code;
}

/* The value after a code, which has at least one bit; those that begin with a 0 are negative (T.81, F.2.2.1). */
static inline int value_after(struct code code, uint64_t window)
{
    uint64_t value = window << code.length;
    int is_negative = (int)(~value >> 63); /* either is as likely as the other: no branch */
    return (int)(value >> (64 - code.size)) - (-is_negative & ((1 << code.size) - 1));
}

static void check_place(j_common_ptr cinfo, int place)
{
    if (place >= END)
        jpeg_refuse(cinfo, "Corrupt JPEG data: a block of more than 64 coefficients");
}

static inline void decode_ac(j_common_ptr cinfo, const struct table *table, struct bits *bits, JCOEF *block)
{
    for (int place = 0; place < END - 1;) {
        struct code code = next_code(cinfo, table, bits);
        if (code.size) {
            place += code.advance;
            check_place(cinfo, place);
            block[natural_order[place]] = (JCOEF)value_after(code, bits->window);
            bits_drop(bits, code.bits);
        } else {
            bits_drop(bits, code.bits);
            if (ends_block(code))
                return;
            place += code.advance;
        }
    }
}

static inline void skip_ac(j_common_ptr cinfo, const struct table *table, struct bits *bits)
{
    for (int place = 0; place < END - 1;) {
        if (bits->count < MOST_BITS)
            bits_refill(bits);
        struct run run = table->runs[bits->window >> (64 - LOOK_TO_SKIP)];
        if (table->has_runs && run.bits && place + run.advance < END) {
            bits_drop(bits, run.bits);
            if (run.ends)
                return;
            place += run.advance;
        } else {
            struct code code = next_code(cinfo, table, bits);
            bits_drop(bits, code.bits);
            if (ends_block(code))
                return;
            place += code.advance;
            if (code.size)
                check_place(cinfo, place);
        }
    }
}

static inline void decode_block(j_common_ptr cinfo, struct huffman *huffman, struct bits *bits, int i, uint32_t *dc,
                                JCOEF *block)
{
    struct code code = next_code(cinfo, huffman->dc[i], bits);
    if (code.size)
        *dc += (uint32_t)value_after(code, bits->window);
    bits_drop(bits, code.bits);
    if (block)
        block[0] = (JCOEF)*dc;
    if (block && !huffman->only_dc[i])
        decode_ac(cinfo, huffman->ac[i], bits, block);
    else
        skip_ac(cinfo, huffman->ac[i], bits);
}

static void restart(struct jpeg_decompress_struct *cinfo, struct huffman *huffman)
{
    struct bits *bits = &huffman->bits;
    while (bits->end - bits->next >= 2 && bits->next[0] == 0xFF && bits->next[1] == 0xFF)
        bits->next++; /* any number of them may stand before a marker */
    if (bits->count >= 8 || bits->end - bits->next < 2 || bits->next[0] != 0xFF ||
        bits->next[1] != JPEG_RST0 + huffman->restarts % 8)
        jpeg_refuse((j_common_ptr)cinfo, "Corrupt JPEG data: a restart marker is missing");
    *bits = (struct bits){.next = bits->next + 2, .end = bits->end};
    memset(huffman->last_dc, 0, sizeof huffman->last_dc);
    huffman->to_restart = cinfo->restart_interval;
    huffman->restarts++;
}

/* As libjpeg calls it: `blocks` hold zeros; NULL: nobody will look at them. */
static boolean decode_mcu(struct jpeg_decompress_struct *cinfo, JBLOCKROW *blocks)
{
    struct huffman *huffman = (struct huffman *)cinfo->entropy;
    if (cinfo->restart_interval && !huffman->to_restart)
        restart(cinfo, huffman);
    huffman->to_restart--;
    bool wanted = blocks && huffman->first <= huffman->column && huffman->column < huffman->end;
    huffman->column = huffman->column + 1 < cinfo->MCUs_per_row ? huffman->column + 1 : 0;

    struct bits bits = huffman->bits; /* in registers */
    for (int i = 0; i < cinfo->blocks_in_MCU; i++)
        decode_block((j_common_ptr)cinfo, huffman, &bits, i, &huffman->last_dc[cinfo->MCU_membership[i]],
                     wanted ? *blocks[i] : NULL);
    if (bits.count < 0)
        jpeg_refuse((j_common_ptr)cinfo, "Corrupt JPEG data: premature end of data segment");
    huffman->bits = bits;
    return TRUE;
}

/* All that differs from image to image. */
static void begin(struct huffman *huffman, struct jpeg_decompress_struct *cinfo, unsigned left)
{
    unsigned mcu = cinfo->scale_num * (cinfo->num_components > 1 ? (unsigned)cinfo->max_h_samp_factor : 1);
    huffman->base = *cinfo->entropy;
    huffman->base.decode_mcu = decode_mcu;
    const uint8_t *bytes = cinfo->src->next_input_byte;
    huffman->bits = (struct bits){.next = bytes, .end = bytes + cinfo->src->bytes_in_buffer};
    huffman->column = 0;
    huffman->first = left / mcu;
    huffman->end = (left + cinfo->output_width + mcu - 1) / mcu;
    huffman->to_restart = cinfo->restart_interval;
    huffman->restarts = 0;
    huffman->image++;
    memset(huffman->last_dc, 0, sizeof huffman->last_dc);
    for (int i = 0; i < cinfo->blocks_in_MCU; i++) {
        const jpeg_component_info *component = cinfo->cur_comp_info[cinfo->MCU_membership[i]];
        int dc = component->dc_tbl_no, ac = component->ac_tbl_no;
        huffman->dc[i] = &huffman->tables[0][dc];
        huffman->ac[i] = &huffman->tables[1][ac];
        table_update(huffman->dc[i], cinfo->dc_huff_tbl_ptrs[dc], huffman->image);
        table_update(huffman->ac[i], cinfo->ac_huff_tbl_ptrs[ac], huffman->image);
        /* Of components that are stored coarser, libjpeg makes more than a pixel of a block. */
        huffman->only_dc[i] = cinfo->scale_num == 1 && component->h_samp_factor == cinfo->max_h_samp_factor &&
                              component->v_samp_factor == cinfo->max_v_samp_factor;
    }
}

/* Whether a marker ends the file: then bits end there, and never where the memory does. */
static bool has_end(const struct jpeg_source_mgr *source)
{
    size_t size = source->bytes_in_buffer;
    const uint8_t *bytes = source->next_input_byte;
    return size >= 2 && bytes[size - 2] == 0xFF && bytes[size - 1] == JPEG_EOI;
}

void huffman_take_over(struct jpeg_decompress_struct *cinfo, struct buffer *memory, int left)
{
    bool is_sequential = !cinfo->progressive_mode && cinfo->Ss == 0 && cinfo->Se == END - 1;
    if (!is_sequential || cinfo->arith_code || cinfo->data_precision != 8 || jpeg_has_multiple_scans(cinfo) ||
        !has_end(cinfo->src))
        return;
    struct huffman *huffman = buffer_reserve(memory, sizeof *huffman);
    if (!huffman)
        jpeg_refuse((j_common_ptr)cinfo, "out of memory");
    begin(huffman, cinfo, (unsigned)left);
    cinfo->entropy = &huffman->base;
}

#else

void huffman_take_over(struct jpeg_decompress_struct *cinfo, struct buffer *memory, int left)
{
    (void)cinfo, (void)memory, (void)left;
}

#endif
