#include "core/err.h"

const char *err_name(err_t e)
{
    switch (e) {
    case OK: return "ok";
    case ERR_MEMORY: return "memory bound reached";
    case ERR_FULL: return "queue or table full";
    case ERR_CONFIG: return "bad configuration";
    case ERR_IO: return "refused by the system";
    case ERR_IN_USE: return "in use by another process";
    case ERR_UNSUPPORTED: return "not supported by this kernel";
    }
    return "unknown error";
}
