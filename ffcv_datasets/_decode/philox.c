#include "philox.h"

enum { ROUNDS = 10 };

void philox(uint32_t (*words)[4], size_t num, uint64_t key)
{
    for (size_t i = 0; i < num; i++) {
        uint32_t *w = words[i], k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
        for (int round = 0; round < ROUNDS; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
            uint64_t product0 = (uint64_t)w[0] * 0xD2511F53u, product1 = (uint64_t)w[2] * 0xCD9E8D57u;
            w[0] = (uint32_t)(product1 >> 32) ^ w[1] ^ k0;
            w[1] = (uint32_t)product1;
            w[2] = (uint32_t)(product0 >> 32) ^ w[3] ^ k1;
            w[3] = (uint32_t)product0;
        }
    }
}
