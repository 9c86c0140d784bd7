// Tools: what fits one and what does not, and whose words its arguments are.
#include "kernel/tool.h"

#include <gtest/gtest.h>

#include <functional>

#include "kernel/decide.h"

namespace certgate::kernel {
namespace {

ValueSpec one_of(std::vector<std::string> texts) {
  ValueSpec out;
  out.one_of = std::move(texts);
  return out;
}

ToolPart literal(const std::string& text) { return {text, std::nullopt, false, false, 0}; }

ValueSpec word(int64_t max = 8) {
  ValueSpec out;
  out.chars = "a-z";
  out.max = max;
  return out;
}

// git commit -q -m WORD
Tool commit() {
  Tool out;
  out.name = "commit";
  out.why = "test";
  out.program = "/usr/bin/git";
  out.parts = {{"", one_of({"git", "/usr/bin/git"}), false, false, 0},
               literal("commit"),
               {"-q", std::nullopt, true, false, 1},
               {"-m", word(), false, false, 1}};
  out.env = {{"PATH", {}}, {"LC_*", {}}, {"MODE", one_of({"safe"})}};
  out.cwd = {*PathPattern::parse("/ws/**")};
  return out;
}

ExecEffect call(std::vector<std::string> argv) {
  ExecEffect out;
  out.images = {{"/usr/bin/git", {}, {}, false}, {"/lib/ld-x.so", {}, {}, false}};
  out.argv = std::move(argv);
  out.cwd = "/ws/src";
  out.named = "git";
  return out;
}

std::string element(const Tool& tool, const ExecEffect& exec) {
  const ToolFit fit = fit_tool(tool, exec);
  return fit.fit == Fit::kFits ? "fits" : fit.fit == Fit::kMismatch ? "mismatch" : fit.element;
}

TEST(ToolFit, OnlyWhatTheToolSpellsOutFits) {
  const Tool tool = commit();
  const auto says = [&](std::vector<std::string> argv) {
    return element(tool, call(std::move(argv)));
  };
  EXPECT_EQ(says({"git", "commit", "-q", "-m", "fix"}), "fits");
  EXPECT_EQ(says({"git", "commit", "-m", "fix", "-q"}), "fits");
  EXPECT_EQ(says({"/usr/bin/git", "commit", "-m", "fix"}), "fits");
  EXPECT_EQ(says({"sh", "commit", "-m", "fix"}), "argv[0]");
  EXPECT_EQ(says({"git", "push", "-m", "fix"}), "argv[1]");
  EXPECT_EQ(says({"git", "commit", "--amend", "-m", "fix"}), "argv[2]");
  EXPECT_EQ(says({"git", "commit", "-m"}), "argv[2]");
  EXPECT_EQ(says({"git", "commit", "-q"}), "argv[3]") << "a part that is not optional is missing";
  EXPECT_EQ(says({"git", "commit", "-m", "fix", "more"}), "argv[4]");
  EXPECT_EQ(says({"git", "commit", "-m", "fix", "-m", "twice"}), "argv[4]");
  EXPECT_EQ(says({"git", "commit", "-m", "Upper"}), "argv[2]");
  EXPECT_EQ(says({"git", "commit", "-m", "morethaneight"}), "argv[2]");
  EXPECT_EQ(says({"git", "commit", "-m", ""}), "argv[2]");
  EXPECT_EQ(says({}), "argv[0]");
}

TEST(ToolFit, VariablesDirectoriesAndDescriptorsAreNamedOrRefused) {
  const Tool tool = commit();
  ExecEffect exec = call({"git", "commit", "-m", "fix"});
  const auto with = [&](const std::function<void(ExecEffect&)>& change) {
    ExecEffect changed = exec;
    change(changed);
    return element(tool, changed);
  };
  EXPECT_EQ(with([](auto& e) { e.env = {"PATH=/bin", "LC_ALL=C", "MODE=safe"}; }), "fits");
  EXPECT_EQ(with([](auto& e) { e.env = {"GIT_DIR=/tmp"}; }), "env GIT_DIR");
  EXPECT_EQ(with([](auto& e) { e.env = {"PATH=/bin", "PATH=/tmp"}; }), "env PATH");
  EXPECT_EQ(with([](auto& e) { e.env = {"PATH"}; }), "env PATH");
  EXPECT_EQ(with([](auto& e) { e.env = {"PATHX=/bin"}; }), "env PATHX");
  EXPECT_EQ(with([](auto& e) { e.env = {"LC=C"}; }), "env LC");
  EXPECT_EQ(with([](auto& e) { e.env = {"MODE=fast"}; }), "env MODE");
  EXPECT_EQ(with([](auto& e) { e.cwd = "/tmp"; }), "cwd");
  EXPECT_EQ(with([](auto& e) { e.cwd = ""; }), "cwd");
  EXPECT_EQ(with([](auto& e) { e.inherited = {5}; }), "fd 5");
  Tool any = tool;
  any.descriptors = Tool::Descriptors::kAny;
  exec.inherited = {5};
  EXPECT_EQ(element(any, exec), "fits");
}

TEST(ToolFit, ContentIsAskedBeforeForm) {
  Tool tool = commit();
  tool.pin = Tool::Pin::kExact;
  tool.sha256.fill(7);
  ExecEffect exec = call({"git", "commit", "-m", "fix"});
  EXPECT_EQ(element(tool, exec), "mismatch");
  exec.argv = {"whatever"};
  EXPECT_EQ(element(tool, exec), "mismatch");
  exec.images[0].sha256.fill(7);
  EXPECT_EQ(element(tool, exec), "argv[0]");
}

TEST(ToolFit, AScriptIsCalledByItsOwnNameOnly) {
  Tool tool = commit();
  tool.program = "/ws/deploy";
  tool.parts = {{"", one_of({"deploy"}), false, false, 0}};
  ExecEffect exec = call({"deploy"});
  exec.images = {{"/ws/deploy", {}, {}, false},
                 {"/usr/bin/python3", {}, {}, false},
                 {"/lib/ld-x.so", {}, {}, false}};
  exec.cwd = "/ws/sub";
  for (const char* good : {"/ws/deploy", "/ws/./deploy"}) {
    exec.named = good;
    EXPECT_EQ(element(tool, exec), "fits") << good;
  }
  for (const char* bad : {"/tmp/link", "deploy", "../deploy", "/dev/fd/5", ""}) {
    exec.named = bad;
    EXPECT_EQ(element(tool, exec), "name") << bad;
  }
  exec.cwd = "/ws";
  exec.named = "./deploy";
  EXPECT_EQ(element(tool, exec), "fits");
}

TEST(ToolValue, EachKindHasOneSpelling) {
  ValueSpec number;
  number.type = ValueType::kInteger;
  number.min = -5;
  number.max = 100;
  for (const char* good : {"0", "-5", "100", "7"}) EXPECT_EQ(number.fault(good, "/"), "") << good;
  for (const char* bad :
       {"", "-6", "101", "07", "+7", " 7", "7 ", "0x7", "-0", "1e1", "99999999999999999999"})
    EXPECT_NE(number.fault(bad, "/"), "") << bad;
  ValueSpec path;
  path.type = ValueType::kPath;
  path.within = {*PathPattern::parse("/ws/**")};
  for (const char* good : {"a", "./a/b", "/ws", "/ws/x", "a//b", "."})
    EXPECT_EQ(path.fault(good, "/ws"), "") << good;
  for (const char* bad : {"..", "../x", "a/../b", "/etc/passwd", "/wsx", "-x", "", "/ws/../etc"})
    EXPECT_NE(path.fault(bad, "/ws"), "") << bad;
  EXPECT_NE(path.fault("a", "/tmp"), "");
  ValueSpec url;
  url.patterns = {"https://a.test/*"};
  EXPECT_EQ(url.fault("https://a.test/x", "/"), "");
  EXPECT_NE(url.fault("https://a.test.evil/x", "/"), "");
  EXPECT_NE(url.fault("https://a.test@evil/x", "/"), "");
  ValueSpec set;
  set.chars = "a-cX_-";
  for (const char* good : {"abc", "X_", "a-"}) EXPECT_EQ(set.fault(good, "/"), "") << good;
  for (const char* bad : {"d", "aB", "x", "-a", "a b", "a\n"})
    EXPECT_NE(set.fault(bad, "/"), "") << bad;
}

// A value that takes many steps to match takes bounded ones.
TEST(ToolValue, LongArgumentsAreRefusedBeforeTheyAreMatched) {
  Tool tool = commit();
  ValueSpec slow;
  slow.patterns = {"*a*a*a*a*a*a*a*b"};
  slow.max = 1 << 20;
  tool.parts[3].value = slow;
  EXPECT_EQ(element(tool, call({"git", "commit", "-m", std::string(1 << 20, 'a')})), "argv");
  EXPECT_EQ(element(tool, call({"git", "commit", "-m", std::string(60000, 'a')})), "argv[2]");
}

// ---- against every way of matching: greedy never grants what no reading of the tool grants.

bool any_reading(const std::vector<ToolPart>& parts, std::vector<bool> used, size_t at,
                 const std::vector<std::string>& argv, size_t i) {
  const auto rest_optional = [&](size_t from, uint32_t but) {
    for (size_t p = from; p < parts.size(); ++p) {
      if (!parts[p].optional && !used[p] && (but == 0 || parts[p].group != but)) return false;
    }
    return true;
  };
  if (i == argv.size()) return rest_optional(0, 0);
  for (size_t p = at; p < parts.size(); ++p) {
    bool passed = true;
    for (size_t k = 0; k < p; ++k) {
      const bool same_group = parts[k].group != 0 && parts[k].group == parts[p].group;
      passed = passed && (parts[k].optional || used[k] || same_group);
    }
    if (!passed || (used[p] && !parts[p].repeats)) continue;
    const size_t takes = parts[p].value && !parts[p].flag.empty() ? 2 : 1;
    if (i + takes > argv.size()) continue;
    if (!parts[p].flag.empty() && argv[i] != parts[p].flag) continue;
    if (parts[p].value && !parts[p].value->fault(argv[i + takes - 1], "/").empty()) continue;
    std::vector<bool> then = used;
    then[p] = true;
    size_t from = p;
    while (parts[p].group != 0 && from > 0 && parts[from - 1].group == parts[p].group) --from;
    if (any_reading(parts, then, from, argv, i + takes)) return true;
  }
  return false;
}

TEST(ToolReference, GreedyMatchingNeverGrantsMoreThanSomeReading) {
  const std::vector<ToolPart> kinds = {literal("a"),
                                       {"a", std::nullopt, true, false, 0},
                                       {"-m", word(), false, false, 0},
                                       {"", word(), false, true, 0},
                                       {"", word(), true, false, 0},
                                       {"-q", std::nullopt, true, false, 1},
                                       {"a", std::nullopt, false, false, 1}};
  const std::vector<std::string> words = {"a", "b", "-m", "-q"};
  std::vector<std::vector<std::string>> argvs = {{}};
  for (size_t begin = 0, length = 0; length < 3; ++length) {
    const size_t end = argvs.size();
    for (; begin < end; ++begin) {
      for (const std::string& w : words) {
        argvs.push_back(argvs[begin]);
        argvs.back().push_back(w);
      }
    }
  }
  size_t fits = 0, lost = 0, cases = 0;
  for (const ToolPart& x : kinds) {
    for (const ToolPart& y : kinds) {
      for (const ToolPart& z : kinds) {
        Tool tool = commit();
        tool.parts = {{"", one_of({"git"}), false, false, 0}, x, y, z};
        for (const auto& argv : argvs) {
          std::vector<std::string> whole = {"git"};
          whole.insert(whole.end(), argv.begin(), argv.end());
          const bool greedy = element(tool, call(whole)) == "fits";
          const bool some = any_reading(tool.parts, std::vector<bool>(4), 0, whole, 0);
          ++cases;
          fits += greedy ? 1 : 0;
          lost += some && !greedy ? 1 : 0;
          ASSERT_TRUE(some || !greedy) << cases;
        }
      }
    }
  }
  EXPECT_GT(fits, 500u);
  EXPECT_GT(lost, 0u) << "there is no way back: what only another reading takes is refused";
}

// ---- the decision

Rule tool_rule(const char* accept) {
  Rule out;
  out.id = "tools";
  out.why = "test";
  out.verbs = {Verb::kExec};
  out.tools = {0};
  out.accept = *AcceptSet::parse({"operator", "user", accept});
  return out;
}

Rule path_rule(const std::string& id, const char* path, Effect effect, const std::string& accept) {
  Rule out;
  out.id = id;
  out.why = "test";
  out.verbs = {Verb::kExec};
  out.paths = {*PathPattern::parse(path)};
  out.effect = effect;
  if (effect == Effect::kAllow) out.accept = *AcceptSet::parse({accept});
  return out;
}

Policy tool_policy() {
  Policy out;
  out.name = "test";
  out.tools = {commit()};
  out.tools[0].parts[3].value->accept = *AcceptSet::parse({"policy", "user"});
  out.rules = {tool_rule("web:*")};
  return out;
}

std::string verdict(const Policy& policy, const char* label, const ExecEffect& exec,
                    std::vector<ArgumentSource> sources = {}) {
  EXPECT_TRUE(validate(policy));
  Token token;
  token.expires_ns = 1'000'000;
  token.scopes = every_scope();
  const Decider decider(policy, token);
  State state;
  state.label = *Label::parse(label);
  state.used.resize(policy.rules.size());
  state.messages = {"please fix it", "ab"};
  const Verdict v = decider.decide(state, Call{exec, {}, std::move(sources)}, {1, 1});
  if (const auto* r = std::get_if<Refusal>(&v))
    return std::string(reason_text(r->reason)) + " " + r->argument;
  const auto& certificate = std::get<Certificate>(v);
  return policy.rules[certificate.rules()[0].rule].id + ":" + certificate.tool();
}

TEST(ToolDecision, AnArgumentIsTheAgentsWordsUnlessTheAuthorityHoldsThem) {
  const Policy policy = tool_policy();
  const ExecEffect exec = call({"git", "commit", "-m", "fix"});
  EXPECT_EQ(verdict(policy, "user", exec), "tools:commit");
  EXPECT_EQ(verdict(policy, "user,web:x", exec), "UNTRUSTED_ORIGIN argv[3]");
  EXPECT_EQ(verdict(policy, "user,web:x", exec, {{3, 0, 7, 10}}), "tools:commit");
  EXPECT_EQ(verdict(policy, "unknown", exec, {{3, 0, 7, 10}}), "UNTRUSTED_ORIGIN agent")
      << "the decision has an accept of its own";
  for (const ArgumentSource& lie :
       {ArgumentSource{3, 0, 6, 9}, ArgumentSource{3, 0, 7, 11}, ArgumentSource{3, 1, 7, 10},
        ArgumentSource{3, 2, 7, 10}, ArgumentSource{9, 0, 7, 10}, ArgumentSource{2, 0, 7, 10},
        ArgumentSource{3, 0, 10, 7}, ArgumentSource{3, 0, 7, UINT64_MAX}}) {
    EXPECT_TRUE(verdict(policy, "user,web:x", exec, {lie}).starts_with("PROVENANCE_LOSS argv["));
    EXPECT_TRUE(verdict(policy, "user", exec, {lie}).starts_with("PROVENANCE_LOSS argv["))
        << "also where nobody would have asked";
  }
}

TEST(ToolDecision, LiteralsAreThePolicysWords) {
  Policy policy = tool_policy();
  policy.tools[0].parts[3].value = one_of({"fix", "release"});
  EXPECT_EQ(verdict(policy, "user,web:x", call({"git", "commit", "-m", "release"})),
            "tools:commit");
  EXPECT_EQ(verdict(policy, "user,web:x", call({"git", "commit", "-m", "other"})),
            "SCHEMA_BREAKOUT argv[2]");
}

TEST(ToolDecision, VariablesCarryLabelsToo) {
  Policy policy = tool_policy();
  policy.tools[0].env[0].value.accept = *AcceptSet::parse({"operator", "user"});
  ExecEffect exec = call({"git", "commit", "-m", "fix"});
  exec.env = {"MODE=safe", "PATH=/tmp"};
  EXPECT_EQ(verdict(policy, "user", exec), "tools:commit");
  EXPECT_EQ(verdict(policy, "user,web:x", exec, {{3, 0, 7, 10}}), "UNTRUSTED_ORIGIN env[1]");
  EXPECT_EQ(verdict(policy, "user,web:x", exec, {{3, 0, 7, 10}, {1, 0, 7, 10}}).substr(0, 15),
            "PROVENANCE_LOSS");
}

TEST(ToolDecision, TheOrderIsTheSameAsForEveryRule) {
  const ExecEffect good = call({"git", "commit", "-m", "fix"}), bad = call({"git", "push"});
  Policy policy = tool_policy();
  EXPECT_EQ(verdict(policy, "user", bad), "SCHEMA_BREAKOUT argv[1]");
  EXPECT_EQ(verdict(policy, "unknown", bad), "SCHEMA_BREAKOUT argv[1]");
  policy.rules.push_back(path_rule("all", "/usr/bin/**", Effect::kAllow, "user"));
  EXPECT_EQ(verdict(policy, "user", good), "tools:commit");
  EXPECT_EQ(verdict(policy, "user", bad), "all:");
  EXPECT_EQ(verdict(policy, "web:x", bad), "UNTRUSTED_ORIGIN agent")
      << "a rule matched: that is said";
  policy.rules.push_back(path_rule("no", "/usr/bin/git", Effect::kForbid, ""));
  EXPECT_EQ(verdict(policy, "user", good), "FORBIDDEN ");
  EXPECT_EQ(verdict(policy, "user", bad), "FORBIDDEN ");
  ExecEffect other = good;
  other.images[0].path = "/tmp/git";
  EXPECT_EQ(verdict(policy, "user", other), "SCOPE_MISSING ");
}

TEST(ToolDecision, TheToolThatFittedBestIsNamed) {
  Policy policy = tool_policy();
  policy.tools.push_back(commit());
  policy.tools[1].name = "status";
  policy.tools[1].parts = {policy.tools[0].parts[0], literal("status"), literal("-s")};
  policy.rules[0].tools = {0, 1};
  EXPECT_EQ(verdict(policy, "user", call({"git", "status", "-s"})), "tools:status");
  EXPECT_EQ(verdict(policy, "user", call({"git", "status", "-x"})), "SCHEMA_BREAKOUT argv[2]");
  EXPECT_EQ(verdict(policy, "user", call({"git", "commit", "-x"})), "SCHEMA_BREAKOUT argv[2]");
}

TEST(ToolDecision, AnInterpreterIsGrantedWithItsScriptOnly) {
  Policy policy = tool_policy();
  Tool& tool = policy.tools[0];
  tool.program = "/ws/deploy";
  tool.run_by = {"/usr/bin/python3"};
  tool.parts = {{"", one_of({"deploy"}), false, false, 0}};
  ExecEffect exec = call({"deploy"});
  exec.named = "/ws/deploy";
  exec.images = {{"/ws/deploy", {}, {}, false},
                 {"/usr/bin/python3", {}, {}, false},
                 {"/lib/ld-x.so", {}, {}, false}};
  EXPECT_EQ(verdict(policy, "web:x", exec), "tools:commit");
  exec.images[1].path = "/usr/bin/perl";
  EXPECT_EQ(verdict(policy, "web:x", exec), "SCOPE_MISSING ");
  exec.images.erase(exec.images.begin());
  exec.images[0].path = "/usr/bin/python3";
  EXPECT_EQ(verdict(policy, "web:x", exec), "SCOPE_MISSING ");
  exec.images = {{"/ws/deploy", {}, {}, false},
                 {"/usr/bin/python3", {}, {}, false},
                 {"/lib/ld-x.so", {}, {}, false}};
  policy.rules.push_back(path_rule("no", "/usr/bin/python3", Effect::kForbid, ""));
  EXPECT_EQ(verdict(policy, "web:x", exec), "FORBIDDEN ");
}

TEST(ToolDecision, AddingTaintNeverTurnsARefusalIntoAPermit) {
  const Policy policy = tool_policy();
  const std::vector<const char*> labels = {"", "user", "web:x", "user,web:x", "user,web:x,unknown"};
  for (const auto& argv : {std::vector<std::string>{"git", "commit", "-m", "fix"},
                           {"git", "commit", "-m", "it"},
                           {"git", "push"}}) {
    for (const auto& sources : {std::vector<ArgumentSource>{}, {{3, 0, 7, 10}}}) {
      bool refused = false;
      for (const char* label : labels) {
        if (std::string(label) == "web:x") refused = false;  // not above the one before
        const bool now = verdict(policy, label, call(argv), sources) != "tools:commit";
        EXPECT_TRUE(now || !refused) << label;
        refused = now;
      }
    }
  }
}

TEST(ToolPolicy, EveryFieldThatDecidesIsInTheDigest) {
  const Policy base = tool_policy();
  const std::vector<std::function<void(Policy&)>> changes = {
      [](Policy& p) { p.tools[0].name += "x"; },
      [](Policy& p) { p.tools[0].program += "x"; },
      [](Policy& p) { p.tools[0].pin = Tool::Pin::kAtStart; },
      [](Policy& p) { p.tools[0].pin = Tool::Pin::kExact; },
      [](Policy& p) { p.tools[0].run_by = {"/x"}; },
      [](Policy& p) { p.tools[0].parts[1].flag = "push"; },
      [](Policy& p) { p.tools[0].parts[2].optional = false; },
      [](Policy& p) { p.tools[0].parts[2].repeats = true; },
      [](Policy& p) { p.tools[0].parts[2].group = 0; },
      [](Policy& p) { p.tools[0].parts[3].value->max = 9; },
      [](Policy& p) { p.tools[0].parts[3].value->min = 0; },
      [](Policy& p) { p.tools[0].parts[3].value->chars = "a-b"; },
      [](Policy& p) { p.tools[0].parts[3].value->patterns = {"x*"}; },
      [](Policy& p) { p.tools[0].parts[3].value->dash = true; },
      [](Policy& p) { p.tools[0].parts[3].value->type = ValueType::kPath; },
      [](Policy& p) { p.tools[0].parts[3].value->accept.reset(); },
      [](Policy& p) { p.tools[0].env.pop_back(); },
      [](Policy& p) { p.tools[0].cwd.clear(); },
      [](Policy& p) { p.tools[0].descriptors = Tool::Descriptors::kAny; },
      [](Policy& p) {
        p.rules[0].tools = {0, 0};
      }};
  std::set<Digest> seen = {base.digest()};
  for (const auto& change : changes) {
    Policy changed = base;
    change(changed);
    EXPECT_TRUE(seen.insert(changed.digest()).second);
  }
  Policy pinned = base;
  pinned.tools[0].pin = Tool::Pin::kAtStart;
  const Digest before = pinned.digest();
  pinned.tools[0].sha256.fill(9);
  EXPECT_EQ(pinned.digest(), before) << "what the start finds is not part of the policy";
}

TEST(ToolPolicy, ARuleWithToolsIsForExecAlone) {
  Rule rule = tool_rule("web:*");
  EXPECT_TRUE(validate(rule));
  Rule with_paths = rule;
  with_paths.paths = {*PathPattern::parse("/x")};
  EXPECT_FALSE(validate(with_paths));
  Rule reads = rule;
  reads.verbs = {Verb::kExec, Verb::kRead};
  EXPECT_FALSE(validate(reads));
  Rule forbids = rule;
  forbids.effect = Effect::kForbid;
  EXPECT_FALSE(validate(forbids));
  Policy policy = tool_policy();
  policy.rules[0].tools = {1};
  EXPECT_FALSE(validate(policy)) << "a tool that is not there";
}

}  // namespace
}  // namespace certgate::kernel
