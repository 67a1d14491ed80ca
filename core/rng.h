/* rng.h - the only drawer of entropy. A generator is seeded once and then passed in.
 *
 * Shape    xoshiro256++ seeded from libsodium; good for ids, jitter and table seeds, not for keys.
 * Threads  One owner per struct rng.
 */
#pragma once
#include "core/base.h"

struct rng { uint64_t s[4]; };

void     rng_seed_system(struct rng *r);               /* from the system's entropy */
void     rng_seed(struct rng *r, uint64_t seed);       /* reproducible, for tests */
uint64_t rng_next(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t bound);     /* uniform in [0, bound), bound > 0 */
