/* Philox4x32-10, the twin of philox.py: random words as a pure function of a counter and a key. */
#ifndef RESOLUTE_PHILOX_H
#define RESOLUTE_PHILOX_H

#include <stddef.h>
#include <stdint.h>

/* Overwrite each of `num` counters of four words with four random words. */
void philox(uint32_t (*words)[4], size_t num, uint64_t key);

#endif
