#include "core/rng.h"

#include <sodium.h>

static_assert(sizeof(((struct rng *)0)->s) == 32, "xoshiro256 holds 256 bits");

void rng_seed_system(struct rng *r)
{
    ASSERT(sodium_init() >= 0);   /* 0 first time, 1 afterwards; safe from any thread */
    do {
        randombytes_buf(r->s, sizeof r->s);
    } while ((r->s[0] | r->s[1] | r->s[2] | r->s[3]) == 0);   /* the one state that is stuck */
}

/* splitmix64: spreads one word over the state and never leaves all four words zero, because its
 * output is a bijection of a counter that differs each time. */
static uint64_t spread_next(uint64_t *counter)
{
    uint64_t z = *counter += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void rng_seed(struct rng *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) r->s[i] = spread_next(&seed);
}

static uint64_t rotl(uint64_t x, unsigned bits)
{
    return (x << bits) | (x >> (64 - bits));
}

uint64_t rng_next(struct rng *r)
{
    uint64_t *s = r->s;
    uint64_t  result = rotl(s[0] + s[3], 23) + s[0];
    uint64_t  t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

/* The high word of a 128-bit product is in [0, bound); draws whose low word falls into the
 * incomplete last interval are dropped, so every value is equally likely (Lemire, 2019). */
uint64_t rng_below(struct rng *r, uint64_t bound)
{
    ASSERT(bound > 0);

    __uint128_t product = (__uint128_t)rng_next(r) * bound;
    if (UNLIKELY((uint64_t)product < bound)) {
        uint64_t reject_below = -bound % bound;   /* 2^64 mod bound */
        while ((uint64_t)product < reject_below) {
            product = (__uint128_t)rng_next(r) * bound;
        }
    }
    return (uint64_t)(product >> 64);
}
