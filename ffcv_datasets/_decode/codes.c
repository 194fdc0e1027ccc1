#include "codes.h"

#include <string.h>

static void build(struct table *table)
{
    const JHUFF_TBL *source = &table->source;
    memset(table->codes, 0, sizeof table->codes);
    int code = 0, place = 0;
    for (int length = 1; length <= LONGEST; length++, code <<= 1) {
        table->place[length] = place - code;
        for (int i = 0; i < source->bits[length]; i++, code++, place++) {
            int spare = LOOK - length;
            for (int k = 0; spare >= 0 && k < 1 << spare; k++)
                table->codes[(code << spare) + k] = code_of(source->huffval[place], length);
        }
        table->limit[length] = code << (LONGEST - length);
    }
}

static struct run run_of(const struct table *table, unsigned bits)
{
    struct run run = {0};
    while (!run.ends) {
        struct code code = table->codes[bits << run.bits >> (LOOK_TO_SKIP - LOOK) & ((1 << LOOK) - 1)];
        if (!code.length || run.bits + code.bits > LOOK_TO_SKIP)
            break;
        run.bits = (uint8_t)(run.bits + code.bits);
        run.advance = (uint8_t)(run.advance + code.advance);
        run.ends = ends_block(code);
    }
    return run;
}

static void build_runs(struct table *table)
{
    for (unsigned bits = 0; bits < 1 << LOOK_TO_SKIP; bits++)
        table->runs[bits] = run_of(table, bits);
}

static bool are_equal(const JHUFF_TBL *a, const JHUFF_TBL *b)
{
    return !memcmp(a->bits, b->bits, sizeof a->bits) && !memcmp(a->huffval, b->huffval, sizeof a->huffval);
}

void table_update(struct table *table, const JHUFF_TBL *source, unsigned image)
{
    /*
     * Most images have the tables of the standard, so what was made for one serves the next. Runs take about as long to
     * make as they save in one image: they are made for tables that come a second time.
     */
    if (!are_equal(&table->source, source)) {
        table->source = *source;
        table->image = image;
        table->has_runs = false;
        build(table);
    } else if (!table->has_runs && table->image != image) {
        build_runs(table);
        table->has_runs = true;
    }
}

struct code table_long_code(const struct table *table, int32_t next)
{
    for (int length = LOOK + 1; length <= LONGEST; length++)
        if (next < table->limit[length])
            return code_of(table->source.huffval[(next >> (LONGEST - length)) + table->place[length]], length);
    return (struct code){0};
}
