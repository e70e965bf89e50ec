# Whether the pages that a reader comes by are whole: their numbers, kinds, offsets, the sum of what they hold, the order of keys.
#
# LMDB looks at none of this, and a search in a page that is not whole mostly ends with "not found". So each page on the way to a
# leaf is looked at once in a process, when a reader comes to it for the first time; a bit for each says that it was. What comes
# later to a page's number was written by LMDB and is whole. Besides, what was not found is sought again by this way.
#
# A reader that must not wait for the disk sets `fm_hot_only`: then the way to a key and the pages of its value are looked up in the
# page cache first (mincore, 64 pages at a time), and what is not there is FM_COLD, with its place in the file.

cdef extern from *:
    """
    #include <errno.h>
    #include <signal.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/mman.h>
    #include <sys/stat.h>
    #include <time.h>
    #include <unistd.h>

    #define FM_FAULT (-31000)
    #define FM_DISORDER (-31001)
    #define FM_TORN (-31002)
    #define FM_FORMAT (-31003)
    #define FM_COLD (-31004)
    #define FM_NOTFOUND (-30798)

    typedef struct { size_t mv_size; void *mv_data; } fm_val;
    typedef struct {
        const char *base;
        size_t bytes, page, pages;
        unsigned long *seen; /* a bit for each page that was found whole */
        int fd;
    } MapBounds;

    static __thread void *volatile *volatile fm_guard __attribute__((tls_model("initial-exec")));
    static struct sigaction fm_before[2];

    static void fm_on_fault(int number, siginfo_t *info, void *context)
    {
        void *volatile *guard = fm_guard;
        static const char text[] = "fastmta: a page of the store cannot be read, and not at a place where that can be told: "
                                   "was data.mdb cut or its disk lost? Run fastmta store check\\n";
        (void)context;
        if (guard != NULL) {
            fm_guard = NULL;
            __builtin_longjmp((void **)guard, 1);
        }
        if (number == SIGBUS && write(2, text, sizeof(text) - 1) < 0)
            number = SIGBUS;
        sigaction(number, &fm_before[number == SIGBUS], NULL);
        if (info->si_code <= 0)
            raise(number);
    }

    static void fm_on_assert(void *env, const char *message)
    {
        void *volatile *guard = fm_guard;
        (void)env;
        (void)message;
        if (guard != NULL) {
            fm_guard = NULL;
            __builtin_longjmp((void **)guard, 1);
        }
    }

    static int fm_install(void)
    {
        struct sigaction action;
        memset(&action, 0, sizeof(action));
        action.sa_sigaction = fm_on_fault;
        action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
        if (sigaction(SIGSEGV, &action, &fm_before[0]) || sigaction(SIGBUS, &action, &fm_before[1]))
            return errno;
        return 0;
    }

    static __attribute__((noinline)) int fm_grown(MapBounds *map, size_t needed)
    {
        struct stat now;
        if (fstat(map->fd, &now))
            return 0;
        map->bytes = now.st_size;
        return needed <= map->bytes;
    }

    static __thread int fm_asks; /* fm_descend ends at a page that is not in memory */
    static __thread int fm_hot_only; /* this thread must not wait for the disk */
    static __thread time_t fm_second; /* when that was set */
    static unsigned fm_maps; /* that were opened: what is known of one before is nothing of another at its place */

    static int fm_only_hot(int on) /* the setting before */
    {
        int before = fm_hot_only;
        struct timespec now;
        if (on) {
            clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
            fm_second = now.tv_sec;
        }
        fm_hot_only = on;
        return before;
    }

    static __thread size_t fm_cold_at, fm_cold_length; /* what was not in memory, in the file */

    /* Whether n bytes of the map are in the page cache. What was said a second ago is believed: a page that goes
       meanwhile costs its reader one fault. */
    static int fm_hot(MapBounds *map, const void *at, size_t n)
    {
        static __thread struct { const MapBounds *of; unsigned map; size_t window; unsigned long bits; time_t second; } known[16];
        unsigned char found[64];
        size_t place = (size_t)((const char *)at - map->base), page, last, window, i;
        if (map->base == NULL || (const char *)at < map->base || n == 0 || map->page != 4096
            || (place + n > map->bytes && !fm_grown(map, place + n)))
            return 1;
        last = (place + n - 1) / map->page;
        for (page = place / map->page; page <= last; page++) {
            window = page >> 6;
            i = window & 15;
            if (known[i].of == map && known[i].map == fm_maps && known[i].window == window && known[i].second == fm_second
                && known[i].bits >> (page & 63) & 1)
                continue;
            if (mincore((void *)(map->base + (window << 6) * map->page), 64 * map->page, found))
                return 1; /* nobody knows: it is read as it lies */
            known[i].of = map;
            known[i].map = fm_maps;
            known[i].window = window;
            known[i].second = fm_second;
            known[i].bits = 0;
            for (place = 0; place < 64; place++)
                known[i].bits |= (unsigned long)(found[place] & 1) << place;
            if (!(known[i].bits >> (page & 63) & 1)) {
                fm_cold_at = page * map->page;
                fm_cold_length = (last + 1 - page) * map->page;
                return 0;
            }
        }
        return 1;
    }

    /* Whether a record that a reader found lies where LMDB puts records; touches every page of it. */
    static inline int fm_sound(MapBounds *map, const fm_val *key, const fm_val *value)
    {
        const char *at = value->mv_size ? value->mv_data : (const char *)value->mv_data - 1;
        size_t place = (size_t)(at - map->base), mask = map->page - 1, end = place + value->mv_size, step;
        const char *page = at - (place & mask);
        unsigned kind;
        if (value->mv_size > (size_t)1 << 32 || (end > map->bytes && !fm_grown(map, end)))
            return 0;
        kind = *(const unsigned short *)(page + 10) & 0x0f;
        if (*(const size_t *)page * map->page != (size_t)(page - map->base))
            return 0;
        if (kind == 2) {
            if ((place & mask) + value->mv_size > map->page)
                return 0;
        } else {
            if (kind != 4 || (place & mask) != 16
                || *(const unsigned *)(page + 12) * (size_t)map->page < value->mv_size + 16)
                return 0;
            for (step = map->page; step < value->mv_size; step += map->page)
                (void)*(const volatile char *)(at + step);
        }
        if (key != NULL) {
            place = (size_t)((const char *)key->mv_data - map->base);
            end = place + key->mv_size; /* its leaf may be newer than the page of a long value */
            if (key->mv_size - 1 > 510 || (end > map->bytes && !fm_grown(map, end))
                || (place & mask) + key->mv_size > map->page)
                return 0;
        }
        return 1;
    }

    """

cdef extern from *:
    """
    #define FM_LEAF 2
    #define FM_BRANCH 1
    #define FM_DEPTH 32

    static inline unsigned fm_u16(const char *p) { unsigned short n; memcpy(&n, p, 2); return n; }
    static inline unsigned fm_u32(const char *p) { unsigned n; memcpy(&n, p, 4); return n; }
    static inline size_t fm_u64(const char *p) { size_t n; memcpy(&n, p, 8); return n; }

    static inline int fm_compare(const char *a, size_t an, const char *b, size_t bn)
    {
        int order = memcmp(a, b, an < bn ? an : bn);
        return order ? order : (an > bn) - (an < bn);
    }

    /* Whether a page of a tree is whole, with keys from `low` on and below `high`; NULL is no bound. */
    static int fm_page_fits(const MapBounds *map, const char *page, size_t number, const char *low, size_t low_n,
                            const char *high, size_t high_n)
    {
        unsigned kind = fm_u16(page + 10) & 0x0f, lower = fm_u16(page + 12), upper = fm_u16(page + 14), i, count, at, n, flags;
        size_t used = 0, size;
        const char *last = NULL;
        unsigned last_n = 0;
        if (fm_u64(page) != number || (kind != FM_LEAF && kind != FM_BRANCH) || lower < 18 || (lower & 1) || upper < lower
            || upper > map->page)
            return 0;
        count = (lower - 16) / 2;
        for (i = 0; i < count; i++) {
            at = fm_u16(page + 16 + 2 * i);
            if (at < upper || at + 8 > map->page)
                return 0;
            flags = fm_u16(page + at + 4);
            n = fm_u16(page + at + 6);
            size = 8 + n;
            if (kind == FM_LEAF)
                size += flags & 1 ? 8 : fm_u32(page + at);
            size = (size + 1) & ~(size_t)1;
            if (at + size > map->page || n > 511)
                return 0;
            used += size;
            if (kind == FM_BRANCH && i == 0)
                continue;
            if (n == 0 || (last != NULL && fm_compare(page + at + 8, n, last, last_n) <= 0)
                || (last == NULL && low != NULL && fm_compare(page + at + 8, n, low, low_n) < 0))
                return 0;
            last = page + at + 8;
            last_n = n;
        }
        return used == map->page - upper && (last == NULL || high == NULL || fm_compare(last, last_n, high, high_n) < 0);
    }

    static inline int fm_seen(const MapBounds *map, size_t number)
    {
        return number < map->pages && (map->seen[number >> 6] >> (number & 63) & 1);
    }

    static int fm_mark(MapBounds *map, size_t number)
    {
        size_t pages = map->pages ? map->pages : 4096;
        unsigned long *seen;
        if (number >= map->pages) {
            while (pages <= number)
                pages *= 2;
            seen = realloc(map->seen, pages / 8);
            if (seen == NULL)
                return 0;
            memset((char *)seen + map->pages / 8, 0, (pages - map->pages) / 8);
            map->seen = seen;
            map->pages = pages;
        }
        map->seen[number >> 6] |= 1UL << (number & 63);
        return 1;
    }

    static __thread const char *fm_above; /* the branch page above the leaf that fm_descend came to; NULL: none */
    static __thread unsigned fm_above_at; /* which of its children that is */
    static __thread const char *fm_above_high; /* the key with which what is behind that branch page begins; NULL: nothing is */
    static __thread size_t fm_above_high_n;

    /* Down from a root to the leaf where `key` would stand; NULL where a page on the way is not whole. */
    static const char *fm_descend(MapBounds *map, size_t number, const char *key, size_t n)
    {
        const char *low = NULL, *high = NULL, *page, *node;
        size_t low_n = 0, high_n = 0;
        unsigned depth, first, last, middle;
        fm_above = NULL;
        for (depth = 0; depth < FM_DEPTH; depth++) {
            if (number < 2 || number > (size_t)1 << 48
                || ((number + 1) * map->page > map->bytes && !fm_grown(map, (number + 1) * map->page)))
                return NULL;
            page = map->base + number * map->page;
            if (fm_asks && !fm_hot(map, page, map->page))
                return NULL;
            if (!fm_seen(map, number)) {
                if (!fm_page_fits(map, page, number, low, low_n, high, high_n))
                    return NULL;
                fm_mark(map, number);
            }
            if ((fm_u16(page + 10) & 0x0f) == FM_LEAF)
                return page;
            first = 0; /* the last child whose key is not above ours; the first one has none */
            last = (fm_u16(page + 12) - 16) / 2;
            while (last - first > 1) {
                middle = (first + last) / 2;
                node = page + fm_u16(page + 16 + 2 * middle);
                if (fm_compare(node + 8, fm_u16(node + 6), key, n) <= 0)
                    first = middle;
                else
                    last = middle;
            }
            fm_above_high = high;
            fm_above_high_n = high_n;
            if (last < (fm_u16(page + 12) - 16) / 2) {
                node = page + fm_u16(page + 16 + 2 * last);
                high = node + 8;
                high_n = fm_u16(node + 6);
            }
            node = page + fm_u16(page + 16 + 2 * first);
            if (first) {
                low = node + 8;
                low_n = fm_u16(node + 6);
            }
            fm_above = page;
            fm_above_at = first;
            number = fm_u16(node) | (size_t)fm_u16(node + 2) << 16 | (size_t)fm_u16(node + 4) << 32;
        }
        return NULL;
    }

    /* Whether all pages on the way to `key` in the named database are whole, as a transaction sees them. */
    static int fm_way_fits(MapBounds *map, size_t txnid, const char *name, const char *key, size_t n)
    {
        const char *meta, *page, *node;
        size_t root;
        unsigned i, count;
        fm_asks = 0; /* a fault may have left it set */
        meta = map->base + 16;
        if (fm_u64(meta + 128) != txnid)
            meta += map->page;
        if (fm_u64(meta + 128) != txnid)
            return 1; /* two commits later: who reads for so long has begun with pages that were looked at */
        root = fm_u64(meta + 112);
        if (root == (size_t)-1)
            return 1;
        page = fm_descend(map, root, name, strlen(name));
        if (page == NULL)
            return 0;
        count = (fm_u16(page + 12) - 16) / 2;
        for (i = 0; i < count; i++) {
            node = page + fm_u16(page + 16 + 2 * i);
            if (fm_compare(node + 8, fm_u16(node + 6), name, strlen(name)) == 0) {
                if (fm_u32(node) != 48)
                    return 0;
                root = fm_u64(node + 8 + fm_u16(node + 6) + 40);
                return root == (size_t)-1 || fm_descend(map, root, key, n) != NULL;
            }
        }
        return 0;
    }

    /* Whether the leaf that holds `at` was looked at already. */
    static inline int fm_leaf_seen(const MapBounds *map, const void *at)
    {
        return fm_seen(map, (size_t)((const char *)at - map->base) / map->page);
    }

    /* The leaf on which a found key lies, and which of its records that is; NULL where it was not looked at. */
    static const char *fm_leaf_of(const MapBounds *map, const void *key, unsigned *index)
    {
        size_t place = (size_t)((const char *)key - map->base), inside;
        const char *page;
        unsigned i, count;
        if (map->pages == 0 || !fm_seen(map, place / map->page)) /* a store in memory has no pages */
            return NULL;
        inside = place % map->page;
        page = map->base + place - inside;
        count = (fm_u16(page + 12) - 16) / 2;
        for (i = 0; i < count; i++)
            if (fm_u16(page + 16 + 2 * i) + (size_t)8 == inside) {
                *index = i;
                return page;
            }
        return NULL;
    }

    /* The record behind that one on its leaf; 0 where there is none, or its value has pages of its own. */
    static inline int fm_beside(const MapBounds *map, const char *page, unsigned *index, void *key, void *value)
    {
        fm_val *name = key, *data = value;
        unsigned next = *index + 1, at;
        const char *node;
        if (next >= (fm_u16(page + 12) - 16) / 2)
            return 0;
        at = fm_u16(page + 16 + 2 * next);
        node = page + at;
        if (at + 8 > map->page || (fm_u16(node + 4) & 1) || (size_t)at + 8 + fm_u16(node + 6) + fm_u32(node) > map->page)
            return 0;
        name->mv_size = fm_u16(node + 6);
        name->mv_data = (void *)(node + 8);
        data->mv_size = fm_u32(node);
        data->mv_data = (void *)(node + 8 + name->mv_size);
        *index = next;
        return 1;
    }
    """
