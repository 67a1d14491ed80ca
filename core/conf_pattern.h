/* conf_pattern.h - regular expressions for names: no lock, no allocation, no backtracking.
 *
 * Shape    A pattern becomes a small automaton whose states are all followed at once, so the time
 *          is the text's length times the states, whatever the pattern. It is found anywhere in
 *          the text unless ^ or $ ties it.
 *          Taken: characters, . [a-z] [^a-z] [[:alpha:]] \d \D \w \W \s \S, \ before punctuation,
 *          ( ) (?: ) | * + ? {m} {m,} {m,n}, these also with a ? behind, ^ $. Bytes are ASCII.
 *          Refused: everything else, among it back references, look-around, flags, named groups,
 *          \b and operations on sets: what is taken means here what it means in other engines.
 * Threads  Any; a compiled pattern is read-only.
 * Bounds   CONF_PATTERN_BYTES_MAX of text, CONF_PATTERN_STATES_MAX states; groups in groups up to
 *          CONF_PATTERN_DEPTH_MAX.
 * Errors   conf_pattern_compile answers NULL: not a pattern of this kind, beyond a bound, or no
 *          memory.
 */
#pragma once
#include "core/base.h"

enum { CONF_PATTERN_BYTES_MAX = 255, CONF_PATTERN_STATES_MAX = 1024, CONF_PATTERN_DEPTH_MAX = 32 };

struct conf_pattern;

struct conf_pattern *conf_pattern_compile(const char *text);
bool conf_pattern_found(const struct conf_pattern *p, struct slice text);
void conf_pattern_free(struct conf_pattern **p);
