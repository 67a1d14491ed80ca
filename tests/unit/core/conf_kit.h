/* conf_kit.h - how the tests of the configuration load one.
 *
 * Shape    Files are written as weft.yaml into a directory of the program's own; conf_load runs
 *          with made-up arguments and environments and leaves its answer in kit_*.
 */
#pragma once
#include "core/conf_parts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define LIST(...) ((char *[]){__VA_ARGS__ __VA_OPT__(,) NULL})
#define APPS "app_manager:\n  array:\n    apps:\n"

extern struct conf      kit_conf;
extern char             kit_error[512];
extern enum conf_action kit_action;

/* Runs the tests in a new directory and removes it. */
#define KIT_RUN(tests) (kit_open(), kit_close(cmocka_run_group_tests(tests, NULL, NULL)))
void kit_open(void);
int kit_close(int failed);

void kit_file_write(const char *text);
err_t kit_load(char **arguments, char **environment);

/* Must load; the caller frees kit_conf. Must be refused with exactly this line. */
void kit_loads(char **arguments, char **environment);
void kit_refused(char **arguments, char **environment, const char *line);

/* The same for weft.yaml with this text: right, wrong. */
void kit_file_loads(const char *text);
void kit_wrong(const char *text, const char *line);
