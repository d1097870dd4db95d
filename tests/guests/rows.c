/* The guest of the conformance table, on flat.S: one instruction at a time, asked and answered in a mailbox.
 *
 * Each function loads its operands, executes, stores what came out and halts, with no branch of its own: one would be
 * recorded. An exception goes to gates.S, which stores its vector and halts. Who asks sets RIP to the next function.
 */

#include <stdint.h>

volatile struct {
	uint32_t index, subindex, eax, ebx, ecx, edx, vector;
} mailbox;
uint8_t area[4096] __attribute__((aligned(64)));

extern uint8_t idt[], gates[];

static inline void halt(void)
{
	asm volatile("hlt");
	__builtin_unreachable();
}

void row_rdmsr(void)
{
	uint32_t low, high;
	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(mailbox.index));
	mailbox.eax = low;
	mailbox.edx = high;
	halt();
}

void row_wrmsr(void)
{
	asm volatile("wrmsr" : : "c"(mailbox.index), "a"(mailbox.eax), "d"(mailbox.edx) : "memory");
	halt();
}

void row_cpuid(void)
{
	uint32_t eax, ebx, ecx, edx;
	asm volatile("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "a"(mailbox.index), "c"(mailbox.subindex));
	mailbox.eax = eax;
	mailbox.ebx = ebx;
	mailbox.ecx = ecx;
	mailbox.edx = edx;
	halt();
}

/* Component 15 alone. */
void row_xsaves(void)
{
	asm volatile("xsaves64 (%0)" : : "D"(area), "a"(1 << 15), "d"(0) : "memory");
	halt();
}

void row_xrstors(void)
{
	asm volatile("xrstors64 (%0)" : : "D"(area), "a"(1 << 15), "d"(0) : "memory");
	halt();
}

void handle(void *frame) { (void)frame; }

int main(void)
{
	for (int vector = 0; vector < 32; vector++) {
		uint64_t handler = (uint64_t)gates + 16 * vector;
		uint8_t *gate = idt + 16 * vector;
		*(uint16_t *)gate = handler;
		*(uint16_t *)(gate + 6) = handler >> 16;
		gate[5] = 0x8e;
	}
	asm volatile("mov %%cr4, %%rax; bts $18, %%rax; mov %%rax, %%cr4" : : : "rax", "memory"); /* OSXSAVE */
	for (;;)
		asm volatile("hlt");
}
