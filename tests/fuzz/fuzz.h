/* fuzz.h - what every fuzz target is: one function of bytes, run by libFuzzer or by driver.c.
 *
 * Shape    fuzz_<stem>.c defines LLVMFuzzerTestOneInput and checks a property of proto/<stem>.h,
 *          not just survival: any split gives the same events, decode(encode(x)) is x.
 *          Seeds are in tests/corpus/<stem>/. To add a target, write the file and the seeds and put
 *          its stem into the list in meson.build.
 * Threads  One.
 * Memory   The input lies in a block of its exact length: a sanitizer sees any step outside.
 * Errors   A broken property is an ASSERT.
 */
#pragma once
#include "core/base.h"

/* libFuzzer's contract: always returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
