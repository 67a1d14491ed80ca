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
                              excluded socket id (0/0: none), arg3 receipt ns, arg4 the stream's
                              newest delivery serial (0: none; this frame's where it is a record's);
                              flags: enum fan_flags (fan.h), behind them the recipients; answer
                              FRAME_HOME; sure, bounded by admitted publishes */
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
    MAIL_REPLAYED = 20,    /* payload sub; arg0 frame: replayed frames in one blob (lent or 0); the
                              outcome is in the sub's attach; sure */
    MAIL_WANTED = 21,      /* payload struct want, home again; arg0 frame: the body (lent or 0);
                              sure */
    MAIL_PRESENCE_DONE = 24,   /* payload struct presence_update, home again; sure */
    MAIL_LISTED = 9,       /* payload op; arg0 struct api_piece, lent, or 0; arg1 enum api_listed;
                              sure, bounded by the channels and members there are */
    MAIL_LIST_HOME = 10,   /* payload struct api_piece goes home; sure */

    /* -- questions to homes -- */
    MAIL_SUBSCRIBE = 11,   /* payload sub, lent until SUBSCRIBED; arg0 channel handle, arg1 flags
                              (enum home_flags: again, V2, full mode), which the answer repeats in
                              its flags. Again: live frames never stopped, none is sent twice */
    MAIL_UNSUBSCRIBE = 12, /* arg0 home, arg1 member, arg2 flags (how it left, V2, full mode),
                              arg3/arg4 socket id (of members only); sure, one per counted
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
    MAIL_REPLAY = 22,      /* payload sub, its attach filled, lent until REPLAYED; arg0 channel
                              handle */
    MAIL_WANT = 23,        /* payload struct want, lent until WANTED */
    MAIL_PRESENCE = 25,    /* payload struct presence_update, lent until PRESENCE_DONE; arg0 home,
                              arg1 member, both there as long as the subscription that asks */

    /* -- shards <-> lanes of the store: posts behind those of the shards (store/store.h) -- */
    MAIL_COMMIT = 32,      /* shard -> committer; payload struct store_batch, lent; sure, bounded by
                              admitted publishes */
    MAIL_COMMITTED = 33,   /* committer -> shard; the batch comes back; sure */
    MAIL_READ = 34,        /* shard -> committer; payload struct store_read, lent; sure, bounded by
                              admitted requests */
    MAIL_READ_DONE = 35,   /* reader -> shard; the read comes back; sure */
    MAIL_SNAPSHOT = 36,    /* committer -> its reader; payload: a read and what it may see; sure */
    MAIL_SNAPSHOT_BACK = 37,   /* reader -> committer; the snapshot is free, or is to be renewed;
                                  sure */
    MAIL_CLOSED = 38,      /* shard -> committer; arg0 the number of a channel that its home has in
                              memory no longer; sure, one per channel that was opened */
};
