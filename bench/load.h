/* load.h - many client connections in one thread: the peers of everything measured here.
 *
 * Shape    Connections have ids 0..conns_max-1, chosen by the caller. They live as direct
 *          descriptors in several rings ("banks"), because RLIMIT_NOFILE bounds one table. Setting
 *          one up is a single link chain: socket, bind, connect, upgrade, multishot receive.
 * Threads  The thread that called load_open.
 * Order    Callbacks run inside load_poll and load_fill; items of a connection in wire order.
 * Bounds   conns_max; sends are copied into LOAD_SCRATCH_BYTES, far more than is in flight.
 * Memory   About 32 B per connection here, plus what is incomplete.
 * Errors   A connection that ends gets on_close, once. Protocol errors end the program.
 * Source   IORING_OP_BIND (kernel 6.11), socket options by URING_CMD (6.7), FIXED_FD_INSTALL (6.8).
 */
#pragma once
#include <linux/tcp.h>

#include "bench/wire.h"

enum load_kind {
    LOAD_WS,      /* upgrades; open once connection_established was received */
    LOAD_RAW,     /* frames at once, no upgrade; open once connected */
    LOAD_HTTP,    /* replies; open once connected */
};
enum { LOAD_SCRATCH_BYTES = 4 << 20 };

struct load;

struct load_conf {
    uint16_t port;
    uint32_t conns_max;
    uint32_t bank_slots;       /* connections per ring; 0: 16,000 */
    uint32_t recv_bytes;       /* one receive buffer; 0: 512 */
    uint32_t recv_buffers;     /* per bank, a power of two; 0: 1,024 */
    uint32_t sources_count;    /* addresses to come from, 127.0.8.x; 0: the default one */
    uint32_t source_first;     /* x of the first. Ports of closed connections rest for a while */
    uint32_t rcvbuf_bytes;     /* SO_RCVBUF; 0: the system's default */
    bool     v2;               /* LOAD_WS speaks Protocol V2; also by the option --v2 1 */
    void    *ctx;
    void (*on_open)(void *ctx, uint32_t id);                                /* may be NULL */
    void (*on_item)(void *ctx, uint32_t id, const struct wire_item *item);  /* may be NULL */
    void (*on_close)(void *ctx, uint32_t id);                /* may be NULL; the id is free again */
};

struct load_counts {
    uint64_t open, opened, closed, failed;   /* open: now; failed: ended before they were open */
    uint64_t send_errors, rearms;            /* rearms: a multishot receive ended and went on */
};

void load_open(struct load **out, const struct load_conf *conf);
/* Everything ends with the process too; this closes the rings while it runs on. */
void load_free(struct load **l);

/* `id` must be free. */
void load_connect(struct load *l, enum load_kind kind, uint32_t id);
void load_shut(struct load *l, uint32_t id);   /* FIN, then the slot comes back with on_close */
bool load_is_open(const struct load *l, uint32_t id);
bool load_is_free(const struct load *l, uint32_t id);

/* Connect ids first..first+count-1 with at most in_flight_max unfinished; returns once all are
 * open, with the time it took. Ends the program when one fails. */
uint64_t load_fill(struct load *l, enum load_kind kind, uint32_t first, uint32_t count,
                   uint32_t in_flight_max);

void load_send(struct load *l, uint32_t id, const void *bytes, uint32_t bytes_count);
/* One text frame. */
void load_text(struct load *l, uint32_t id, const char *payload, uint32_t payload_bytes);

/* Submit, receive, call back; wait up to timeout_ns when there was nothing. Returns completions. */
uint32_t load_poll(struct load *l, uint64_t timeout_ns);

struct load_counts load_counts(const struct load *l);
/* The kernel's view of one connection. Runs callbacks of that connection's bank. */
void load_tcp_info(struct load *l, uint32_t id, struct tcp_info *out);
