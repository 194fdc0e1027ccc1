/* XXH64, a 64-bit checksum that runs at the speed of memory. */
#ifndef RESOLUTE_CHECKSUM_H
#define RESOLUTE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* Of `size` bytes, with seed 0, as https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md defines it. */
uint64_t checksum(const void *bytes, size_t size);

#endif
