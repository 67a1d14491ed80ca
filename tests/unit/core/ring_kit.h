/* ring_kit.h - a small server on a real ring and plain sockets as its clients, for ring tests.
 *
 * Shape    Every stream, both ways, carries the same bytes: kit_byte of the position. So each side
 *          checks order and loss by counting.
 * Threads  The kit belongs to the test's thread; client sockets to whoever uses them.
 * Bounds   KIT_SOCKS sockets. A wait that lasts longer than KIT_WAIT_NS fails the test.
 */
#pragma once
#include "core/ring.h"

enum { KIT_SOCKS = 8192, KIT_TAG = 7 };
#define KIT_WAIT_NS 20000000000ull

struct kit_sock {
    uint32_t         gen, tag;
    bool             open, receiving, sending, ended, stopping;
    uint64_t         received;        /* bytes, all checked */
    int64_t          sent;            /* result of the last send */
    struct ring_addr peer;
};

struct kit {
    struct ring     *ring;
    int              listen_fd;
    uint16_t         port;
    bool             echo;            /* answer each receive with as many bytes */
    bool             close_ended;     /* close when the receive has ended */
    struct kit_sock *socks;           /* owned; KIT_SOCKS */
    uint32_t         last;            /* the socket accepted last */
    uint64_t         accepted, closed, sent_count, stops, events, turn_events_max;
    uint64_t         wrong;           /* bytes or completions that should not be */
};

/* bank_slots: what one descriptor table may hold, or 0 for the usual. */
void kit_open(struct kit *k, uint32_t socks_max, uint32_t accepts_max, uint32_t bank_slots);
void kit_close(struct kit *k);

/* A listener on a loopback port of the kernel's choice. */
int kit_listener(uint16_t *port);
/* A blocking client, from 127.0.b.c when `from` (b << 8 | c) is not 0. */
int kit_client(uint16_t port, uint16_t from);
bool kit_client_ended(int fd);        /* end of stream within KIT_WAIT_NS */

uint8_t kit_byte(uint64_t position);
/* count bytes of the stream from `position`, into at. */
void kit_fill(uint8_t *at, uint64_t position, uint64_t count);

/* Turn, and sleep when nothing happened. */
void kit_step(struct kit *k, uint64_t sleep_ns);
/* Steps until *counter >= target; fails after KIT_WAIT_NS. */
void kit_until(struct kit *k, const uint64_t *counter, uint64_t target);
/* Steps until nothing has happened for some turns. */
void kit_settle(struct kit *k);
