# What a reader that must not wait for the disk asks before each step (pages.pxi, `fm_hot`): the way to a key, the leaf behind it, a
# value that has pages of its own. The branch page above the last leaf is remembered, so mostly one comparison of keys says it.

cdef extern from *:
    """
    /* Of a table, the last leaf to which the way was in memory, and the branch page above it. What a transaction sees does not
       change, so a key on that leaf, or on the one behind it, needs no search from the root. */
    typedef struct {
        const char *leaf, *page, *high; /* `high`: the key behind all that is below `page`, or NULL */
        const MapBounds *of;
        size_t high_n;
        size_t txnid;
        time_t second;
        unsigned map;
        unsigned short at; /* which child of `page` the leaf is */
        unsigned char table;
    } fm_way;
    static __thread fm_way fm_ways[8];
    #define FM_WAY_OF(key) (&fm_ways[*(const unsigned char *)(key) & 7])
    #define FM_LEAF_OF(key) FM_WAY_OF(key)->leaf

    static inline int fm_on_leaf(MapBounds *map, const char *page, const char *key, size_t n)
    {
        const char *node;
        unsigned lower, first, last;
        if (page == NULL || page < map->base || page + map->page > map->base + map->bytes || !fm_hot(map, page, map->page)
            || (fm_u16(page + 10) & 0x0f) != FM_LEAF)
            return 0;
        lower = fm_u16(page + 12);
        if (lower < 18 || lower > map->page)
            return 0;
        first = fm_u16(page + 16);
        last = fm_u16(page + lower - 2);
        if (first + 8 > map->page || last + 8 > map->page)
            return 0;
        node = page + first;
        if (first + 8 + fm_u16(node + 6) > map->page || fm_compare(node + 8, fm_u16(node + 6), key, n) > 0)
            return 0;
        node = page + last;
        return last + 8 + fm_u16(node + 6) <= map->page && fm_compare(node + 8, fm_u16(node + 6), key, n) >= 0;
    }

    static inline int fm_keep_way(MapBounds *map, size_t txnid, const char *key, const char *leaf) /* whether it is cold */
    {
        fm_way *way = FM_WAY_OF(key);
        way->leaf = leaf;
        way->page = fm_above;
        way->high = fm_above_high;
        way->high_n = fm_above_high_n;
        way->of = map;
        way->txnid = txnid;
        way->second = fm_second;
        way->map = fm_maps;
        way->at = (unsigned short)fm_above_at;
        way->table = *(const unsigned char *)key;
        return leaf == NULL && fm_cold_length != 0;
    }

    static inline int fm_from(const char *page, unsigned at, const char *key, size_t n) /* child `at` begins not behind key */
    {
        const char *node = page + fm_u16(page + 16 + 2 * at);
        return fm_compare(node + 8, fm_u16(node + 6), key, n) <= 0;
    }

    static inline int fm_below_branch(MapBounds *map, size_t txnid, const char *key, size_t n)
    {
        fm_way *way = FM_WAY_OF(key);
        const char *page = way->page, *node;
        unsigned at = way->at, count;
        size_t number;
        if (page == NULL || way->table != *(const unsigned char *)key || way->txnid != txnid || way->second != fm_second
            || way->of != map || way->map != fm_maps)
            return 0;
        count = (fm_u16(page + 12) - 16) / 2;
        if (at + 1 < count && fm_from(page, at + 1, key, n)) {
            if (++at + 1 < count && fm_from(page, at + 1, key, n))
                return 0;
        } else if (at == 0 || !fm_from(page, at, key, n))
            return 0; /* before what the first child holds stands in another branch */
        if (at + 1 >= count)
            return 0; /* as what is behind the last one's */
        node = page + fm_u16(page + 16 + 2 * at);
        number = fm_u16(node) | (size_t)fm_u16(node + 2) << 16 | (size_t)fm_u16(node + 4) << 32;
        page = map->base + number * map->page;
        if (!fm_seen(map, number) || (number + 1) * map->page > map->bytes || !fm_hot(map, page, map->page))
            return 0;
        way->at = (unsigned short)at;
        way->leaf = page;
        return 1;
    }

    static int fm_way_asked(MapBounds *map, size_t txnid, const char *name, const char *key, size_t n)
    {
        static __thread struct { const MapBounds *of; unsigned map; const char *name; size_t txnid, root; } known[4]; /* of databases, in one state */
        const char *meta = map->base + 16, *page, *node;
        size_t root;
        unsigned i, count, at = (unsigned)((size_t)name >> 2) & 3;
        if (map->base == NULL || fm_below_branch(map, txnid, key, n) || fm_on_leaf(map, FM_LEAF_OF(key), key, n))
            return 0;
        FM_LEAF_OF(key) = NULL;
        fm_cold_length = 0;
        if (known[at].of == map && known[at].map == fm_maps && known[at].name == name && known[at].txnid == txnid) {
            return fm_keep_way(map, txnid, key, fm_descend(map, known[at].root, key, n));
        }
        if (fm_u64(meta + 128) != txnid)
            meta += map->page;
        root = fm_u64(meta + 112);
        if (fm_u64(meta + 128) != txnid || root == (size_t)-1)
            return 0;
        page = fm_descend(map, root, name, strlen(name));
        if (page == NULL)
            return fm_cold_length != 0;
        count = (fm_u16(page + 12) - 16) / 2;
        for (i = 0; i < count; i++) {
            node = page + fm_u16(page + 16 + 2 * i);
            if (fm_compare(node + 8, fm_u16(node + 6), name, strlen(name)) == 0 && fm_u32(node) == 48) {
                root = fm_u64(node + 8 + fm_u16(node + 6) + 40);
                if (root == (size_t)-1)
                    return 0;
                known[at].of = map;
                known[at].map = fm_maps;
                known[at].name = name;
                known[at].txnid = txnid;
                known[at].root = root;
                return fm_keep_way(map, txnid, key, fm_descend(map, root, key, n));
            }
        }
        return 0;
    }

    /* Whether some page on the way to `key` is not in memory: then `fm_cold_at` says which. */
    static int fm_way_is_cold(MapBounds *map, size_t txnid, const char *name, const char *key, size_t n)
    {
        int is_cold;
        fm_asks = 1;
        is_cold = fm_way_asked(map, txnid, name, key, n);
        fm_asks = 0;
        return is_cold;
    }

    static inline size_t fm_child(const char *page, unsigned at)
    {
        const char *node = page + fm_u16(page + 16 + 2 * at);
        return fm_u16(node) | (size_t)fm_u16(node + 2) << 16 | (size_t)fm_u16(node + 4) << 32;
    }

    static inline int fm_page_is_cold(MapBounds *map, size_t number)
    {
        return number > 1 && number < (size_t)1 << 40
               && ((number + 1) * map->page <= map->bytes || fm_grown(map, (number + 1) * map->page))
               && !fm_hot(map, map->base + number * map->page, map->page);
    }

    /* Who seeks what is at `key` or behind it (op 17), or behind it (op 8), after the way to it was in memory, comes to the next
       leaf where this one has no such record: whether that is not in memory. */
    static int fm_behind_is_cold(MapBounds *map, size_t txnid, const char *name, const char *key, size_t n, int op)
    {
        const fm_way *way = FM_WAY_OF(key);
        const char *leaf = way->leaf, *node;
        char high[512];
        unsigned at, lower;
        if (leaf == NULL || way->page == NULL || way->of != map || way->txnid != txnid
            || way->table != *(const unsigned char *)key)
            return 0;
        lower = fm_u16(leaf + 12);
        if (lower < 18 || lower > map->page || (at = fm_u16(leaf + lower - 2)) + 8 > map->page)
            return 0;
        node = leaf + at;
        if (at + 8 + fm_u16(node + 6) > map->page || fm_compare(node + 8, fm_u16(node + 6), key, n) >= (op == 8))
            return 0;
        if (way->at + 1u < (unsigned)(fm_u16(way->page + 12) - 16) / 2)
            return fm_page_is_cold(map, fm_child(way->page, way->at + 1));
        if (way->high == NULL || way->high_n > sizeof(high))
            return 0;
        n = way->high_n;
        memcpy(high, way->high, n);
        return fm_way_is_cold(map, txnid, name, high, n);
    }

    /* Where the leaves lie that follow the last one to which a way was asked for and that are not in memory; at most `most`.
       Only what the branch page above them says, which is in memory. */
    static int fm_cold_ahead(MapBounds *map, const char *key, size_t *places, int most)
    {
        const fm_way *way = FM_WAY_OF(key);
        unsigned at, count;
        size_t number;
        int n = 0;
        if (map->base == NULL || way->page == NULL || way->of != map)
            return 0;
        count = (fm_u16(way->page + 12) - 16) / 2;
        for (at = way->at; at < count && n < most; at++) {
            number = fm_child(way->page, at);
            if (fm_page_is_cold(map, number))
                places[n++] = number * map->page;
        }
        return n;
    }

    /* Where the value of a record of a leaf lies that has pages of its own; 0: with the record. LMDB touches such a page
       when it is asked for the value. */
    static inline size_t fm_value_apart(const char *node, size_t *size)
    {
        *size = fm_u32(node);
        return fm_u16(node + 4) & 1 ? fm_u64(node + 8 + fm_u16(node + 6)) : 0;
    }

    static int fm_node_is_cold(MapBounds *map, const char *node)
    {
        size_t size, number = fm_value_apart(node, &size);
        return number > 1 && number < (size_t)1 << 40 && size < (size_t)1 << 32
               && !fm_hot(map, map->base + number * map->page + 16, size);
    }

    /* Whether the value of `key`, on the leaf to which the way was in memory, is not. */
    static int fm_value_is_cold(MapBounds *map, const char *key, size_t n)
    {
        const char *page = FM_LEAF_OF(key), *node;
        unsigned first = 0, last, middle;
        int order;
        if (page == NULL)
            return 0;
        last = (fm_u16(page + 12) - 16) / 2;
        while (first < last) {
            middle = (first + last) / 2;
            if (fm_u16(page + 16 + 2 * middle) + (size_t)16 > map->page)
                return 0;
            node = page + fm_u16(page + 16 + 2 * middle);
            order = fm_compare(node + 8, fm_u16(node + 6), key, n);
            if (order == 0)
                return fm_node_is_cold(map, node);
            if (order < 0)
                first = middle + 1;
            else
                last = middle;
        }
        return 0;
    }
    """
