// Each test states a rule of the design or a header; it fails on the code as committed.
#include <gtest/gtest.h>

#include <chrono>

#include "kernel/decide.h"
namespace certgate::kernel {
namespace {
std::vector<std::string> all_plus(std::vector<std::string> v) { return v; }
Rule rule(std::string id, std::vector<Verb> verbs, std::vector<std::string> paths,
          std::vector<std::string> accept) {
  Rule r;
  r.id = std::move(id);
  r.why = "test";
  r.verbs = std::move(verbs);
  for (auto& p : paths) r.paths.push_back(PathPattern::parse(p).value());
  r.accept = AcceptSet::parse(all_plus(accept)).value();
  return r;
}
Token token() {
  Token t;
  t.expires_ns = 1'000'000;
  t.scopes = every_scope();
  return t;
}
Label L(const char* s) { return Label::parse(s).value(); }
const Instant kNow{1, 1};
State fresh(const Policy& p, const char* label) {
  State s;
  s.label = L(label);
  s.used.resize(p.rules.size());
  return s;
}

TEST(Finding, F1_join_is_associative_beyond_the_limit) {
  std::vector<Origin> a, b;
  for (int i = 0; i < 20; ++i) {
    a.push_back({OriginClass::kWeb, "a" + std::to_string(i)});
    b.push_back({OriginClass::kWeb, "b" + std::to_string(i)});
  }
  const Label A = Label::of(a), B = Label::of(b), C = L("agent:x");
  EXPECT_EQ(A.join(B).join(C).text(), A.join(B.join(C)).text());
}
TEST(Finding, F1_more_taint_never_permits) {
  Policy p;
  p.rules.push_back(rule("x", {Verb::kExec}, {"/a"}, {"web:*", "agent:x"}));
  Decider d(p, token());
  std::vector<Origin> a, b;
  for (int i = 0; i < 20; ++i) {
    a.push_back({OriginClass::kWeb, "a" + std::to_string(i)});
    b.push_back({OriginClass::kWeb, "b" + std::to_string(i)});
  }
  b.push_back({OriginClass::kAgent, "x"});
  ExecEffect e;
  e.images.push_back({"/a", {}, {}, false});
  Call c{e, Label::of(b)};
  State less = fresh(p, ""), more = fresh(p, "");
  less.label = Label::of(a);
  more.label = L("web:*");
  ASSERT_TRUE(more.label.covers(less.label));
  const bool ok_less = d.decide(less, c, kNow).index() == 0,
             ok_more = d.decide(more, c, kNow).index() == 0;
  EXPECT_TRUE(ok_less || !ok_more) << "refused with less taint, allowed with more";
}
TEST(Finding, F2_rdwr_open_that_taints_may_not_end_with_a_clean_only_file_writable) {
  Policy p;
  p.rules.push_back(rule("r", {Verb::kRead}, {"/**"}, {"user", "web:*"}));
  p.rules.push_back(rule("w", {Verb::kWrite}, {"/ws/**"}, {"user"}));
  Decider d(p, token());
  OpenEffect o;
  o.path = "/ws/f";
  o.read = o.write = true;
  auto v = d.decide(fresh(p, "user"), {o, L("web:evil.test")}, kNow);
  EXPECT_EQ(v.index(), 1u);
}
TEST(Finding, F3_budget_counts_calls_not_questions) {
  Policy p;
  p.rules.push_back(rule("rw", {Verb::kRead, Verb::kWrite}, {"/ws/**"}, {"user"}));
  p.rules[0].budget = 2;
  Decider d(p, token());
  State s = fresh(p, "user");
  OpenEffect o;
  o.path = "/ws/f";
  o.read = o.write = true;
  auto v = d.decide(s, {o, L("user")}, kNow);
  ASSERT_EQ(v.index(), 0u);
  apply(s, std::get<Certificate>(v));
  EXPECT_EQ(s.used[0], 1u);
}
TEST(Finding, F4_exec_without_an_image_is_refused) {
  Policy p;
  Decider d(p, token());
  EXPECT_EQ(d.decide(fresh(p, "web:x"), {ExecEffect{}, Label()}, kNow).index(), 1u);
}
TEST(Finding, F5_a_bound_name_of_hex_letters_is_not_an_address) {
  auto h = HostPattern::parse("0.0.0.0/0").value();
  ConnectEffect c;
  c.host = "face.de";
  c.address[10] = c.address[11] = 0xff;
  c.address[12] = 198;
  c.address[13] = 18;
  c.port = 80;
  EXPECT_FALSE(h.matches(c));
}
TEST(Finding, F6_question_mark_in_argv_is_literal) {
  EXPECT_FALSE(argv_matches({"grep", "a?b"}, {"grep", "axb"}));
}
TEST(Finding, F7_forbid_covers_the_loader) {
  Policy p;
  p.rules.push_back(rule("no", {Verb::kExec}, {"/tmp/**"}, {}));
  p.rules[0].effect = Effect::kForbid;
  p.rules.push_back(rule("ws", {Verb::kExec}, {"/ws/**"}, {"user"}));
  Decider d(p, token());
  ExecEffect e;
  e.images = {{"/ws/run.sh", {}, {}, false}, {"/tmp/ld-mine", {}, {}, true}};
  EXPECT_EQ(d.decide(fresh(p, "user"), {e, L("user")}, kNow).index(), 1u);
}
TEST(Finding, F8_many_double_stars_end_soon) {
  auto pat = PathPattern::parse("/**/a/**/a/**/a/**/a/**/b").value();
  std::string path;
  for (int i = 0; i < 150; ++i) path += "/a";
  auto t = std::chrono::steady_clock::now();
  EXPECT_FALSE(pat.matches(path, false));
  auto ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - t).count();
  EXPECT_LT(ms, 5) << ms << " ms for a path of 300 bytes";
}
TEST(Finding, F9_a_unix_socket_is_not_an_address) {
  auto h = HostPattern::parse("::/0").value();
  ConnectEffect c;
  c.transport = Transport::kUnix;
  c.path = "/run/x";
  EXPECT_FALSE(h.matches(c));
}
}  // namespace
}  // namespace certgate::kernel
