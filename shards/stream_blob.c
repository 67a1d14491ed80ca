/* Frames behind each other in one block that becomes one frame of the shard: the block begins with
 * room for the struct, so nothing is copied. */
#include "shards/stream_parts.h"

enum { BLOB_ROOM_MIN = 512, BLOB_BYTES_MAX = 1 << 28 };

static void *block_of(const struct blob *b)
{
    return b->ptr == NULL ? NULL : b->ptr - sizeof(struct frame);
}

void stream_blob_free(struct blob *b)
{
    heap_free(b->heap, block_of(b), (uint32_t)sizeof(struct frame) + b->room);
    b->ptr = NULL;
    b->bytes = b->room = 0;
}

uint8_t *stream_blob_room(struct blob *b, uint32_t bytes)
{
    uint64_t need = (uint64_t)b->bytes + bytes;
    if (b->failed) return NULL;
    if (need <= b->room && b->ptr != NULL) return b->ptr + b->bytes;
    uint64_t room = u64_max(u64_max(need, BLOB_ROOM_MIN), 2ull * b->room);
    uint8_t *block = NULL;
    if (room <= BLOB_BYTES_MAX) {
        block = heap_alloc(b->heap, (uint32_t)(sizeof(struct frame) + room));
    }
    if (block == NULL) {
        b->failed = true;
        return NULL;
    }
    if (b->bytes > 0) memcpy(block + sizeof(struct frame), b->ptr, b->bytes);
    heap_free(b->heap, block_of(b), (uint32_t)sizeof(struct frame) + b->room);
    b->ptr = block + sizeof(struct frame);
    b->room = (uint32_t)room;
    return b->ptr + b->bytes;
}

void stream_blob_put(struct blob *b, const void *from, uint32_t bytes)
{
    uint8_t *at = stream_blob_room(b, bytes);
    if (at == NULL) return;
    memcpy(at, from, bytes);
    b->bytes += bytes;
}

bool stream_blob_event(struct blob *b, const struct v2_out *o)
{
    uint8_t *at = stream_blob_room(b, v2_event_bytes(o));
    if (at == NULL) return false;
    b->bytes += v2_event_write(o, at);
    return true;
}

bool stream_blob_record(struct shard *sh, const struct stream *st, struct blob *b,
                        const struct record *r, const struct record *context)
{
    struct stream_texts texts;
    struct v2_out o;
    stream_frame_cold(sh, st, r, context, &texts, &o);
    return stream_blob_event(b, &o);
}

struct frame *stream_blob_frame(struct shard *sh, struct blob *b)
{
    if (b->failed || stream_blob_room(b, 0) == NULL) {
        stream_blob_free(b);
        return NULL;
    }
    struct frame *f = block_of(b);
    *f = (struct frame){
        .bytes = b->ptr, .bytes_count = b->bytes, .bytes_room = b->room, .refs = 1,
        .origin_shard = sh->id,
    };
    b->ptr = NULL;
    b->bytes = b->room = 0;
    return f;
}
