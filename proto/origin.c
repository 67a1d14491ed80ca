#include "proto/origin.h"

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

static bool equal(struct slice a, struct slice b)
{
    if (a.bytes != b.bytes) return false;
    for (uint32_t i = 0; i < a.bytes; i++) {
        if (lower(a.ptr[i]) != lower(b.ptr[i])) return false;
    }
    return true;
}

static struct slice first(struct slice s, uint32_t bytes)
{
    return slice_of(s.ptr, bytes);
}

/* Offset of the first `text` in s; s.bytes when there is none. */
static uint32_t find(struct slice s, const char *text)
{
    const uint8_t *at = s.ptr != NULL ? memmem(s.ptr, s.bytes, text, strlen(text)) : NULL;
    return at != NULL ? (uint32_t)(at - s.ptr) : s.bytes;
}

/* host[:port]: what stands behind the scheme, or everything when there is none. */
static struct slice behind_scheme(struct slice s)
{
    uint32_t scheme = find(s, "://");
    return scheme < s.bytes ? slice_skip(s, scheme + 3) : s;
}

static bool matches_all(struct slice pattern)
{
    return slice_is(pattern, "*") || equal(pattern, slice_str("any"));
}

bool origin_pattern_valid(struct slice pattern)
{
    if (matches_all(pattern)) return true;
    struct slice host = behind_scheme(pattern);
    if (host.bytes == 0 || host.ptr[0] == ':' || slice_is(host, "*.")) return false;
    if (find(pattern, "://") == 0) return false;
    uint32_t star = find(pattern, "*");
    if (star == pattern.bytes) return true;
    struct slice rest = slice_skip(pattern, star + 1);
    return find(rest, "*") == rest.bytes;
}

bool origin_matches(struct slice origin, struct slice pattern)
{
    if (matches_all(pattern)) return true;
    if (origin.bytes == 0 || !origin_pattern_valid(pattern)) return false;
    if (find(pattern, "://") == pattern.bytes) origin = behind_scheme(origin);
    if (slice_starts(pattern, "*.")) {
        struct slice domain = slice_skip(pattern, 2), dot_domain = slice_skip(pattern, 1);
        if (equal(origin, domain)) return true;
        return origin.bytes > dot_domain.bytes &&
               equal(slice_skip(origin, origin.bytes - dot_domain.bytes), dot_domain);
    }
    uint32_t star = find(pattern, "*");
    if (star == pattern.bytes) return equal(origin, pattern);
    struct slice prefix = first(pattern, star), suffix = slice_skip(pattern, star + 1);
    return origin.bytes >= prefix.bytes + suffix.bytes && equal(first(origin, star), prefix) &&
           equal(slice_skip(origin, origin.bytes - suffix.bytes), suffix);
}
