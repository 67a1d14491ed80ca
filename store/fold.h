/* fold.h - a message's state from its versions: the one place where update, delete and append are
 * applied. Homes fold as they commit, readers fold what they read.
 *
 * Shape    fold_apply takes the message's records in delivery order, the create (or a folded
 *          record) first. Data grows in a buffer that doubles, so an append costs its own bytes.
 * Threads  One owner.
 * Memory   Grown by the allocator given (a heap or malloc); fold_free gives everything back.
 * Errors   ERR_MEMORY, and ERR_IO for a record that cannot follow (no create before it, another
 *          message, an append to data that is no string): nothing was applied.
 * Source   spec/messages-and-history.md 4.
 */
#pragma once
#include "store/record.h"

struct heap;
struct fold_text { uint8_t *ptr; uint32_t bytes, room; bool set; };

struct fold {
    struct heap *heap;             /* NULL: malloc */
    uint8_t  kind;                 /* of the latest version */
    bool     started;
    uint64_t chan, message, message_ms, history;   /* identity */
    uint64_t delivery, time_ms;    /* of the latest version */
    uint64_t context;              /* newest whole record */
    uint32_t appends, versions;    /* after the create; one that starts from a folded record finds
                                      here what its owner has set */
    struct fold_text name, data, extras, tags, message_id, user, owner, client, op_id;
    struct fold_text description, metadata;  /* of the latest version */
    /* data: raw JSON; while it is a string the closing quote is there as well */
};

MUST_CHECK err_t fold_apply(struct fold *f, const struct record *r);
/* The state as a folded record that borrows f. */
void fold_record(const struct fold *f, struct record *out);
void fold_free(struct fold *f);
