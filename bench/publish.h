/* publish.h - signed POST /events requests over kept-alive connections of a load.
 *
 * Shape    A pool of LOAD_HTTP connections with one request outstanding each. The owner of the load
 *          hands replies on with publish_reply.
 * Threads  The load's.
 * Bounds   PUBLISH_BYTES_MAX per request.
 * Errors   A reply other than 200 ends the program: a refused publish would falsify every count.
 * Source   Signature: the HTTP API of Pusher Channels, "Authentication".
 */
#pragma once
#include "bench/load.h"

enum { PUBLISH_BYTES_MAX = 16384, PUBLISH_CONNS_MAX = 256 };

struct publish {
    struct load *load;                      /* borrowed */
    uint32_t     first, conns_count;
    uint64_t     sent, answered;
    bool         busy[PUBLISH_CONNS_MAX];
};

/* Connects ids first..first+conns_count-1 of the load. */
void publish_open(struct publish *p, struct load *load, uint32_t first, uint32_t conns_count);
bool publish_owns(const struct publish *p, uint32_t id);
/* A connection without an outstanding request, or -1. */
int  publish_idle(const struct publish *p);
/* `data` must need no JSON escapes. */
void publish_send(struct publish *p, int conn, const char *channel, const char *data);
/* Any other signed POST: `path` behind /apps/app-id, `body` whole. */
void publish_post(struct publish *p, int conn, const char *path, const char *body);
void publish_reply(struct publish *p, uint32_t id, const struct wire_item *item);

/* The requests themselves; return their length. A GET leaves `body` NULL. */
uint32_t publish_request(char *out, uint32_t out_bytes, const char *channel, const char *data);
uint32_t publish_signed(char *out, uint32_t out_bytes, const char *path, const char *body);
/* The path and query of a signed GET. */
uint32_t publish_signed_path(char *out, uint32_t out_bytes, const char *path);
