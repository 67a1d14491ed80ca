/* Blocks up to 256 KiB come from chunks, with no header:
 *
 *      chunk   | head | blk | blk | blk  ...  | bump -->            bump_end |
 *      free[c]   --> blk --> blk --> NULL      (the link lies in the free block)
 *
 * Larger ones are mapped one by one behind a head that lets heap_close find them. Sanitizer builds
 * put every block behind such a head, in memory from malloc, so that misuse is seen at once.
 */
#include "core/mem.h"

#include <stdlib.h>
#include <sys/mman.h>

#if defined(__has_feature)
#  if __has_feature(address_sanitizer)
#    define HEAP_ON_MALLOC 1
#  endif
#elif defined(__SANITIZE_ADDRESS__)
#  define HEAP_ON_MALLOC 1
#endif
#ifndef HEAP_ON_MALLOC
#  define HEAP_ON_MALLOC 0
#endif

enum {
    CHUNK_BYTES = 1 << 20,
    FINE_STEP_BYTES = 16,
    FINE_BYTES_MAX = 256,                 /* classes in steps of 16 up to here, */
    FINE_CLASSES = FINE_BYTES_MAX / FINE_STEP_BYTES,
    CLASS_BYTES_MAX = 256 * 1024,         /* then four per doubling up to here */
    CLASSES = FINE_CLASSES + 4 * 10,
    PAGE_BYTES = 4096,
};
static_assert(FINE_BYTES_MAX << 10 == CLASS_BYTES_MAX, "ten doublings");

struct block { struct block *next; };                         /* a free block */

struct chunk { _Alignas(64) struct chunk *next; };            /* head of a chunk */

struct big {                                                  /* head of a block of its own */
    _Alignas(64) struct big *next;
    struct big **link;
    uint32_t     class_bytes;
};
static_assert(sizeof(struct chunk) == 64 && sizeof(struct big) == 64, "blocks stay aligned");

static const uint32_t BIG_BYTES_MAX = UINT32_MAX - 2 * PAGE_BYTES;

/* Written by the owning thread only; others read the first two. */
struct heap {
    _Alignas(64) uint64_t used_bytes;
    uint64_t      used_objects;
    uint64_t      bytes_max;
    uint8_t      *bump;        /* borrowed from the newest chunk; NULL before the first */
    uint8_t      *bump_end;
    struct chunk *chunks;      /* owned */
    struct big   *bigs;        /* owned until heap_free */
    struct block *free[CLASSES];
};

err_t heap_open(struct heap **out, uint64_t bytes_max)
{
    struct heap *h = aligned_alloc(_Alignof(struct heap), sizeof *h);

    *out = h;
    if (h == NULL) return ERR_MEMORY;
    *h = (struct heap){.bytes_max = bytes_max};
    return OK;
}

/* Valid for 1 .. CLASS_BYTES_MAX. */
static inline uint32_t class_of(uint32_t bytes)
{
    uint32_t below = bytes - 1;

    if (below < FINE_BYTES_MAX) return below / FINE_STEP_BYTES;
    uint32_t top = 31u - (uint32_t)__builtin_clz(below);      /* the doubling: 8 .. 17 */
    return FINE_CLASSES + (top - 8) * 4 + (below >> (top - 2) & 3);
}

static inline uint32_t class_size(uint32_t class)
{
    if (class < FINE_CLASSES) return (class + 1) * FINE_STEP_BYTES;
    uint32_t doubling = (class - FINE_CLASSES) / 4, quarter = (class - FINE_CLASSES) % 4;
    return (quarter + 5) << (doubling + 6);
}

static uint32_t big_class_bytes(uint32_t bytes)
{
    uint32_t head = (uint32_t)sizeof(struct big);

    return ((bytes + head + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1u)) - head;
}

static inline bool is_big(uint32_t bytes) { return bytes > CLASS_BYTES_MAX; }

uint32_t heap_class_bytes(uint32_t bytes)
{
    ASSERT(bytes > 0 && bytes <= BIG_BYTES_MAX);
    return is_big(bytes) ? big_class_bytes(bytes) : class_size(class_of(bytes));
}

/* The single writer needs no read-modify-write, only stores that readers see whole. */
static inline void count_used(struct heap *h, uint64_t bytes, uint64_t objects)
{
    __atomic_store_n(&h->used_bytes, h->used_bytes + bytes, __ATOMIC_RELAXED);
    __atomic_store_n(&h->used_objects, h->used_objects + objects, __ATOMIC_RELAXED);
}

static void *map_anonymous(uint64_t bytes, int flags)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

/* Starts a new chunk. What is left of the old one goes to the free lists, largest class first. */
__attribute__((noinline, cold)) static bool chunk_add(struct heap *h)
{
    struct chunk *chunk = map_anonymous(CHUNK_BYTES, 0);

    if (chunk == NULL) return false;
    while (h->bump_end - h->bump >= FINE_STEP_BYTES) {
        uint32_t left = (uint32_t)(h->bump_end - h->bump);
        uint32_t class = class_of(left);
        if (class_size(class) > left) class--;
        struct block *block = (struct block *)(void *)h->bump;
        block->next = h->free[class];
        h->free[class] = block;
        h->bump += class_size(class);
    }
    chunk->next = h->chunks;
    h->chunks = chunk;
    h->bump = (uint8_t *)(chunk + 1);
    h->bump_end = (uint8_t *)chunk + CHUNK_BYTES;
    return true;
}

__attribute__((noinline)) static void *big_alloc(struct heap *h, uint32_t bytes)
{
    ASSERT(bytes > 0);
    if (bytes > BIG_BYTES_MAX) return NULL;

    uint32_t class_bytes = heap_class_bytes(bytes);
    if (class_bytes > h->bytes_max - h->used_bytes) return NULL;

    uint64_t whole = sizeof(struct big) + (uint64_t)class_bytes;
    void    *memory = NULL;
    if (!HEAP_ON_MALLOC) memory = map_anonymous(whole, 0);
    else if (posix_memalign(&memory, _Alignof(struct big), whole) != 0) memory = NULL;
    if (memory == NULL) return NULL;

    struct big *big = memory;
    big->class_bytes = class_bytes;
    big->next = h->bigs;
    big->link = &h->bigs;
    if (big->next != NULL) big->next->link = &big->next;
    h->bigs = big;
    count_used(h, class_bytes, 1);
    return big + 1;
}

static void big_unlink(struct big *big)
{
    *big->link = big->next;
    if (big->next != NULL) big->next->link = big->link;
    if (HEAP_ON_MALLOC) free(big);
    else mem_release(big, sizeof *big + (uint64_t)big->class_bytes);
}

__attribute__((noinline)) static void big_free(struct heap *h, void *block, uint32_t bytes)
{
    struct big *big = (struct big *)block - 1;
    uint32_t    class_bytes = heap_class_bytes(bytes);

    ASSERT(big->class_bytes == class_bytes);   /* freed with the size it was asked with */
    big_unlink(big);
    count_used(h, -(uint64_t)class_bytes, -(uint64_t)1);
}

void *heap_alloc(struct heap *h, uint32_t bytes)
{
    /* The subtraction also sends 0 bytes to big_alloc, which asserts. */
    if (HEAP_ON_MALLOC || UNLIKELY(bytes - 1 >= CLASS_BYTES_MAX)) return big_alloc(h, bytes);

    uint32_t class = class_of(bytes);
    uint32_t class_bytes = class_size(class);
    if (UNLIKELY(class_bytes > h->bytes_max - h->used_bytes)) return NULL;

    struct block *block = h->free[class];
    if (LIKELY(block != NULL)) {
        h->free[class] = block->next;
    } else {
        if (h->bump_end - h->bump < (ptrdiff_t)class_bytes && !chunk_add(h)) return NULL;
        block = (struct block *)(void *)h->bump;
        h->bump += class_bytes;
    }
    count_used(h, class_bytes, 1);
    return block;
}

void *heap_zalloc(struct heap *h, uint32_t bytes)
{
    void *block = heap_alloc(h, bytes);

    /* A big block was mapped just now and is zero: clearing it would only touch its pages. */
    if (block != NULL && (HEAP_ON_MALLOC || !is_big(bytes))) {
        memset(block, 0, heap_class_bytes(bytes));
    }
    return block;
}

void heap_free(struct heap *h, void *block, uint32_t bytes)
{
    if (block == NULL) return;
    ASSERT(h->used_objects > 0);
    if (HEAP_ON_MALLOC || UNLIKELY(bytes - 1 >= CLASS_BYTES_MAX)) {
        big_free(h, block, bytes);
        return;
    }

    uint32_t      class = class_of(bytes);
    struct block *freed = block;
    freed->next = h->free[class];
    h->free[class] = freed;
    count_used(h, -(uint64_t)class_size(class), -(uint64_t)1);
}

uint64_t heap_used_bytes(const struct heap *h)
{
    return __atomic_load_n(&h->used_bytes, __ATOMIC_RELAXED);
}

uint64_t heap_used_objects(const struct heap *h)
{
    return __atomic_load_n(&h->used_objects, __ATOMIC_RELAXED);
}

void heap_close(struct heap **h)
{
    struct heap *heap = *h;

    *h = NULL;
    if (heap == NULL) return;
    while (heap->bigs != NULL) big_unlink(heap->bigs);
    while (heap->chunks != NULL) {
        struct chunk *chunk = heap->chunks;
        heap->chunks = chunk->next;
        mem_release(chunk, CHUNK_BYTES);
    }
    free(heap);
}

void *mem_reserve(uint64_t bytes)
{
    void *p = map_anonymous(bytes, MAP_NORESERVE);

    /* A huge page would cost 2 MiB for one touched byte. A kernel without them refuses: fine. */
    if (p != NULL) (void)madvise(p, bytes, MADV_NOHUGEPAGE);
    return p;
}

void mem_release(void *p, uint64_t bytes)
{
    int rc = munmap(p, bytes);

    ASSERT(rc == 0);
}
