/* Which request is it: the path's segments, and the methods that each route takes. */
#include "shards/api_parts.h"

enum { GET = 1, POST = 2, DELETE = 4 };

static const struct { uint8_t methods; const char *allow; } routes[] = {
    [API_LIVE] = {GET, "GET, HEAD"}, [API_UP] = {GET, "GET, HEAD"},
    [API_UP_APP] = {GET, "GET, HEAD"}, [API_USAGE] = {GET, "GET, HEAD"},
    [API_STATS] = {GET, "GET, HEAD"},
    [API_EVENTS] = {POST, "POST"}, [API_BATCH] = {POST, "POST"},
    [API_CHANNELS] = {GET, "GET, HEAD"}, [API_CHANNEL] = {GET, "GET, HEAD"},
    [API_USERS] = {GET, "GET, HEAD"},
    [API_TERMINATE] = {POST, "POST"}, [API_RECONNECT] = {POST, "POST"},
    [API_MESSAGE] = {GET, "GET, HEAD"}, [API_VERSIONS] = {GET, "GET, HEAD"},
    [API_UPDATE] = {POST, "POST"}, [API_DELETE] = {POST, "POST"}, [API_APPEND] = {POST, "POST"},
    [API_HISTORY] = {GET, "GET, HEAD"}, [API_HISTORY_STATE] = {GET, "GET, HEAD"},
    [API_HISTORY_RESET] = {POST, "POST"}, [API_HISTORY_PURGE] = {POST, "POST"},
    [API_PRESENCE_HISTORY] = {GET, "GET, HEAD"}, [API_PRESENCE_STATE] = {GET, "GET, HEAD"},
    [API_PRESENCE_RESET] = {POST, "POST"}, [API_PRESENCE_SNAPSHOT] = {GET, "GET, HEAD"},
    [API_ANNOTATIONS] = {GET | POST, "GET, HEAD, POST"}, [API_ANNOTATION] = {DELETE, "DELETE"},
};

uint32_t api_route_split(struct slice path, struct slice segments[API_SEGMENTS_MAX])
{
    uint32_t n = 0;
    while (path.bytes > 0) {
        uint32_t end = 1;                /* path starts with '/' */
        while (end < path.bytes && path.ptr[end] != '/') end++;
        if (n == API_SEGMENTS_MAX) return API_SEGMENTS_MAX + 1;
        segments[n++] = slice_of(path.ptr + 1, end - 1);
        path = slice_skip(path, end);
    }
    return n;
}

/* .../messages/{m}... */
static enum api_route route_message(const struct slice *s, uint32_t n)
{
    if (n == 6) return API_MESSAGE;
    if (n == 8) return slice_is(s[6], "annotations") ? API_ANNOTATION : API_NONE;
    if (n != 7) return API_NONE;
    if (slice_is(s[6], "versions")) return API_VERSIONS;
    if (slice_is(s[6], "update")) return API_UPDATE;
    if (slice_is(s[6], "delete")) return API_DELETE;
    if (slice_is(s[6], "append")) return API_APPEND;
    return slice_is(s[6], "annotations") ? API_ANNOTATIONS : API_NONE;
}

/* .../history... and .../presence/history...: `rest` is what follows the word. */
static enum api_route route_history(const struct slice *rest, uint32_t n, bool presence)
{
    if (n == 0) return presence ? API_PRESENCE_HISTORY : API_HISTORY;
    if (n != 1) return API_NONE;
    if (slice_is(*rest, "state")) return presence ? API_PRESENCE_STATE : API_HISTORY_STATE;
    if (slice_is(*rest, "reset")) return presence ? API_PRESENCE_RESET : API_HISTORY_RESET;
    if (!presence && slice_is(*rest, "purge")) return API_HISTORY_PURGE;
    return presence && slice_is(*rest, "snapshot") ? API_PRESENCE_SNAPSHOT : API_NONE;
}

static enum api_route route_channel(const struct slice *s, uint32_t n)
{
    if (n == 3) return API_CHANNELS;
    if (n == 4) return API_CHANNEL;
    if (n == 5 && slice_is(s[4], "users")) return API_USERS;
    if (slice_is(s[4], "history")) return route_history(s + 5, n - 5, false);
    if (n >= 6 && slice_is(s[4], "presence") && slice_is(s[5], "history")) {
        return route_history(s + 6, n - 6, true);
    }
    return n >= 6 && slice_is(s[4], "messages") ? route_message(s, n) : API_NONE;
}

static enum api_route route_app(const struct slice *s, uint32_t n)
{
    if (n == 3 && slice_is(s[2], "events")) return API_EVENTS;
    if (n == 3 && slice_is(s[2], "batch_events")) return API_BATCH;
    if (slice_is(s[2], "channels")) return route_channel(s, n);
    if (n == 5 && slice_is(s[2], "users")) {
        if (slice_is(s[4], "terminate_connections")) return API_TERMINATE;
        if (slice_is(s[4], "force_reconnect")) return API_RECONNECT;
    }
    return API_NONE;
}

enum api_route api_route_of(const struct slice *s, uint32_t n)
{
    if (n == 0 || n > API_SEGMENTS_MAX) return API_NONE;
    if (slice_is(s[0], "apps")) return n < 3 ? API_NONE : route_app(s, n);
    if (n == 1 && slice_is(s[0], "live")) return API_LIVE;
    if (n == 1 && slice_is(s[0], "up")) return API_UP;
    if (n == 2 && slice_is(s[0], "up")) return API_UP_APP;
    if (n == 1 && slice_is(s[0], "usage")) return API_USAGE;
    if (n == 1 && slice_is(s[0], "stats")) return API_STATS;
    if (n == 2 && slice_is(s[0], "operator") && slice_is(s[1], "stats")) return API_STATS;
    return API_NONE;
}

const char *api_route_refuses(enum api_route route, enum http_method method)
{
    uint8_t bit = method == HTTP_GET || method == HTTP_HEAD ? GET
                  : method == HTTP_POST                     ? POST
                  : method == HTTP_DELETE                   ? DELETE : 0;
    ASSERT(route != API_NONE);
    return routes[route].methods & bit ? NULL : routes[route].allow;
}
