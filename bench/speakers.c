#include "bench/speakers.h"

#include <stdio.h>
#include <string.h>

#include "bench/bench.h"

void speakers_channel(char *out, uint32_t out_bytes, uint32_t i)
{
    snprintf(out, out_bytes, "talk-%u", i);
}

bool speakers_owns(const struct speakers *s, uint32_t id)
{
    return publish_owns(&s->publish, id);
}

/* The acknowledgement of a create names the message. */
static void learn(struct speakers *s, uint32_t i, const struct wire_item *item)
{
    static const char mark[] = "\"message_serial\":\"";
    char              channel[32];
    const char       *at = memmem(item->ptr, item->bytes, mark, sizeof mark - 1);
    if (at == NULL) bench_die("not versioned: %.*s", (int)item->bytes, (const char *)item->ptr);

    at += sizeof mark - 1;
    const char *end = memchr(at, '"', item->bytes - (uint32_t)(at - (const char *)item->ptr));
    if (end == NULL) bench_die("the serial does not end");
    speakers_channel(channel, sizeof channel, i);
    int n = snprintf(s->path[i], SPEAKERS_PATH_BYTES, "/channels/%s/messages/%.*s/append", channel,
                     (int)(end - at), at);
    if (n >= SPEAKERS_PATH_BYTES) bench_die("the serial is too long");
    s->created++;
}

uint32_t speakers_reply(struct speakers *s, uint32_t id, const struct wire_item *item)
{
    uint32_t i = id - s->publish.first;
    publish_reply(&s->publish, id, item);
    if (s->path[i][0] == 0) learn(s, i, item);
    return i;
}

void speakers_append(struct speakers *s, uint32_t i, const char *data)
{
    char body[PUBLISH_BYTES_MAX];
    int  n = snprintf(body, sizeof body, "{\"data\":\"%s\"}", data);
    if (n >= (int)sizeof body) bench_die("a fragment of %d bytes: no room", n);
    publish_post(&s->publish, (int)i, s->path[i], body);
}

void speakers_open(struct speakers *s, struct load *load, uint32_t first, uint32_t count)
{
    char channel[32], body[256];
    *s = (struct speakers){.count = count};
    publish_open(&s->publish, load, first, count);
    for (uint32_t i = 0; i < count; i++) {
        speakers_channel(channel, sizeof channel, i);
        snprintf(body, sizeof body, "{\"name\":\"talk\",\"channel\":\"%s\",\"data\":\"\","
                 "\"info\":\"subscription_count\"}", channel);
        publish_post(&s->publish, (int)i, "/events", body);
    }
    while (s->created < count) load_poll(load, 10000000);
}
