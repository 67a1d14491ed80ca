#include "core/base.h"

#include <stdio.h>
#include <stdlib.h>

void base_assert_failed(const char *file, int line, const char *condition)
{
    fprintf(stderr, "weft: assertion failed at %s:%d: %s\n", file, line, condition);
    abort();
}
