/* How a block's last instruction can go on, read off its bytes (SDM vol. 2, appendix A): what counting branches takes.
 *
 * The reader decodes each of them too, and looks that both say the same. What is not listed here is UNSURE, and costs time only.
 */
#include "plugin.h"

#define LONGEST 15 /* bytes of an instruction */
#define CUT ((enum ending)0) /* a branch that lacks bytes, or has others */

static int is_prefix(uint8_t byte) {
    switch (byte) {
    case 0x26: case 0x2E: case 0x36: case 0x3E: case 0x64: case 0x65: case 0x66: case 0x67: case 0xF0: case 0xF2: case 0xF3:
        return 1;
    }
    return byte >= 0x40 && byte <= 0x4F; /* REX */
}

/* The bytes of ModRM and what belongs to it (SDM vol. 2, tables 2-2 and 2-3). */
static unsigned modrm_size(const uint8_t *at, unsigned left) {
    unsigned mod = at[0] >> 6, rm = at[0] & 7, size = 1, base = rm;
    if (mod == 3) return 1;
    if (rm == 4) {
        if (left < 2) return 2;
        base = at[1] & 7, size = 2;
    }
    return size + (mod == 1 ? 1 : mod == 2 || base == 5 ? 4 : 0);
}

static enum ending of_two_bytes(uint8_t second, unsigned left) {
    switch (second) {
    case 0x80 ... 0x8F:
        return left == 6 ? CONDITIONAL : CUT;
    case 0x05: case 0x0B: /* SYSCALL, UD2 */
        return ODD;
    case 0x0D: case 0x10 ... 0x1F: case 0x28 ... 0x2F: case 0x31: case 0x38: case 0x3A: case 0x40 ... 0x77: case 0x90 ... 0x9F:
    case 0xA2 ... 0xA5: case 0xAB ... 0xB1: case 0xB3: case 0xB6: case 0xB7: case 0xBA ... 0xFE:
        return PLAIN;
    }
    return UNSURE;
}

static enum ending of_one_byte(const uint8_t *at, unsigned left, int repeated) {
    uint8_t reg = left > 1 ? at[1] >> 3 & 7 : 0;
    switch (at[0]) {
    case 0x70 ... 0x7F: case 0xE0 ... 0xE3:
        return left == 2 ? CONDITIONAL : CUT;
    case 0xEB:
        return left == 2 ? ALWAYS : CUT;
    case 0xE9:
        return left == 5 ? ALWAYS : CUT;
    case 0xE8: /* CALL +0 is no branch to the LBRs (cpu/decode.py) */
        return left != 5 ? CUT : at[1] | at[2] | at[3] | at[4] ? ALWAYS : PLAIN;
    case 0xC2:
        return left == 3 ? ALWAYS : CUT;
    case 0xC3:
        return left == 1 ? ALWAYS : CUT;
    case 0xCC: case 0xCD: case 0xF1: case 0xF4: /* INT3, INT, INT1, HLT */
        return ODD;
    case 0xFF:
        if (left < 2) return CUT;
        if (reg == 2 || reg == 4) return left == 1 + modrm_size(at + 1, left - 1) ? ALWAYS : CUT;
        return reg < 2 || reg == 6 ? PLAIN : UNSURE;
    case 0xC6: case 0xC7: /* others are XABORT and XBEGIN */
        return reg == 0 ? PLAIN : UNSURE;
    case 0x6C ... 0x6F: case 0xA4 ... 0xA7: case 0xAA ... 0xAF: /* a pass of a REP string instruction may not be its last */
        return at[0] == 0xA8 || at[0] == 0xA9 || !repeated ? PLAIN : ODD;
    case 0x00 ... 0x3F:
        return (at[0] & 7) < 6 ? PLAIN : UNSURE;
    case 0x50 ... 0x5F: case 0x63: case 0x68 ... 0x6B: case 0x80: case 0x81: case 0x83 ... 0x8E: case 0x90 ... 0x99: case 0xA0 ... 0xA3:
    case 0xA8: case 0xA9: case 0xB0 ... 0xC1: case 0xC9: case 0xD0 ... 0xD3: case 0xD8 ... 0xDF: case 0xF5 ... 0xF9: case 0xFC:
    case 0xFD: case 0xFE:
        return PLAIN;
    }
    return UNSURE;
}

enum ending ending_of(const uint8_t *code, unsigned size, uint64_t address, uint32_t count) {
    unsigned at = 0, repeated = 0, narrow = 0;
    for (; at < size && is_prefix(code[at]); at++) {
        repeated |= code[at] == 0xF2 || code[at] == 0xF3;
        narrow |= code[at] == 0x66 || code[at] == 0xF0; /* of a branch, decoders differ over what they do */
    }
    unsigned left = size - at;
    enum ending ending = !left || (code[at] == 0x0F && left == 1) ? CUT
        : code[at] == 0x0F ? of_two_bytes(code[at + 1], left) : of_one_byte(code + at, left, repeated);
    /* Of an instruction over a page's end, which QEMU gives up unless it is the block's only one, some bytes are missing. */
    if (count > 1 && address % 4096 > 4096 - LONGEST && (ending == CUT || ending == PLAIN)) return ODD;
    return ending == CUT || (narrow && ending >= CONDITIONAL) ? UNSURE : ending;
}
