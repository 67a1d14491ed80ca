/* fuzz_record.c - bytes from a disk or a bus are a record, too short for one, or bad; never a
 * crash.
 *
 * Properties: the shape of what is read is the only one that its writer makes (written again, all
 * but the checksum are the same bytes, and with the checksum it is read strictly); no prefix of a
 * record is a record; a changed byte is found; folding takes any sequence of records or refuses it;
 * the values of a lane are read within their bounds, whatever their checksum says.
 */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#include "store/fold.h"
#include "store/format.h"

enum { CHECK_BYTES = 4 };

static void check_record(struct slice in, const struct record *r, uint32_t bytes)
{
    struct record again;
    uint32_t read;
    ASSERT(bytes <= in.bytes && record_bytes(r) == bytes);
    uint8_t *packed = malloc(bytes);
    ASSERT(packed != NULL && record_write(r, packed) == bytes);
    ASSERT(memcmp(packed + CHECK_BYTES, in.ptr + CHECK_BYTES, bytes - CHECK_BYTES) == 0);
    struct slice whole = slice_of(packed, bytes);
    ASSERT(record_read(whole, &again, &read) == RECORD_OK && read == bytes);
    ASSERT(record_peek(slice_of(packed, bytes - 1), &again, &read) == RECORD_SHORT);
    ASSERT(record_peek(slice_of(packed, bytes / 2), &again, &read) == RECORD_SHORT);
    packed[in.ptr[0] % bytes] ^= 0x10;
    ASSERT(record_read(whole, &again, &read) != RECORD_OK);
    free(packed);
}

/* What was refused changed nothing; what is folded can be packed. */
static void check_fold(struct fold *f, const struct record *r)
{
    uint32_t versions = f->versions;
    bool started = f->started;
    if (fold_apply(f, r) != OK) {
        ASSERT(f->started == started && f->versions == versions);
        return;
    }
    struct record folded;
    fold_record(f, &folded);
    ASSERT(folded.delivery == r->delivery && folded.kind == r->kind);
    ASSERT(record_bytes(&folded) > 0);
}

static void check_values(struct slice value)
{
    struct format_lane lane;
    struct format_wal wal;
    struct format_segment segment;
    struct format_head head;
    struct format_part part;
    struct format_base base;
    struct slice a, b;
    uint64_t number;
    (void)format_lane_read(value, &lane);
    if (format_wal_read(value, &wal, &a)) ASSERT(a.bytes == wal.records_bytes);
    if (format_segment_read(value, &segment, &a, &b)) {
        for (uint32_t i = 0; i < segment.rows_count; i++) (void)format_row_at(b, i);
    }
    if (format_head_read(value, &head, &a, &b)) ASSERT(a.bytes + b.bytes <= value.bytes);
    if (format_part_read(value, &part, &a)) {
        for (uint32_t i = 0; i < part.records_count; i++) (void)format_offset_at(a, i);
    }
    if (format_base_read(value, &base, &a, &b)) ASSERT(b.bytes == base.record_bytes);
    for (uint32_t i = 0; i < 4; i++) {
        ASSERT(format_key_part(value, i, &number) == (value.bytes >= 8 * (i + 1)));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct slice rest = slice_of(data, (uint32_t)bytes);
    struct fold fold = {0};
    struct record r, strict;
    uint32_t read, read_strict;
    while (record_peek(rest, &r, &read) == RECORD_OK) {
        check_record(rest, &r, read);
        if (record_read(rest, &strict, &read_strict) == RECORD_OK) ASSERT(read_strict == read);
        check_fold(&fold, &r);
        rest = slice_skip(rest, read);
    }
    fold_free(&fold);
    check_values(slice_of(data, (uint32_t)bytes));
    return 0;
}
