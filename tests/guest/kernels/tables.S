// Entry, descriptors and the ways to user mode and back of tables.cc.

#define KERNEL_CODE 0x10
#define KERNEL_DATA 0x18
#define TSS 0x38

        .text
        .globl _start
_start:
        cli
        mov $stack_end, %esp
        // The TSS has one thing to say: the stack of what interrupts user mode.
        lea fault_stack_end(%rip), %rax
        mov %rax, tss + 4(%rip)
        lea tss(%rip), %rax
        mov %ax, tss_descriptor + 2(%rip)
        shr $16, %eax
        mov %al, tss_descriptor + 4(%rip)
        mov %ah, tss_descriptor + 7(%rip)
        lea PageFault(%rip), %rax
        mov %ax, idt + 14 * 16(%rip)
        shr $16, %eax
        mov %ax, idt + 14 * 16 + 6(%rip)
        lgdt gdt_pointer(%rip)
        lidt idt_pointer(%rip)
        mov $KERNEL_DATA, %eax
        mov %eax, %ss
        mov %eax, %ds
        mov %eax, %es
        mov $TSS, %eax
        ltr %ax
        pushq $KERNEL_CODE
        lea 1f(%rip), %rax
        push %rax
        lretq
1:
        mov $0xc0000080, %ecx           // EFER.SCE
        rdmsr
        or $1, %eax
        wrmsr
        mov $0xc0000081, %ecx           // STAR: this code, and 0x20 + 8 and + 16 for user mode
        xor %eax, %eax
        mov $0x00200010, %edx
        wrmsr
        mov $0xc0000082, %ecx           // LSTAR
        lea SystemCall(%rip), %rax
        xor %edx, %edx
        wrmsr
        mov $0xc0000084, %ecx           // of the flags, only what is fixed stays
        mov $0x7ffd7, %eax
        wrmsr
        call Main
        mov $0xfe, %eax
        out %al, $0x64
2:      hlt
        jmp 2b

// uint64_t RunUser(uint64_t rip, uint64_t address, uint64_t value): user mode from `rip` on, with
// the other two in RDI and RSI, until its SYSCALL, whose RAX it returns, or a page fault.
        .globl RunUser
RunUser:
        push %rbx
        push %rbp
        push %r12
        push %r13
        push %r14
        push %r15
        mov %rsp, kernel_stack(%rip)
        mov %rdi, %rcx
        mov %rsi, %rdi
        mov %rdx, %rsi
        mov $2, %r11d
        sysretq
SystemCall:
        mov kernel_stack(%rip), %rsp
        movq $0, fault_seen(%rip)
        jmp 3f
PageFault:
        cld
        pop %rax
        mov %rax, fault_error(%rip)
        mov %cr2, %rax
        mov %rax, fault_address(%rip)
        movq $1, fault_seen(%rip)
        mov kernel_stack(%rip), %rsp
3:
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %rbp
        pop %rbx
        ret

// The program, mapped for user mode: a load at +0, a store at +16.
        .balign 4096
        .globl user_code
user_code:
        mov (%rdi), %rax
        syscall
        .balign 16
        mov %rsi, (%rdi)
        syscall
        .balign 4096

        .data
        .globl fault_seen, fault_error, fault_address
        .balign 16
fault_seen: .quad 0
fault_error: .quad 0
fault_address: .quad 0
kernel_stack: .quad 0
gdt_pointer:
        .word gdt_end - gdt - 1
        .quad gdt
idt_pointer:
        .word 15 * 16 - 1
        .quad idt
        .balign 16
gdt:
        .quad 0
        .quad 0
        .quad 0x00af9b000000ffff
        .quad 0x00cf93000000ffff
        .quad 0x00cffb000000ffff
        .quad 0x00cff3000000ffff
        .quad 0x00affb000000ffff
tss_descriptor:
        .quad 0x0000890000000067
        .quad 0
gdt_end:
        .balign 16
idt:
        .rept 15
        .quad 0x00008e0000100000
        .quad 0
        .endr
tss:
        .zero 104
        .balign 16
        .zero 4096
fault_stack_end:
        .zero 16384
stack_end:
