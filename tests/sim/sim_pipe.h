/* sim_pipe.h - a growing queue of bytes: what lies between a simulated peer and the server. */
#pragma once
#include "core/base.h"

struct sim_pipe {
    uint8_t *bytes;          /* owned */
    uint32_t first, count;   /* bytes[first .. first + count) wait */
    uint32_t room;
};

void sim_pipe_put(struct sim_pipe *p, const void *bytes, uint32_t count);
void sim_pipe_skip(struct sim_pipe *p, uint32_t count);
void sim_pipe_free(struct sim_pipe *p);

static inline uint8_t *sim_pipe_at(struct sim_pipe *p) { return p->bytes + p->first; }
