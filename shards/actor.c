#include "shards/actor.h"

#include "proto/json.h"
#include "shards/socket_id.h"

enum { PATTERN_BYTES_MAX = 512, NAME_BYTES_MAX = 64 };

static const struct { const char *name; uint32_t bit; } capabilities[] = {
    {"publish", ACTOR_PUBLISH}, {"subscribe", ACTOR_SUBSCRIBE},
    {"message_update_own", ACTOR_UPDATE_OWN}, {"message_update_any", ACTOR_UPDATE_ANY},
    {"message_delete_own", ACTOR_DELETE_OWN}, {"message_delete_any", ACTOR_DELETE_ANY},
    {"message_append_own", ACTOR_APPEND_OWN}, {"message_append_any", ACTOR_APPEND_ANY},
    {"annotation_publish", ACTOR_ANNOTATE}, {"annotation_subscribe", ACTOR_ANNOTATIONS},
    {"annotation_delete_own", ACTOR_UNANNOTATE_OWN},
    {"annotation_delete_any", ACTOR_UNANNOTATE_ANY},
    {"history", ACTOR_HISTORY}, {"presence", ACTOR_PRESENCE},
};

err_t actor_ask(struct shard *sh, struct op *op, struct actor *who)
{
    who->connected = who->v2 = false;
    who->granted = who->id_bytes = 0;
    return ask_actor(sh, op, shard_of_socket(sh, who->a), who);
}

/* ---- at the socket's shard ---- */

void actor_on_ask(struct shard *sh, struct actor *who)
{
    struct conn *c = socket_id_find(sh, who->a, who->b);
    if (c == NULL || c->app != who->app) return;
    struct user *u = c->user != NULL && c->user->ready ? c->user : NULL;
    who->connected = true;
    who->v2 = c->v2;
    who->granted = actor_grants(u == NULL ? slice_of(NULL, 0) : u->data, who->channel);
    if (u == NULL || u->id.bytes > sizeof(who->id)) return;
    who->id_bytes = u->id.bytes;
    memcpy(who->id, u->id.ptr, u->id.bytes);
}

bool actor_covers(struct slice pattern, struct slice name)
{
    uint32_t star = 0;
    while (star < pattern.bytes && pattern.ptr[star] != '*') star++;
    if (star == pattern.bytes) return slice_equal(pattern, name);
    uint32_t behind = pattern.bytes - star - 1;
    if (memchr(pattern.ptr + star + 1, '*', behind) != NULL) return false;   /* one at most */
    if (name.bytes < star + behind) return false;
    if (name.bytes == 0) return true;    /* it may have no bytes to point at */
    struct slice end = slice_skip(name, name.bytes - behind);
    return slice_equal(slice_of(name.ptr, star), slice_of(pattern.ptr, star)) &&
           slice_equal(end, slice_skip(pattern, star + 1));
}

/* Words may be joined by '-' or '_'. */
static uint32_t bit_of(const struct json_value *key)
{
    uint8_t name[NAME_BYTES_MAX];
    if (key->text_bytes >= sizeof(name)) return 0;
    json_decode(key, name);
    for (uint32_t i = 0; i < key->text_bytes; i++) {
        if (name[i] == '-') name[i] = '_';
    }
    for (uint32_t i = 0; i < sizeof(capabilities) / sizeof(capabilities[0]); i++) {
        if (slice_is(slice_of(name, key->text_bytes), capabilities[i].name)) {
            return capabilities[i].bit;
        }
    }
    return 0;
}

static bool list_valid(const struct json_value *list)
{
    struct json_value pattern;
    if (list->type == JSON_NULL) return true;
    if (list->type != JSON_ARRAY) return false;
    for (struct json_iter it = json_iter_begin(list); json_array_next(&it, &pattern);) {
        if (pattern.type != JSON_STRING) return false;
    }
    return true;
}

bool actor_capabilities_valid(struct slice user_data)
{
    struct json_value all, key, list;
    struct json_error error;
    const struct json_field field = {"capabilities", &all};
    uint32_t seen = 0;
    if (!json_object(user_data, &field, 1, &error)) return false;
    if (all.type == JSON_ABSENT || all.type == JSON_NULL) return true;
    if (all.type != JSON_OBJECT) return false;
    for (struct json_iter it = json_iter_begin(&all); json_object_next(&it, &key, &list);) {
        uint32_t bit = bit_of(&key);
        if (bit == 0) continue;
        if ((seen & bit) != 0 || !list_valid(&list)) return false;
        seen |= bit;
    }
    return true;
}

static bool list_covers(const struct json_value *list, struct slice channel)
{
    struct json_value pattern;
    uint8_t text[PATTERN_BYTES_MAX];
    if (list->type != JSON_ARRAY) return false;
    for (struct json_iter it = json_iter_begin(list); json_array_next(&it, &pattern);) {
        if (pattern.type != JSON_STRING || pattern.text_bytes > sizeof(text)) continue;
        json_decode(&pattern, text);
        if (actor_covers(slice_of(text, pattern.text_bytes), channel)) return true;
    }
    return false;
}

uint32_t actor_grants(struct slice user_data, struct slice channel)
{
    uint32_t granted = ACTOR_BASIC;
    struct json_value all, key, list;
    struct json_error error;
    const struct json_field field = {"capabilities", &all};
    if (!json_object(user_data, &field, 1, &error) || all.type != JSON_OBJECT) return granted;
    for (struct json_iter it = json_iter_begin(&all); json_object_next(&it, &key, &list);) {
        uint32_t bit = bit_of(&key);
        if (list.type == JSON_NULL) continue;
        if (list_covers(&list, channel)) granted |= bit;
        else granted &= ~bit;
    }
    return granted;
}
