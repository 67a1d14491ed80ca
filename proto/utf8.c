#include "proto/utf8.h"

/* A state says how many bytes are still to come and from which range the next one must be. The
 * ranges that are narrower than 80..BF keep out overlongs (E0, F0), surrogates (ED) and everything
 * above U+10FFFF (F4). */
enum {
    ONE_MORE = 2, TWO_MORE, THREE_MORE, AFTER_E0, AFTER_ED, AFTER_F0, AFTER_F4, STATES_COUNT,
};

static const struct { uint8_t low, high, next; } steps[STATES_COUNT] = {
    [ONE_MORE]   = {0x80, 0xbf, UTF8_ACCEPT},
    [TWO_MORE]   = {0x80, 0xbf, ONE_MORE},
    [THREE_MORE] = {0x80, 0xbf, TWO_MORE},
    [AFTER_E0]   = {0xa0, 0xbf, ONE_MORE},
    [AFTER_ED]   = {0x80, 0x9f, ONE_MORE},
    [AFTER_F0]   = {0x90, 0xbf, TWO_MORE},
    [AFTER_F4]   = {0x80, 0x8f, TWO_MORE},
};

static const uint8_t leads[256] = {
    [0x00 ... 0x7f] = UTF8_ACCEPT,
    [0x80 ... 0xc1] = UTF8_REJECT,
    [0xc2 ... 0xdf] = ONE_MORE,
    [0xe0]          = AFTER_E0,
    [0xe1 ... 0xec] = TWO_MORE,
    [0xed]          = AFTER_ED,
    [0xee ... 0xef] = TWO_MORE,
    [0xf0]          = AFTER_F0,
    [0xf1 ... 0xf3] = THREE_MORE,
    [0xf4]          = AFTER_F4,
    [0xf5 ... 0xff] = UTF8_REJECT,
};

/* The first byte from p on that may not be ASCII. */
static const uint8_t *ascii_skip(const uint8_t *p, const uint8_t *end)
{
    uint64_t word;

    while (end - p >= 8) {
        memcpy(&word, p, sizeof word);
        if (word & 0x8080808080808080u) break;
        p += 8;
    }
    return p;
}

bool utf8_valid(struct slice text)
{
    return utf8_feed(UTF8_ACCEPT, text) == UTF8_ACCEPT;
}

uint32_t utf8_feed(uint32_t state, struct slice piece)
{
    ASSERT(state < STATES_COUNT);
    if (state == UTF8_REJECT || piece.bytes == 0) return state;

    const uint8_t *p = piece.ptr;
    const uint8_t *end = p + piece.bytes;
    while (p < end) {
        if (state == UTF8_ACCEPT) {
            if (*p < 0x80) {
                p = ascii_skip(p, end);
                while (p < end && *p < 0x80) p++;   /* at most seven, up to the first other byte */
                continue;
            }
            state = leads[*p++];
        } else {
            uint8_t byte = *p++;
            if (byte < steps[state].low || byte > steps[state].high) return UTF8_REJECT;
            state = steps[state].next;
        }
        if (state == UTF8_REJECT) return UTF8_REJECT;
    }
    return state;
}

const char *utf8_mend(const char *text, char *room, uint32_t room_bytes)
{
    struct slice rest = slice_str(text);
    uint32_t n = 0;
    if (utf8_valid(rest)) return text;
    while (rest.bytes > 0) {
        uint8_t first = rest.ptr[0];
        uint32_t bytes = first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
        bool whole = bytes <= rest.bytes && utf8_valid(slice_of(rest.ptr, bytes));
        if (!whole) bytes = 1;
        if (n + bytes >= room_bytes) break;
        if (whole) memcpy(room + n, rest.ptr, bytes);
        else room[n] = '?';
        n += bytes;
        rest = slice_skip(rest, bytes);
    }
    room[n] = '\0';
    return room;
}
