// A session with a real recorder, a real label store, and a thread in the authority's place; and the
// policy and calls that its tests share.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <thread>

#include "agentd/label_store.h"
#include "agentd/state_dir.h"
#include "agentd/token_store.h"
#include "supervisor/frame.h"
#include "supervisor/path_walk.h"
#include "supervisor/session.h"

namespace certgate::supervisor {

namespace fs = std::filesystem;
using kernel::Label;
using kernel::RecordKind;
using sandbox::UniqueFd;

inline Label label(const char* text) { return *Label::parse(text); }

inline kernel::Rule path_rule(const std::string& id, std::vector<kernel::Verb> verbs,
                       const std::string& path, const std::vector<std::string>& accept) {
  kernel::Rule rule;
  rule.id = id;
  rule.why = "because " + id;
  rule.verbs = std::move(verbs);
  rule.paths.push_back(*kernel::PathPattern::parse(path));
  rule.accept = *kernel::AcceptSet::parse(accept);
  return rule;
}

inline kernel::Rule connect_rule(const std::string& id, const std::string& host,
                          const std::vector<std::string>& accept) {
  kernel::Rule rule;
  rule.id = id;
  rule.why = "because " + id;
  rule.verbs = {kernel::Verb::kConnect};
  kernel::EndpointPattern endpoint;
  endpoint.host = *kernel::HostPattern::parse(host);
  rule.endpoints.push_back(endpoint);
  rule.accept = *kernel::AcceptSet::parse(accept);
  rule.origin = *kernel::Origin::parse("tool");
  return rule;
}

inline kernel::Policy test_policy() {
  using enum kernel::Verb;
  const std::vector<std::string> all = {"operator", "user",   "policy",  "model", "tool",
                                        "agent:*",  "file:*", "unknown", "web:*"};
  kernel::Policy policy;
  policy.name = "test";
  policy.zones.push_back(
      {"vault", *kernel::PathPattern::parse("/secret/**"), {}, "", label("secret:vault")});
  policy.rules.push_back(path_rule("read-all", {kRead}, "/in/**", all));
  policy.rules.push_back(path_rule("clean-write", {kWrite}, "/clean/**", {"operator", "tool"}));
  policy.rules.push_back(path_rule("any-write", {kWrite}, "/any/**", all));
  policy.rules.push_back(connect_rule("clean-host", "clean.test", {"operator", "tool"}));
  policy.rules.push_back(connect_rule("any-host", "any.test", all));
  policy.rules.push_back(path_rule("few", {kRead}, "/few/**", all));
  policy.rules.back().budget = 2;
  return policy;
}

inline kernel::Token token_for_everything() {
  kernel::Token token;
  token.id = "00112233aabbccdd00112233aabbccdd";
  token.holder = "abcdefgh";
  token.issuer = "test";
  token.expires_ns = INT64_MAX;
  token.scopes = kernel::every_scope();
  return token;
}

inline kernel::Call open_call(const std::string& path, bool write, const Label& object = {}) {
  kernel::OpenEffect effect;
  effect.path = path;
  effect.write = write;
  effect.read = !write;
  return {effect, object};
}

inline kernel::Call connect_call(const std::string& host) {
  kernel::ConnectEffect effect;
  effect.host = host;
  effect.port = 443;
  return {effect, {}};
}

inline const Hold kNothing{};
inline const Hold kConnection{.kind = Hold::Kind::kConnection, .pin = -1, .file = {}, .labelled = true};

class SessionTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "certgate-session-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    auto store = agentd::LabelStore::open(dir_ + "/labels");
    ASSERT_TRUE(store) << store.error().what;
    store_.emplace(std::move(*store));
    auto readers = ReaderTable::open(*store_->begin_run("abcdefgh"));
    ASSERT_TRUE(readers) << readers.error().what;
    readers_.emplace(std::move(*readers));
    UniqueFd segment(
        ::open((dir_ + "/segment").c_str(), O_CREAT | O_RDWR | O_APPEND | O_CLOEXEC, 0600));
    ledger_.emplace(*open_ledger());
    recorder_.emplace("abcdefgh", "00112233aabbccdd00112233aabbccdd", std::move(segment), 1);
    int ends[2] = {-1, -1};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    authority_ = UniqueFd(ends[0]);
    channel_.emplace(UniqueFd(ends[1]));
    serving_ = std::thread([this] { serve(); });
    make_session("operator");
  }
  void TearDown() override {
    session_.reset();
    channel_.reset();  // ends the authority's loop
    serving_.join();
    fs::remove_all(dir_);
  }

  Result<TokenLedger> open_ledger() const {
    CG_TRY(const UniqueFd state, agentd::open_state_dir(dir_ + "/state"));
    CG_CHECK(agentd::make_dir(state.get(), "tmp"));
    CG_TRY(const agentd::TokenStore tokens, agentd::TokenStore::open(state.get()));
    CG_TRY(UniqueFd epoch, tokens.epoch_for_reading());
    std::vector<UniqueFd> slots(1);
    CG_TRY(slots[0], tokens.slot(token_for_everything(), agentd::Keep::kForGood));
    return TokenLedger::open({token_for_everything()}, std::move(epoch), std::move(slots));
  }

  void make_session(const char* initial) {
    auto view = LabelView::open(*store_->table_for_reading(), *store_->names_for_reading());
    ASSERT_TRUE(view);
    session_.emplace(kernel::Decider(policy_, token_for_everything()), label(initial), *recorder_,
                     std::move(*view), *readers_, *channel_, *ledger_, Report::kText);
    session_->on_fatal([this](const std::string& what) { fatal_ = what; });
  }
  void serve() {
    for (;;) {
      const auto join = receive_join(authority_.get());
      if (!join) return;
      const Status stored =
          store_fails_ ? Status(fail("the disk is full")) : store_->join(join->file, join->label);
      if (!send_join_reply(authority_.get(), stored)) return;
    }
  }

  Judged judge(const kernel::Call& call, const Hold& hold = kNothing) {
    return session_->judge({42, "test", ""}, call, hold);
  }
  // Reads poison: the label rises to {operator, web:evil.test}.
  Judged poison() { return judge(open_call("/in/page", false, label("web:evil.test"))); }

  std::vector<kernel::Record> records() const {
    std::ifstream in(dir_ + "/segment", std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
    supervisor::FrameReader reader(data, bytes.size());
    std::vector<kernel::Record> out;
    supervisor::Frame frame = reader.next();
    for (; frame.state == supervisor::Frame::kOk; frame = reader.next()) {
      out.push_back(*kernel::decode_record(frame.data, frame.size));
    }
    EXPECT_EQ(frame.state, supervisor::Frame::kEnd);
    return out;
  }

  struct OpenFile {
    UniqueFd fd, pin;
    kernel::FileIdentity identity;
    Hold hold() const {
      return {
          .kind = Hold::Kind::kWritableFile, .pin = pin.get(), .file = identity, .labelled = true};
    }
  };
  OpenFile open_file(const std::string& name) const {
    OpenFile out;
    const std::string path = dir_ + "/" + name;
    out.fd = UniqueFd(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    out.pin = UniqueFd(::open(path.c_str(), O_PATH | O_CLOEXEC));
    ObjectFacts facts;
    EXPECT_EQ(object_facts(out.pin.get(), facts), 0);
    out.identity = facts.identity;
    return out;
  }
  std::string stored_label(const kernel::FileIdentity& file) const {
    const auto found = session_->file_label(file, "/nowhere", Reads::kOnce);
    return found ? found->text() : "error";
  }

  const kernel::Policy policy_ = test_policy();
  std::string dir_, fatal_;
  std::optional<agentd::LabelStore> store_;
  std::optional<ReaderTable> readers_;
  std::optional<TokenLedger> ledger_;
  std::optional<Recorder> recorder_;
  std::optional<Channel> channel_;
  std::optional<Session> session_;
  UniqueFd authority_;
  std::thread serving_;
  std::atomic<bool> store_fails_ = false;
};

}  // namespace certgate::supervisor
