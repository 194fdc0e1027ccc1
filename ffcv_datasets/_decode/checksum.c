#include "checksum.h"

static const uint64_t P1 = 0x9E3779B185EBCA87u, P2 = 0xC2B2AE3D27D4EB4Fu, P3 = 0x165667B19E3779F9u,
                      P4 = 0x85EBCA77C2B2AE63u, P5 = 0x27D4EB2F165667C5u;

static uint64_t rotate(uint64_t value, int bits)
{
    return value << bits | value >> (64 - bits);
}

/* Little-endian, as the words are defined; compilers make it one load. */
static uint64_t read_word(const uint8_t *bytes, int length)
{
    uint64_t word = 0;
    for (int i = 0; i < length; i++)
        word |= (uint64_t)bytes[i] << (8 * i);
    return word;
}

static uint64_t mix(uint64_t lane, uint64_t word)
{
    return rotate(lane + word * P2, 31) * P1;
}

static uint64_t merge(uint64_t sum, uint64_t lane)
{
    return (sum ^ mix(0, lane)) * P1 + P4;
}

uint64_t checksum(const void *bytes, size_t size)
{
    const uint8_t *next = bytes, *end = next + size;
    uint64_t sum = P5;
    if (size >= 32) {
        uint64_t a = P1 + P2, b = P2, c = 0, d = 0 - P1;
        for (; end - next >= 32; next += 32) {
            a = mix(a, read_word(next, 8));
            b = mix(b, read_word(next + 8, 8));
            c = mix(c, read_word(next + 16, 8));
            d = mix(d, read_word(next + 24, 8));
        }
        sum = rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18);
        sum = merge(merge(merge(merge(sum, a), b), c), d);
    }
    sum += size;
    for (; end - next >= 8; next += 8)
        sum = rotate(sum ^ mix(0, read_word(next, 8)), 27) * P1 + P4;
    for (; end - next >= 4; next += 4)
        sum = rotate(sum ^ read_word(next, 4) * P1, 23) * P2 + P3;
    for (; next < end; next++)
        sum = rotate(sum ^ *next * P5, 11) * P1;
    sum = (sum ^ sum >> 33) * P2;
    sum = (sum ^ sum >> 29) * P3;
    return sum ^ sum >> 32;
}
