// The decision against a naive matcher, written from the words of policy.h and decide.h alone: all
// small policies × all small calls. It knows no index, no shapes of patterns and no order but the
// documented one.
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "kernel/decide.h"

namespace certgate::kernel {
namespace {

using Parts = std::vector<std::string>;

Parts split(const std::string& path) {
  Parts out;
  for (size_t at = 1; at < path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    out.push_back(path.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

bool part_matches(const std::string& pattern, const std::string& name) {
  if (pattern.empty()) return name.empty();
  if (pattern[0] == '*') {
    return part_matches(pattern.substr(1), name) ||
           (!name.empty() && part_matches(pattern, name.substr(1)));
  }
  return !name.empty() && (pattern[0] == '?' || pattern[0] == name[0]) &&
         part_matches(pattern.substr(1), name.substr(1));
}

bool parts_match(const Parts& pattern, size_t p, const Parts& path, size_t i) {
  if (p == pattern.size()) return i == path.size();
  if (pattern[p] == "**") {
    return parts_match(pattern, p + 1, path, i) ||
           (i < path.size() && parts_match(pattern, p, path, i + 1));
  }
  return i < path.size() && part_matches(pattern[p], path[i]) &&
         parts_match(pattern, p + 1, path, i + 1);
}

bool path_matches(const std::string& pattern, const std::string& path, bool inside) {
  if (pattern == "@private") return inside;
  return parts_match(split(pattern), 0, split(path), 0);
}

// "Names something below `path`, spelling out its last name."
bool names_below(const std::string& pattern, const std::string& path) {
  if (pattern == "@private") return false;
  const Parts all = split(pattern);
  for (size_t n = 1; n < all.size(); ++n) {
    const Parts head(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(n));
    if (head.back() != "**" && parts_match(head, 0, split(path), 0)) return true;
  }
  return false;
}

bool is_accepted(const Rule& rule, const Label& label) {
  for (const Origin& origin : label.origins()) {
    bool found = false;
    for (const std::string& text : rule.accept.texts()) {
      const std::string any = text.ends_with(":*") ? text.substr(0, text.size() - 1) : "";
      found = found || text == origin.text() || (!any.empty() && origin.text().starts_with(any));
    }
    if (!found) return false;
  }
  return true;
}

struct Answer {
  std::optional<size_t> allowed_by;
  Reason reason = Reason::kInternal;
  std::string rule;
  bool asks = false;  // allowed_by, when an operator approves
};

template <typename Matches>
Answer answer(const Policy& policy, Verb verb, const Label& judged, const Matches& is_match) {
  std::vector<size_t> matching;
  for (size_t i = 0; i < policy.rules.size(); ++i) {
    const auto& verbs = policy.rules[i].verbs;
    if (std::count(verbs.begin(), verbs.end(), verb) != 0 && is_match(policy.rules[i]))
      matching.push_back(i);
  }
  for (const size_t i : matching) {
    if (policy.rules[i].effect == Effect::kForbid)
      return {{}, Reason::kForbidden, policy.rules[i].id};
  }
  std::string asking;  // the first rule that asks, even if it does not accept
  for (const size_t i : matching) {
    if (asking.empty() && policy.rules[i].effect == Effect::kAsk) asking = policy.rules[i].id;
    if (is_accepted(policy.rules[i], judged))
      return {i, Reason::kInternal, asking, !asking.empty()};
  }
  if (!matching.empty()) return {{}, Reason::kUntrustedOrigin, policy.rules[matching[0]].id};
  return {{}, Reason::kScopeMissing, ""};
}

// What the reference says of a whole open: each verb it needs, in order.
std::vector<Answer> reference(const Policy& policy, const OpenEffect& open, const Label& own,
                              const Label& object) {
  std::vector<Answer> out;
  const auto is_match = [&](Verb verb) {
    return [&, verb](const Rule& rule) {
      for (const PathPattern& p : rule.paths) {
        if (path_matches(p.text(), open.path, open.inside)) return true;
        if (verb == Verb::kWrite && open.replaces && rule.effect == Effect::kForbid &&
            names_below(p.text(), open.path))
          return true;
      }
      return false;
    };
  };
  if (open.read) out.push_back(answer(policy, Verb::kRead, own, is_match(Verb::kRead)));
  if (open.write) {
    const Label& judged = open.read ? own.join(object) : own;
    out.push_back(answer(policy, Verb::kWrite, judged, is_match(Verb::kWrite)));
  }
  return out;
}

void expect_same(const std::vector<Answer>& wanted, const Verdict& verdict,
                 const std::string& what) {
  const auto* refusal = std::get_if<Refusal>(&verdict);
  std::vector<uint32_t> rules;
  for (const Answer& one : wanted) {
    if (one.allowed_by) {
      rules.push_back(static_cast<uint32_t>(*one.allowed_by));
      continue;
    }
    ASSERT_NE(refusal, nullptr) << what;
    ASSERT_EQ(refusal->reason, one.reason) << what;
    ASSERT_EQ(refusal->rule, one.rule) << what;
    return;
  }
  for (const Answer& one : wanted) {
    if (!one.asks) continue;
    ASSERT_NE(refusal, nullptr) << what;
    ASSERT_EQ(refusal->reason, Reason::kApprovalRequired) << what;
    ASSERT_EQ(refusal->rule, one.rule) << what;
    return;
  }
  ASSERT_EQ(refusal, nullptr) << what << ": " << reason_text(refusal->reason);
  const auto& uses = std::get<Certificate>(verdict).rules();
  ASSERT_EQ(uses.size(), rules.size()) << what;
  for (size_t i = 0; i < rules.size(); ++i) ASSERT_EQ(uses[i].rule, rules[i]) << what;
}

Token token() {
  Token out;
  out.expires_ns = 1'000'000;
  out.scopes = every_scope();
  return out;
}

AcceptSet accepting(const std::vector<std::string>& texts) {
  return AcceptSet::parse(texts).value();
}

std::vector<Rule> path_rules(const std::vector<const char*>& patterns,
                             const std::vector<std::vector<Verb>>& verbs) {
  std::vector<Rule> out;
  for (const char* pattern : patterns) {
    for (const auto& v : verbs) {
      for (int kind = 0; kind < 5; ++kind) {
        Rule rule;
        rule.id = std::to_string(out.size());
        rule.why = "test";
        rule.verbs = v;
        rule.paths = {PathPattern::parse(pattern).value()};
        rule.effect = kind == 0 ? Effect::kForbid : Effect::kAllow;
        if (kind == 4) rule.effect = Effect::kAsk;
        if (kind == 1 || kind == 4) rule.accept = accepting({"user"});
        if (kind == 2) rule.accept = accepting({"user", "web:*"});
        out.push_back(std::move(rule));
      }
    }
  }
  return out;
}

std::vector<Label> labels() {
  std::vector<Label> out;
  for (const char* text : {"", "user", "web:x", "user,web:x"})
    out.push_back(Label::parse(text).value());
  return out;
}

// Every policy of at most two of these rules, in both orders, and of one rule twice.
template <typename Check>
void for_each_policy(const std::vector<Rule>& rules, const Check& check) {
  check(Policy{});
  for (const Rule& first : rules) {
    Policy one;
    one.rules = {first};
    check(one);
    for (const Rule& second : rules) {
      Policy two;
      two.rules = {first, second};
      two.rules[1].id += "b";
      check(two);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(Reference, OpensAreDecidedAsTheNaiveMatcherSays) {
  const auto rules = path_rules({"/", "/a", "/a/**", "/a/?", "/**/b", "/a/b/c", "@private"},
                                {{Verb::kRead}, {Verb::kRead, Verb::kWrite}});
  std::vector<Call> calls;
  for (const char* path : {"/", "/a", "/a/b", "/ab", "/c/b", "/a/b/c"}) {
    for (int kind = 0; kind < 8; ++kind) {
      OpenEffect open;
      open.path = path;
      open.read = kind % 4 != 1;
      open.write = kind % 4 != 0;
      open.replaces = kind % 4 == 3;
      open.inside = kind >= 4;
      calls.push_back({open, Label::parse("web:x").value()});
    }
  }
  const auto own = labels();
  for_each_policy(rules, [&](const Policy& policy) {
    const Decider decider(policy, token());
    for (const Call& call : calls) {
      const auto& open = std::get<OpenEffect>(call.effect);
      for (const Label& label : own) {
        State state;
        state.label = label;
        state.used.resize(policy.rules.size());
        const auto wanted = reference(policy, open, label, call.object);
        ASSERT_NO_FATAL_FAILURE(expect_same(wanted, decider.decide(state, call, {1, 1}),
                                            open.path + " under " + label.text()));
      }
    }
  });
}

bool endpoint_matches(const std::string& text, const ConnectEffect& effect) {
  const size_t colon = text.rfind(':');
  const std::string host = text.substr(0, colon), port = text.substr(colon + 1);
  if (effect.transport != Transport::kTcp) return false;
  if (port != "*" && port != std::to_string(effect.port)) return false;
  if (host == "198.51.100.0/24") return effect.host.starts_with("198.51.100.");
  if (host == "0.0.0.0/0") return effect.host.find_first_not_of("0123456789.") == std::string::npos;
  if (host.starts_with("*.")) {
    const std::string suffix = host.substr(1);
    return effect.host.size() > suffix.size() && effect.host.ends_with(suffix);
  }
  return host == effect.host;
}

TEST(Reference, ConnectionsAreDecidedAsTheNaiveMatcherSays) {
  std::vector<Rule> rules;
  std::vector<std::string> texts;
  for (const char* to :
       {"a.test:80", "*.a.test:*", "*.test:443", "198.51.100.0/24:80", "0.0.0.0/0:*"}) {
    for (int kind = 0; kind < 4; ++kind) {
      Rule rule;
      rule.id = std::to_string(rules.size());
      rule.why = "test";
      rule.verbs = {Verb::kConnect};
      rule.endpoints = {EndpointPattern::parse(to).value()};
      rule.effect = kind == 0 ? Effect::kForbid : Effect::kAllow;
      if (kind == 3) rule.effect = Effect::kAsk;
      if (kind == 1 || kind == 3) rule.accept = accepting({"user"});
      rules.push_back(std::move(rule));
    }
  }
  std::vector<Call> calls;
  for (const auto& [host, last] :
       std::vector<std::pair<const char*, uint8_t>>{{"a.test", 0},
                                                    {"x.a.test", 0},
                                                    {"ba.test", 0},
                                                    {"test", 0},
                                                    {"198.51.100.7", 100},
                                                    {"198.51.101.7", 101}}) {
    for (const uint16_t port : {80, 443}) {
      ConnectEffect connect;
      connect.host = host;
      connect.port = port;
      connect.address = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, last, 7};
      calls.push_back({connect, {}});
      connect.transport = Transport::kUdp;
      calls.push_back({connect, {}});
    }
  }
  const auto own = labels();
  for_each_policy(rules, [&](const Policy& policy) {
    const Decider decider(policy, token());
    for (const Call& call : calls) {
      const auto& connect = std::get<ConnectEffect>(call.effect);
      for (const Label& label : own) {
        State state;
        state.label = label;
        state.used.resize(policy.rules.size());
        const Answer wanted = answer(policy, Verb::kConnect, label, [&](const Rule& rule) {
          return endpoint_matches(rule.endpoints[0].text(), connect);
        });
        ASSERT_NO_FATAL_FAILURE(expect_same({wanted}, decider.decide(state, call, {1, 1}),
                                            connect.host + " under " + label.text()));
      }
    }
  });
}

TEST(Reference, ScriptsAreDecidedAsTheNaiveMatcherSays) {
  const auto rules = path_rules({"/s", "/bin/**", "/bin/sh", "@private"}, {{Verb::kExec}});
  std::vector<Call> calls;
  for (const char* script : {"/s", "/bin/x"}) {
    for (const char* interpreter : {"", "/bin/sh", "/lib/ld-x.so"}) {
      ExecEffect exec;
      exec.images.push_back({script, {}, {}, false});
      if (*interpreter != '\0') exec.images.push_back({interpreter, {}, {}, false});
      exec.argv = {"x"};
      calls.push_back({exec, Label::parse("user").value()});
    }
  }
  const auto own = labels();
  for_each_policy(rules, [&](const Policy& policy) {
    const Decider decider(policy, token());
    for (const Call& call : calls) {
      const auto& exec = std::get<ExecEffect>(call.effect);
      for (const Label& label : own) {
        State state;
        state.label = label;
        state.used.resize(policy.rules.size());
        std::vector<Answer> wanted;
        for (size_t i = 0; i < exec.images.size(); ++i) {
          Answer one = answer(policy, Verb::kExec, label.join(call.object), [&](const Rule& rule) {
            return path_matches(rule.paths[0].text(), exec.images[i].path, false);
          });
          // A loader needs no right of its own, but may be forbidden.
          const bool loader = exec.images[i].path.starts_with("/lib/ld-");
          if (!loader || one.reason == Reason::kForbidden) wanted.push_back(one);
        }
        ASSERT_NO_FATAL_FAILURE(expect_same(wanted, decider.decide(state, call, {1, 1}),
                                            exec.images[0].path + " under " + label.text()));
      }
    }
  });
}

}  // namespace
}  // namespace certgate::kernel
