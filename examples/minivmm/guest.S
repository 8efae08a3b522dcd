/* SPDX-License-Identifier: 0BSD */
#include "guest.h"

/*
 * The guest: 32-bit flat protected mode, no paging, no interrupts.
 *
 * Each round it writes pages in a pseudo-random order, all over its memory but
 * for every fourth run of 16 pages, and before it writes a page it looks whether
 * what it wrote there last is still there, each byte of it.  One page in eight
 * becomes zeros.  All it has seen goes into the sum, so two runs that print the
 * same lines have seen the same memory.
 */
#define BOX(field) GUEST_BOX + 4 * BOX_##field

	.section .rodata
	.code32
	.globl guest_start, guest_size

guest_start:
	movl	$GUEST_STACK, %esp
	cld

round:
	movl	BOX(ROUND), %eax
	cmpl	BOX(ROUNDS), %eax
	jae	finish
	movl	BOX(WRITES), %ebp
write:
	call	choose
	pushl	%eax
	call	check
	call	fold
	popl	%eax
	testb	$0x70, %al
	jnz	1f
	xorl	%eax, %eax
1:	call	fold
	movl	%eax, GUEST_TABLE(, %ebx, 4)
	call	find
	rep stosl
	decl	%ebp
	jnz	write

	incl	BOX(ROUND)
	movl	$EVENT_ROUND, %eax
	outl	%eax, $PORT

	movl	BOX(FREE), %ecx
	jecxz	round
	movl	BOX(ROUND), %eax
	xorl	%edx, %edx
	divl	%ecx
	testl	%edx, %edx
	jnz	round

/* Gives a run of pages back; they have to be zeros then. */
	call	choose
	andl	$-GUEST_RUN, %ebx
	call	find
	movl	%edi, BOX(ADDRESS)
	movl	$(GUEST_RUN * 4096), BOX(LENGTH)
	leal	GUEST_TABLE(, %ebx, 4), %edi
	xorl	%eax, %eax
	movl	$GUEST_RUN, %ecx
	rep stosl
	movl	$EVENT_FREE, %eax
	outl	%eax, $PORT
	movl	$GUEST_RUN, %ebp
1:	call	check
	incl	%ebx
	decl	%ebp
	jnz	1b
	jmp	round

/* At the end all the memory is looked at. */
finish:
	xorl	%ebx, %ebx
1:	call	check
	call	fold
	incl	%ebx
	cmpl	BOX(PAGES), %ebx
	jb	1b
	movl	$EVENT_DONE, %eax
	outl	%eax, $PORT
	hlt

/* eax: the next pseudo-random number (xorshift); ebx: a page made of it. */
choose:
	movl	BOX(RANDOM), %eax
	movl	%eax, %edx
	shll	$13, %edx
	xorl	%edx, %eax
	movl	%eax, %edx
	shrl	$17, %edx
	xorl	%edx, %eax
	movl	%eax, %edx
	shll	$5, %edx
	xorl	%edx, %eax
	movl	%eax, BOX(RANDOM)
	movl	%eax, %ecx
	mull	BOX(PAGES)
	movl	%edx, %ebx
	movl	%ecx, %eax
	testb	$0x10, %bl
	jz	1f
	andb	$~0x20, %bl
1:	ret

/* edi: where page ebx is; ecx: its words. */
find:
	movl	%ebx, %edi
	shll	$12, %edi
	addl	BOX(DATA), %edi
	movl	$1024, %ecx
	ret

/* eax: what page ebx is full of. */
check:
	call	find
	movl	GUEST_TABLE(, %ebx, 4), %eax
	repe scasl
	jne	wrong
	ret

wrong:
	subl	$4, %edi
	movl	%edi, BOX(ADDRESS)
	movl	%eax, BOX(EXPECTED)
	movl	(%edi), %eax
	movl	%eax, BOX(FOUND)
	movl	$EVENT_WRONG, %eax
	outl	%eax, $PORT
	hlt

/* Takes eax into the sum. */
fold:
	roll	$5, BOX(SUM)
	addl	%eax, BOX(SUM)
	ret

	.balign 4
guest_size:
	.long	guest_size - guest_start

	.section .note.GNU-stack, "", @progbits
