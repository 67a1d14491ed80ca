/* backend.h - an app's backend: signed HTTP requests on kept-alive, pipelined connections.
 *
 * Every request gets exactly one answer, in order. Without a fault injected it is a 200.
 */
#pragma once
#include "tests/sim/world.h"

void backend_open_all(void);
void backend_act(void);               /* one random thing */
bool backend_read_all(void);          /* true when something was taken */
/* All is quiet: ask for the state of everything; the answers are compared as they come. */
void backend_ask_all(void);
void backend_close_all(void);
/* A signed request. `info`: more query parameters, each with its &, or empty. Its length. */
uint32_t backend_request_write(char *text, uint32_t room, const char *method, uint32_t app,
                               const char *rest, const char *info, const char *body);
