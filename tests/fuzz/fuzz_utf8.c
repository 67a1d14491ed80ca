/* fuzz_utf8.c - utf8.h agrees with a decoder that works on code points, whole and in two pieces. */
#include "proto/utf8.h"
#include "tests/fuzz/fuzz.h"

/* Bytes of the valid character at p, or 0. */
static size_t character(const uint8_t *p, size_t bytes)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = p[0] < 0x80 ? 1 : p[0] < 0xc0 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3
                    : p[0] < 0xf8 ? 4 : 0;
    if (length == 0 || length > bytes) return 0;
    uint32_t point = length == 1 ? p[0] : p[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if (p[i] >> 6 != 2) return 0;
        point = point * 64 + p[i] % 64;
    }
    if (point < least[length] || point > 0x10ffff || point >> 11 == 0x1b) return 0;
    return length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    size_t at = 0, step = 1;
    while (at < bytes && (step = character(data + at, bytes - at)) > 0) at += step;

    struct slice text = slice_of(data, (uint32_t)bytes);
    ASSERT(utf8_valid(text) == (at == bytes));

    /* Every state in the middle: up to the fault it is never REJECT, and the rest ends alike. */
    uint32_t want = utf8_feed(UTF8_ACCEPT, text), state = UTF8_ACCEPT;
    for (uint32_t i = 0; i < text.bytes; i++) {
        if (i < 64) ASSERT(utf8_feed(state, slice_skip(text, i)) == want);
        state = utf8_feed(state, slice_of(data + i, 1));
        ASSERT(i + 1 > at || state != UTF8_REJECT);
    }
    ASSERT(state == want);
    return 0;
}
