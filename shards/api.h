/* api.h - the HTTP side: routes, signed requests, answers.
 *
 * Shape    api_request is called with one whole request (head parsed, body complete). It answers
 *          at once, or suspends in an op (op.h) and answers later; either way exactly one answer.
 * Threads  The shard.
 * Source   spec/pusher-v1.md 7; spec/operations.md 3, 5, 7.
 */
#pragma once
#include "shards/op.h"

/* `whole` is head and body as one slice (body = whole from r->head_bytes). op is NULL at first and
 * the suspended op when the request runs again. */
void api_request(struct shard *sh, struct conn *c, struct op *op, const struct http_request *r,
                 struct slice whole);
/* The metrics listener: GET /metrics, nothing else. */
void api_metrics_request(struct shard *sh, struct conn *c, const struct http_request *r);

/* Letters. */
void api_on_published(struct shard *sh, const struct letter *l);
void api_on_listed(struct shard *sh, const struct letter *l);
/* At homes: list channels or one channel's state and members. */
void api_on_list(struct shard *sh, const struct letter *l);
bool api_list_work(struct shard *sh);   /* continue long lists; true when more is left */
void api_on_list_home(struct shard *sh, const struct letter *l);
