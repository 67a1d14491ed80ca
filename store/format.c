#include "store/format.h"

#include <xxhash.h>

#include "core/hash.h"

const char *const format_db_names[FORMAT_DBS] = {
    [FORMAT_WAL] = "wal", [FORMAT_SEGMENTS] = "segments", [FORMAT_MSGS] = "msgs",
    [FORMAT_RECEIPTS] = "receipts", [FORMAT_NAMES] = "names", [FORMAT_HEADS] = "heads",
    [FORMAT_PRESENCE] = "presence", [FORMAT_META] = "meta",
};

static_assert(sizeof(struct format_lane) == 64 && sizeof(struct format_wal) == 40 &&
              sizeof(struct format_row) == 32 && sizeof(struct format_segment) == 128 &&
              sizeof(struct format_head) == 128 && sizeof(struct format_part) == 32 &&
              sizeof(struct format_base) == 32 && sizeof(struct format_mark) == 24,
              "no padding is ever written");

/* ---- keys ---- */

static void key_put(struct format_key *k, uint64_t number)
{
    uint64_t swapped = __builtin_bswap64(number);
    memcpy(k->bytes + k->count, &swapped, sizeof swapped);
    k->count += sizeof swapped;
}

struct format_key format_key1(uint64_t a)
{
    struct format_key k = {.count = 0};
    key_put(&k, a);
    return k;
}

struct format_key format_key2(uint64_t a, uint64_t b)
{
    struct format_key k = format_key1(a);
    key_put(&k, b);
    return k;
}

struct format_key format_key3(uint64_t a, uint64_t b, uint64_t c)
{
    struct format_key k = format_key2(a, b);
    key_put(&k, c);
    return k;
}

struct format_key format_mark_key(uint64_t name_hash)
{
    return (struct format_key){
        .bytes = {'f', (uint8_t)(name_hash >> 56), (uint8_t)(name_hash >> 48)},
        .count = FORMAT_MARK_KEY_BYTES,
    };
}

struct format_key format_presence_key(uint64_t chan, struct slice user)
{
    XXH128_hash_t h = XXH3_128bits(user.ptr, user.bytes);
    return format_key3(chan, h.high64, h.low64);
}

struct format_key format_receipts_key(uint64_t newest_ms, uint64_t seq, struct slice value)
{
    return format_key3(newest_ms, seq, XXH3_64bits_withSeed(value.ptr, value.bytes, seq));
}

bool format_key_part(struct slice key, uint32_t index, uint64_t *out)
{
    uint64_t swapped;
    if (key.bytes < (index + 1) * sizeof swapped) return false;
    memcpy(&swapped, key.ptr + index * sizeof swapped, sizeof swapped);
    *out = __builtin_bswap64(swapped);
    return true;
}

uint64_t format_name_hash(struct slice app_id, struct slice channel)
{
    uint64_t app = XXH3_64bits(app_id.ptr, app_id.bytes);
    return XXH3_64bits_withSeed(channel.ptr, channel.bytes, app);
}

struct slice format_main_name(struct slice channel)
{
    const uint8_t *end = NULL;
    if (channel.bytes > 0 && channel.ptr[0] == '[') end = memchr(channel.ptr, ']', channel.bytes);
    return end == NULL ? channel : slice_skip(channel, (uint32_t)(end + 1 - channel.ptr));
}

uint32_t format_slot(struct slice app_id, struct slice channel)
{
    return hash_slot(app_id, format_main_name(channel));
}

/* ---- values ---- */

uint64_t format_check(struct slice value, uint32_t records_at, uint32_t records_bytes)
{
    uint32_t behind = records_at + records_bytes;
    ASSERT(records_at >= 8 && behind <= value.bytes);
    uint64_t front = XXH3_64bits(value.ptr + 8, records_at - 8);
    return XXH3_64bits_withSeed(value.ptr + behind, value.bytes - behind, front);
}

static bool checked(struct slice value, uint32_t records_at, uint64_t records_bytes)
{
    uint64_t want;
    if (records_at + records_bytes > value.bytes) return false;
    memcpy(&want, value.ptr, sizeof want);
    return want == format_check(value, records_at, (uint32_t)records_bytes);
}

bool format_lane_read(struct slice value, struct format_lane *out)
{
    if (value.bytes != sizeof *out || !checked(value, sizeof *out, 0)) return false;
    memcpy(out, value.ptr, sizeof *out);
    return out->store_id[sizeof out->store_id - 1] == 0;
}

bool format_mark_read(struct slice value, struct format_mark *out)
{
    if (value.bytes != sizeof *out || !checked(value, sizeof *out, 0)) return false;
    memcpy(out, value.ptr, sizeof *out);
    return out->epoch != 0 && (out->epoch & 1) == 0;
}

uint64_t format_mark_epoch(struct slice facts)
{
    uint64_t epoch = XXH3_64bits(facts.ptr, facts.bytes) & ~1ull;
    return epoch == 0 ? 2 : epoch;
}

bool format_wal_read(struct slice value, struct format_wal *out, struct slice *records)
{
    if (value.bytes < sizeof *out) return false;
    memcpy(out, value.ptr, sizeof *out);
    *records = slice_skip(value, sizeof *out);
    return out->records_bytes == records->bytes && checked(value, sizeof *out, records->bytes);
}

bool format_segment_read(struct slice value, struct format_segment *out, struct slice *records,
                         struct slice *rows)
{
    if (value.bytes < sizeof *out) return false;
    memcpy(out, value.ptr, sizeof *out);
    uint64_t rows_bytes = (uint64_t)out->rows_count * sizeof(struct format_row);
    if (sizeof *out + out->records_bytes + rows_bytes != value.bytes) return false;
    *records = slice_of(value.ptr + sizeof *out, out->records_bytes);
    *rows = slice_skip(value, (uint32_t)sizeof *out + out->records_bytes);
    return checked(value, sizeof *out, out->records_bytes);
}

bool format_head_read(struct slice value, struct format_head *out, struct slice *app_id,
                      struct slice *channel)
{
    if (value.bytes < sizeof *out) return false;
    memcpy(out, value.ptr, sizeof *out);
    if (sizeof *out + out->app_bytes + out->name_bytes != value.bytes) return false;
    *app_id = slice_of(value.ptr + sizeof *out, out->app_bytes);
    *channel = slice_skip(value, (uint32_t)sizeof *out + out->app_bytes);
    return checked(value, value.bytes, 0);
}

bool format_part_read(struct slice value, struct format_part *out, struct slice *offsets)
{
    if (value.bytes < sizeof *out) return false;
    memcpy(out, value.ptr, sizeof *out);
    *offsets = slice_skip(value, sizeof *out);
    return (uint64_t)out->records_count * sizeof(uint32_t) == offsets->bytes &&
           checked(value, value.bytes, 0);
}

bool format_base_read(struct slice value, struct format_base *out, struct slice *ops,
                      struct slice *record)
{
    if (value.bytes < sizeof *out) return false;
    memcpy(out, value.ptr, sizeof *out);
    uint64_t ops_bytes = (uint64_t)out->ops_count * 2 * sizeof(uint64_t);
    if (sizeof *out + ops_bytes + out->record_bytes != value.bytes) return false;
    *ops = slice_of(value.ptr + sizeof *out, (uint32_t)ops_bytes);
    *record = slice_skip(value, (uint32_t)(sizeof *out + ops_bytes));
    return checked(value, (uint32_t)(sizeof *out + ops_bytes), out->record_bytes);
}

struct format_row format_row_at(struct slice rows, uint32_t index)
{
    struct format_row row;
    ASSERT((uint64_t)(index + 1) * sizeof row <= rows.bytes);
    memcpy(&row, rows.ptr + index * sizeof row, sizeof row);
    return row;
}

uint32_t format_offset_at(struct slice offsets, uint32_t index)
{
    uint32_t offset;
    ASSERT((uint64_t)(index + 1) * sizeof offset <= offsets.bytes);
    memcpy(&offset, offsets.ptr + index * sizeof offset, sizeof offset);
    return offset;
}
