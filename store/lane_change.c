#include "store/lane_parts.h"

/* The texts may borrow the head's old value: it is copied before it is replaced. */
err_t lane_head_put(struct lane *l, MDB_txn *txn, uint64_t chan, struct format_head *head,
                    struct slice app_id, struct slice channel)
{
    uint32_t texts_bytes = app_id.bytes + channel.bytes;
    uint8_t value[sizeof *head + STORE_NAME_BYTES_MAX];
    ASSERT(texts_bytes <= STORE_NAME_BYTES_MAX);   /* no longer name was ever opened */
    head->app_bytes = (uint16_t)app_id.bytes;
    head->name_bytes = (uint16_t)channel.bytes;
    memcpy(value, head, sizeof *head);
    memcpy(value + sizeof *head, app_id.ptr, app_id.bytes);
    memcpy(value + sizeof *head + app_id.bytes, channel.ptr, channel.bytes);
    struct slice all = slice_of(value, (uint32_t)sizeof *head + texts_bytes);
    head->check = format_check(all, all.bytes, 0);
    memcpy(value, &head->check, sizeof head->check);
    struct format_key key = format_key1(chan);
    return lane_put(l, txn, FORMAT_HEADS, &key, all);
}

static err_t name_channel(struct lane *l, MDB_txn *txn, const struct record *r)
{
    const uint8_t *zero = r->data.bytes == 0 ? NULL : memchr(r->data.ptr, 0, r->data.bytes);
    ASSERT(zero != NULL);
    struct slice app_id = slice_of(r->data.ptr, (uint32_t)(zero - r->data.ptr));
    struct slice channel = slice_skip(r->data, app_id.bytes + 1), value;
    struct format_key key = format_key1(r->chan);
    bool found;
    err_t e = lane_get(l, txn, FORMAT_HEADS, &key, &value, &found);
    if (e != OK) return e;
    struct format_head head = {.floor = 1, .delivery_epoch = r->history, .time_ms = r->time_ms};
    struct slice old_app_id, old_channel;
    if (found) {                           /* again: what a reset begins with (stream_heal) */
        if (format_head_read(value, &head, &old_app_id, &old_channel)) return OK;
        return lane_head_anew(l, txn, r->chan, app_id, channel);
    }
    e = lane_head_put(l, txn, r->chan, &head, app_id, channel);
    if (e == OK) e = lane_hold(l, r->chan);   /* by the home that names it */
    if (e != OK) return e;
    key = format_key2(format_name_hash(app_id, channel), r->chan);
    return lane_put(l, txn, FORMAT_NAMES, &key, slice_of("", 0));
}

static err_t change_head(struct lane *l, MDB_txn *txn, const struct record *r)
{
    struct format_key key = format_key1(r->chan);
    struct format_head head;
    struct slice value, app_id, channel;
    bool found;
    err_t e = lane_get(l, txn, FORMAT_HEADS, &key, &value, &found);
    if (e != OK) return e;
    if (!found || !format_head_read(value, &head, &app_id, &channel)) {
        lane_damage(l, "a channel's head is wrong");
        return ERR_IO;
    }
    if (r->kind == RECORD_EPOCH) head.delivery_epoch = r->history;
    if (record_ends_messages(r)) head.purge_floor = u64_max(head.purge_floor, r->message);
    if (r->kind == RECORD_RESET) {
        head.history_epoch = r->history;
        head.reset_floor = u64_max(head.reset_floor, r->message);
        head.reset_ms = r->time_ms;
    }
    return lane_head_put(l, txn, r->chan, &head, app_id, channel);
}

static err_t keep_member(struct lane *l, MDB_txn *txn, const struct record *r, struct slice packed)
{
    struct format_key key = format_presence_key(r->chan, r->user);
    if (!slice_is(r->name, "\"member_removed\"")) {
        return lane_put(l, txn, FORMAT_PRESENCE, &key, packed);
    }
    MDB_val k = lane_key(&key);
    int rc = mdb_del(txn, l->dbis[FORMAT_PRESENCE], &k, NULL);
    return rc == MDB_NOTFOUND ? OK : lane_error(rc);
}

err_t lane_change(struct lane *l, MDB_txn *txn, const struct record *r, struct slice packed)
{
    switch ((enum record_kind)r->kind) {
    case RECORD_CHANNEL: return name_channel(l, txn, r);
    case RECORD_RESET:
    case RECORD_PURGE:
    case RECORD_EPOCH: return change_head(l, txn, r);
    case RECORD_PRESENCE: return keep_member(l, txn, r, packed);
    case RECORD_REQUEST:                   /* collected by the committer */
    case RECORD_FORGET:                    /* no shard's */
    case RECORD_CREATE:
    case RECORD_UPDATE:
    case RECORD_DELETE:
    case RECORD_APPEND:
    case RECORD_PLAIN:
    case RECORD_ANNOTATION: break;
    }
    return OK;
}
