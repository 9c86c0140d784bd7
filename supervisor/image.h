// Image: what the kernel will make of an executable file: a script's #! line, or an ELF's loader.
//
//   #! line (BINPRM_BUF_SIZE, 256 bytes):  "#!" blanks interpreter [blanks argument] newline
//   the argument is one string to the end of the line, trailing blanks removed
#pragma once

#include <optional>
#include <string>

#include "kernel/result.h"

namespace certgate::supervisor {

struct Shebang {
  std::string interpreter;
  std::optional<std::string> argument;
};

struct ImageKind {
  std::optional<Shebang> script;
  std::optional<std::string> loader;  // PT_INTERP of a dynamic ELF
};

// Reads the head of an executable. error.code = ENOEXEC for what this machine would not run.
Result<ImageKind> image_kind(int fd);
// The #! line in the first `size` bytes of a file; nullopt when it is not one.
Result<std::optional<Shebang>> parse_shebang(const char* head, size_t size);

}  // namespace certgate::supervisor
