/* power_disk.h - a disk that loses power: what would be on it if it had been cut off at one write.
 *
 * Shape    The program defines the calls by which LMDB writes (writev, pwrite, fdatasync, fsync and
 *          their kin) and so gets them before the C library; each is carried out, and followed in a
 *          shadow of every data.mdb under the watched directory:
 *            a write to an ordinary descriptor is pending;
 *            a write to an O_DSYNC descriptor is on the disk, it alone;
 *            a sync of the file puts all that is pending on its disk.
 *          At the chosen event the image is taken: what is on the disk, and each pending page of
 *          4 KiB with a chance of one half, on its own, whatever the order of the writes was. Real
 *          syncs are left out: the shadow says what they promise.
 * Threads  One.
 */
#pragma once
#include "core/rng.h"
#include "read_kit.h"

enum { DISK_LANES = 2, DISK_PAGE_BYTES = 4096 };

/* Watches `dir`, whose files are as they are now, all of it on the disk. The cut comes at the
 * events-th write or sync from now. */
void disk_watch(const char *dir, struct rng *rng, uint64_t events);
/* From now on one in so many writes to an O_DSYNC descriptor fails: it is in the page cache then,
 * and on the disk or not. The power often goes soon after. 0: none. */
void disk_fail(uint32_t one_in);
/* True once the image was taken: the power is off, what happens now never happened. */
bool disk_cut(void);
void disk_cut_now(void);
/* Ends watching and puts the image in place of the files. */
void disk_restore(void);
