#include "bench/publish.h"

#include <openssl/evp.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "bench/bench.h"

static const char key[] = "app-key", secret[] = "app-secret", path[] = "/apps/app-id/events";

void publish_open(struct publish *p, struct load *load, uint32_t first, uint32_t conns_count)
{
    if (conns_count > PUBLISH_CONNS_MAX) bench_die("at most %d publishers", PUBLISH_CONNS_MAX);
    if (sodium_init() < 0) bench_die("libsodium does not start");
    *p = (struct publish){.load = load, .first = first, .conns_count = conns_count};
    load_fill(load, LOAD_HTTP, first, conns_count, 64);
}

bool publish_owns(const struct publish *p, uint32_t id)
{
    return id >= p->first && id - p->first < p->conns_count;
}

int publish_idle(const struct publish *p)
{
    for (uint32_t i = 0; i < p->conns_count; i++) {
        if (!p->busy[i]) return (int)i;
    }
    return -1;
}

static void sign(const char *text, size_t text_bytes, char hex[65])
{
    crypto_auth_hmacsha256_state state;
    uint8_t                      mac[32];
    crypto_auth_hmacsha256_init(&state, (const uint8_t *)secret, sizeof secret - 1);
    crypto_auth_hmacsha256_update(&state, (const uint8_t *)text, text_bytes);
    crypto_auth_hmacsha256_final(&state, mac);
    sodium_bin2hex(hex, 65, mac, sizeof mac);
}

uint32_t publish_request(char *out, uint32_t out_bytes, const char *channel, const char *data)
{
    char     body[PUBLISH_BYTES_MAX], query[256], text[512], md5_hex[33], mac_hex[65];
    uint8_t  md5[16];
    unsigned md5_bytes = sizeof md5;

    int body_bytes = snprintf(body, sizeof body,
                              "{\"name\":\"bench\",\"channel\":\"%s\",\"data\":\"%s\"}",
                              channel, data);
    if (body_bytes >= (int)sizeof body) bench_die("event of %d bytes: no room", body_bytes);
    if (EVP_Digest(body, (size_t)body_bytes, md5, &md5_bytes, EVP_md5(), NULL) != 1) {
        bench_die("no MD5");
    }
    sodium_bin2hex(md5_hex, sizeof md5_hex, md5, sizeof md5);
    snprintf(query, sizeof query, "auth_key=%s&auth_timestamp=%ld&auth_version=1.0&body_md5=%s",
             key, (long)time(NULL), md5_hex);
    int text_bytes = snprintf(text, sizeof text, "POST\n%s\n%s", path, query);
    sign(text, (size_t)text_bytes, mac_hex);

    int n = snprintf(out, out_bytes,
                     "POST %s?%s&auth_signature=%s HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                     "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
                     path, query, mac_hex, body_bytes, body);
    if (n >= (int)out_bytes) bench_die("request of %d bytes: no room", n);
    return (uint32_t)n;
}

void publish_send(struct publish *p, int conn, const char *channel, const char *data)
{
    char     request[PUBLISH_BYTES_MAX + 1024];
    uint32_t id = p->first + (uint32_t)conn;

    if (p->busy[conn] || !load_is_open(p->load, id)) bench_die("publisher %d cannot send", conn);
    uint32_t bytes = publish_request(request, sizeof request, channel, data);
    load_send(p->load, id, request, bytes);
    p->busy[conn] = true;
    p->sent++;
}

void publish_reply(struct publish *p, uint32_t id, const struct wire_item *item)
{
    if (item->status != 200) {
        bench_die("publish refused with %u: %.*s", item->status, (int)item->bytes,
                  (const char *)item->ptr);
    }
    p->busy[id - p->first] = false;
    p->answered++;
}
