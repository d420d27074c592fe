# Loads, stores, UTF-8 and names. Nothing here knows what a frame or a table is.

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    /* FlatBuffers are little-endian and may lie anywhere in a received chunk, so loads go through memcpy;
       compilers make one instruction of it. */
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    #define FRAMING_LE16(v) __builtin_bswap16(v)
    #define FRAMING_LE32(v) __builtin_bswap32(v)
    #define FRAMING_LE64(v) __builtin_bswap64(v)
    #else
    #define FRAMING_LE16(v) (v)
    #define FRAMING_LE32(v) (v)
    #define FRAMING_LE64(v) (v)
    #endif
    static inline uint16_t framing_load16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return FRAMING_LE16(v); }
    static inline uint32_t framing_load32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return FRAMING_LE32(v); }
    static inline uint64_t framing_load64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return FRAMING_LE64(v); }
    static inline void framing_store16(uint8_t *p, uint16_t v) { v = FRAMING_LE16(v); memcpy(p, &v, 2); }
    static inline void framing_store32(uint8_t *p, uint32_t v) { v = FRAMING_LE32(v); memcpy(p, &v, 4); }
    static inline void framing_store64(uint8_t *p, uint64_t v) { v = FRAMING_LE64(v); memcpy(p, &v, 8); }
    static inline int framing_ascii8(const uint8_t *p) {
        uint64_t v; memcpy(&v, p, 8); return (v & 0x8080808080808080ULL) == 0;
    }
    /* 1 for A-Z a-z 0-9 _ - */
    static const uint8_t FRAMING_NAME[256] = {
        ['0'] = 1, ['1'] = 1, ['2'] = 1, ['3'] = 1, ['4'] = 1, ['5'] = 1, ['6'] = 1, ['7'] = 1, ['8'] = 1, ['9'] = 1,
        ['A'] = 1, ['B'] = 1, ['C'] = 1, ['D'] = 1, ['E'] = 1, ['F'] = 1, ['G'] = 1, ['H'] = 1, ['I'] = 1, ['J'] = 1,
        ['K'] = 1, ['L'] = 1, ['M'] = 1, ['N'] = 1, ['O'] = 1, ['P'] = 1, ['Q'] = 1, ['R'] = 1, ['S'] = 1, ['T'] = 1,
        ['U'] = 1, ['V'] = 1, ['W'] = 1, ['X'] = 1, ['Y'] = 1, ['Z'] = 1,
        ['a'] = 1, ['b'] = 1, ['c'] = 1, ['d'] = 1, ['e'] = 1, ['f'] = 1, ['g'] = 1, ['h'] = 1, ['i'] = 1, ['j'] = 1,
        ['k'] = 1, ['l'] = 1, ['m'] = 1, ['n'] = 1, ['o'] = 1, ['p'] = 1, ['q'] = 1, ['r'] = 1, ['s'] = 1, ['t'] = 1,
        ['u'] = 1, ['v'] = 1, ['w'] = 1, ['x'] = 1, ['y'] = 1, ['z'] = 1, ['_'] = 1, ['-'] = 1,
    };
    """
    uint16_t load16 "framing_load16"(const uint8_t *p) noexcept nogil
    uint32_t load32 "framing_load32"(const uint8_t *p) noexcept nogil
    uint64_t load64 "framing_load64"(const uint8_t *p) noexcept nogil
    void store16 "framing_store16"(uint8_t *p, uint16_t v) noexcept nogil
    void store32 "framing_store32"(uint8_t *p, uint32_t v) noexcept nogil
    void store64 "framing_store64"(uint8_t *p, uint64_t v) noexcept nogil
    bint ascii8 "framing_ascii8"(const uint8_t *p) noexcept nogil
    const uint8_t *NAME_CHARACTERS "FRAMING_NAME"

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(str text, Py_ssize_t *size) except NULL
    bint PyUnicode_IS_ASCII(str text)
    Py_ssize_t PyUnicode_GET_LENGTH(str text)
    const void *PyUnicode_DATA(str text)


cdef inline uint32_t load32_big(const uint8_t *p) noexcept nogil:
    return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]


cdef inline void store_header(uint8_t *p, uint32_t length, uint16_t msg_type) noexcept nogil:
    p[0] = <uint8_t>(length >> 24)
    p[1] = <uint8_t>(length >> 16)
    p[2] = <uint8_t>(length >> 8)
    p[3] = <uint8_t>length
    p[4] = <uint8_t>(msg_type >> 8)
    p[5] = <uint8_t>msg_type


cdef inline bint continues(const uint8_t *p, Py_ssize_t count) noexcept nogil:
    """Whether `count` continuation bytes stand at `p`."""
    cdef Py_ssize_t i
    for i in range(count):
        if p[i] & 0xC0 != 0x80:
            return False
    return True


cdef bint is_utf8(const uint8_t *p, Py_ssize_t size) noexcept nogil:
    """Strict UTF-8 as RFC 3629 has it: nothing overlong, no surrogates, nothing over U+10FFFF."""
    cdef const uint8_t *end = p + size
    cdef uint8_t lead
    while p < end:
        if p[0] < 0x80:
            while end - p >= 8 and ascii8(p):
                p += 8
            while p < end and p[0] < 0x80:
                p += 1
            continue
        lead = p[0]
        if lead < 0xC2 or lead > 0xF4:
            return False
        if lead < 0xE0:
            if end - p < 2 or not continues(p + 1, 1):
                return False
            p += 2
        elif lead < 0xF0:
            if end - p < 3 or not continues(p + 1, 2):
                return False
            if (lead == 0xE0 and p[1] < 0xA0) or (lead == 0xED and p[1] > 0x9F):
                return False
            p += 3
        else:
            if end - p < 4 or not continues(p + 1, 3):
                return False
            if (lead == 0xF0 and p[1] < 0x90) or (lead == 0xF4 and p[1] > 0x8F):
                return False
            p += 4
    return True


cdef bint is_name_bytes(const uint8_t *p, Py_ssize_t size, Py_ssize_t limit) noexcept nogil:
    cdef Py_ssize_t i
    if size < 1 or size > limit:
        return False
    for i in range(size):
        if not NAME_CHARACTERS[p[i]]:
            return False
    return True


def is_name(str text not None, Py_ssize_t limit=64):
    """True for 1 to `limit` characters of A-Z a-z 0-9 _ -: the rule for every text in a subject or key."""
    if not PyUnicode_IS_ASCII(text):
        return False
    return is_name_bytes(<const uint8_t *>PyUnicode_DATA(text), PyUnicode_GET_LENGTH(text), limit)
