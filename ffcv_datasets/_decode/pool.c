#define _POSIX_C_SOURCE 200809L
#include "pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

struct helper {
    struct crew *crew;
    pthread_t thread;
    struct scratch scratch;
};

/* One process's threads. */
struct crew {
    pthread_mutex_t turn; /* held by the caller whose batch is decoded */
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t work, done;
    const struct batch *batch;
    unsigned batches; /* begun: how a helper sees that there is a new one */
    int busy;         /* helpers still at it */
    bool ending;
    atomic_size_t next; /* the sample that nobody has taken yet */
    struct scratch scratch; /* the caller's */
    int num_helpers;
    struct helper helpers[];
};

struct pool {
    int threads;
    bool plain;
    pthread_mutex_t lock; /* guards what follows */
    pid_t process;
    struct crew *crew; /* NULL before the process's first batch */
};

static void decode_samples(struct crew *crew, struct scratch *scratch)
{
    const struct batch *batch = crew->batch;
    size_t pixels = (size_t)batch->first.height * (size_t)batch->first.width;
    for (;;) {
        size_t i = atomic_fetch_add(&crew->next, 1);
        if (i >= batch->num_samples)
            return;
        struct target target = batch->first;
        target.pixels += i * pixels * CHANNELS;
        (void)sample_decode(scratch, batch->file, &batch->samples[i], &target, batch->messages[i]);
    }
}

static void *help(void *argument)
{
    struct helper *helper = argument;
    struct crew *crew = helper->crew;
    unsigned seen = 0;
    pthread_mutex_lock(&crew->lock);
    for (;;) {
        while (seen == crew->batches && !crew->ending)
            pthread_cond_wait(&crew->work, &crew->lock);
        if (crew->ending)
            break;
        seen = crew->batches;
        pthread_mutex_unlock(&crew->lock);
        decode_samples(crew, &helper->scratch);
        pthread_mutex_lock(&crew->lock);
        if (--crew->busy == 0)
            pthread_cond_signal(&crew->done);
    }
    pthread_mutex_unlock(&crew->lock);
    return NULL;
}

static void crew_delete(struct crew *crew)
{
    pthread_mutex_lock(&crew->lock);
    crew->ending = true;
    pthread_cond_broadcast(&crew->work);
    pthread_mutex_unlock(&crew->lock);
    for (int i = 0; i < crew->num_helpers; i++) {
        pthread_join(crew->helpers[i].thread, NULL);
        scratch_free(&crew->helpers[i].scratch);
    }
    scratch_free(&crew->scratch);
    pthread_cond_destroy(&crew->work);
    pthread_cond_destroy(&crew->done);
    pthread_mutex_destroy(&crew->lock);
    pthread_mutex_destroy(&crew->turn);
    free(crew);
}

/* Returns 0 and the crew, or an errno. */
static int crew_new(int helpers, bool plain, struct crew **result)
{
    struct crew *crew = calloc(1, sizeof *crew + (size_t)helpers * sizeof *crew->helpers);
    if (!crew)
        return ENOMEM;
    crew->scratch = scratch_begin(plain);
    pthread_mutex_init(&crew->turn, NULL);
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->work, NULL);
    pthread_cond_init(&crew->done, NULL);

    /* Signals are for Python's threads. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = 0;
    for (; crew->num_helpers < helpers && !error; crew->num_helpers += !error) {
        struct helper *helper = &crew->helpers[crew->num_helpers];
        helper->crew = crew;
        helper->scratch = scratch_begin(plain);
        error = pthread_create(&helper->thread, NULL, help, helper);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        crew_delete(crew);
    else
        *result = crew;
    return error;
}

struct pool *pool_new(int threads, bool plain)
{
    struct pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return NULL;
    pool->threads = threads;
    pool->plain = plain;
    pool->process = getpid();
    pthread_mutex_init(&pool->lock, NULL);
    return pool;
}

void pool_enter_process(struct pool *pool)
{
    if (pool->process == getpid())
        return;
    pthread_mutex_init(&pool->lock, NULL);
    pool->process = getpid();
    pool->crew = NULL;
}

int pool_decode(struct pool *pool, const struct batch *batch)
{
    pthread_mutex_lock(&pool->lock);
    int error = pool->crew ? 0 : crew_new(pool->threads - 1, pool->plain, &pool->crew);
    struct crew *crew = pool->crew;
    pthread_mutex_unlock(&pool->lock);
    if (error)
        return error;

    pthread_mutex_lock(&crew->turn);
    pthread_mutex_lock(&crew->lock);
    crew->batch = batch;
    atomic_store(&crew->next, 0);
    crew->busy = crew->num_helpers;
    crew->batches++;
    pthread_cond_broadcast(&crew->work);
    pthread_mutex_unlock(&crew->lock);

    decode_samples(crew, &crew->scratch);

    pthread_mutex_lock(&crew->lock);
    while (crew->busy)
        pthread_cond_wait(&crew->done, &crew->lock);
    pthread_mutex_unlock(&crew->lock);
    pthread_mutex_unlock(&crew->turn);
    return 0;
}

void pool_delete(struct pool *pool)
{
    if (pool->crew)
        crew_delete(pool->crew);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}
