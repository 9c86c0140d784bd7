#include "supervisor/redaction.h"

#include <algorithm>
#include <utility>

#include "kernel/certificate.h"
#include "kernel/mutant.h"

namespace certgate::supervisor {
namespace {

// The pieces between the stars, each found behind the one before: the leftmost place is enough.
// `first` and `last`: the pieces at the ends must lie at the ends.
bool pieces_found(std::string_view pattern, std::string_view text, bool whole) {
  size_t at = 0;
  for (bool first = true;; first = false) {
    const size_t star = pattern.find('*');
    const std::string_view piece = pattern.substr(0, star);
    const bool last = star == std::string_view::npos;
    size_t found = text.find(piece, at);
    if (whole && last && text.size() >= piece.size()) found = text.size() - piece.size();
    if (found == std::string_view::npos || found < at || text.substr(found, piece.size()) != piece)
      return false;
    if (whole && first && found != 0) return false;
    if (last) return true;
    at = found + piece.size();
    pattern.remove_prefix(star + 1);
  }
}

void join(std::string& to, std::string_view one) {
  if (!to.empty()) to += '\0';
  to += one;
}

void add(std::vector<Hidden>& out, std::string name, std::string value) {
  if (value.empty()) return;
  if (value.size() > kMaxHiddenBytes) value.resize(kMaxHiddenBytes);
  out.push_back({std::move(name), std::move(value)});
}

}  // namespace

bool pattern_found(std::string_view pattern, std::string_view in) {
  return pieces_found(pattern, in, false);
}

bool pattern_matches(std::string_view pattern, std::string_view all) {
  return pieces_found(pattern, all, true);
}

bool Redaction::found_in(std::string_view value) const {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& p) { return pattern_found(p, value); });
}

bool Redaction::hides_variable(std::string_view variable) const {
  const std::string_view name = variable.substr(0, variable.find('='));
  return found_in(variable) || std::any_of(env.begin(), env.end(), [&](const std::string& p) {
           return pattern_matches(p, name);
         });
}

std::vector<Hidden> Redaction::hide(kernel::Record& record,
                                    const std::vector<std::string>* environment) const {
  std::vector<Hidden> out;
  if (mutant(Mutant::kRedaction)) return out;
  std::string rest;
  const bool some = std::any_of(record.argv.begin(), record.argv.end(),
                                [&](const std::string& argument) { return found_in(argument); });
  if (some && record.args.empty()) {
    const kernel::Digest all = kernel::strings_digest(record.argv);
    record.args.assign(all.begin(), all.end());
  }
  for (size_t i = 0; i < record.argv.size(); ++i) {
    std::string& argument = record.argv[i];
    if (i >= kernel::kMaxRecordArgs) {
      join(rest, argument);
    } else if (argument.size() > kernel::kMaxRecordArgBytes || found_in(argument)) {
      add(out, "argv[" + std::to_string(i) + "]", std::exchange(argument, {}));
    }
  }
  add(out, "argv[64]", std::move(rest));
  if (!patterns.empty() && found_in(record.object))
    add(out, "object", std::exchange(record.object, {}));
  if (!patterns.empty() && found_in(record.asked))
    add(out, "asked", std::exchange(record.asked, {}));
  if (environment == nullptr) return out;
  std::string plain, secret;
  for (const std::string& variable : *environment)
    join(hides_variable(variable) ? secret : plain, variable);
  add(out, "env", std::move(plain));
  add(out, "env:secret", std::move(secret));
  return out;
}

}  // namespace certgate::supervisor
