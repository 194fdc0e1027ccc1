/* ffcv_datasets._decode._core: the Python face of the pool. See _core.pyi. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "checksum.h"
#include "philox.h"
#include "pool.h"
#include "transcode.h"
#include "window.h"

static const char *const POOL = "ffcv_datasets._decode._core.pool";

static void delete_capsule(PyObject *capsule)
{
    struct pool *pool = PyCapsule_GetPointer(capsule, POOL);
    pool_enter_process(pool);
    Py_BEGIN_ALLOW_THREADS
    pool_delete(pool);
    Py_END_ALLOW_THREADS
}

static PyObject *new_pool(PyObject *module, PyObject *args)
{
    (void)module;
    int threads, plain = false;
    if (!PyArg_ParseTuple(args, "i|p", &threads, &plain))
        return NULL;
    if (threads < 1) {
        PyErr_Format(PyExc_ValueError, "threads: %d is less than 1", threads);
        return NULL;
    }
    struct pool *pool = pool_new(threads, plain);
    if (!pool)
        return PyErr_NoMemory();
    PyObject *capsule = PyCapsule_New(pool, POOL, delete_capsule);
    if (!capsule)
        pool_delete(pool);
    return capsule;
}

/* The failures among `messages` as a list of (index, message). */
static PyObject *list_failures(char (*messages)[MESSAGE_LENGTH], size_t num_samples)
{
    PyObject *failures = PyList_New(0);
    for (size_t i = 0; failures && i < num_samples; i++) {
        if (!messages[i][0])
            continue;
        PyObject *failure = Py_BuildValue("(ns)", (Py_ssize_t)i, messages[i]);
        if (!failure || PyList_Append(failures, failure) < 0)
            Py_CLEAR(failures);
        Py_XDECREF(failure);
    }
    return failures;
}

static PyObject *decode_batch(struct pool *pool, struct batch *batch)
{
    batch->messages = calloc(batch->num_samples ? batch->num_samples : 1, MESSAGE_LENGTH);
    if (!batch->messages)
        return PyErr_NoMemory();
    int error;
    pool_enter_process(pool); /* under the GIL, so by one thread at a time */
    Py_BEGIN_ALLOW_THREADS
    error = pool_decode(pool, batch);
    Py_END_ALLOW_THREADS
    PyObject *failures = NULL;
    if (error) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
    } else {
        failures = list_failures(batch->messages, batch->num_samples);
    }
    free(batch->messages);
    return failures;
}

static PyObject *decode(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *capsule;
    Py_buffer samples, images;
    struct batch batch;
    if (!PyArg_ParseTuple(args, "Oiy*w*ii", &capsule, &batch.file, &samples, &images, &batch.first.height,
                          &batch.first.width))
        return NULL;
    PyObject *failures = NULL;
    struct pool *pool = PyCapsule_GetPointer(capsule, POOL);
    batch.samples = samples.buf;
    batch.num_samples = (size_t)samples.len / sizeof *batch.samples;
    batch.first.pixels = images.buf;
    if (pool) {
        if (batch.first.height < 1 || batch.first.width < 1 || (size_t)samples.len % sizeof *batch.samples ||
            (size_t)images.len / CHANNELS / (size_t)batch.first.height / (size_t)batch.first.width != batch.num_samples)
            PyErr_SetString(PyExc_ValueError, "the sizes of samples, images, height and width do not agree");
        else
            failures = decode_batch(pool, &batch);
    }
    PyBuffer_Release(&samples);
    PyBuffer_Release(&images);
    return failures;
}

/* (jpeg, index); the index is empty where window_cut could not cut the file. */
static PyObject *with_index(const uint8_t *bytes, unsigned long size)
{
    size_t intervals = window_index(bytes, size, NULL);
    PyObject *index = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(2 * intervals));
    if (!index)
        return NULL;
    window_index(bytes, size, (uint8_t *)PyBytes_AS_STRING(index));
    return Py_BuildValue("(y#N)", (const char *)bytes, (Py_ssize_t)size, index);
}

static PyObject *add_restarts(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer jpeg;
    if (!PyArg_ParseTuple(args, "y*", &jpeg))
        return NULL;
    uint8_t *result;
    unsigned long size;
    char message[MESSAGE_LENGTH];
    bool done;
    Py_BEGIN_ALLOW_THREADS
    done = add_restart_markers(jpeg.buf, (size_t)jpeg.len, &result, &size, message);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&jpeg);
    if (!done) {
        PyErr_SetString(PyExc_ValueError, message);
        return NULL;
    }
    PyObject *pair = with_index(result, size);
    free(result);
    return pair;
}

static PyObject *sum_bytes(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer bytes;
    unsigned long long sum;
    if (!PyArg_ParseTuple(args, "y*", &bytes))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    sum = checksum(bytes.buf, (size_t)bytes.len);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&bytes);
    return PyLong_FromUnsignedLongLong(sum);
}

static PyObject *fill_random(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer words;
    unsigned long long key;
    if (!PyArg_ParseTuple(args, "w*K", &words, &key))
        return NULL;
    philox(words.buf, (size_t)words.len / sizeof(uint32_t[4]), key);
    PyBuffer_Release(&words);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"pool", new_pool, METH_VARARGS, "pool(threads, plain=False): what decode() needs; its threads end with it."},
    {"decode", decode, METH_VARARGS,
     "decode(pool, file, samples, images, height, width): fill images; returns (index, message) of those that failed."},
    {"add_restarts", add_restarts, METH_VARARGS, "add_restarts(jpeg): (the same pixels with restart markers, their index)."},
    {"philox", fill_random, METH_VARARGS, "philox(words, key): overwrite counters of four words with random words."},
    {"checksum", sum_bytes, METH_VARARGS, "checksum(bytes): their XXH64."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_core",
    .m_doc = "Decodes batches of JPEG and raw images.",
    .m_size = 0,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModule_Create(&definition);
}
