/* Two steps make a pattern: its text is read into a tree, and the tree is written down from its end
 * to its start as states, each of which knows its successor. Counted repeats write their part of
 * the tree as often as they count. Finding follows every state that could be meant, one byte of the
 * text at a time. */
#include "core/conf_pattern.h"

#include <ctype.h>
#include <stdlib.h>

enum {
    NODES_MAX = 4 * CONF_PATTERN_BYTES_MAX,
    SETS_MAX = CONF_PATTERN_BYTES_MAX,
    REPEAT_MAX = 1000,                   /* largest count in braces */
    NO_END = UINT16_MAX,                 /* in place of the larger one: for ever */
    WORK_MAX = 64 * CONF_PATTERN_STATES_MAX,     /* steps of writing: not each makes a state */
    WORDS = CONF_PATTERN_STATES_MAX / 64,
};
static_assert(CONF_PATTERN_STATES_MAX % 64 == 0, "a bit a state");
static_assert(CONF_PATTERN_STATES_MAX < UINT16_MAX, "states are numbered in 16 bits");

struct set { uint64_t bits[4]; };

enum node_type { NODE_EMPTY, NODE_SET, NODE_BEGIN, NODE_END, NODE_CAT, NODE_ALT, NODE_REPEAT };

struct node {
    enum node_type type;
    uint16_t       left, right;          /* CAT and ALT; REPEAT: left */
    uint16_t       set;
    uint16_t       least, most;          /* REPEAT */
};

enum state_type { STATE_FOUND, STATE_SET, STATE_BEGIN, STATE_END, STATE_FORK };

struct state {
    uint8_t  type;                       /* enum state_type */
    uint16_t set;
    uint16_t next, other;                /* FORK goes to both */
};

struct conf_pattern {
    uint32_t      states_count;
    uint16_t      start;
    const struct set *sets;              /* behind the states, in the same block */
    struct state  states[];
};

struct build {
    const char  *at;                     /* what is still to be read */
    uint32_t     depth, nodes_count, sets_count, states_count, work;
    bool         failed;
    struct node  nodes[NODES_MAX];
    struct set   sets[SETS_MAX];
    struct state states[CONF_PATTERN_STATES_MAX];
};

/* ---- sets of bytes -------------------------------------------------------------------------- */

static void set_add(struct set *s, uint8_t c) { s->bits[c / 64] |= 1ull << (c % 64); }

static bool set_has(const struct set *s, uint8_t c) { return s->bits[c / 64] >> (c % 64) & 1; }

static void set_join(struct set *s, const struct set *more, bool inverted)
{
    for (uint32_t i = 0; i < 4; i++) s->bits[i] |= inverted ? ~more->bits[i] : more->bits[i];
}

static bool is_word(int c) { return isalnum(c) || c == '_'; }

/* A class by its name between [: and :], its length given; false: there is none of that name. */
static bool set_add_class(struct set *s, const char *name, size_t bytes)
{
    static const struct { const char *name; int (*has)(int); } classes[] = {
        {"alnum", isalnum}, {"alpha", isalpha}, {"blank", isblank}, {"cntrl", iscntrl},
        {"digit", isdigit}, {"graph", isgraph}, {"lower", islower}, {"print", isprint},
        {"punct", ispunct}, {"space", isspace}, {"upper", isupper}, {"xdigit", isxdigit},
    };

    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        if (strlen(classes[i].name) != bytes || memcmp(classes[i].name, name, bytes) != 0)
            continue;
        for (int c = 0; c < 128; c++)
            if (classes[i].has(c)) set_add(s, (uint8_t)c);
        return true;
    }
    return false;
}

/* What `letter` behind a backslash stands for. */
static bool set_add_escape(struct set *s, char letter)
{
    struct set all = {{0}};

    if (ispunct((unsigned char)letter) && letter != '<' && letter != '>') {
        set_add(s, (uint8_t)letter);
        return true;
    }
    for (int c = 0; c < 128; c++) {
        bool has = false;
        switch (tolower((unsigned char)letter)) {
        case 'd': has = isdigit(c); break;
        case 'w': has = is_word(c); break;
        case 's': has = isspace(c); break;
        default: return false;
        }
        if (has) set_add(&all, (uint8_t)c);
    }
    set_join(s, &all, isupper((unsigned char)letter));
    return true;
}

/* ---- reading -------------------------------------------------------------------------------- */

static uint16_t node_new(struct build *b, struct node n)
{
    if (b->nodes_count == NODES_MAX) {
        b->failed = true;
        return 0;
    }
    b->nodes[b->nodes_count] = n;
    return (uint16_t)b->nodes_count++;
}

static uint16_t node_of_set(struct build *b, const struct set *s)
{
    if (b->sets_count == SETS_MAX) {
        b->failed = true;
        return 0;
    }
    b->sets[b->sets_count] = *s;
    return node_new(b, (struct node){.type = NODE_SET, .set = (uint16_t)b->sets_count++});
}

/* One end of a range inside brackets; false: not a single character. */
static bool range_end(struct build *b, uint8_t *out)
{
    if (*b->at == '\\') {
        if (!ispunct((unsigned char)b->at[1])) return false;
        b->at++;
    } else if (*b->at == '\0' || *b->at == '[' || (unsigned char)*b->at >= 0x80) {
        return false;
    }
    *out = (uint8_t)*b->at++;
    return true;
}

/* One member of a bracket expression: a class, an escape, a character or a range of them. */
static bool member_read(struct build *b, struct set *s)
{
    uint8_t from, upto;

    if (b->at[0] == '\0') return false;
    if (b->at[0] == '[') {
        const char *end = b->at[1] == ':' ? strstr(b->at + 2, ":]") : NULL;
        if (end == NULL || !set_add_class(s, b->at + 2, (size_t)(end - b->at - 2))) return false;
        b->at = end + 2;
        return true;
    }
    if (b->at[0] == '\\' && isalpha((unsigned char)b->at[1])) {
        b->at += 2;
        return set_add_escape(s, b->at[-1]) && (b->at[0] != '-' || b->at[1] == ']');
    }
    if (b->at[0] == b->at[1] && strchr("&-~", b->at[0]) != NULL) return false; /* of sets */
    if (!range_end(b, &from)) return false;
    upto = from;
    if (b->at[0] == '-' && b->at[1] != ']') {
        b->at++;
        if (*b->at == '-' || !range_end(b, &upto) || upto < from) return false;
    }
    for (uint32_t c = from; c <= upto; c++) set_add(s, (uint8_t)c);
    return true;
}

/* Behind the opening bracket. */
static uint16_t bracket_read(struct build *b)
{
    struct set s = {{0}}, inverse = {{0}};
    bool inverted = *b->at == '^';

    if (inverted) b->at++;
    for (bool first = true; first || *b->at != ']'; first = false) {
        if (!member_read(b, &s)) {
            b->failed = true;
            return 0;
        }
    }
    b->at++;
    set_join(&inverse, &s, true);
    return node_of_set(b, inverted ? &inverse : &s);
}

static uint16_t alternatives_read(struct build *b);

/* Behind the opening parenthesis. */
static uint16_t group_read(struct build *b)
{
    if (b->at[0] == '?') {
        if (b->at[1] != ':') b->failed = true;
        else b->at += 2;
    }
    if (++b->depth > CONF_PATTERN_DEPTH_MAX) b->failed = true;
    if (b->failed) return 0;
    uint16_t inner = alternatives_read(b);
    b->depth--;
    if (*b->at == ')') b->at++;
    else b->failed = true;
    return inner;
}

static uint16_t atom_read(struct build *b)
{
    struct set s = {{0}}, newline = {{0}};
    char c = *b->at++;

    switch (c) {
    case '(': return group_read(b);
    case '[': return bracket_read(b);
    case '^': return node_new(b, (struct node){.type = NODE_BEGIN});
    case '$': return node_new(b, (struct node){.type = NODE_END});
    case '*':
    case '+':
    case '?':
    case '{':
        b->failed = true;                                  /* nothing to repeat */
        return 0;
    case '.':
        set_add(&newline, '\n');
        set_join(&s, &newline, true);
        break;
    case '\\':
        if (*b->at == '\0' || !set_add_escape(&s, *b->at++)) b->failed = true;
        break;
    default:
        if ((unsigned char)c >= 0x80) b->failed = true;
        set_add(&s, (uint8_t)c);
    }
    return b->failed ? 0 : node_of_set(b, &s);
}

static bool number_read(struct build *b, uint16_t *out)
{
    uint32_t n = 0;

    if (!isdigit((unsigned char)*b->at)) return false;
    while (isdigit((unsigned char)*b->at)) {
        n = n * 10 + (uint32_t)(*b->at++ - '0');
        if (n > REPEAT_MAX) return false;
    }
    *out = (uint16_t)n;
    return true;
}

/* Behind the opening brace. */
static bool count_read(struct build *b, uint16_t *least, uint16_t *most)
{
    if (!number_read(b, least)) return false;
    *most = *least;
    if (*b->at == ',') {
        b->at++;
        if (*b->at == '}') *most = NO_END;
        else if (!number_read(b, most)) return false;
    }
    return *b->at++ == '}' && *least <= *most;
}

/* An atom and every repeat behind it. */
static uint16_t repeats_read(struct build *b)
{
    uint16_t inner = atom_read(b);

    while (!b->failed && *b->at != '\0' && strchr("*+?{", *b->at) != NULL) {
        uint16_t least = 0, most = NO_END;
        char c = *b->at++;
        if (c == '+') least = 1;
        if (c == '?') most = 1;
        if (c == '{' && !count_read(b, &least, &most)) b->failed = true;
        if (!b->failed && *b->at == '?') b->at++;          /* lazy: finds the same texts */
        inner = node_new(b, (struct node){.type = NODE_REPEAT, .left = inner, .least = least,
                                          .most = most});
    }
    return inner;
}

static uint16_t sequence_read(struct build *b)
{
    uint16_t all = node_new(b, (struct node){.type = NODE_EMPTY});

    while (!b->failed && *b->at != '\0' && *b->at != '|' && *b->at != ')') {
        uint16_t next = repeats_read(b);
        all = node_new(b, (struct node){.type = NODE_CAT, .left = all, .right = next});
    }
    return all;
}

static uint16_t alternatives_read(struct build *b)
{
    uint16_t all = sequence_read(b);

    while (!b->failed && *b->at == '|') {
        b->at++;
        uint16_t next = sequence_read(b);
        all = node_new(b, (struct node){.type = NODE_ALT, .left = all, .right = next});
    }
    return all;
}

/* ---- writing -------------------------------------------------------------------------------- */

static uint16_t state_new(struct build *b, enum state_type type, uint16_t next, uint16_t other)
{
    if (b->states_count == CONF_PATTERN_STATES_MAX) {
        b->failed = true;
        return 0;
    }
    b->states[b->states_count] = (struct state){.type = (uint8_t)type, .next = next,
                                                .other = other};
    return (uint16_t)b->states_count++;
}

static uint16_t node_write(struct build *b, uint16_t node, uint16_t next);

static uint16_t repeat_write(struct build *b, const struct node *n, uint16_t next)
{
    uint16_t start = next;

    if (n->most == NO_END) {
        start = state_new(b, STATE_FORK, 0, next);
        uint16_t body = node_write(b, n->left, start);
        b->states[start].next = body;
    }
    for (uint32_t i = n->least; n->most != NO_END && i < n->most && !b->failed; i++) {
        uint16_t body = node_write(b, n->left, start);
        start = state_new(b, STATE_FORK, body, next);
    }
    for (uint32_t i = 0; i < n->least && !b->failed; i++) start = node_write(b, n->left, start);
    return start;
}

/* The state at which this part of the tree begins, when `next` is where it goes on. */
static uint16_t node_write(struct build *b, uint16_t node, uint16_t next)
{
    const struct node *n = &b->nodes[node];
    uint16_t state;

    if (++b->work > WORK_MAX) b->failed = true;
    if (b->failed) return 0;
    switch (n->type) {
    case NODE_EMPTY: return next;
    case NODE_BEGIN: return state_new(b, STATE_BEGIN, next, 0);
    case NODE_END: return state_new(b, STATE_END, next, 0);
    case NODE_CAT: return node_write(b, n->left, node_write(b, n->right, next));
    case NODE_REPEAT: return repeat_write(b, n, next);
    case NODE_SET:
        state = state_new(b, STATE_SET, next, 0);
        b->states[state].set = n->set;
        return state;
    case NODE_ALT: break;
    }
    state = node_write(b, n->left, next);
    return state_new(b, STATE_FORK, state, node_write(b, n->right, next));
}

static struct conf_pattern *pattern_make(const struct build *b, uint16_t start)
{
    size_t states_bytes = b->states_count * sizeof(struct state);
    size_t sets_at = (sizeof(struct conf_pattern) + states_bytes + 7) / 8 * 8;
    struct conf_pattern *p = calloc(1, sets_at + b->sets_count * sizeof(struct set));

    if (p == NULL) return NULL;
    struct set *sets = (struct set *)(void *)((char *)p + sets_at);
    memcpy(p->states, b->states, states_bytes);
    memcpy(sets, b->sets, b->sets_count * sizeof(struct set));
    p->sets = sets;
    p->states_count = b->states_count;
    p->start = start;
    return p;
}

struct conf_pattern *conf_pattern_compile(const char *text)
{
    struct conf_pattern *p = NULL;
    struct build *b = NULL;

    if (strlen(text) > CONF_PATTERN_BYTES_MAX) return NULL;
    b = calloc(1, sizeof(*b));
    if (b == NULL) return NULL;
    b->at = text;
    uint16_t root = alternatives_read(b);
    uint16_t found = state_new(b, STATE_FOUND, 0, 0);
    if (!b->failed && *b->at == '\0') {
        uint16_t start = node_write(b, root, found);
        if (!b->failed) p = pattern_make(b, start);
    }
    free(b);
    return p;
}

void conf_pattern_free(struct conf_pattern **p)
{
    free(*p);
    *p = NULL;
}

/* ---- finding -------------------------------------------------------------------------------- */

struct follow {
    uint64_t seen[WORDS];                /* states reached at this place */
    uint16_t waiting[CONF_PATTERN_STATES_MAX];/* those that want a byte */
    uint32_t waiting_count;
};

/* Adds `from` and all that is reached from it without a byte. True: found. */
static bool follow_add(const struct conf_pattern *p, struct follow *f, uint16_t from, bool begin,
                       bool end)
{
    uint16_t open[CONF_PATTERN_STATES_MAX + 1];
    uint32_t count = 0;

    open[count++] = from;
    while (count > 0) {                                    /* each state is opened once */
        uint16_t at = open[--count];
        const struct state *s = &p->states[at];
        if (f->seen[at / 64] >> (at % 64) & 1) continue;
        f->seen[at / 64] |= 1ull << (at % 64);
        switch ((enum state_type)s->type) {
        case STATE_FOUND: return true;
        case STATE_SET: f->waiting[f->waiting_count++] = at; break;
        case STATE_BEGIN:
            if (begin) open[count++] = s->next;
            break;
        case STATE_END:
            if (end) open[count++] = s->next;
            break;
        case STATE_FORK:
            open[count++] = s->other;
            open[count++] = s->next;
            break;
        }
    }
    return false;
}

bool conf_pattern_found(const struct conf_pattern *p, struct slice text)
{
    struct follow now = {.waiting_count = 0}, then;
    uint32_t words = (p->states_count + 63) / 64;

    for (uint32_t i = 0; ; i++) {
        if (follow_add(p, &now, p->start, i == 0, i == text.bytes)) return true;
        if (i == text.bytes) return false;
        memset(then.seen, 0, words * sizeof(then.seen[0]));
        then.waiting_count = 0;
        for (uint32_t k = 0; k < now.waiting_count; k++) {
            const struct state *s = &p->states[now.waiting[k]];
            if (!set_has(&p->sets[s->set], text.ptr[i])) continue;
            if (follow_add(p, &then, s->next, false, i + 1 == text.bytes)) return true;
        }
        memcpy(now.seen, then.seen, words * sizeof(then.seen[0]));
        memcpy(now.waiting, then.waiting, then.waiting_count * sizeof(then.waiting[0]));
        now.waiting_count = then.waiting_count;
    }
}
