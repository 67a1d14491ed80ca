/* mem.h - where a thread's memory comes from once the server runs.
 *
 * Shape    A heap is a set of size classes carved from large chunks; freed blocks go to their
 *          class's list and are reused last-in first-out. Blocks have no header: the caller says
 *          the size again when it gives one back, and every object knows its own size.
 * Threads  A heap belongs to one thread. There is no lock.
 * Bounds   bytes_max per heap, counted by class size. At the bound heap_alloc answers NULL.
 * Memory   Classes: multiples of 16 up to 256 B, then four per doubling up to 256 KiB; larger
 *          blocks are mapped and unmapped one by one, in whole pages less a 64-byte head. Chunks
 *          are never given back: a heap's resident size is its high-water mark.
 * Errors   NULL from heap_alloc means refuse the work (ERR_MEMORY), never crash. A wrong size or
 *          a double free is our bug: address-sanitizer builds use malloc underneath and find it.
 */
#pragma once
#include "core/err.h"

struct heap;

MUST_CHECK err_t heap_open(struct heap **out, uint64_t bytes_max);

/* Unmaps everything and clears *h. Blocks still out are lost with it. */
void heap_close(struct heap **h);

/* At least `bytes` bytes (> 0), aligned to 16, contents undefined; NULL at the bound. */
void *heap_alloc(struct heap *h, uint32_t bytes);
/* The same, zeroed. */
void *heap_zalloc(struct heap *h, uint32_t bytes);
/* Gives a block back; `bytes` is what was asked for. NULL is ignored. */
void heap_free(struct heap *h, void *block, uint32_t bytes);
/* The class size that a request of `bytes` occupies: callers may use all of it, provided they
 * free with the same `bytes` or any size of the same class. */
uint32_t heap_class_bytes(uint32_t bytes);

/* Live bytes by class size, live objects. Readable from any thread (relaxed, may lag). */
uint64_t heap_used_bytes(const struct heap *h);
uint64_t heap_used_objects(const struct heap *h);

/* Address space that costs memory only where it is touched (zero-filled, no swap reserved).
 * NULL when the system refuses. mem_release takes the same size. */
void *mem_reserve(uint64_t bytes);
void mem_release(void *p, uint64_t bytes);
