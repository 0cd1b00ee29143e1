/* A UEFI application that calls SetVariable for each of a list that is compiled into it
 * (variables.h, made by the test), prints what firmware answers, and switches off.
 * UEFI 2.10: 4.3 (system table), 8.2 (SetVariable), 8.5.1 (ResetSystem), 12.4 (console). */
typedef unsigned long long word;
typedef unsigned short char16;
#define EFIAPI __attribute__((ms_abi))

/* Without pointers: nothing needs to be relocated. */
struct variable {
	char16 name[8];
	unsigned char guid[16];
	unsigned attributes, size;
	unsigned char value[8192];
};

#include "variables.h"

struct console {
	void *reset;
	word(EFIAPI *print)(struct console *, const char16 *);
};

struct runtime {
	char header[24];
	void *before[8]; /* time, virtual memory, GetVariable, GetNextVariableName */
	word(EFIAPI *set_variable)(const char16 *, const void *, unsigned, word, const void *);
	void *next_high_monotonic_count;
	void(EFIAPI *reset_system)(unsigned kind, word status, word size, void *data);
};

struct system {
	char header[24];
	void *vendor;
	word revision;
	void *in_handle, *in, *out_handle;
	struct console *out;
	void *err_handle, *err;
	struct runtime *runtime;
};

word EFIAPI efi_main(void *image, struct system *st)
{
	(void)image;
	for (unsigned i = 0; i < sizeof variables / sizeof *variables; i++) {
		const struct variable *v = &variables[i];
		word status = st->runtime->set_variable(v->name, v->guid, v->attributes, v->size, v->value) & 0xff;
		char16 text[] = u"set 00: 00\r\n";
		text[4] += i / 10, text[5] += i % 10;
		text[8] += status / 10, text[9] += status % 10;
		st->out->print(st->out, text);
	}
	st->runtime->reset_system(2, 0, 0, 0);
	return 0;
}
