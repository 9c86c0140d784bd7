// Heads of executables: #! lines as the kernel reads them, and ELF files that lie about themselves.
#include "supervisor/image.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "tests/fuzz/fuzz.h"

using namespace certgate::supervisor;
namespace fuzz = certgate::fuzz;

namespace {

constexpr size_t kHead = 256;

bool blank(char c) { return c == ' ' || c == '\t'; }

// The same line, read letter by letter.
struct Slow {
  bool script = false, bad = false;
  std::string interpreter, argument;
};
Slow slow_shebang(const std::string& file) {
  Slow out;
  const std::string head = file.substr(0, kHead);
  if (head.size() < 2 || head[0] != '#' || head[1] != '!') return out;
  out.script = true;
  size_t end = 2;
  while (end < head.size() && head[end] != '\n' && head[end] != '\0') ++end;
  const bool open = head.size() == kHead && head.find('\n') == std::string::npos;
  size_t at = 2;
  while (at < end && blank(head[at])) ++at;
  while (at < end && !blank(head[at])) out.interpreter += head[at++];
  const bool cut = at == end && open;  // nothing says that the path ended there
  out.bad = out.interpreter.empty() || cut;
  while (at < end && blank(head[at])) ++at;
  while (end > at && blank(head[end - 1])) --end;
  out.argument = head.substr(at, end - at);
  return out;
}

void line(const std::string& file) {
  const auto parsed = parse_shebang(file.data(), file.size());
  const Slow slow = slow_shebang(file);
  CG_LAW(static_cast<bool>(parsed) == !(slow.script && slow.bad));
  if (!parsed) return;
  CG_LAW(parsed->has_value() == slow.script);
  if (!slow.script) return;
  CG_LAW((*parsed)->interpreter == slow.interpreter);
  CG_LAW((*parsed)->argument.value_or("") == slow.argument);
  CG_LAW((*parsed)->argument.has_value() == !slow.argument.empty());
}

}  // namespace

FUZZ_TARGET(image) {
  static const int file = ::memfd_create("fuzz", MFD_CLOEXEC);
  const std::string text = fuzz::Bytes(data, size).rest();
  line(text);
  if (::ftruncate(file, 0) != 0 ||
      ::pwrite(file, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()))
    std::abort();
  const auto kind = image_kind(file);
  if (!kind) {
    CG_LAW(kind.error().code == ENOEXEC);
    return 0;
  }
  CG_LAW(!(kind->script && kind->loader));
  if (kind->script) CG_LAW(text.starts_with("#!"));
  if (!kind->script) CG_LAW(text.size() >= 64 && text.starts_with("\177ELF"));
  if (kind->loader) {
    CG_LAW(kind->loader->size() < 4096 && kind->loader->find('\0') == std::string::npos);
    CG_LAW(text.find(*kind->loader) != std::string::npos);
  }
  return 0;
}
