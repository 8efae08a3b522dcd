/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "vmm/cloud-hypervisor/wire.h"

#include <inttypes.h>
#include <string.h>

/* Bytes and what they mean; cloud-hypervisor-link.c moves them. */

enum { RESPONSE_OK = 1, RESPONSE_ERROR = 2 };

static uint16_t
get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static uint64_t
get64(const uint8_t *p)
{
	uint64_t v = 0;

	for (int i = 7; i >= 0; i--)
		v = v << 8 | p[i];
	return v;
}

static void
put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static void
put64(uint8_t *p, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

const char *
ch_command_name(enum ch_command command)
{
	switch (command) {
	case CH_START:
		return "Start";
	case CH_CONFIG:
		return "Config";
	case CH_STATE:
		return "State";
	case CH_MEMORY:
		return "Memory";
	case CH_COMPLETE:
		return "Complete";
	case CH_ABANDON:
		return "Abandon";
	case CH_MEMORY_FD:
		return "MemoryFd";
	case CH_COMPLETE_PAUSED:
		return "CompletePaused";
	case CH_PAGE_FAULT:
		return "PageFault";
	}
	return "unknown";
}

/* Whether a payload of this command can have this length. */
static bool
length_ok(enum ch_command command, uint64_t length)
{
	switch (command) {
	case CH_CONFIG:
	case CH_STATE:
		return length != 0 && length <= CH_PAYLOAD_MAX;
	case CH_MEMORY:
		return length != 0 && length <= CH_PAYLOAD_MAX && length % CH_RANGE_SIZE == 0;
	case CH_MEMORY_FD:
		return length == CH_SLOT_SIZE;
	case CH_PAGE_FAULT:
		return length == CH_RANGE_SIZE;
	case CH_START:
	case CH_COMPLETE:
	case CH_ABANDON:
	case CH_COMPLETE_PAUSED:
		break;
	}
	return length == 0;
}

int
ch_request_parse(struct ch_request *r, const uint8_t bytes[CH_HEADER_SIZE], struct err *e)
{
	uint16_t command = get16(bytes);

	if (command < CH_START || command > CH_PAGE_FAULT)
		return err_set(e, ERR_CORRUPT, "the VMM sent an unknown command (%u)", command);
	*r = (struct ch_request){
		.command = (enum ch_command)command,
		.protocol = get16(bytes + 2),
		.length = get64(bytes + 8),
	};
	if (length_ok(r->command, r->length))
		return 0;
	return err_set(e, ERR_CORRUPT, "the VMM sent %s with %" PRIu64 " bytes",
	    ch_command_name(r->command), r->length);
}

void
ch_request_format(uint8_t bytes[CH_HEADER_SIZE], enum ch_command command, uint64_t length)
{
	memset(bytes, 0, CH_HEADER_SIZE);
	put16(bytes, (uint16_t)command);
	if (command == CH_START)
		put16(bytes + 2, CH_PROTOCOL);
	put64(bytes + 8, length);
}

int
ch_response_parse(
    bool *ok, uint64_t *length, const uint8_t bytes[CH_HEADER_SIZE], struct err *e)
{
	uint16_t status = get16(bytes);

	if (status != RESPONSE_OK && status != RESPONSE_ERROR)
		return err_set(
		    e, ERR_CORRUPT, "the VMM answered with an unknown status (%u)", status);
	*ok = status == RESPONSE_OK;
	*length = get64(bytes + 8);
	return 0;
}

void
ch_response_format(uint8_t bytes[CH_HEADER_SIZE], bool ok, uint64_t length)
{
	memset(bytes, 0, CH_HEADER_SIZE);
	put16(bytes, ok ? RESPONSE_OK : RESPONSE_ERROR);
	put64(bytes + 8, length);
}

void
ch_range_parse(struct ch_range *r, const uint8_t bytes[CH_RANGE_SIZE])
{
	r->gpa = get64(bytes);
	r->length = get64(bytes + 8);
}

void
ch_range_format(uint8_t bytes[CH_RANGE_SIZE], const struct ch_range *r)
{
	put64(bytes, r->gpa);
	put64(bytes + 8, r->length);
}

/*
 * A document of many megabytes is not worth being parsed while a VM is paused for it; this
 * finds what was cut off.
 */
bool
ch_json_is_whole(const void *text, size_t len)
{
	bool in_string = false, escaped = false;
	const char *p = text;
	size_t depth = 0, i;

	for (i = 0; i < len; i++) {
		if (in_string) {
			in_string = escaped || p[i] != '"';
			escaped = !escaped && p[i] == '\\';
			continue;
		}
		if (i == 0 && p[i] != '{')
			return false;
		in_string = p[i] == '"';
		if (p[i] == '{' || p[i] == '[')
			depth++;
		else if ((p[i] == '}' || p[i] == ']') && --depth == 0)
			break;
	}
	return len != 0 && i == len - 1;
}
