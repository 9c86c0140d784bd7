#include "supervisor/image.h"

#include <elf.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>

namespace certgate::supervisor {
namespace {

constexpr size_t kHead = 256;  // BINPRM_BUF_SIZE
constexpr size_t kMaxHeaders = 512;
constexpr size_t kMaxLoaderPath = 4096;

Error not_executable(const char* why) { return fail(why, ENOEXEC); }

Result<ImageKind> elf_kind(int fd, const char* head) {
  Elf64_Ehdr header;
  std::memcpy(&header, head, sizeof header);
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != EM_X86_64) {
    return not_executable("not a 64-bit x86 program");
  }
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN) return not_executable("not a program");
  if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0 ||
      header.e_phnum > kMaxHeaders) {
    return not_executable("damaged program headers");
  }
  ImageKind out;
  for (size_t i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr program;
    const auto at = static_cast<off_t>(header.e_phoff + i * sizeof program);
    if (::pread(fd, &program, sizeof program, at) != static_cast<ssize_t>(sizeof program)) {
      return not_executable("damaged program headers");
    }
    if (program.p_type != PT_INTERP) continue;
    if (program.p_filesz < 2 || program.p_filesz > kMaxLoaderPath)
      return not_executable("damaged PT_INTERP");
    std::string path(program.p_filesz, '\0');
    if (::pread(fd, path.data(), path.size(), static_cast<off_t>(program.p_offset)) !=
            static_cast<ssize_t>(path.size()) ||
        path.back() != '\0') {
      return not_executable("damaged PT_INTERP");
    }
    path.resize(std::strlen(path.c_str()));
    out.loader = path;
    break;  // the kernel takes the first
  }
  return out;
}

}  // namespace

Result<std::optional<Shebang>> parse_shebang(const char* head, size_t size) {
  const std::string_view all(head, size < kHead ? size : kHead);
  if (!all.starts_with("#!")) return std::optional<Shebang>();
  const size_t newline = all.find('\n');
  std::string_view line = all.substr(2, newline == std::string_view::npos ? newline : newline - 2);
  line = line.substr(0, line.find('\0'));
  const size_t begin = line.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return not_executable("a #! line without an interpreter");
  const size_t end = line.find_first_of(" \t", begin);
  if (end == std::string_view::npos && newline == std::string_view::npos && all.size() == kHead) {
    return not_executable("an interpreter path cut by the length of a #! line");
  }
  Shebang out;
  out.interpreter = line.substr(begin, end == std::string_view::npos ? end : end - begin);
  if (end != std::string_view::npos) {
    const size_t arg = line.find_first_not_of(" \t", end);
    if (arg != std::string_view::npos) {
      const size_t last = line.find_last_not_of(" \t");
      out.argument = line.substr(arg, last - arg + 1);
    }
  }
  return std::optional<Shebang>(out);
}

Result<ImageKind> image_kind(int fd) {
  char head[kHead] = {};
  const ssize_t n = ::pread(fd, head, sizeof head, 0);
  if (n < 0) return fail_errno("read an executable", errno);
  CG_TRY(auto shebang, parse_shebang(head, static_cast<size_t>(n)));
  if (shebang) return ImageKind{shebang, std::nullopt};
  if (n < static_cast<ssize_t>(sizeof(Elf64_Ehdr)) || std::memcmp(head, ELFMAG, SELFMAG) != 0) {
    return not_executable("neither a script nor an ELF program");
  }
  return elf_kind(fd, head);
}

}  // namespace certgate::supervisor
