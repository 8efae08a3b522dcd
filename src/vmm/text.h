/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GMEM_VMM_TEXT_H
#define GMEM_VMM_TEXT_H

/* What a peer said goes to a terminal: anything but printable ASCII becomes '?'. */
static inline void
text_make_printable(char *text)
{
	for (; *text != '\0'; text++)
		if (*text < ' ' || *text > '~')
			*text = '?';
}

#endif
