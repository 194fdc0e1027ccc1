/* Entropy decoding in libjpeg's place: the same coefficients, sooner, above all where only their end is wanted. */
#ifndef RESOLUTE_HUFFMAN_H
#define RESOLUTE_HUFFMAN_H

#include <stddef.h>
#include <stdio.h>

#include <jpeglib.h>

#include "buffer.h"

/*
 * Give a started decompressor its coefficients from here, or escape from it where libjpeg would warn or make them up. Its
 * bytes lie in memory as a whole, its scale is in eighths, its rows are cropped and begin `left` pixels into the image.
 * Does nothing where an image is not one sequential Huffman-coded scan of 8 bits, or does not end where its file does, and
 * where libjpeg-turbo was installed without jpegint.h. `memory` belongs to the thread; what it holds serves the next image.
 */
void huffman_take_over(struct jpeg_decompress_struct *cinfo, struct buffer *memory, int left);

#endif
