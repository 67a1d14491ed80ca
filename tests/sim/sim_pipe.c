#include "tests/sim/sim_pipe.h"

#include <stdlib.h>

void sim_pipe_put(struct sim_pipe *p, const void *bytes, uint32_t count)
{
    if (count == 0) return;
    if (p->first + p->count + count > p->room) {
        uint32_t room = u32_max(2 * (p->count + count), 256);
        uint8_t *fresh = malloc(room);
        ASSERT(fresh != NULL);
        if (p->count > 0) memcpy(fresh, p->bytes + p->first, p->count);
        free(p->bytes);
        *p = (struct sim_pipe){.bytes = fresh, .count = p->count, .room = room};
    }
    memcpy(p->bytes + p->first + p->count, bytes, count);
    p->count += count;
}

void sim_pipe_skip(struct sim_pipe *p, uint32_t count)
{
    ASSERT(count <= p->count);
    p->first += count;
    p->count -= count;
    if (p->count == 0) p->first = 0;
}

void sim_pipe_free(struct sim_pipe *p)
{
    free(p->bytes);
    *p = (struct sim_pipe){0};
}
