/* bad_disk.h - a disk that is full or fails, under a store of store_kit.h.
 *
 * Shape    The program defines LMDB's writes, under either name, and so gets them before the C
 *          library; the flags say what becomes of them.
 * Threads  disk_fails may be set while the store has threads (atomic), the others not.
 */
#pragma once
#include "tests/unit/store/store_kit.h"

extern bool disk_full;    /* writes are cut short */
extern bool disk_fails;   /* no meta page is written */
extern bool disk_lies;    /* one is, and the disk says that it is not */
extern bool dirs_fail;    /* fsync, which LMDB does not use: the store's own, of directories */

#define WAIT_NS 20000000000ull
enum { ROW_BYTES = 60000 /* most that put_row takes */, SWEPT = 40, SWEPT_ROWS = 12 };

void put_row(struct kit_batch *b, uint64_t chan, uint64_t delivery, uint32_t bytes);
void assert_newest(const char *name, uint64_t newest);   /* it, and all rows before it */
void until_accepts(void);
/* SWEPT channels that all have something to be deleted, in a store whose first sweep is due. */
void open_overdue(struct kit_batch *b);
/* So many of its next rounds said that there is more to do. */
uint32_t busy_rounds(uint32_t rounds);
