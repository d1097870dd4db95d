/* A bare-metal test image on flat.S: what the loader handed over, fw_cfg, faults, the APIC, and the LBRs. */

#include <stdint.h>

typedef struct {
	uint64_t vector, error, rip, cs, rflags, rsp, ss;
} frame;

typedef struct {
	uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, rest[4], mmap_length, mmap_addr;
} information;

extern int attempt(void (*code)(void));
extern char recover[];
extern uint32_t caught;

static uint64_t error_code, fault_address;
static unsigned failures, tests;

static inline void outb(uint16_t port, uint8_t value) { asm volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static inline void outw(uint16_t port, uint16_t value) { asm volatile("outw %0, %1" : : "a"(value), "Nd"(port)); }
static inline uint8_t inb(uint16_t port)
{
	uint8_t value;
	asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}
static inline uint64_t rdmsr(uint32_t index)
{
	uint32_t low, high;
	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
	return (uint64_t)high << 32 | low;
}
static inline void wrmsr(uint32_t index, uint64_t value)
{
	asm volatile("wrmsr" : : "a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "c"(index) : "memory");
}
static inline void cpuid(uint32_t leaf, uint32_t out[4])
{
	asm volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(0));
}

static void put(const char *text)
{
	for (; *text; text++) {
		while (!(inb(0x3fd) & 0x20))
			;
		outb(0x3f8, *text);
	}
}

static void number(uint64_t value)
{
	char text[17];
	int at = 16;
	text[16] = 0;
	do
		text[--at] = "0123456789abcdef"[value & 15];
	while (value >>= 4);
	put(text + at);
}

static void tell(const char *what, uint64_t value)
{
	put(what);
	put("=");
	number(value);
	put("\n");
}

static void report(const char *name, int fine)
{
	tests++;
	failures += !fine;
	put(fine ? "PASS: " : "FAIL: ");
	put(name);
	put("\n");
}

void handle(frame *at)
{
	caught = at->vector + 1;
	error_code = at->error;
	asm volatile("mov %%cr2, %0" : "=r"(fault_address));
	at->rip = (uint64_t)recover;
}

/* Did the code meet this vector with this error code? */
static int meets(void (*code)(void), unsigned vector, uint64_t error)
{
	error_code = ~0ull;
	return attempt(code) == (int)vector + 1 && error_code == error;
}

static void undefined(void) { asm volatile("ud2"); }
static void forced_prefix(void) { asm volatile("ud2\n.ascii \"kvm\""); }
static void divide(void) { asm volatile("xor %%eax, %%eax; xor %%edx, %%edx; div %%eax" ::: "rax", "rdx"); }
static void oldest_entry(void) { rdmsr(0x40); }
static void oldest_target(void) { rdmsr(0x60); }
static void old_select(void) { rdmsr(0x1c8); }
static void old_tos(void) { rdmsr(0x1c9); }
static void old_entry(void) { rdmsr(0x680); }
static void beyond_depth(void) { rdmsr(0x1500 + 32); }
static void odd_depth(void) { wrmsr(0x14cf, 7); }
static void reserved_ctl(void) { wrmsr(0x14ce, 1ull << 4); }
static void not_canonical(void) { *(volatile char *)0x8000000000000000; }
static void far_away(void) { *(volatile char *)0x8000000000; }
static void far_store(void) { *(volatile char *)0x8000000000 = 1; }
static void far_call(void) { ((void (*)(void))0x8000000000)(); }
static void bad_selector(void) { asm volatile("mov %0, %%fs" : : "r"(0x48)); }
static void absent_selector(void) { asm volatile("push $0x18; lea 1f(%%rip), %%rax; push %%rax; lretq; 1:" ::: "rax"); }
static void no_gate(void) { asm volatile("int $0x40"); }
static void no_stack(void) { asm volatile("mov $0x8000001000, %%rsp; push %%rax" ::: "memory"); }

extern uint64_t level2[];
extern uint8_t idt[];
static void store_read_only(void) { *(volatile char *)0x3fe00000 = 1; }
static void fetch_no_execute(void) { ((void (*)(void))0x3fc00000)(); }
static void reserved_bit(void) { *(volatile char *)0x3fa00000; }

static void faults(void)
{
	report("#UD", meets(undefined, 6, 0));
	report("#UD with a prefix", meets(forced_prefix, 6, 0));
	report("#DE", meets(divide, 0, 0));
	report("#GP(0) of an address", meets(not_canonical, 13, 0));
	report("#PF of a read", meets(far_away, 14, 0) && fault_address == 0x8000000000);
	report("#PF of a write", meets(far_store, 14, 2) && fault_address == 0x8000000000);
	report("#PF of a fetch", meets(far_call, 14, 16) && fault_address == 0x8000000000);
	level2[0x3fe00000 >> 21] &= ~2ull;
	level2[0x3fc00000 >> 21] |= 1ull << 63;
	level2[0x3fa00000 >> 21] |= 1ull << 13;
	asm volatile("mov %%cr3, %%rax; mov %%rax, %%cr3" ::: "rax", "memory");
	report("#PF of a write to a read-only page", meets(store_read_only, 14, 3));
	report("#PF of a fetch from a no-execute page", meets(fetch_no_execute, 14, 17));
	report("#PF of a reserved bit", meets(reserved_bit, 14, 9));
	report("#GP(selector)", meets(bad_selector, 13, 0x48));
	report("#NP(selector)", meets(absent_selector, 11, 0x18));
	report("#GP of a vector beyond the IDT", meets(no_gate, 13, 0x40 * 8 + 2));
	idt[16 * 8 + 4] = 1; /* a double fault has a stack of its own */
	report("#DF where a page fault finds no stack", meets(no_stack, 8, 0) && fault_address >> 12 == 0x8000000);
}

static void apic(void)
{
	volatile uint32_t *registers = (volatile uint32_t *)0xfee00000;
	uint64_t base = rdmsr(0x1b);
	wrmsr(0x1b, base);
	registers[0xf0 / 4] = 0x1ff;
	registers[0x310 / 4] = 0;
	registers[0x300 / 4] = 0xc4500; /* INIT to all others: there are none */
	report("APIC", registers[0x20 / 4] == 0 && !(registers[0x300 / 4] & 1 << 12) && rdmsr(0x1b) == base);
}

static void firmware(void)
{
	uint64_t memory = 0;
	uint32_t processors = 0;
	outw(0x510, 5);
	for (int at = 0; at < 2; at++)
		processors |= inb(0x511) << 8 * at;
	outw(0x510, 3);
	for (int at = 0; at < 8; at++)
		memory |= (uint64_t)inb(0x511) << 8 * at;
	tell("processors", processors);
	tell("memory", memory);
}

static void __attribute__((noinline)) branches(int times)
{
	for (volatile int at = 0; at < times; at++)
		;
}

static void lbrs(void)
{
	uint32_t out[4];
	cpuid(7, out);
	if (!(out[3] >> 19 & 1)) {
		put("SKIP: no architectural LBR\n");
		return;
	}
	cpuid(0x1c, out);
	tell("depths", out[0] & 0xff);
	report("reset depth", rdmsr(0x14cf) == 32);
	report("no LBR_SELECT", meets(old_select, 13, 0));
	report("no TOS", meets(old_tos, 13, 0));
	report("no legacy entries", meets(old_entry, 13, 0));
	report("no entries older still", meets(oldest_entry, 13, 0) && meets(oldest_target, 13, 0));
	report("no entry beyond the depth", meets(beyond_depth, 13, 0));
	report("no odd depth", meets(odd_depth, 13, 0));
	report("reserved bits of CTL", meets(reserved_ctl, 13, 0));
	wrmsr(0x1500 + 3, 0x123456789ab);
	report("an entry keeps what is written", rdmsr(0x1500 + 3) == 0x123456789ab);
	wrmsr(0x14cf, 32);
	report("a write of DEPTH clears", rdmsr(0x1500 + 3) == 0);
	wrmsr(0x14ce, 0x7f0003); /* every kind of ring 0 */
	branches(40);
	wrmsr(0x14ce, 0);
	int full = 1, timed = 0;
	for (int at = 0; at < 32; at++) {
		full &= rdmsr(0x1500 + at) != 0 && rdmsr(0x1600 + at) != 0;
		timed += (rdmsr(0x1200 + at) >> 60 & 1) && (rdmsr(0x1200 + at) >> 56 & 15) == 0;
	}
	report("32 records", full);
	report("conditional branches have a cycle count", timed > 16);
}

static int same(const char *one, const char *other)
{
	while (*one && *one == *other)
		one++, other++;
	return *one == *other;
}

int main(uint32_t loader, information *given)
{
	const char *words = (const char *)(uint64_t)given->cmdline, *last = words;
	for (const char *at = words; *at; at++)
		if (*at == ' ')
			last = at + 1;
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	tell("loader", loader);
	put(words);
	put("\n");
	tell("upper", given->mem_upper);
	for (uint32_t at = 0; at < given->mods_count; at++) {
		uint32_t *module = (uint32_t *)(uint64_t)given->mods_addr + 4 * at;
		put("module=");
		for (const char *text = (const char *)(uint64_t)module[0]; text < (const char *)(uint64_t)module[1]; text++) {
			char letter[2] = { *text, 0 };
			put(letter);
		}
		put("\n");
	}
	firmware();
	apic();
	faults();
	lbrs();
	tell("tests", tests);
	return same(last, "fail") ? 21 : failures != 0;
}
