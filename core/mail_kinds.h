/* mail_kinds.h - every kind of letter. Read this file and you know all concurrency here.
 *
 * Shape    One line a kind: from -> to; what payload and args hold; the answer; the bound.
 *          "lent" memory belongs to the sender and comes home with the answer. "sure" kinds are
 *          answers and returns: they are posted with mail_post_sure and never refused, because
 *          their number is bounded by what was let in before.
 * Order    A handler that awaits an answer asks only kinds with a lower number, so waits cannot
 *          form a ring.
 */
#pragma once

enum mail_kind {
    /* -- memory that goes home -- */
    MAIL_FRAME_HOME = 1,   /* borrower -> owner; payload frame; sure */

    /* -- home -> shards with subscribers -- */
    MAIL_FAN = 2,          /* payload frame, lent; arg0 channel handle at the reader, arg1/arg2
                              excluded socket id (0/0: none), arg3 receipt ns, arg4 recipients;
                              flags 1: this reader observes the latency; answer FRAME_HOME; sure,
                              bounded by admitted publishes */
    MAIL_END_USER = 3,     /* home of a user -> shards; arg0 channel handle, arg1 close code;
                              sure */

    /* -- answers of homes -- */
    MAIL_SUBSCRIBED = 4,   /* payload sub; arg0 status, arg1 home, arg2 member, arg3 frame (lent or
                              0), arg4 cached frame (lent or 0); sure */
    MAIL_PUBLISHED = 5,    /* payload struct publish, home again; arg0 status, arg1 subscriptions,
                              arg2 users; sure */
    MAIL_ASKED = 6,        /* payload op; arg0 verdict, arg1-3 per question; sure */
    MAIL_WATCHED = 7,      /* payload watch; arg0 is the user online, arg1 entry at home; sure */
    MAIL_WATCH_EVENT = 8,  /* home of a user -> watcher's shard; arg0 online, arg1 socket and its
                              generation, arg2 watch index and sign-in epoch; sure, one per watch
                              and transition */
    MAIL_LISTED = 9,       /* payload op; arg0 struct api_piece, lent, or 0; arg1 enum api_listed;
                              sure, bounded by the channels and members there are */
    MAIL_LIST_HOME = 10,   /* payload struct api_piece goes home; sure */

    /* -- questions to homes -- */
    MAIL_SUBSCRIBE = 11,   /* payload sub, lent until SUBSCRIBED; arg0 channel handle, arg1 flags */
    MAIL_UNSUBSCRIBE = 12, /* arg0 home, arg1 member, arg2 flags (abrupt); sure, one per counted
                              subscription */
    MAIL_PUBLISH = 13,     /* payload frame, lent; arg0 struct publish*, lent until PUBLISHED */
    MAIL_ASK = 14,         /* payload op, lent until ASKED; arg0 question, arg1-4 per question */
    MAIL_ASK_DONE = 15,    /* closes what an ASK opened (quota back, claim stored or released);
                              arg0 question, arg1-4 per question; sure */
    MAIL_WATCH = 16,       /* payload watch, lent until WATCHED; arg1, arg2 as in WATCH_EVENT;
                              sure, at most 100 per sign-in that was let in */
    MAIL_UNWATCH = 17,     /* arg0 home's watch entry; sure */
    MAIL_USER_END = 18,    /* payload struct publish that names the user's channel, lent until
                              PUBLISHED (flags 1); arg0 close code */
    MAIL_LIST = 19,        /* payload op, arg0 struct api_query; both lent until the last LISTED */
};
