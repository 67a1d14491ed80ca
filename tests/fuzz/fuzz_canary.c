/* fuzz_canary.c - a reader with a planted defect: fuzzing that finds nothing here is broken.
 *
 * The input is a list of records: kind, length, bytes. Kind 1 is checked against the end of the
 * input. Kind 2 is not: that is the defect. Every seed is harmless.
 */
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    size_t at = 0;
    while (bytes - at >= 2) {
        uint8_t kind = data[at];
        size_t length = data[at + 1];
        at += 2;
        if (kind != 2 && length > bytes - at) return 0;
        ASSERT(length <= bytes - at);
        at += length;
    }
    return 0;
}
