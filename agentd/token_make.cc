#include "agentd/token_make.h"

#include <fcntl.h>
#include <openssl/rand.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "kernel/merkle.h"
#include "sandbox/fd.h"

namespace certgate::agentd {
namespace {

std::string hex(const unsigned char* bytes, size_t size) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (size_t i = 0; i < size; ++i) {
    out += kDigits[bytes[i] >> 4];
    out += kDigits[bytes[i] & 15];
  }
  return out;
}

}  // namespace

Result<std::string> random_hex(size_t bytes) {
  std::vector<unsigned char> raw(bytes);
  if (RAND_bytes(raw.data(), static_cast<int>(bytes)) != 1)
    return fail("no random numbers from OpenSSL");
  return hex(raw.data(), raw.size());
}

Result<std::string> read_chain_file(const std::string& path) {
  const sandbox::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return fail_errno("open the token " + path, errno);
  std::string out(kernel::kMaxChainBytes + 1, '\0');
  size_t size = 0;
  for (ssize_t n = 1; n > 0 && size < out.size(); size += static_cast<size_t>(n)) {
    n = ::read(fd.get(), out.data() + size, out.size() - size);
    if (n < 0) return fail_errno("read the token " + path, errno);
  }
  if (size > kernel::kMaxChainBytes) return fail("the token " + path + " is longer than 24 KiB");
  out.resize(size);
  return out;
}

void narrow_to(const kernel::Token& before, kernel::Token& token) {
  const std::string payload = before.payload();
  const kernel::Digest digest = kernel::sha256(payload.data(), payload.size());
  token.parent = hex(digest.data(), digest.size());
  token.epoch = before.epoch;
  token.not_before_ns = std::max(token.not_before_ns, before.not_before_ns);
  token.expires_ns = std::min(token.expires_ns, before.expires_ns);
  if (token.policy == kernel::Digest{}) token.policy = before.policy;
  if (!token.scopes.empty()) return;
  // Its budgets and rates stay out: the one before counts them itself.
  token.scopes = before.scopes;
  for (kernel::Scope& scope : token.scopes) {
    scope.budget = 0;
    scope.rate = {};
  }
}

}  // namespace certgate::agentd
