#include "bench/subs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"

static const char mark[] = "seq=";
enum { JOIN_BATCH = 256, MARK_BYTES = 4, NUMBER_DIGITS = 10 };

void subs_open(struct subs *s, struct load *load, uint32_t first, uint32_t count,
               uint32_t publishers)
{
    *s = (struct subs){.load = load, .first = first, .count = count, .publishers = publishers};
    if (publishers > SUBS_PUBLISHERS_MAX) bench_die("at most %d publishers", SUBS_PUBLISHERS_MAX);
    s->next = bench_calloc((uint64_t)count * publishers, sizeof *s->next);
}

void subs_close(struct subs *s)
{
    free(s->next);
    s->next = NULL;
}

int subs_request(char *out, uint32_t out_bytes, const char *channel)
{
    return snprintf(out, out_bytes, "{\"event\":\"pusher:subscribe\",\"data\":"
                    "{\"auth\":\"\",\"channel\":\"%s\"}}", channel);
}

void subs_join(struct subs *s, const char *channel)
{
    char     text[256];
    int      n = subs_request(text, sizeof text, channel);
    uint64_t asked = 0, done = s->joined;
    while (s->joined - done < s->count) {
        while (asked < s->count && asked - (s->joined - done) < JOIN_BATCH) {
            load_text(s->load, s->first + (uint32_t)asked++, text, (uint32_t)n);
        }
        load_poll(s->load, 100000000);
        if (load_counts(s->load).closed > 0) bench_die("a subscriber was closed while joining");
    }
}

bool subs_owns(const struct subs *s, uint32_t id)
{
    return id >= s->first && id - s->first < s->count;
}

static uint32_t digits(const uint8_t *p, uint32_t count)
{
    uint32_t value = 0;
    for (uint32_t i = 0; i < count; i++) value = value * 10 + (uint32_t)(p[i] - '0');
    return value;
}

/* All messages of a run look alike: the first tells where the number stands. */
static void learn(struct subs *s, const struct wire_item *item)
{
    const uint8_t *at = memmem(item->ptr, item->bytes, mark, MARK_BYTES);
    if (at == NULL) {
        bench_die("not a message: %.*s", (int)item->bytes, (const char *)item->ptr);
    }
    s->mark_at = (uint32_t)(at - item->ptr);
    s->frame_bytes = item->bytes_total;
    s->payload_bytes = item->bytes;
}

void subs_take(struct subs *s, uint32_t id, const struct wire_item *item)
{
    static const char succeeded[] = "_internal:subscription_succeeded";

    if (item->kind == WIRE_TEXT && s->frames == 0 &&
        memmem(item->ptr, item->bytes, succeeded, sizeof succeeded - 1) != NULL) {
        s->joined++;
        return;
    }
    if (s->frame_bytes == 0) learn(s, item);
    if (item->bytes_total != s->frame_bytes ||
        memcmp(item->ptr + s->mark_at, mark, MARK_BYTES) != 0) {
        bench_die("unexpected frame: %.*s", (int)item->bytes, (const char *)item->ptr);
    }

    const uint8_t *p = item->ptr + s->mark_at + MARK_BYTES;
    uint32_t       publisher = digits(p, 2), number = digits(p + 3, NUMBER_DIGITS);
    if (publisher >= s->publishers) bench_die("message of unknown publisher %u", publisher);
    uint32_t *next = &s->next[(uint64_t)(id - s->first) * s->publishers + publisher];
    if (number != *next) {
        bench_die("subscriber %u: message %u of publisher %u, expected %u", id, number, publisher,
                  *next);
    }
    (*next)++;
    s->frames++;
}

struct subs_kernel subs_kernel(const struct subs *s)
{
    struct subs_kernel sum = {.last_data_ms_min = UINT32_MAX};
    struct tcp_info    info;
    for (uint32_t i = 0; i < s->count; i++) {
        load_tcp_info(s->load, s->first + i, &info);
        sum.segments += info.tcpi_data_segs_in;
        sum.bytes += info.tcpi_bytes_received;
        if (info.tcpi_last_data_recv < sum.last_data_ms_min) {
            sum.last_data_ms_min = info.tcpi_last_data_recv;
        }
    }
    return sum;
}

void subs_data(char *out, uint32_t data_bytes, uint32_t publisher, uint32_t number)
{
    if (data_bytes < SUBS_DATA_BYTES_MIN) bench_die("data of at least %d", SUBS_DATA_BYTES_MIN);
    int n = snprintf(out, data_bytes + 1, "seq=%02u.%010u", publisher, number);
    memset(out + n, '.', data_bytes - (uint32_t)n);
    out[data_bytes] = 0;
}
