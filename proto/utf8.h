/* utf8.h - strict UTF-8 validation (RFC 3629): no overlongs, no surrogates, nothing above U+10FFFF.
 *
 * Shape    Whole buffers, or pieces with a state carried between them.
 * Threads  Pure.
 */
#pragma once
#include "core/base.h"

enum { UTF8_ACCEPT = 0, UTF8_REJECT = 1 };

/* True when all of `text` is valid. ASCII runs are checked eight bytes at a time. */
bool utf8_valid(struct slice text);
/* Feed a piece; start with UTF8_ACCEPT. UTF8_REJECT is final; any other value that is not
 * UTF8_ACCEPT means "in the middle of a character". */
uint32_t utf8_feed(uint32_t state, struct slice piece);
/* `text` itself when it is valid; else a copy of what fits into `room`, with a '?' for each byte
 * that is not part of a whole character: for texts put together from pieces cut to a length. */
const char *utf8_mend(const char *text, char *room, uint32_t room_bytes);
