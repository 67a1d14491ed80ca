#include "tests/sim/peer.h"

#include <stdlib.h>

struct sim_peer *peer_connect(uint32_t window)
{
    struct ring_addr addr = {{0}};
    struct sim_peer *p =
        ring_sim_connect(world.server.shards[below(world.shards)].re.ring, 0, addr);
    p->owner = WORLD_CLIENTS_MAX;          /* none of the clients */
    p->window = window;
    return p;
}

bool peer_take(struct sim_peer *p, struct sim_pipe *in)
{
    uint32_t n = p->from_server.count;
    if (n == 0) return false;
    sim_pipe_put(in, sim_pipe_at(&p->from_server), n);
    sim_pipe_skip(&p->from_server, n);
    return true;
}

void peer_leave(struct sim_peer **p, struct sim_pipe *in, bool broken)
{
    if (*p != NULL) {
        (*p)->broken = (*p)->broken || broken;
        (*p)->ended = true;
        ring_sim_drop(p);
    }
    sim_pipe_free(in);
}

bool peer_answer(struct sim_pipe *in, char *text, uint32_t room, uint32_t *status)
{
    if (in->count == 0) return false;
    uint8_t *at = sim_pipe_at(in), *end = memmem(at, in->count, "\r\n\r\n", 4);
    if (end == NULL) return false;
    const char *length = memmem(at, (size_t)(end - at), "ontent-Length: ", 15);
    uint32_t head = (uint32_t)(end + 4 - at);
    uint32_t bytes = length == NULL ? 0 : (uint32_t)strtoul(length + 15, NULL, 10);
    MUST(memcmp(at, "HTTP/1.1 ", 9) == 0 && bytes < room, "what is %.20s", at);
    if (in->count < head + bytes) return false;
    memcpy(text, at + head, bytes);
    text[bytes] = 0;
    *status = (uint32_t)strtoul((char *)at + 9, NULL, 10);
    sim_pipe_skip(in, head + bytes);
    return true;
}

bool peer_between(const char *text, const char *before, char *out, size_t room)
{
    const char *at = strstr(text, before);
    if (at == NULL) return false;
    at += strlen(before);
    size_t n = strcspn(at, "\"");
    MUST(n < room, "a long text after %s", before);
    memcpy(out, at, n);
    out[n] = 0;
    return true;
}
