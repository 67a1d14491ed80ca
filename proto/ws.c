#include "proto/ws.h"

/* SHA-1 is fixed by RFC 6455. The one-shot EVP interface allocates a context per call, and a shard
 * may not allocate; the low-level calls work on the stack but are marked deprecated since 3.0. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>
#include <sodium.h>

#include "proto/utf8.h"

enum {
    FIN_BIT = 0x80, RESERVED_BITS = 0x70, OPCODE_BITS = 0x0f, CONTROL_BIT = 0x08,
    MASK_BIT = 0x80, LENGTH_BITS = 0x7f, LENGTH_16 = 126, LENGTH_64 = 127,
    MASK_BYTES = 4, CLOSE_CODE_BYTES = 2, CLOSE_NO_CODE = 1005,
    KEY_BYTES = 24, KEY_DIGITS = 22,   /* 16 bytes in base64: 22 digits and two '=' */
};

static_assert(sizeof(struct ws_state) == 8, "kept for every connection");
static_assert((int)WS_ACCEPT_BYTES ==
              sodium_base64_ENCODED_LEN(SHA_DIGEST_LENGTH, sodium_base64_VARIANT_ORIGINAL) - 1,
              "the accept value is one encoded digest");

static bool opcode_known(uint8_t opcode)
{
    return opcode <= WS_BINARY || (opcode >= WS_CLOSE && opcode <= WS_PONG);
}

static enum ws_result bad(uint16_t *close_code, uint16_t code)
{
    *close_code = code;
    return WS_BAD;
}

static uint64_t big_endian(const uint8_t *p, uint32_t bytes)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < bytes; i++) value = value << 8 | p[i];
    return value;
}

/* Eight bytes per turn; byte order does not matter, since words are loaded and stored alike. */
static void unmask(uint8_t *p, uint32_t bytes, const uint8_t mask[MASK_BYTES])
{
    uint64_t mask_word, word;
    uint32_t i = 0;

    memcpy(&mask_word, mask, MASK_BYTES);
    memcpy((uint8_t *)&mask_word + MASK_BYTES, mask, MASK_BYTES);
    for (; bytes - i >= sizeof word; i += sizeof word) {
        memcpy(&word, p + i, sizeof word);
        word ^= mask_word;
        memcpy(p + i, &word, sizeof word);
    }
    for (; i < bytes; i++) p[i] ^= mask[i % MASK_BYTES];
}

/* Checks go from the first byte to the last, so the answer does not depend on how the bytes were
 * cut into reads. Nothing is changed before the whole frame is here. */
enum ws_result ws_next(uint8_t *in, uint32_t in_bytes, uint32_t payload_max,
                       struct ws_frame *out, uint32_t *need_bytes, uint16_t *close_code)
{
    ASSERT(payload_max <= UINT32_MAX - WS_CLIENT_HEADER_BYTES_MAX);

    *need_bytes = 1;
    if (in_bytes < 1) return WS_NEED_MORE;
    uint8_t opcode = in[0] & OPCODE_BITS;
    bool fin = in[0] & FIN_BIT;
    bool control = opcode & CONTROL_BIT;
    if (in[0] & RESERVED_BITS || !opcode_known(opcode)) return bad(close_code, WS_CLOSE_PROTOCOL);
    if (control && !fin) return bad(close_code, WS_CLOSE_PROTOCOL);

    *need_bytes = 2;
    if (in_bytes < 2) return WS_NEED_MORE;
    uint64_t payload_bytes = in[1] & LENGTH_BITS;
    if (!(in[1] & MASK_BIT)) return bad(close_code, WS_CLOSE_PROTOCOL);
    if (control && payload_bytes > WS_CONTROL_BYTES_MAX) return bad(close_code, WS_CLOSE_PROTOCOL);

    uint32_t header_bytes = 2;
    if (payload_bytes >= LENGTH_16) {
        uint32_t length_bytes = payload_bytes == LENGTH_16 ? 2 : 8;
        uint64_t least = payload_bytes == LENGTH_16 ? LENGTH_16 : (uint64_t)UINT16_MAX + 1;
        header_bytes += length_bytes;
        *need_bytes = header_bytes;
        if (in_bytes < header_bytes) return WS_NEED_MORE;
        payload_bytes = big_endian(in + 2, length_bytes);
        if (payload_bytes < least || payload_bytes >> 63) {
            return bad(close_code, WS_CLOSE_PROTOCOL);
        }
    }
    if (!control && payload_bytes > payload_max) return bad(close_code, WS_CLOSE_TOO_BIG);

    const uint8_t *mask = in + header_bytes;
    header_bytes += MASK_BYTES;
    *need_bytes = header_bytes + (uint32_t)payload_bytes;
    if (in_bytes < *need_bytes) return WS_NEED_MORE;

    unmask(in + header_bytes, (uint32_t)payload_bytes, mask);
    out->opcode = opcode;
    out->fin = fin;
    out->payload = slice_of(in + header_bytes, (uint32_t)payload_bytes);
    out->frame_bytes = *need_bytes;
    return WS_FRAME;
}

/* Codes that may stand in a Close frame: RFC 6455 7.4.1, the registered 1012 to 1014, and the
 * ranges for libraries (3000) and applications (4000). 1004, 1005, 1006 and 1015 may not. */
static bool close_code_allowed(uint32_t code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

/* The code to answer a Close payload with, or 0 when it is well-formed. */
static uint16_t close_fault(struct slice payload)
{
    if (payload.bytes == 0) return 0;
    if (payload.bytes < CLOSE_CODE_BYTES) return WS_CLOSE_PROTOCOL;
    if (!close_code_allowed((uint32_t)big_endian(payload.ptr, CLOSE_CODE_BYTES))) {
        return WS_CLOSE_PROTOCOL;
    }
    return utf8_valid(slice_skip(payload, CLOSE_CODE_BYTES)) ? 0 : WS_CLOSE_BAD_DATA;
}

bool ws_check(struct ws_state *st, const struct ws_frame *f, uint16_t *close_code)
{
    if (f->opcode & CONTROL_BIT) {
        uint16_t fault = f->opcode == WS_CLOSE ? close_fault(f->payload) : 0;
        if (fault != 0) *close_code = fault;
        return fault == 0;
    }

    bool open = st->message_opcode != 0;
    if (open != (f->opcode == WS_CONTINUATION)) {
        *close_code = WS_CLOSE_PROTOCOL;
        return false;
    }
    if (!open) {
        st->message_opcode = f->opcode;
        st->utf8 = UTF8_ACCEPT;
    }
    if (st->message_opcode == WS_TEXT) {
        st->utf8 = utf8_feed(st->utf8, f->payload);
        if (st->utf8 == UTF8_REJECT || (f->fin && st->utf8 != UTF8_ACCEPT)) {
            *close_code = WS_CLOSE_BAD_DATA;
            return false;
        }
    }
    if (f->fin) st->message_opcode = 0;
    return true;
}

uint16_t ws_close_code(const struct ws_frame *f)
{
    ASSERT(f->opcode == WS_CLOSE);
    if (f->payload.bytes < CLOSE_CODE_BYTES) return CLOSE_NO_CODE;
    return (uint16_t)big_endian(f->payload.ptr, CLOSE_CODE_BYTES);
}

uint32_t ws_header_bytes(uint32_t payload_bytes)
{
    return payload_bytes < LENGTH_16 ? 2 : payload_bytes <= UINT16_MAX ? 4 : 10;
}

uint32_t ws_header_write(uint8_t *out, enum ws_opcode opcode, uint32_t payload_bytes)
{
    ASSERT(opcode_known((uint8_t)opcode));
    ASSERT(!(opcode & CONTROL_BIT) || payload_bytes <= WS_CONTROL_BYTES_MAX);

    uint32_t header_bytes = ws_header_bytes(payload_bytes);
    out[0] = (uint8_t)(FIN_BIT | opcode);
    if (header_bytes == 2) {
        out[1] = (uint8_t)payload_bytes;
        return header_bytes;
    }
    out[1] = header_bytes == 4 ? LENGTH_16 : LENGTH_64;
    uint64_t left = payload_bytes;
    for (uint32_t i = header_bytes - 1; i >= 2; i--, left >>= 8) out[i] = (uint8_t)left;
    return header_bytes;
}

uint32_t ws_close_write(uint8_t *out, uint16_t code, struct slice reason)
{
    if (code == CLOSE_NO_CODE) return ws_header_write(out, WS_CLOSE, 0);
    ASSERT(close_code_allowed(code));

    uint32_t reason_bytes = u32_min(reason.bytes, WS_CONTROL_BYTES_MAX - CLOSE_CODE_BYTES);
    if (reason_bytes < reason.bytes) {
        while (reason_bytes > 0 && (reason.ptr[reason_bytes] & 0xc0) == 0x80) reason_bytes--;
    }
    uint32_t at = ws_header_write(out, WS_CLOSE, CLOSE_CODE_BYTES + reason_bytes);
    out[at++] = (uint8_t)(code >> 8);
    out[at++] = (uint8_t)code;
    if (reason_bytes > 0) memcpy(out + at, reason.ptr, reason_bytes);
    return at + reason_bytes;
}

static bool base64_digit(uint8_t c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
           c == '+' || c == '/';
}

bool ws_accept_key(struct slice key, char out[WS_ACCEPT_BYTES])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";  /* RFC 6455 1.3 */

    if (key.bytes != KEY_BYTES || memcmp(key.ptr + KEY_DIGITS, "==", 2) != 0) return false;
    for (uint32_t i = 0; i < KEY_DIGITS; i++) {
        if (!base64_digit(key.ptr[i])) return false;
    }

    SHA_CTX sha;
    uint8_t digest[SHA_DIGEST_LENGTH];
    char text[WS_ACCEPT_BYTES + 1];
    SHA1_Init(&sha);
    SHA1_Update(&sha, key.ptr, key.bytes);
    SHA1_Update(&sha, guid, sizeof guid - 1);
    SHA1_Final(digest, &sha);
    sodium_bin2base64(text, sizeof text, digest, sizeof digest, sodium_base64_VARIANT_ORIGINAL);
    memcpy(out, text, WS_ACCEPT_BYTES);
    return true;
}
