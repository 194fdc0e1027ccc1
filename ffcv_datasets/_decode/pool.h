/* Threads that decode a batch together. */
#ifndef RESOLUTE_POOL_H
#define RESOLUTE_POOL_H

#include "sample.h"

struct batch {
    int file;
    const struct sample *samples;
    size_t num_samples;
    struct target first; /* where sample 0 goes; the others follow it */
    char (*messages)[MESSAGE_LENGTH]; /* [num_samples], empty before; not empty after where a sample failed */
};

struct pool;

/*
 * NULL when out of memory. No thread is started before the first batch, so a pool may be made before a fork. `plain` as for
 * scratch_begin.
 */
struct pool *pool_new(int threads, bool plain);

/*
 * After a fork the parent's threads do not exist in the child, and its locks may be held for ever: if this process is not
 * the one that used the pool last, forget both. Before each of the calls below, by one thread at a time.
 */
void pool_enter_process(struct pool *pool);

/*
 * Decode every sample of the batch. The caller is one of the threads; callers that come at the same time take turns.
 * Returns 0, or the errno of what kept the threads from starting.
 */
int pool_decode(struct pool *pool, const struct batch *batch);

void pool_delete(struct pool *pool);

#endif
