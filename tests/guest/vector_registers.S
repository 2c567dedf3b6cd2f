// Loading, holding and storing the vector registers (vector_registers.h).

#define OFFSET_ZMM 512
#define OFFSET_K (OFFSET_ZMM + 32 * 64)
#define LEVEL_YMM 1
#define LEVEL_ZMM 2
#define STEP_SPINS 32
#define STEP_SIZE 40

        .text

// Every register beyond FXSAVE's of the level in %esi; `move` is load or store, from or to the
// VectorRegisters at %rdi.
        .macro each_register move
        cmp $LEVEL_YMM, %esi
        jb 9f
        ja 8f
        .irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        \move vmovdqu, ymm\i, \i, OFFSET_ZMM, 64
        .endr
        jmp 9f
8:
        .irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        \move vmovdqu64, zmm\i, \i, OFFSET_ZMM, 64
        .endr
        .irp i, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
        \move vmovdqu64, zmm\i, \i, OFFSET_ZMM, 64
        .endr
        .irp i, 0, 1, 2, 3, 4, 5, 6, 7
        \move kmovq, k\i, \i, OFFSET_K, 8
        .endr
9:
        .endm

        .macro load instruction, register, number, offset, size
        \instruction (\offset + \number * \size)(%rdi), %\register
        .endm

        .macro store instruction, register, number, offset, size
        \instruction %\register, (\offset + \number * \size)(%rdi)
        .endm

        .globl LoadVectors
        .type LoadVectors, @function
LoadVectors:
        fxrstor64 (%rdi)
        each_register load
        ret
        .size LoadVectors, . - LoadVectors

        .globl HoldVectors
        .type HoldVectors, @function
HoldVectors:
        push %r12
        push %r13
        push %r14
        push %r15
        mov %rsi, %r12
        mov %edx, %r13d
        mov %rcx, %r14
        mov %r8, %r15
        mov %edx, %esi
        call LoadVectors
1:
        test %r15, %r15
        jz 4f
        mov (%r14), %rax
        mov 8(%r14), %rdi
        mov 16(%r14), %rsi
        mov 24(%r14), %rdx
        syscall
        mov STEP_SPINS(%r14), %rcx
2:
        sub $1, %rcx
        jns 2b
        add $STEP_SIZE, %r14
        dec %r15
        jmp 1b
4:
        mov %r12, %rdi
        mov %r13d, %esi
        fxsave64 (%rdi)
        each_register store
        // As the caller expects x87 and SSE to be.
        fninit
        ldmxcsr default_mxcsr(%rip)
        cmp $LEVEL_YMM, %r13d
        jb 5f
        vzeroupper
5:
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        ret
        .size HoldVectors, . - HoldVectors

        .section .rodata
        .align 4
default_mxcsr:
        .long 0x1f80

        .section .note.GNU-stack, "", @progbits
