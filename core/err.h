/* err.h - every error that crosses a function boundary, and who handles it.
 *
 * Shape    Fallible functions return err_t; OK is 0. Parsers have enums of their own, in which
 *          "need more" is not an error. errno becomes an err_t where the system call is made.
 */
#pragma once
#include "core/base.h"

typedef int err_t;

enum {
    OK = 0,
    ERR_MEMORY = -1,      /* a memory bound is reached: caller refuses the work with 503 or 4100 */
    ERR_FULL = -2,        /* a bounded queue or table is full: caller sheds, pauses or retries */
    ERR_CONFIG = -3,      /* bad configuration: main prints the reason and exits 1 */
    ERR_IO = -4,          /* the system refused: main prints the reason and exits 1 */
    ERR_IN_USE = -5,      /* port or directory belongs to another process: main exits 1 */
    ERR_UNSUPPORTED = -6, /* the kernel lacks a feature: main names it and exits 1 */
};

/* A short English name for logs, e.g. "memory bound reached". */
const char *err_name(err_t e);
