/* Channel names. The other parts of pusher.h: pusher_frame.c reads frames, pusher_write.c writes
 * them.
 */
#include "proto/pusher.h"

#include <stdio.h>

#include "proto/utf8.h"

enum {
    USER_ID_BYTES_MAX = 128,
    QUOTED_BYTES_MAX = 200,      /* of a name inside an error text */
    LISTED_CHARACTERS_MAX = 16,  /* of the invalid characters in it */
};

static const char user_prefix[] = "#server-to-user-";

/* Longest first: the first match decides. */
static const struct {
    const char      *text;
    enum pusher_kind kind;
    bool             cache;
} prefixes[] = {
    {"private-encrypted-cache-", PUSHER_ENCRYPTED, true},
    {"private-encrypted-", PUSHER_ENCRYPTED, false},
    {"private-cache-", PUSHER_PRIVATE, true},
    {"private-", PUSHER_PRIVATE, false},
    {"presence-cache-", PUSHER_PRESENCE, true},
    {"presence-", PUSHER_PRESENCE, false},
    {"cache-", PUSHER_PUBLIC, true},
};

const char *const pusher_type_labels[PUSHER_TYPE_LABELS] = {
    "public", "private", "presence", "private_encrypted", "cache",
};

uint32_t pusher_type_label(const struct pusher_channel *c)
{
    switch (c->kind) {
    case PUSHER_PUBLIC: return c->cache ? 4 : 0;
    case PUSHER_PRIVATE: return 1;
    case PUSHER_USER: return 1;      /* like a private channel, only one user may join */
    case PUSHER_PRESENCE: return 2;
    case PUSHER_ENCRYPTED: return 3;
    }
    ASSERT(false);
}

static bool character_allowed(uint8_t c)
{
    static const bool allowed[256] = {
        ['A' ... 'Z'] = true, ['a' ... 'z'] = true, ['0' ... '9'] = true, ['_'] = true,
        ['-'] = true, ['='] = true, ['@'] = true, [','] = true, ['.'] = true, [';'] = true,
    };
    return allowed[c];
}

/* ---- error texts ---- */

/* Length of the character that `text` starts with, and whether it can be shown as it is. */
static uint32_t character_bytes(struct slice text, bool *shown)
{
    uint8_t first = text.ptr[0];
    uint32_t bytes = first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    *shown = first >= 0x20 && first != 0x7f && bytes <= text.bytes &&
             utf8_valid(slice_of(text.ptr, bytes)) && !(first == 0xc2 && text.ptr[1] < 0xa0);
    return *shown ? bytes : 1;
}

struct text { char *at, *end; };

/* Append `bytes` bytes if they fit beside a final zero. */
static void put(struct text *t, const void *from, uint32_t bytes)
{
    if (t->end - t->at <= (ptrdiff_t)bytes) return;
    memcpy(t->at, from, bytes);
    t->at += bytes;
    *t->at = 0;
}

static void put_text(struct text *t, const char *text)
{
    put(t, text, (uint32_t)strlen(text));
}

static void put_name(struct text *t, struct slice name)
{
    uint32_t left = QUOTED_BYTES_MAX;
    while (name.bytes > 0) {
        bool shown;
        uint32_t bytes = character_bytes(name, &shown);
        if (bytes > left) return;
        put(t, shown ? (const void *)name.ptr : "?", bytes);
        name = slice_skip(name, bytes);
        left -= bytes;
    }
}

/* The list of characters has the reference's form: ['a', 'b'], in order, repeats included.
 * `named`: there are namespaces, so '#' is not at fault. */
static bool fail_characters(struct slice name, bool named, char error[PUSHER_ERROR_TEXT_BYTES])
{
    struct text t = {error, error + PUSHER_ERROR_TEXT_BYTES};
    put_text(&t, "Channel name contains invalid characters: '");
    put_name(&t, name);
    put_text(&t, "' (invalid chars: [");
    for (uint32_t listed = 0; name.bytes > 0;) {
        bool shown;
        uint32_t bytes = character_bytes(name, &shown);
        bool known = name.ptr[0] == ':' || (named && name.ptr[0] == '#');
        if (!character_allowed(name.ptr[0]) && !known) {
            if (listed++ == LISTED_CHARACTERS_MAX) {
                put_text(&t, ", ..");
                break;
            }
            bool escaped = name.ptr[0] == '\'' || name.ptr[0] == '\\';
            put_text(&t, listed == 1 ? "'" : ", '");
            if (escaped) put_text(&t, "\\");
            put(&t, shown ? (const void *)name.ptr : "?", bytes);
            put_text(&t, "'");
        }
        name = slice_skip(name, bytes);
    }
    put_text(&t, "])");
    return false;
}

static bool fail_long(uint32_t bytes_max, char error[PUSHER_ERROR_TEXT_BYTES])
{
    snprintf(error, PUSHER_ERROR_TEXT_BYTES, "Channel name too long. Max length is %u", bytes_max);
    return false;
}

static bool fail_text(const char *text, char error[PUSHER_ERROR_TEXT_BYTES])
{
    snprintf(error, PUSHER_ERROR_TEXT_BYTES, "%s", text);
    return false;
}

/* ---- parsing ---- */

static bool user_parse(struct slice name, struct pusher_channel *out,
                       char error[PUSHER_ERROR_TEXT_BYTES])
{
    uint32_t prefix_bytes = sizeof user_prefix - 1;
    struct slice id = slice_skip(name, prefix_bytes);
    if (id.bytes == 0) return fail_text("Channel name must not be empty", error);
    if (id.bytes > USER_ID_BYTES_MAX) return fail_long(prefix_bytes + USER_ID_BYTES_MAX, error);
    for (struct slice rest = id; rest.bytes > 0;) {
        bool shown;
        uint32_t bytes = character_bytes(rest, &shown);
        if (!shown) return fail_characters(name, false, error);
        rest = slice_skip(rest, bytes);
    }
    *out = (struct pusher_channel){.kind = PUSHER_USER, .user_id = id};
    return true;
}

/* ---- namespaces ---- */

/* `before`, what can be shown of the name, `after`. */
static bool fail_name(const char *before, struct slice name, const char *after,
                      char error[PUSHER_ERROR_TEXT_BYTES])
{
    struct text t = {error, error + PUSHER_ERROR_TEXT_BYTES};
    put_text(&t, before);
    put_name(&t, name);
    put_text(&t, after);
    return false;
}

static bool fail_namespace(struct slice rest, char error[PUSHER_ERROR_TEXT_BYTES])
{
    const uint8_t *colon = memchr(rest.ptr, ':', rest.bytes);
    ASSERT(colon != NULL);
    struct slice name = slice_of(rest.ptr, (uint32_t)(colon - rest.ptr));
    return fail_name("Unknown channel namespace '", name, "'", error);
}

static bool fail_pattern(struct slice name, const struct conf_namespace *ns,
                         char error[PUSHER_ERROR_TEXT_BYTES])
{
    struct text t = {error, error + PUSHER_ERROR_TEXT_BYTES};
    put_text(&t, "Channel '");
    put_name(&t, name);
    put_text(&t, "' does not match namespace '");
    put_name(&t, slice_str(ns->name));
    put_text(&t, "' pattern");
    return false;
}

/* The id that `users` starts with. */
static struct slice user_first(struct slice users)
{
    const uint8_t *comma = memchr(users.ptr, ',', users.bytes);
    return comma == NULL ? users : slice_of(users.ptr, (uint32_t)(comma - users.ptr));
}

static bool user_valid(struct slice id)
{
    for (uint32_t i = 0; i < id.bytes; i++) {
        if (!character_allowed(id.ptr[i]) || id.ptr[i] == ';') return false;
    }
    return true;
}

/* The ids behind the first '#', when the namespace allows a channel to have them. */
static bool users_parse(struct slice name, struct slice users, struct pusher_channel *out,
                        char error[PUSHER_ERROR_TEXT_BYTES])
{
    const char *what = NULL;
    bool hash = memchr(users.ptr, '#', users.bytes) != NULL;
    if (hash) what = "' contains multiple user limit separators";
    else if (users.bytes == 0) what = "' has an empty user limit segment";
    for (struct slice rest = users; what == NULL;) {
        struct slice id = user_first(rest);
        if (id.bytes == 0) what = "' contains an empty user id in its user limit segment";
        else if (!user_valid(id))
            what = "' contains an invalid user id in its user limit segment";
        if (id.bytes == rest.bytes) break;
        rest = slice_skip(rest, id.bytes + 1);
    }
    if (what == NULL && (out->ns == NULL || !out->ns->allow_user_limited_channels))
        what = "' uses user-limited syntax but the namespace does not allow it";
    out->users = users;
    return what == NULL || fail_name("Channel '", name, what, error);
}

bool pusher_channel_admits(const struct pusher_channel *c, struct slice user_id)
{
    if (c->users.ptr == NULL) return true;
    for (struct slice rest = c->users;;) {
        struct slice id = user_first(rest);
        if (slice_equal(id, user_id)) return true;
        if (id.bytes == rest.bytes) return false;
        rest = slice_skip(rest, id.bytes + 1);
    }
}

/* What an app with namespaces asks beyond the characters. `rest`: without the type prefix. */
static bool namespace_check(struct slice name, struct slice rest, struct pusher_channel *out,
                            char error[PUSHER_ERROR_TEXT_BYTES])
{
    const uint8_t *hash = memchr(rest.ptr, '#', rest.bytes);
    struct slice base = hash == NULL ? rest : slice_of(rest.ptr, (uint32_t)(hash - rest.ptr));
    bool colon = base.bytes > 0 && memchr(base.ptr, ':', base.bytes) != NULL;
    if (colon && out->ns == NULL) return fail_namespace(base, error);
    if (hash != NULL) {
        struct slice users = slice_skip(rest, base.bytes + 1);
        if (!users_parse(name, users, out, error)) return false;
    }
    if (out->ns == NULL || conf_namespace_admits(out->ns, base)) return true;
    return fail_pattern(name, out->ns, error);
}

/* ---- a whole name ---- */

/* Sets kind and cache; what follows the type prefix. */
static struct slice prefix_skip(struct slice name, struct pusher_channel *out)
{
    for (uint32_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        if (!slice_starts(name, prefixes[i].text)) continue;
        out->kind = prefixes[i].kind;
        out->cache = prefixes[i].cache;
        return slice_skip(name, (uint32_t)strlen(prefixes[i].text));
    }
    return name;
}

bool pusher_channel_parse(struct slice name, uint32_t name_bytes_max,
                          const struct conf_names *names, struct pusher_channel *out,
                          char error[PUSHER_ERROR_TEXT_BYTES])
{
    bool named = names != NULL && names->count > 0;
    *out = (struct pusher_channel){.kind = PUSHER_PUBLIC};
    if (name.bytes == 0) return fail_text("Channel name must not be empty", error);
    if (slice_starts(name, user_prefix)) return user_parse(name, out, error);
    struct slice rest = prefix_skip(name, out);
    if (named) out->ns = conf_names_find(names, rest);
    if (out->ns != NULL && out->ns->max_channel_name_length > 0)
        name_bytes_max = out->ns->max_channel_name_length;
    if (name_bytes_max > 0 && name.bytes > name_bytes_max) return fail_long(name_bytes_max, error);
    if (slice_starts(name, "[meta]")) {
        return fail_text("Metachannel subscriptions are only supported on protocol V2", error);
    }
    bool colon = false, star = false, other = false;
    for (uint32_t i = 0; i < name.bytes; i++) {
        if (LIKELY(character_allowed(name.ptr[i]))) continue;
        if (name.ptr[i] == ':') colon = true;
        else if (name.ptr[i] == '*') star = true;
        else other = other || !named || name.ptr[i] != '#';
    }
    if (star) {
        return fail_text("Wildcard subscriptions are only supported on protocol V2", error);
    }
    if (other) return fail_characters(name, named, error);
    if (named) return namespace_check(name, rest, out, error);
    return !colon || fail_namespace(rest, error);
}
