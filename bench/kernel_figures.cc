#include "bench/kernel_figures.h"

#include <fmt/format.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <limits>

#include "agentd/policy_file.h"
#include "agentd/recheck.h"
#include "supervisor/recorded_policy.h"
#include "agentd/signing_key.h"
#include "agentd/token_make.h"
#include "kernel/decide.h"
#include "supervisor/frame.h"
#include "kernel/merkle.h"
#include "kernel/record.h"
#include "kernel/rule_index.h"
#include "supervisor/report.h"
#include "supervisor/session.h"

namespace certgate::bench {
namespace {

using namespace kernel;

constexpr size_t kFewRules = 100, kManyRules = 10'000;
constexpr double kDecisionUs = 2.0, kDecisionTailUs = 10.0, kDecisionsPerSecond = 400'000;
constexpr double kManyRulesRatio = 2.0, kCompileUs = 50'000, kRecheckRatio = 2.0;

uint64_t now_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(t.tv_nsec);
}

uint64_t clock_cost() {
  uint64_t best = std::numeric_limits<uint64_t>::max();
  for (int i = 0; i < 2000; ++i) {
    const uint64_t start = now_ns();
    best = std::min(best, now_ns() - start);
  }
  return best;
}

template <typename Operation>
KernelFigure measure(std::string name, std::string what, size_t count, const Operation& operation) {
  const uint64_t cost = clock_cost();
  std::vector<uint64_t> samples(count);
  for (size_t i = 0; i < count / 10 + 1; ++i) operation(i);
  for (size_t i = 0; i < count; ++i) {
    const uint64_t start = now_ns();
    operation(i);
    const uint64_t taken = now_ns() - start;
    samples[i] = taken > cost ? taken - cost : 0;
  }
  const uint64_t start = now_ns();
  for (size_t i = 0; i < count; ++i) operation(i);
  const double whole = static_cast<double>(now_ns() - start);
  std::sort(samples.begin(), samples.end());
  KernelFigure out;
  out.name = std::move(name);
  out.what = std::move(what);
  out.median_us = static_cast<double>(samples[count / 2]) / 1000;
  out.p99_us = static_cast<double>(samples[count * 99 / 100]) / 1000;
  out.per_second = static_cast<double>(count) / whole * 1e9;
  return out;
}

// A policy such as an operator writes, filled up to `count` with rules of many projects.
std::string policy_text(size_t count) {
  std::string out = R"(name = "bench"
[[zone]]
name = "workspace"
paths = ["/ws/**"]
origin = "user"
[[rule]]
id = "hooks"
why = "git runs these"
forbid = ["write"]
paths = ["/ws/**/.git/hooks/**"]
[[rule]]
id = "keys"
why = "keys"
forbid = ["read", "write"]
paths = ["/ws/**/*.pem", "/ws/.env"]
[[rule]]
id = "libraries"
why = "programs need them"
allow = ["read"]
paths = ["/usr/**", "/etc/**", "/proc/**"]
accept = ["operator", "user", "model", "tool", "web:*"]
[[rule]]
id = "source"
why = "the work"
allow = ["read", "write"]
paths = ["/ws/**"]
accept = ["operator", "user", "model"]
[[rule]]
id = "tools"
why = "the tools"
allow = ["exec"]
paths = ["/usr/bin/*"]
argv = [["gcc", "**"], ["git", "status", "**"], ["git", "commit", "**"]]
accept = ["operator", "user", "model"]
[[rule]]
id = "model"
why = "the model"
allow = ["connect"]
to = ["api.model.test:443", "*.packages.test:443"]
origin = "model"
accept = ["operator", "user", "model"]
)";
  for (size_t i = 6; i < count; ++i) {
    const std::string n = std::to_string(i);
    out += "[[rule]]\nid = \"r" + n + "\"\nwhy = \"project " + n + "\"\n";
    switch (i % 4) {
      case 0: out += "allow = [\"read\"]\npaths = [\"/srv/project" + n + "/**\"]\n"; break;
      case 1: out += "allow = [\"exec\"]\npaths = [\"/opt/tool" + n + "/bin/*\"]\n"; break;
      case 2: out += "allow = [\"connect\"]\nto = [\"host" + n + ".test:443\"]\n"; break;
      default: out += "allow = [\"write\"]\npaths = [\"/srv/out" + n + "/*.log\"]\n"; break;
    }
    out += "accept = [\"operator\", \"user\"]\n";
  }
  return out;
}

Result<Policy> compile(const std::string& path) {
  CG_TRY(agentd::CompiledPolicy compiled, agentd::load_policy(path, {"/ws", "/home/agent"}));
  return std::move(compiled.policy);
}

struct Job {
  std::string name, what;
  Call call;
};

std::vector<Job> make_jobs() {
  const Label user = Label::parse("user").value();
  OpenEffect read;
  read.path = "/usr/lib/x86_64-linux-gnu/libcrypto.so.3";
  read.read = true;
  read.file = {0x801, 123456, 1'700'000'000'000'000'000};
  OpenEffect write;
  write.path = "/ws/src/module/file.cc";
  write.write = true;
  write.file = {0x802, 7654321, 1'700'000'000'000'000'000};
  OpenEffect refused = write;
  refused.path = "/ws/deps/x/.git/hooks/pre-commit";
  ConnectEffect connect;
  connect.host = "mirror.packages.test";
  connect.port = 443;
  ExecEffect exec;
  exec.images.push_back({"/usr/bin/gcc", {0x801, 99, 1'700'000'000'000'000'000}, {}, false});
  exec.images.push_back({"/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", {0x801, 98, 1}, {}, false});
  exec.argv = {"gcc", "-O2", "-Wall", "-I/ws/include", "-c", "/ws/src/module/file.c", "-o", "/ws/build/file.o"};
  for (int i = 0; i < 12; ++i) exec.env.push_back("VARIABLE_" + std::to_string(i) + "=/usr/local/value");
  exec.cwd = "/ws/build";
  return {{"open-read", "a library is opened", {read, Label::parse("operator").value()}},
          {"open-write", "a source file is written", {write, user}},
          {"connect", "a host below *.packages.test", {connect, {}}},
          {"exec", "8 arguments, 12 variables, 2 files", {exec, Label::parse("operator").value()}},
          {"refusal", "a forbidden path", {refused, user}}};
}

// As a supervisor does it: decide, describe, encode, frame.
class Kernel {
 public:
  explicit Kernel(Policy policy) : policy_(std::move(policy)), decider_(policy_, token()) {
    state_.label = Label::parse("operator,user,model").value();
    state_.used.resize(policy_.rules.size());
  }
  bool decide(const Call& call) {
    const Verdict verdict = decider_.decide(state_, call, {1, 1});
    Record record = supervisor::describe({1, "openat", ""}, call);
    record.run = "benchrun";
    record.seq = ++seq_;
    record.wall_ns = record.boot_ns = 1'700'000'000'000'000'000;
    const auto* certificate = std::get_if<Certificate>(&verdict);
    if (certificate != nullptr) {
      record.kind = RecordKind::kCertificate;
      for (const RuleUse& use : certificate->rules()) record.rule += policy_.rules[use.rule].id;
      record.origins = certificate->decision_label().text();
      record.digest.assign(certificate->digest().begin(), certificate->digest().end());
      record.detail = certificate->detail();
      record.risk = static_cast<uint8_t>(certificate->risk().level);
      apply(state_, *certificate);
    } else {
      const auto& refusal = std::get<Refusal>(verdict);
      record.reason = reason_text(refusal.reason);
      record.rule = refusal.rule;
      record.why = refusal.why;
      record.origins = refusal.decision.text();
    }
    bytes_.clear();
    frame_.clear();
    encode_record(record, bytes_);
    return supervisor::append_frame(bytes_.data(), bytes_.size(), frame_) && certificate != nullptr;
  }

 private:
  static Token token() {
    Token out;
    out.id = "bench";
    out.expires_ns = std::numeric_limits<int64_t>::max();
    out.scopes = every_scope();
    return out;
  }
  Policy policy_;
  Decider decider_;
  State state_;
  uint64_t seq_ = 0;
  std::vector<uint8_t> bytes_, frame_;
};

struct LoadedPolicy {
  Policy policy;
  KernelFigure compiled;
};

Result<LoadedPolicy> load(size_t rules, const std::string& directory) {
  const std::string path = directory + "/certgate-bench-" + std::to_string(::getpid()) + ".toml";
  std::ofstream(path) << policy_text(rules);
  LoadedPolicy out;
  Result<Policy> policy = fail("not loaded");
  out.compiled = measure("compile-" + std::to_string(rules), "a policy file is compiled and its index made", 5, [&](size_t) {
    policy = compile(path);
    if (policy) const RuleIndex index(*policy);
  });
  ::unlink(path.c_str());
  if (!policy) return policy.error();
  out.policy = std::move(*policy);
  return out;
}

// A run as its log holds it: start, token, policy, certificates of all jobs in turn.
Result<std::vector<Record>> recorded_run(const Policy& policy, const std::vector<Job>& jobs, const agentd::SigningKey& key, size_t certificates) {
  Token token;
  token.holder = "benchrun";
  token.nonce = "0011223344556677";
  token.expires_ns = std::numeric_limits<int64_t>::max();
  token.scopes = every_scope();
  token.policy = policy.digest();
  CG_TRY(const std::string envelope, agentd::seal_token(token, key.name(), key));
  CG_TRY(TokenChain chain, read_chain(envelope));
  std::vector<Record> out;
  const auto add = [&](Record record) {
    record.run = "benchrun";
    record.seq = out.size() + 1;
    record.wall_ns = record.boot_ns = 1'700'000'000'000'000'000;
    record.token = chain.back().id.substr(0, 16);
    out.push_back(std::move(record));
  };
  Record start;
  start.kind = RecordKind::kStart;
  start.origins = "operator,user,model";
  start.digest.assign(token.policy.begin(), token.policy.end());
  start.origins = Label::parse(start.origins).value().text();
  add(start);
  Record carried;
  carried.kind = RecordKind::kToken;
  carried.object = envelope;
  add(carried);
  for (Record& part : supervisor::policy_records(supervisor::recorded_body(policy))) add(std::move(part));
  const Decider decider(policy, chain, "benchrun");
  State state;
  state.label = Label::parse(start.origins).value();
  state.used.resize(policy.rules.size());
  for (size_t i = 0; out.size() < certificates; ++i) {
    const Call& call = jobs[i % jobs.size()].call;
    const Verdict verdict = decider.decide(state, call, {1, 1});
    const auto* certificate = std::get_if<Certificate>(&verdict);
    if (certificate == nullptr) continue;
    Record record = supervisor::describe({1, "openat", ""}, call);
    record.kind = RecordKind::kCertificate;
    // Of the exec's two questions one rule answers both; records name it once.
    record.rule = policy.rules[certificate->rules()[0].rule].id;
    record.origins = certificate->decision_label().text();
    record.digest.assign(certificate->digest().begin(), certificate->digest().end());
    record.detail = certificate->detail();
    record.risk = static_cast<uint8_t>(certificate->risk().level);
    apply(state, *certificate);
    add(std::move(record));
  }
  return out;
}

// What an auditor pays for one certificate, beside what one signature would cost him.
Status add_recheck(const Policy& policy, const std::vector<Job>& jobs, bool quick, std::vector<KernelFigure>& out) {
  const size_t count = quick ? 500 : 5'000;
  CG_TRY(const agentd::SigningKey key, agentd::SigningKey::generate());
  CG_TRY(const std::vector<Record> records, recorded_run(policy, jobs, key, 3 * count));
  agentd::RunCheck run(key.public_key());
  size_t at = 0;
  std::string fault;
  const auto next = [&] {
    if (auto found = run.take(records[at++])) fault = std::string(found->step) + ": " + found->what;
  };
  while (records[at].kind != RecordKind::kCertificate) next();
  KernelFigure check = measure("recheck", "a certificate checked from the records alone", count, [&](size_t) { next(); });
  if (!fault.empty()) return fail("the benchmark's own run does not recheck: " + fault);
  const std::string message(300, 'x');
  CG_TRY(const agentd::Signature signature, key.sign(message));
  bool good = true;
  const KernelFigure verify = measure("ed25519-verify", "for comparison: one signature over 300 bytes", count,
                                      [&](size_t) { good = good && static_cast<bool>(agentd::verify_ed25519(key.public_key(), message, signature)); });
  if (!good) return fail("the benchmark's own signature does not verify");
  check.ratio = check.median_us / verify.median_us;
  check.max_ratio = kRecheckRatio;
  out.push_back(check);
  out.push_back(verify);
  return ok();
}

}  // namespace

Result<std::vector<KernelFigure>> kernel_figures(bool quick, const std::string& directory) {
  const size_t count = quick ? 2'000 : 200'000;
  CG_TRY(LoadedPolicy few, load(kFewRules, directory));
  CG_TRY(LoadedPolicy many, load(kManyRules, directory));
  many.compiled.max_median_us = kCompileUs;
  const Policy rechecked = few.policy;
  Kernel small(std::move(few.policy)), large(std::move(many.policy));
  const std::vector<Job> jobs = make_jobs();
  std::vector<KernelFigure> out;
  for (const Job& job : jobs) {
    if (small.decide(job.call) == (job.name == "refusal")) return fail("the benchmark's own policy judges " + job.name + " wrongly");
    KernelFigure one = measure(job.name, job.what, count, [&](size_t) { (void)small.decide(job.call); });
    one.max_median_us = kDecisionUs;
    one.max_p99_us = kDecisionTailUs;
    out.push_back(one);
    KernelFigure same = measure(job.name + "-10000", "the same with 10,000 rules", count, [&](size_t) { (void)large.decide(job.call); });
    same.ratio = same.median_us / one.median_us;
    same.max_ratio = kManyRulesRatio;
    out.push_back(same);
  }
  KernelFigure mixed = measure("mixed", "all of them in turn", count, [&](size_t i) { (void)small.decide(jobs[i % jobs.size()].call); });
  mixed.min_per_second = kDecisionsPerSecond;
  out.push_back(mixed);
  const std::vector<uint8_t> bytes(300);
  out.push_back(measure("sha256", "for comparison: 300 bytes hashed", count, [&](size_t) { (void)sha256(bytes.data(), bytes.size()); }));
  CG_CHECK(add_recheck(rechecked, jobs, quick, out));
  out.push_back(few.compiled);
  out.push_back(many.compiled);
  return out;
}

std::string kernel_table(const std::string& title, const std::vector<KernelFigure>& figures) {
  std::string out = fmt::format("{}\n  {:<18} {:>10} {:>10} {:>12} {:>7}  what\n", title, "", "p50 us", "p99 us", "per second", "ratio");
  for (const KernelFigure& f : figures) {
    out += fmt::format("  {:<18} {:>10.2f} {:>10.2f} {:>12.0f} {:>7}  {}\n", f.name, f.median_us, f.p99_us, f.per_second,
                       f.ratio > 0 ? fmt::format("{:.2f}", f.ratio) : "-", f.what);
  }
  return out;
}

std::string kernel_json(const std::vector<KernelFigure>& figures) {
  std::string out;
  for (const KernelFigure& f : figures) {
    out += fmt::format("{{\"name\":\"{}\",\"median_us\":{:.3f},\"p99_us\":{:.3f},\"per_second\":{:.0f},\"ratio\":{}}}\n", f.name, f.median_us,
                       f.p99_us, f.per_second, f.ratio > 0 ? fmt::format("{:.3f}", f.ratio) : "null");
  }
  return out;
}

bool check_kernel_bars(const std::vector<KernelFigure>& figures, std::string& text) {
  bool all = true;
  const auto judge = [&](const KernelFigure& f, const char* what, double is, double bar, bool kept) {
    if (bar == 0) return;
    text += fmt::format("{}: {} {} {:.2f}, bar {:.2f}\n", kept ? "kept" : "MISSED", f.name, what, is, bar);
    all = all && kept;
  };
  for (const KernelFigure& f : figures) {
    judge(f, "p50 us", f.median_us, f.max_median_us, f.median_us <= f.max_median_us);
    judge(f, "p99 us", f.p99_us, f.max_p99_us, f.p99_us <= f.max_p99_us);
    judge(f, "per second", f.per_second, f.min_per_second, f.per_second >= f.min_per_second);
    judge(f, "ratio", f.ratio, f.max_ratio, f.ratio <= f.max_ratio);
    judge(f, "ratio", f.ratio, f.min_ratio, f.ratio >= f.min_ratio);
  }
  return all;
}

}  // namespace certgate::bench
