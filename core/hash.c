#include "core/hash.h"

#define XXH_STATIC_LINKING_ONLY   /* for the size of the streaming state, which sits on the stack */
#include <xxhash.h>

enum { JOIN_BYTES_MAX = 512 };    /* below it a copy is cheaper than a streaming state */
static_assert((HASH_SLOTS & (HASH_SLOTS - 1)) == 0, "the slot is a mask of the hash");

/* XXH3 of app_id, a zero byte, name: long names only, a request has to be odd to get here. */
__attribute__((noinline)) static uint64_t hash_stream(struct slice app_id, struct slice name)
{
    XXH3_state_t state;

    XXH3_INITSTATE(&state);
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, app_id.ptr, app_id.bytes);
    XXH3_64bits_update(&state, "", 1);
    XXH3_64bits_update(&state, name.ptr, name.bytes);
    return XXH3_64bits_digest(&state);
}

uint32_t hash_slot(struct slice app_id, struct slice name)
{
    uint8_t  join[JOIN_BYTES_MAX];
    uint64_t bytes = (uint64_t)app_id.bytes + 1 + name.bytes;

    if (UNLIKELY(bytes > sizeof join)) {
        return (uint32_t)hash_stream(app_id, name) & (HASH_SLOTS - 1);
    }
    if (app_id.bytes > 0) memcpy(join, app_id.ptr, app_id.bytes);
    join[app_id.bytes] = 0;
    if (name.bytes > 0) memcpy(join + app_id.bytes + 1, name.ptr, name.bytes);
    return (uint32_t)XXH3_64bits(join, (size_t)bytes) & (HASH_SLOTS - 1);
}

uint64_t hash_table(uint64_t seed, uint32_t app, struct slice name)
{
    /* The odd factor keeps different apps on different seeds and spreads small numbers. */
    return XXH3_64bits_withSeed(name.ptr, name.bytes, seed + app * 0x9e3779b97f4a7c15u);
}

void hash_parts(const struct slice *parts, uint32_t parts_count, uint64_t out[2])
{
    XXH3_state_t state;

    XXH3_INITSTATE(&state);
    XXH3_128bits_reset(&state);
    for (uint32_t i = 0; i < parts_count; i++) {
        XXH3_128bits_update(&state, &parts[i].bytes, sizeof(parts[i].bytes));
        if (parts[i].bytes > 0) XXH3_128bits_update(&state, parts[i].ptr, parts[i].bytes);
    }
    XXH128_hash_t h = XXH3_128bits_digest(&state);
    out[0] = h.high64;
    out[1] = h.low64;
}
