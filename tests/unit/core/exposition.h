/* exposition.h - a strict reader of Prometheus text 0.0.4, for the tests of what we print.
 *
 * Shape    expo_check fails the running test at the first line outside the grammar: HELP, TYPE and
 *          samples of one family together, each name and label valid, no sample twice, the buckets
 *          of a histogram rising and cumulative, and le="+Inf" equal to its count.
 */
#pragma once
#include "core/metric.h"

/* Returns the number of sample lines. */
uint32_t expo_check(const struct metric_text *text);

/* The value of the sample whose name and labels are exactly `sample`; fails the test if absent. */
double expo_value(const struct metric_text *text, const char *sample);
bool expo_has(const struct metric_text *text, const char *sample);
