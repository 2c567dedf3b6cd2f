// A kernel of a few instructions that never returns to user mode. It starts all processors (SDM
// volume 3, 8.4.4); each prints an x and then does for ever what ENDLESS says:
//
//   1  jumps to itself, with a locked add
//   2  raises #UD, whose handler raises it again, without a jump in between
//   3  an instruction that KVM's emulator does not know, then a jump
//   4  sets the timer's deadline, then a jump
//   5  faults on a page that is missing, and returns to the instruction that does so

#define TRAMPOLINE 0x20000  // below 1 MiB, at a page, where nothing of the loader's lies
#define APIC 0xfee00000
#define STACKS 0x30000

        .text
        .code64
        .globl _start
_start:
        cli
        cld
        mov %cr3, %rax
        mov %eax, cr3(%rip)
        lea trampoline(%rip), %rsi
        mov $TRAMPOLINE, %edi
        mov $trampoline_end - trampoline, %ecx
        rep movsb
        mov $APIC, %ebx
        movl $0x1ff, 0xf0(%rbx)         // enabled
        movl $0xc4500, 0x300(%rbx)      // INIT to all but this one
        movl $0xc4600 + TRAMPOLINE / 4096, 0x300(%rbx)
run:
        mov $4096, %eax
        lock xadd %eax, stacks(%rip)
        mov %eax, %esp
        mov %esp, %ebp
        // The gates of #UD and #PF.
        lea handler(%rip), %rax
        mov %ax, idt + 6 * 16(%rip)
        mov %ax, idt + 14 * 16(%rip)
        shr $16, %eax
        mov %ax, idt + 6 * 16 + 6(%rip)
        mov %ax, idt + 14 * 16 + 6(%rip)
        mov %cs, %eax
        mov %ax, idt + 6 * 16 + 2(%rip)
        mov %ax, idt + 14 * 16 + 2(%rip)
        lidt idt_pointer(%rip)
        mov $0x3f8, %edx
        mov $'x', %eax
        out %al, %dx
        mov $0x6e0, %ecx                // IA32_TSC_DEADLINE
        xor %edx, %edx
        mov $0x4000000000, %rsi
again:
#if ENDLESS == 1
        lock incq count(%rip)
#elif ENDLESS == 2
        ud2
#elif ENDLESS == 3
        rdrand %rax
#elif ENDLESS == 4
        xor %eax, %eax
        wrmsr
#elif ENDLESS == 5
        mov (%rsi), %rax
#endif
        jmp again
handler:
#if ENDLESS == 2
        mov %rbp, %rsp
        ud2
#else
        add $8, %rsp
        iretq
#endif

        .data
        .balign 16
count:  .quad 0
stacks: .long STACKS
idt_pointer:
        .word 15 * 16 - 1
        .quad idt
        .balign 16
idt:
        .rept 15
        .quad 0x00008e0000000000
        .quad 0
        .endr

// Where the other processors start, in real mode.
        .balign 16
trampoline:
        .code16
        cli
        mov %cs, %ax
        mov %ax, %ds
        lgdtl gdt_pointer - trampoline
        mov %cr0, %eax
        or $1, %eax
        mov %eax, %cr0
        ljmpl $8, $TRAMPOLINE + protected - trampoline
        .code32
protected:
        mov $0x18, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov %cr4, %eax
        or $0x20, %eax
        mov %eax, %cr4
        mov TRAMPOLINE + cr3 - trampoline, %eax
        mov %eax, %cr3
        mov $0xc0000080, %ecx
        rdmsr
        or $0x100, %eax
        wrmsr
        mov %cr0, %eax
        or $0x80000000, %eax
        mov %eax, %cr0
        ljmpl $0x10, $TRAMPOLINE + long - trampoline
        .code64
long:
        mov $run, %rax
        jmp *%rax
        .balign 8
cr3:    .long 0
        .balign 8
gdt_pointer:
        .word 31
        .long TRAMPOLINE + gdt - trampoline
        .balign 8
gdt:
        .quad 0
        .quad 0x00cf9b000000ffff
        .quad 0x00af9b000000ffff
        .quad 0x00cf93000000ffff
trampoline_end:
