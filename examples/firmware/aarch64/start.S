/* QEMU `-M virt`, aarch64: reset vector in flash at 0. Enables SIMD, copies nothing (no .data), clears .bss, then C. */
    .section .text.start, "ax"
    .global _start
_start:
    mov     x0, #(3 << 20)          /* CPACR_EL1.FPEN: no traps on SIMD */
    msr     cpacr_el1, x0
    isb
    ldr     x0, =stack_top
    mov     sp, x0
    ldr     x0, =bss_begin
    ldr     x1, =bss_end
1:  cmp     x0, x1
    b.hs    2f
    str     xzr, [x0], #8
    b       1b
2:  bl      board_mmu
    bl      board_main
3:  wfi
    b       3b
