#include "supervisor/process_stat.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>

#include "sandbox/fd.h"

namespace certgate::supervisor {

std::optional<ProcessStat> process_stat(int pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  const sandbox::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return std::nullopt;
  char text[2048];
  const ssize_t n = ::read(fd.get(), text, sizeof text);
  if (n <= 0) return std::nullopt;
  std::string_view rest(text, static_cast<size_t>(n));
  const size_t name_end =
      rest.rfind(')');  // the name before it is the agent's, and may hold anything
  if (name_end == std::string_view::npos) return std::nullopt;
  rest.remove_prefix(name_end + 1);
  ProcessStat out;
  int field = 3;
  for (; field < kStatFields; ++field) {
    rest.remove_prefix(std::min(rest.find_first_not_of(" \n"), rest.size()));
    if (rest.empty()) break;
    const std::string_view word = rest.substr(0, rest.find_first_of(" \n"));
    if (field == 3) out.state = word[0];
    std::from_chars(word.data(), word.data() + word.size(), out.field[static_cast<size_t>(field)]);
    rest.remove_prefix(word.size());
  }
  if (field <= kStatArguments) return std::nullopt;
  return out;
}

}  // namespace certgate::supervisor
