/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A kernel of a few hundred bytes for tests with real VMMs: it comes up by the
 * PVH entry and by the 64-bit entry of the Linux boot protocol, and tells on
 * the first serial port how it is.
 *
 * It works in 32-bit flat protected mode without paging or interrupts.  In the
 * first half of its memory each page has 1 KiB full of a word that depends on
 * page and epoch, at an offset that depends on the page; every fourth run of 16
 * pages stays zeros.  The second half it never touches.  A tick looks at these
 * bytes of the next SLICE pages and then writes one page in eight of them anew
 * (one in four of these becomes zeros).  All that was seen goes into a sum, so
 * two machines that print the same line have seen the same memory:
 *
 *	tiny: PAGES pages
 *	tick N ok SUM
 *	BAD at ADDRESS want WORD
 *
 * With N decimal and the others hexadecimal.  After BAD it halts.
 *
 * String instructions do nearly all of it, and that is why it can be used under
 * a KVM that has to emulate each instruction (some 300 thousand a second).
 */
#define DATA	0x200000	/* where the pages begin, 2 MiB */
#define EPOCHS	0x180000	/* one word a page: what it is full of, 0: zeros */
#define MOST	0x20000		/* pages; more have no place at EPOCHS */
#define SLICE	256
#define SERIAL	0x3f8

#define MIX_PAGE	0x9e3779b1
#define MIX_EPOCH	0x85ebca6b

	.section .note.Xen, "a", @note
	.balign	4
	.long	4, 8, 18	/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.quad	pvh_start

	.text
	.code64
	.globl	linux_start
linux_start:			/* rsi: struct boot_params */
	cli
	lgdt	gdt_pointer
	movl	$stack, %esp
	movl	%esi, %ebx
	pushq	$8
	pushq	$1f
	lretq

	.code32
1:	movl	$16, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	%cr0, %eax
	andl	$0x7fffffff, %eax
	movl	%eax, %cr0
	movl	$0xc0000080, %ecx	/* EFER: out of long mode for good */
	rdmsr
	andl	$~0x500, %eax
	wrmsr
	movl	$stack, %esp
	leal	0x2d0(%ebx), %esi
	movzbl	0x1e8(%ebx), %ecx
	movl	$20, %ebp
	jmp	memory

pvh_start:			/* ebx: struct hvm_start_info */
	cli
	lgdt	gdt_pointer
	ljmp	$8, $1f
1:	movl	$16, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	$stack, %esp
	movl	40(%ebx), %esi
	movl	48(%ebx), %ecx
	movl	$24, %ebp

/* esi: ecx entries of ebp bytes {u64 address, u64 size, u32 type}; the memory we live in. */
memory:
	cld
1:	jecxz	none
	cmpl	$1, 16(%esi)
	jne	2f
	cmpl	$0, 4(%esi)
	jne	2f
	movl	(%esi), %eax
	cmpl	$linux_start, %eax
	ja	2f
	addl	8(%esi), %eax
	jc	none
	cmpl	$DATA + SLICE * 4096, %eax
	jae	found
2:	addl	%ebp, %esi
	decl	%ecx
	jmp	1b
none:
	movl	$text_none, %esi
	call	print
	jmp	stop

/* Half of the pages, in whole slices. */
found:
	subl	$DATA, %eax
	shrl	$13, %eax
	cmpl	$MOST, %eax
	jbe	1f
	movl	$MOST, %eax
1:	andl	$-SLICE, %eax
	jz	none
	movl	%eax, pages
	movl	$text_tiny, %esi
	call	print
	movl	pages, %eax
	call	hex
	movl	$text_pages, %esi
	call	print

	xorl	%ebx, %ebx
1:	movl	%ebx, %eax
	andl	$0x30, %eax
	cmpl	$0x30, %eax
	je	2f
	movl	$1, %eax
	call	fill
2:	incl	%ebx
	cmpl	pages, %ebx
	jb	1b

tick:
	incl	ticks
	movl	next, %ebx
	movl	$SLICE, %ebp
1:	call	check
	incl	%ebx
	decl	%ebp
	jnz	1b

/* Page 8n + (tick & 7) of them; to zeros where n + tick is divisible by 4. */
	movl	next, %ebx
	movl	ticks, %eax
	andl	$7, %eax
	addl	%eax, %ebx
	movl	$(SLICE / 8), %ebp
1:	movl	%ebp, %eax
	addl	ticks, %eax
	testb	$3, %al
	movl	ticks, %eax
	jnz	2f
	xorl	%eax, %eax
2:	call	fill
	addl	$8, %ebx
	decl	%ebp
	jnz	1b

	movl	next, %eax
	addl	$SLICE, %eax
	cmpl	pages, %eax
	jb	1f
	xorl	%eax, %eax
1:	movl	%eax, next

	movl	$text_tick, %esi
	call	print
	movl	ticks, %eax
	call	decimal
	movl	$text_ok, %esi
	call	print
	movl	sum, %eax
	call	hex
	call	newline
	jmp	tick

/* edi: what is looked at of page ebx; ecx: its words; eax: what they are in epoch eax. */
find:
	movl	%ebx, %edi
	shll	$12, %edi
	imull	$MIX_PAGE, %ebx, %ecx
	testl	%eax, %eax
	jz	1f
	imull	$MIX_EPOCH, %eax, %eax
	xorl	%ecx, %eax
1:	shrl	$20, %ecx
	andl	$0xc00, %ecx
	leal	DATA(%edi, %ecx), %edi
	movl	$256, %ecx
	ret

/* Fills page ebx with epoch eax. */
fill:
	movl	%eax, EPOCHS(, %ebx, 4)
	call	find
	rep stosl
	ret

/* Looks at page ebx and takes what it sees into the sum. */
check:
	movl	EPOCHS(, %ebx, 4), %eax
	call	find
	repe scasl
	jne	wrong
	roll	$5, sum
	addl	%eax, sum
	ret

wrong:
	movl	%eax, %ebx
	movl	$text_bad, %esi
	call	print
	leal	-4(%edi), %eax
	call	hex
	movl	$text_want, %esi
	call	print
	movl	%ebx, %eax
	call	hex
	call	newline
stop:
	hlt
	jmp	stop

newline:
	movl	$text_newline, %esi
print:
	movw	$SERIAL, %dx
1:	lodsb
	testb	%al, %al
	jz	2f
	outb	%al, %dx
	jmp	1b
2:	ret

hex:
	movl	%eax, %ecx
	movl	$8, %esi
	movw	$SERIAL, %dx
1:	roll	$4, %ecx
	movl	%ecx, %eax
	andl	$15, %eax
	movb	digits(%eax), %al
	outb	%al, %dx
	decl	%esi
	jnz	1b
	ret

decimal:
	movl	$10, %ecx
	xorl	%edx, %edx
	divl	%ecx
	pushl	%edx
	testl	%eax, %eax
	jz	1f
	call	decimal
1:	popl	%eax
	addb	$'0', %al
	movw	$SERIAL, %dx
	outb	%al, %dx
	ret

	.data
	.balign	8
gdt:
	.quad	0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
	.word	. - gdt - 1
	.quad	gdt
	.balign	4
pages:	.long	0
next:	.long	0
ticks:	.long	0
sum:	.long	0
digits:	.ascii	"0123456789abcdef"
text_tiny:	.asciz	"tiny: "
text_pages:	.asciz	" pages\r\n"
text_none:	.asciz	"tiny: no memory\r\n"
text_tick:	.asciz	"tick "
text_ok:	.asciz	" ok "
text_bad:	.asciz	"BAD at "
text_want:	.asciz	" want "
text_newline:	.asciz	"\r\n"
	.balign	16
	.skip	4096
stack:

	.section .note.GNU-stack, "", @progbits
