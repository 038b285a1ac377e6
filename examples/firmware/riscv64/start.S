/* QEMU `-M virt`, riscv64: machine mode, flash at 0x20000000. Enables FP and vectors, clears .bss, then C. */
    .section .text.start, "ax"
    .global _start
_start:
    csrr    t0, mhartid
    bnez    t0, 3f
    li      t0, (1 << 13) | (1 << 9)    /* mstatus.FS, mstatus.VS: initial */
    csrs    mstatus, t0
    la      sp, stack_top
    la      t0, bss_begin
    la      t1, bss_end
1:  bgeu    t0, t1, 2f
    sd      zero, 0(t0)
    addi    t0, t0, 8
    j       1b
2:  call    board_main
3:  wfi
    j       3b
