/* A packed record:
 *
 *   check u32 | bytes u32 | what u32 | chan u64 | delivery u64 | time_ms u64      36 bytes
 *   the numbers that are not zero, u64 each; key and print, 16 bytes each
 *   the length of each text that is there, u32 each
 *   the texts
 *
 * `check` is half an XXH3 over all that follows it. `what` is 4 bits of kind, 4 of flags and a bit
 * for each number, hash and text that is there, in the order below. There is only one packed form
 * of a record: a zero that is written down makes it a bad one.
 */
#include "store/record.h"

#include <xxhash.h>

enum {
    HEAD_BYTES = 36, CHECKED_AT = 4,
    NUMBERS = 5, HASHES = 2, TEXTS = 11,
    KINDS_MAX = RECORD_FORGET,
    FLAGS_ALL = RECORD_WHOLE | RECORD_FOLDED | RECORD_RELAXED | RECORD_CONTEXT,
};
static_assert(NUMBERS + HASHES + TEXTS <= 24, "`what` has a bit for each");
static_assert(KINDS_MAX < 16 && FLAGS_ALL < 16, "`what` has four bits for each");

static const uint32_t number_at[NUMBERS] = {
    offsetof(struct record, history), offsetof(struct record, message),
    offsetof(struct record, message_ms), offsetof(struct record, context),
    offsetof(struct record, op_hash),
};
static const uint32_t hash_at[HASHES] = {
    offsetof(struct record, key), offsetof(struct record, print),
};
static const uint32_t text_at[TEXTS] = {
    offsetof(struct record, name), offsetof(struct record, data), offsetof(struct record, extras),
    offsetof(struct record, tags), offsetof(struct record, message_id),
    offsetof(struct record, user), offsetof(struct record, owner), offsetof(struct record, client),
    offsetof(struct record, op_id), offsetof(struct record, description),
    offsetof(struct record, metadata),
};

static uint32_t load_u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint64_t load_u64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint8_t *store_u32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
    return p + sizeof v;
}

static uint8_t *store_u64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
    return p + sizeof v;
}

static uint64_t *number(struct record *r, uint32_t i)
{
    return (uint64_t *)(void *)((uint8_t *)r + number_at[i]);
}

static uint8_t *hash(struct record *r, uint32_t i)
{
    return (uint8_t *)r + hash_at[i];
}

static struct slice *text(struct record *r, uint32_t i)
{
    return (struct slice *)(void *)((uint8_t *)r + text_at[i]);
}

static bool hash_is_zero(const uint8_t *h)
{
    return (load_u64(h) | load_u64(h + 8)) == 0;
}

static uint32_t check_of(const uint8_t *packed, uint32_t bytes)
{
    return (uint32_t)XXH3_64bits(packed + CHECKED_AT, bytes - CHECKED_AT);
}

uint32_t record_bytes(const struct record *r)
{
    struct record *all = (struct record *)(uintptr_t)r;   /* only read */
    uint64_t bytes = HEAD_BYTES;
    for (uint32_t i = 0; i < NUMBERS; i++) bytes += *number(all, i) != 0 ? 8 : 0;
    for (uint32_t i = 0; i < HASHES; i++) bytes += hash_is_zero(hash(all, i)) ? 0 : 16;
    for (uint32_t i = 0; i < TEXTS; i++) {
        if (text(all, i)->ptr != NULL) bytes += 4 + (uint64_t)text(all, i)->bytes;
    }
    ASSERT(bytes <= RECORD_BYTES_MAX);
    return (uint32_t)bytes;
}

uint32_t record_write(const struct record *r, uint8_t *out)
{
    struct record *all = (struct record *)(uintptr_t)r;   /* only read */
    uint8_t *p = out + HEAD_BYTES;
    uint32_t what = r->kind | (uint32_t)r->flags << 4, bit = 8;

    ASSERT(r->kind >= RECORD_CREATE && r->kind <= KINDS_MAX && (r->flags & ~FLAGS_ALL) == 0);
    for (uint32_t i = 0; i < NUMBERS; i++, bit++) {
        if (*number(all, i) == 0) continue;
        what |= 1u << bit;
        p = store_u64(p, *number(all, i));
    }
    for (uint32_t i = 0; i < HASHES; i++, bit++) {
        if (hash_is_zero(hash(all, i))) continue;
        what |= 1u << bit;
        memcpy(p, hash(all, i), 16);
        p += 16;
    }
    for (uint32_t i = 0; i < TEXTS; i++, bit++) {
        if (text(all, i)->ptr == NULL) continue;
        what |= 1u << bit;
        p = store_u32(p, text(all, i)->bytes);
    }
    for (uint32_t i = 0; i < TEXTS; i++) {
        const struct slice *t = text(all, i);
        if (t->ptr == NULL || t->bytes == 0) continue;
        memcpy(p, t->ptr, t->bytes);
        p += t->bytes;
    }
    uint32_t bytes = (uint32_t)(p - out);
    uint8_t *head = store_u32(out + CHECKED_AT, bytes);
    head = store_u32(head, what);
    head = store_u64(head, r->chan);
    head = store_u64(head, r->delivery);
    (void)store_u64(head, r->time_ms);
    (void)store_u32(out, check_of(out, bytes));
    return bytes;
}

/* The parts behind the head; false when they do not fill [p, end) exactly. */
static bool read_parts(uint32_t what, const uint8_t *p, const uint8_t *end, struct record *out)
{
    uint32_t bit = 8, rest = (uint32_t)(end - p);
    uint64_t fixed = 0, texts_bytes = 0;

    fixed += 8 * (uint32_t)__builtin_popcount(what >> bit & ((1u << NUMBERS) - 1));
    fixed += 16 * (uint32_t)__builtin_popcount(what >> (bit + NUMBERS) & ((1u << HASHES) - 1));
    fixed += 4 * (uint32_t)__builtin_popcount(what >> (bit + NUMBERS + HASHES));
    if (fixed > rest) return false;
    for (uint32_t i = 0; i < NUMBERS; i++, bit++) {
        if ((what >> bit & 1) == 0) continue;
        *number(out, i) = load_u64(p);
        if (*number(out, i) == 0) return false;
        p += 8;
    }
    for (uint32_t i = 0; i < HASHES; i++, bit++) {
        if ((what >> bit & 1) == 0) continue;
        memcpy(hash(out, i), p, 16);
        if (hash_is_zero(hash(out, i))) return false;
        p += 16;
    }
    for (uint32_t i = 0; i < TEXTS; i++, bit++) {
        if ((what >> bit & 1) == 0) continue;
        text(out, i)->bytes = load_u32(p);
        texts_bytes += text(out, i)->bytes;
        p += 4;
    }
    if (texts_bytes != (uint64_t)(end - p)) return false;
    bit = 8 + NUMBERS + HASHES;
    for (uint32_t i = 0; i < TEXTS; i++, bit++) {
        if ((what >> bit & 1) == 0) continue;
        text(out, i)->ptr = p;
        p += text(out, i)->bytes;
    }
    return true;
}

static enum record_result read_record(struct slice in, struct record *out, uint32_t *bytes,
                                      bool check)
{
    if (in.bytes < 8) return RECORD_SHORT;
    uint32_t all = load_u32(in.ptr + CHECKED_AT);
    if (all < HEAD_BYTES || all > RECORD_BYTES_MAX) return RECORD_BAD;
    if (all > in.bytes) return RECORD_SHORT;
    if (check && load_u32(in.ptr) != check_of(in.ptr, all)) return RECORD_BAD;

    uint32_t what = load_u32(in.ptr + 8);
    memset(out, 0, sizeof *out);
    out->kind = what & 15;
    out->flags = what >> 4 & 15;
    out->chan = load_u64(in.ptr + 12);
    out->delivery = load_u64(in.ptr + 20);
    out->time_ms = load_u64(in.ptr + 28);
    if (out->kind < RECORD_CREATE || out->kind > KINDS_MAX || (out->flags & ~FLAGS_ALL) != 0 ||
        what >> (8 + NUMBERS + HASHES + TEXTS) != 0) {
        return RECORD_BAD;
    }
    if (!read_parts(what, in.ptr + HEAD_BYTES, in.ptr + all, out)) return RECORD_BAD;
    *bytes = all;
    return RECORD_OK;
}

enum record_result record_read(struct slice in, struct record *out, uint32_t *bytes)
{
    return read_record(in, out, bytes, true);
}

enum record_result record_peek(struct slice in, struct record *out, uint32_t *bytes)
{
    return read_record(in, out, bytes, false);
}
