// Patterns of policy.h: paths, argument lists, hosts, endpoints. Matching allocates nothing.

#include <algorithm>
#include <charconv>

#include "kernel/address.h"
#include "kernel/mutant.h"
#include "kernel/policy.h"

namespace certgate::kernel {
namespace {

// '*' any run of bytes. With `components` it does not cross '/', and '?' is any one byte but '/';
// without (arguments), '?' is itself.
bool glob_matches(std::string_view pattern, std::string_view text, bool components) {
  size_t p = 0, t = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() &&
               (pattern[p] == text[t] || (components && pattern[p] == '?' && text[t] != '/'))) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos && !(components && text[resume] == '/')) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

// Cuts the first component ("/name") off.
std::string_view take_component(std::string_view& path) {
  const size_t end = std::min(path.find('/', 1), path.size());
  const std::string_view head = path.substr(0, end);
  path.remove_prefix(end);
  return head;
}

// Component by component; "**" stands for any number of components, also none. Only the last "**"
// is ever tried again: what came before it has matched, and a longer run there gains nothing. So
// the time is bounded by pattern × path, not exponential in the number of "**".
bool components_match(std::string_view pattern, std::string_view path) {
  std::string_view retry_pattern, retry_path;
  bool starred = false;
  while (!path.empty()) {
    std::string_view rest = pattern;
    const std::string_view head = take_component(rest);
    if (head == "/**") {
      if (rest.empty()) return true;
      pattern = retry_pattern = rest;
      retry_path = path;
      starred = true;
      continue;
    }
    std::string_view left = path;
    if (!head.empty() && glob_matches(head, take_component(left), true)) {
      pattern = rest;
      path = left;
      continue;
    }
    if (!starred) return false;
    take_component(retry_path);
    path = retry_path;
    pattern = retry_pattern;
  }
  while (pattern.starts_with("/**") && (pattern.size() == 3 || pattern[3] == '/')) {
    pattern.remove_prefix(3);
  }
  return pattern.empty();
}

bool parse_number(std::string_view text, unsigned max, unsigned& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() && out <= max;
}

// Dotted IPv4 as ::ffff:a.b.c.d.
bool parse_ipv4(std::string_view text, std::array<uint8_t, 16>& out) {
  out = {};
  out[10] = out[11] = 0xff;
  for (size_t i = 0; i < 4; ++i) {
    const size_t dot = text.find('.');
    const std::string_view part = text.substr(0, dot);
    unsigned value = 0;
    if (part.empty() || part.size() > 3 || (part.size() > 1 && part[0] == '0') ||
        !parse_number(part, 255, value))
      return false;
    out[12 + i] = static_cast<uint8_t>(value);
    if ((dot == std::string_view::npos) != (i == 3)) return false;
    if (i < 3) text.remove_prefix(dot + 1);
  }
  return true;
}

// RFC 4291 §2.2 without the dotted tail: groups of 1–4 hex digits, one "::" at most.
bool parse_ipv6(std::string_view text, std::array<uint8_t, 16>& out) {
  std::array<uint16_t, 8> groups{};
  size_t count = 0, gap = 9;
  if (text.starts_with("::")) {
    gap = 0;
    text.remove_prefix(2);
  }
  while (!text.empty()) {
    const size_t colon = text.find(':');
    const std::string_view part = text.substr(0, colon);
    unsigned value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value, 16);
    if (part.empty() || part.size() > 4 || error != std::errc() ||
        end != part.data() + part.size() || count == 8)
      return false;
    groups[count++] = static_cast<uint16_t>(value);
    if (colon == std::string_view::npos) break;
    text.remove_prefix(colon + 1);
    if (text.starts_with(":")) {
      if (gap != 9) return false;
      gap = count;
      text.remove_prefix(1);
    } else if (text.empty()) {
      return false;
    }
  }
  if ((gap == 9) != (count == 8)) return false;
  if (gap != 9) {
    const size_t tail = count - gap;
    for (size_t i = 0; i < tail; ++i) groups[7 - i] = groups[count - 1 - i];
    std::fill(groups.begin() + static_cast<std::ptrdiff_t>(gap),
              groups.begin() + static_cast<std::ptrdiff_t>(8 - tail), uint16_t{0});
  }
  for (size_t i = 0; i < 8; ++i) {
    out[2 * i] = static_cast<uint8_t>(groups[i] >> 8);
    out[2 * i + 1] = static_cast<uint8_t>(groups[i]);
  }
  return true;
}

bool name_ok(std::string_view name) {
  if (name.empty() || name.size() > 253 || name.front() == '.' || name.back() == '.') return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
  });
}

}  // namespace

Result<PathPattern> PathPattern::parse(std::string_view text) {
  if (text == "@private") {
    PathPattern out;
    out.text_ = text;
    out.shape_ = Shape::kPrivate;
    return out;
  }
  if (text.empty() || text[0] != '/')
    return fail("path pattern '" + std::string(text) + "' is not absolute");
  if (text.size() > kMaxPatternBytes) return fail("path pattern longer than 4096 bytes");
  for (size_t at = 0; at < text.size();) {
    size_t end = text.find('/', at + 1);
    if (end == std::string_view::npos) end = text.size();
    const std::string_view part = text.substr(at + 1, end - at - 1);
    if ((part.empty() && text.size() > 1) || part == "." || part == "..") {
      return fail("path pattern '" + std::string(text) +
                  "' has an empty, '.' or '..' component; patterns match resolved paths");
    }
    if (part != "**" && part.find("**") != std::string_view::npos) {
      return fail("path pattern '" + std::string(text) + "': '**' must be a whole component");
    }
    at = end;
  }
  PathPattern out;
  out.text_ = text;
  const bool subtree = text.ends_with("/**");
  const std::string_view head = subtree ? text.substr(0, text.size() - 3) : text;
  if (const size_t wild = text.find_first_of("*?"); wild < head.size()) {
    out.shape_ = Shape::kGlob;
    out.head_ = static_cast<uint16_t>(text.rfind('/', wild));
    out.tail_ = static_cast<uint16_t>(text.size() - 1 - text.find_last_of("*?"));
  } else if (subtree) {
    out.shape_ = Shape::kSubtree;
  }
  return out;
}

bool PathPattern::matches(std::string_view path, bool inside) const {
  switch (shape_) {
    case Shape::kPrivate:
      return inside;
    case Shape::kExact:
      return path == text_;
    case Shape::kSubtree: {
      const std::string_view dir(text_.data(), text_.size() - 3);
      return path.starts_with(dir) && (path.size() == dir.size() || path[dir.size()] == '/');
    }
    case Shape::kGlob:
      // Most are told from the first or the last bytes.
      return path.starts_with(std::string_view(text_.data(), head_)) &&
             path.ends_with(std::string_view(text_).substr(text_.size() - tail_)) &&
             components_match(text_, path);
  }
  return false;
}

bool PathPattern::spells(std::string_view path) const {
  if (shape_ == Shape::kExact) return path == text_;
  return shape_ == Shape::kSubtree && path == std::string_view(text_.data(), text_.size() - 3);
}

bool PathPattern::names_below(std::string_view path) const {
  if (shape_ == Shape::kPrivate) return false;
  for (size_t end = text_.find('/', 1); end != std::string::npos; end = text_.find('/', end + 1)) {
    const std::string_view head(text_.data(), end);
    if (head.ends_with("/**")) continue;
    if (shape_ == Shape::kGlob ? components_match(head, path) : head == path) return true;
  }
  return false;
}

bool argv_matches(const std::vector<std::string>& patterns, const std::vector<std::string>& argv) {
  if (patterns.empty()) return true;
  const bool open = patterns.back() == "**";
  const size_t fixed = patterns.size() - (open ? 1 : 0);
  if (open ? argv.size() < fixed : argv.size() != fixed) return false;
  for (size_t i = 0; i < fixed; ++i) {
    if (!glob_matches(patterns[i], argv[i], false)) return false;
  }
  return true;
}

Result<HostPattern> HostPattern::parse(std::string_view text) {
  HostPattern out;
  out.text = text;
  std::string_view host = text;
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  const size_t slash = host.find('/');
  const std::string_view address = host.substr(0, slash);
  const bool v4 = parse_ipv4(address, out.address);
  if (v4 || (address.find(':') != std::string_view::npos && parse_ipv6(address, out.address))) {
    out.is_address = true;
    unsigned bits = v4 ? 32 : 128;
    if (slash != std::string_view::npos && !parse_number(host.substr(slash + 1), bits, bits)) {
      return fail("host pattern '" + std::string(text) +
                  "': the prefix length is not a number in range");
    }
    out.prefix_bits = static_cast<uint8_t>(v4 ? 96 + bits : bits);
    return out;
  }
  if (host.starts_with("*.")) {
    out.subdomains = true;
    host.remove_prefix(2);
  }
  if (!name_ok(host)) {
    return fail("host pattern '" + std::string(text) +
                "' is neither a lower-case name, '*.name', an address nor a CIDR block");
  }
  out.text = (out.subdomains ? "*." : "") + std::string(host);
  return out;
}

bool HostPattern::could_match_name(std::string_view name) const {
  if (is_address) return false;
  if (!subdomains) return name == text;
  const std::string_view suffix = std::string_view(text).substr(1);  // ".a.test"
  return name.size() > suffix.size() && name.ends_with(suffix);
}

bool HostPattern::matches(const ConnectEffect& effect) const {
  if (effect.transport == Transport::kUnix) return false;
  if (!is_address && text != "*") return could_match_name(effect.host);
  // A name that is bound is judged by name only: its address inside is ours and means nothing. It
  // may look like hex ("face.de"), but has no colon and is not four numbers.
  std::array<uint8_t, 16> ignored{};
  const bool name = effect.host.find(':') == std::string::npos && !parse_ipv4(effect.host, ignored);
  if (name || !is_address) return name && !is_address;
  for (size_t bit = 0; bit < prefix_bits; bit += 8) {
    const size_t left = std::min<size_t>(8, prefix_bits - bit);
    const auto mask = static_cast<uint8_t>(0xff << (8 - left));
    if ((effect.address[bit / 8] & mask) != (address[bit / 8] & mask)) return false;
  }
  return true;
}

Result<EndpointPattern> EndpointPattern::parse(std::string_view text) {
  EndpointPattern out;
  if (text.starts_with("unix:")) {
    out.transport = Transport::kUnix;
    CG_TRY(out.path, PathPattern::parse(text.substr(5)));
    return out;
  }
  std::string_view rest = text;
  if (rest.starts_with("udp:")) {
    out.transport = Transport::kUdp;
    rest.remove_prefix(4);
  }
  const size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos || colon == 0) {
    return fail("'" + std::string(text) +
                "' is not host:port (port may be '*' or a range), udp:host:port or unix:/path");
  }
  CG_TRY(out.host, HostPattern::parse(rest.substr(0, colon)));
  const std::string_view port = rest.substr(colon + 1);
  if (port != "*") {
    const size_t dash = port.find('-');
    unsigned first = 0, last = 0;
    if (!parse_number(port.substr(0, dash), 65535, first) || first == 0 ||
        (dash != std::string_view::npos &&
         (!parse_number(port.substr(dash + 1), 65535, last) || last < first))) {
      return fail("'" + std::string(text) + "': the port must be 1 to 65535, a range 'a-b' or '*'");
    }
    out.port_first = static_cast<uint16_t>(first);
    out.port_last = dash == std::string_view::npos ? out.port_first : static_cast<uint16_t>(last);
  }
  if (out.transport == Transport::kUdp && out.port_last - out.port_first >= int{kMaxUdpPorts})
    return fail("'" + std::string(text) + "': UDP ports are named one by one, at most 64");
  return out;
}

std::string EndpointPattern::text() const {
  if (path) return "unix:" + path->text();
  std::string out = transport == Transport::kUdp ? "udp:" : "";
  const bool bare_v6 = host.text.find(':') != std::string::npos && host.text.front() != '[';
  out += bare_v6 ? "[" + host.text + "]" : host.text;
  if (port_first == 0 && port_last == 65535) return out + ":*";
  out += ":" + std::to_string(port_first);
  return port_first == port_last ? out : out + "-" + std::to_string(port_last);
}

bool EndpointPattern::matches(const ConnectEffect& effect) const {
  if (effect.transport != transport) return false;
  if (path) return path->matches(effect.path, effect.inside);
  return effect.port >= port_first && effect.port <= port_last && host.matches(effect);
}

bool EndpointPattern::allows(const ConnectEffect& effect) const {
  if (!matches(effect)) return false;
  if (mutant(Mutant::kInternalAddress)) return true;
  const bool literal = transport != Transport::kUnix && host.is_address;
  return !literal || !is_internal(effect.address) || is_internal(host.address, host.prefix_bits);
}

}  // namespace certgate::kernel
