/* read_model.h - what a store must answer: the records of one channel in an array, looked through
 * from the first to the last for every question.
 *
 * Shape    model_grow publishes random records into a kit's open batch and remembers them. model_*
 *          answers are built as the packed bytes that a read must return.
 * Threads  One.
 */
#pragma once
#include "core/rng.h"
#include "read_kit.h"

struct model_record { uint8_t *packed; uint32_t bytes; struct record r; };

struct model_message { uint64_t message, history, time_ms, context; };

struct model {
    struct kit           *kit;
    struct rng           *rng;
    struct slice          app_id, channel;
    uint64_t              chan;
    struct model_record  *records;       /* owned; delivery serial - 1 */
    uint32_t              count, room;
    struct model_message *messages;      /* owned; creates that can be changed */
    uint32_t              messages_count, messages_room;
    uint64_t              history_next, time_ms, history_epoch;
    uint64_t              reset_floor, purge_floor;
    uint32_t              text_max;      /* of a random text */
    bool                  plain;         /* rows that are never changed */
};

struct model_answer {
    uint8_t *bytes;                      /* owned */
    uint32_t bytes_count, bytes_room, records;
    bool     more;
};

struct model_floors {
    uint64_t row, version, replay;
    uint64_t rows_first, rows_newest, rows_count, rows_bytes;
};

/* `names` must outlive the model. */
void model_open(struct model *m, struct kit *k, struct rng *rng, const char *app_id,
                const char *channel);
void model_close(struct model *m);
void model_grow(struct model *m, uint32_t records);      /* into the open batch */
/* Forgets the records behind `count`: the store never had them. */
void model_truncate(struct model *m, uint32_t count);
void model_reset(struct model *m);
void model_purge(struct model *m, uint64_t upto);
/* The record as the model has it, with what a random text may be. */
const struct record *model_record_at(const struct model *m, uint64_t delivery);

void model_floors(const struct model *m, uint64_t upto, struct model_floors *out);
/* false: a context that the range needs is below `replay`, so that the store may have lost it. */
bool model_range(const struct model *m, uint64_t from, uint64_t upto, uint64_t replay,
                 struct model_answer *out);
/* Does retention keep the message: its newest version, and what it is folded from? */
bool model_keeps(const struct model *m, uint64_t message, uint64_t upto);
/* false: there is no such message. Op pairs are counted. */
bool model_message(const struct model *m, uint64_t message, uint64_t upto,
                   struct model_answer *out, uint32_t *versions, uint32_t *appends, uint32_t *ops);
void model_versions(const struct model *m, const struct store_read *r, struct model_answer *out);
void model_rows(const struct model *m, const struct store_read *r, struct model_answer *out);
void model_answer_free(struct model_answer *a);
