/* check_kit.h - a closed store with everything in it, to be damaged, checked and mended again.
 *
 * Shape    check_kit_fill and check_kit_empty: before and after all cases. A case saves the file of
 *          lane 0, changes it, asks for the verdict, and restores it, which must be sound again.
 * Threads  One.
 */
#pragma once
#include <lmdb.h>

#include "read_model.h"
#include "store/check.h"
#include "store/format.h"

enum { LINE_BYTES = 512 };

extern struct kit   k;
extern struct model m[2];
extern struct rng   rng;

/* What the check said. */
extern uint32_t check_kit_lines;
extern char     check_kit_last[LINE_BYTES], check_kit_all[16 * LINE_BYTES];
void check_kit_line(void *ctx, const char *line);
enum check_verdict check_kit_run(void);
void check_kit_sound(void);
void check_kit_found(const char *word);  /* damaged, and a line has this word */

int check_kit_fill(void **state);
int check_kit_empty(void **state);

/* `out` has room for two paths. */
void check_kit_path(char *out, uint32_t lane, const char *file);
int  check_kit_file(void);               /* lane 0's data.mdb, opened */
void check_kit_flip(uint64_t offset, uint8_t bits);
struct check_kit_copy { uint8_t *bytes; size_t count; };
struct check_kit_copy check_kit_save(void);
void check_kit_restore(struct check_kit_copy *c);
/* Lane 0 as LMDB shows it; MDB_RDONLY or 0. */
MDB_env *check_kit_env(MDB_txn **txn, MDB_dbi *dbis, unsigned flags);
