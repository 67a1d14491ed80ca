#include "bench/publish.h"

#include <openssl/evp.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "bench/bench.h"

static const char key[] = "app-key", secret[] = "app-secret", app[] = "/apps/app-id";

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

/* The query of a request to /apps/app-id{path}, signature included. */
static void sign_query(char *out, uint32_t out_bytes, const char *method, const char *path,
                       const char *body)
{
    char     query[256], text[1024], mac_hex[65], md5_hex[33], body_part[64] = "";
    uint8_t  md5[16];
    unsigned md5_bytes = sizeof md5;

    if (body != NULL) {
        if (EVP_Digest(body, strlen(body), md5, &md5_bytes, EVP_md5(), NULL) != 1) {
            bench_die("no MD5");
        }
        sodium_bin2hex(md5_hex, sizeof md5_hex, md5, sizeof md5);
        snprintf(body_part, sizeof body_part, "&body_md5=%s", md5_hex);
    }
    snprintf(query, sizeof query, "auth_key=%s&auth_timestamp=%ld&auth_version=1.0%s", key,
             (long)time(NULL), body_part);
    int text_bytes = snprintf(text, sizeof text, "%s\n%s%s\n%s", method, app, path, query);
    if (text_bytes >= (int)sizeof text) bench_die("a path of %zu bytes: no room", strlen(path));
    sign(text, (size_t)text_bytes, mac_hex);
    if (snprintf(out, out_bytes, "%s&auth_signature=%s", query, mac_hex) >= (int)out_bytes) {
        bench_die("query: no room");
    }
}

uint32_t publish_signed(char *out, uint32_t out_bytes, const char *path, const char *body)
{
    char query[512];
    sign_query(query, sizeof query, "POST", path, body);
    int n = snprintf(out, out_bytes,
                     "POST %s%s?%s HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                     "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                     app, path, query, strlen(body), body);
    if (n >= (int)out_bytes) bench_die("request of %d bytes: no room", n);
    return (uint32_t)n;
}

uint32_t publish_signed_path(char *out, uint32_t out_bytes, const char *path)
{
    char query[512];
    sign_query(query, sizeof query, "GET", path, NULL);
    int n = snprintf(out, out_bytes, "%s%s?%s", app, path, query);
    if (n >= (int)out_bytes) bench_die("path of %d bytes: no room", n);
    return (uint32_t)n;
}

uint32_t publish_request(char *out, uint32_t out_bytes, const char *channel, const char *data)
{
    char body[PUBLISH_BYTES_MAX];
    int  body_bytes = snprintf(body, sizeof body,
                               "{\"name\":\"bench\",\"channel\":\"%s\",\"data\":\"%s\"}",
                               channel, data);
    if (body_bytes >= (int)sizeof body) bench_die("event of %d bytes: no room", body_bytes);
    return publish_signed(out, out_bytes, "/events", body);
}

static void send_request(struct publish *p, int conn, const char *request, uint32_t bytes)
{
    uint32_t id = p->first + (uint32_t)conn;
    if (p->busy[conn] || !load_is_open(p->load, id)) bench_die("publisher %d cannot send", conn);
    load_send(p->load, id, request, bytes);
    p->busy[conn] = true;
    p->sent++;
}

void publish_post(struct publish *p, int conn, const char *path, const char *body)
{
    char request[PUBLISH_BYTES_MAX + 1024];
    send_request(p, conn, request, publish_signed(request, sizeof request, path, body));
}

void publish_send(struct publish *p, int conn, const char *channel, const char *data)
{
    char request[PUBLISH_BYTES_MAX + 1024];
    send_request(p, conn, request, publish_request(request, sizeof request, channel, data));
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
