// Path, argument and host patterns, compared with slow matchers that are plainly right.
#include <arpa/inet.h>

#include "kernel/policy.h"
#include "tests/fuzz/fuzz.h"

using namespace certgate;

namespace {

constexpr size_t kReferenceBytes = 300;  // the slow ones take pattern × text steps and memory

bool matches_one(char p, char t, bool components) {
  return p == t || (components && p == '?' && t != '/');
}

// Table over all suffixes: right by construction.
bool slow_glob(std::string_view p, std::string_view t, bool components) {
  std::vector<std::vector<bool>> yes(p.size() + 1, std::vector<bool>(t.size() + 1));
  yes[p.size()][t.size()] = true;
  for (size_t i = p.size(); i-- > 0;) {
    for (size_t j = t.size() + 1; j-- > 0;) {
      if (p[i] == '*') {
        const bool longer = j < t.size() && !(components && t[j] == '/') && yes[i][j + 1];
        yes[i][j] = yes[i + 1][j] || longer;
      } else {
        yes[i][j] = j < t.size() && matches_one(p[i], t[j], components) && yes[i + 1][j + 1];
      }
    }
  }
  return yes[0][0];
}

std::vector<std::string> split(std::string_view path) {
  std::vector<std::string> out;
  while (!path.empty()) {
    const size_t end = std::min(path.find('/', 1), path.size());
    out.emplace_back(path.substr(1, end - 1));
    path.remove_prefix(end);
  }
  return out;
}

// "**" is any number of whole components.
bool slow_path(const std::vector<std::string>& p, const std::vector<std::string>& t) {
  std::vector<std::vector<bool>> yes(p.size() + 1, std::vector<bool>(t.size() + 1));
  yes[p.size()][t.size()] = true;
  for (size_t i = p.size(); i-- > 0;) {
    for (size_t j = t.size() + 1; j-- > 0;) {
      if (p[i] == "**") {
        yes[i][j] = yes[i + 1][j] || (j < t.size() && yes[i][j + 1]);
      } else {
        yes[i][j] = j < t.size() && slow_glob(p[i], t[j], true) && yes[i + 1][j + 1];
      }
    }
  }
  return yes[0][0];
}

// What path_of() can give: absolute, no empty component; "/" is the root.
std::string resolved(const std::string& text) {
  std::string out;
  for (const char c : "/" + text) {
    if (c == '\0' || (c == '/' && !out.empty() && out.back() == '/')) continue;
    out += c;
  }
  if (out.size() > 1 && out.back() == '/') out.pop_back();
  return out;
}

void paths(const std::string& pattern_text, const std::string& path_text) {
  const auto pattern = kernel::PathPattern::parse(pattern_text);
  if (!pattern) return;
  const auto again = kernel::PathPattern::parse(pattern->text());
  CG_LAW(again && again->text() == pattern_text && pattern_text.size() <= kernel::kMaxPatternBytes);
  const std::string path = resolved(path_text);
  if (pattern_text == "@private") {
    CG_LAW(pattern->matches(path, true) && !pattern->matches(path, false));
    return;
  }
  const bool matched = pattern->matches(path, false);
  CG_LAW(matched == pattern->matches(path, true));
  if (pattern_text.size() > kReferenceBytes || path.size() > kReferenceBytes) return;
  if (path == "/" || pattern_text == "/") return;  // no component at all: see policy.h
  CG_LAW(matched == slow_path(split(pattern_text), split(path)));
}

void arguments(const std::string& patterns_text, const std::string& argv_text) {
  std::vector<std::string> patterns, argv;
  fuzz::Bytes p(fuzz::bytes_of(patterns_text), patterns_text.size());
  fuzz::Bytes a(fuzz::bytes_of(argv_text), argv_text.size());
  while (!p.empty()) patterns.push_back(p.until(' '));
  while (!a.empty()) argv.push_back(a.until(' '));
  const bool matched = kernel::argv_matches(patterns, argv);
  CG_LAW(matched || !patterns.empty());
  if (patterns.empty()) return;
  if (patterns_text.size() > kReferenceBytes || argv_text.size() > kReferenceBytes) return;
  const bool open = patterns.back() == "**";
  const size_t fixed = patterns.size() - (open ? 1 : 0);
  bool expected = open ? argv.size() >= fixed : argv.size() == fixed;
  for (size_t i = 0; expected && i < fixed; ++i) expected = slow_glob(patterns[i], argv[i], false);
  CG_LAW(matched == expected);
}

void endpoints(const std::string& text) {
  const auto endpoint = kernel::EndpointPattern::parse(text);
  if (!endpoint) return;
  const auto again = kernel::EndpointPattern::parse(endpoint->text());
  CG_LAW(again && again->text() == endpoint->text());
  CG_LAW(again->transport == endpoint->transport);
  CG_LAW(again->host.is_address == endpoint->host.is_address);
  if (again->host.is_address) {
    CG_LAW(again->host.address == endpoint->host.address);
    CG_LAW(again->host.prefix_bits == endpoint->host.prefix_bits);
  } else {
    CG_LAW(again->host.text == endpoint->host.text);
  }
  CG_LAW(again->port_first == endpoint->port_first && again->port_last == endpoint->port_last);
  CG_LAW(endpoint->port_first <= endpoint->port_last);
  CG_LAW(endpoint->path.has_value() == (endpoint->transport == kernel::Transport::kUnix));
}

void hosts(const std::string& text, const std::string& name) {
  endpoints(text);
  endpoints(name);
  const auto host = kernel::HostPattern::parse(text);
  if (!host) return;
  const auto again = kernel::HostPattern::parse(host->text);
  CG_LAW(again && again->text == host->text && again->is_address == host->is_address);
  CG_LAW(again->address == host->address && again->prefix_bits == host->prefix_bits);
  if (!host->is_address) {
    CG_LAW(!host->could_match_name("") && host->text.size() <= 255);
    if (host->could_match_name(name)) {
      CG_LAW(host->subdomains ? name.size() >= host->text.size() : name == host->text);
    }
    return;
  }
  CG_LAW(!host->could_match_name(name) && host->prefix_bits <= 128);
  std::string plain = text.substr(0, text.find('/'));
  if (plain.starts_with('[')) plain = plain.substr(1, plain.find(']') - 1);
  std::array<uint8_t, 16> six{};
  if (::inet_pton(AF_INET6, plain.c_str(), six.data()) == 1) {
    CG_LAW(host->address == six);
  } else {
    CG_LAW(::inet_pton(AF_INET, plain.c_str(), six.data()) == 1);
    CG_LAW(std::equal(six.begin(), six.begin() + 4, host->address.begin() + 12));
  }
  kernel::ConnectEffect effect;
  effect.host = plain;
  effect.address = host->address;
  CG_LAW(host->matches(effect));  // an address lies in its own block
}

}  // namespace

FUZZ_TARGET(pattern) {
  fuzz::Bytes in(data, size);
  const uint8_t kind = in.byte();
  const std::string pattern = in.until('\n'), text = in.rest();
  if (kind % 3 == 0) paths(pattern, text);
  if (kind % 3 == 1) arguments(pattern, text);
  if (kind % 3 == 2) hosts(pattern, text);
  return 0;
}
