#include "agentd/witness.h"

#include <fcntl.h>
#include <time.h>

#include <cstring>
#include <optional>

#include "agentd/state_dir.h"
#include "kernel/merkle.h"
#include "log_fixture.h"

namespace certgate::agentd {
namespace {

class WitnessTest : public LogTest {
 protected:
  void SetUp() override {
    LogTest::SetUp();
    auto dir = open_state_dir(state_);
    ASSERT_TRUE(dir);
    dir_ = std::move(*dir);
    auto log = SigningKey::generate();
    auto key = HolderKey::make(root_ + "/witness.key");
    ASSERT_TRUE(log && key);
    log_.emplace(std::move(*log));
    key_.emplace(*key);
    own_.name = "witness.test/w1";
    for (size_t i = 0; i < own_.key.size(); ++i)
      own_.key[i] = static_cast<uint8_t>(
          std::stoul(key->holder().substr(key->holder().find(':') + 1 + 2 * i, 2), nullptr, 16));
    for (int i = 0; i < 40; ++i) leaves_.push_back(kernel::leaf_hash(&i, sizeof i));
  }

  Witness witness() {
    auto out = Witness::open(dir_.get(), own_, *key_, {log_->verifier()});
    if (!out) ADD_FAILURE() << out.error().what;
    return std::move(*out);
  }
  std::string note(uint64_t size, const std::vector<kernel::Digest>& leaves) const {
    kernel::CompactRange range;
    for (uint64_t i = 0; i < size; ++i) range.append(leaves[i]);
    const std::string text = Checkpoint{log_->name(), size, range.root()}.text();
    return note_of(text, log_->verifier(), *log_->sign(text));
  }
  AddCheckpoint request(uint64_t from, uint64_t to) const {
    AddCheckpoint out{from, {}, note(to, leaves_)};
    if (from > 0 && from < to)
      out.proof = kernel::consistency_proof(
          from, {leaves_.begin(), leaves_.begin() + static_cast<long>(to)});
    return out;
  }
  static unsigned status(const Witness& w, const AddCheckpoint& r) {
    return w.add_checkpoint(add_checkpoint_body(r)).status;
  }

  sandbox::UniqueFd dir_;
  std::optional<SigningKey> log_;
  std::optional<HolderKey> key_;
  CosignerKey own_;
  std::vector<kernel::Digest> leaves_;
};

TEST_F(WitnessTest, WhatGrowsIsSignedAndTheSignatureHolds) {
  const Witness w = witness();
  for (const auto& [from, to] : {std::pair<uint64_t, uint64_t>{0, 5}, {5, 5}, {5, 16}, {16, 40}}) {
    const AddCheckpoint r = request(from, to);
    const WitnessAnswer answer = w.add_checkpoint(add_checkpoint_body(r));
    ASSERT_EQ(answer.status, 200u) << answer.body;
    const std::string text = r.note.substr(0, r.note.find("\n\n") + 1);
    const auto time = check_cosignature(own_, text, answer.body);
    ASSERT_TRUE(time) << time.error().what;
    EXPECT_NEAR(static_cast<double>(*time), static_cast<double>(::time(nullptr)), 5);
    EXPECT_FALSE(check_cosignature(own_, text + "x", answer.body));
    CosignerKey other = own_;
    other.key[0] ^= 1;
    EXPECT_FALSE(check_cosignature(other, text, answer.body));
  }
}

TEST_F(WitnessTest, ItNeverGoesBackAndRemembersAcrossItsEnd) {
  EXPECT_EQ(status(witness(), request(0, 20)), 200u);
  const Witness w = witness();
  const WitnessAnswer answer = w.add_checkpoint(add_checkpoint_body(request(0, 30)));
  EXPECT_EQ(answer.status, 409u);
  EXPECT_EQ(answer.body, "20\n");
  EXPECT_STREQ(answer.type, "text/x.tlog.size");
  EXPECT_EQ(status(w, request(0, 10)), 409u);
  EXPECT_EQ(status(w, request(10, 20)), 409u);
  EXPECT_EQ(status(w, request(25, 30)), 409u);
  AddCheckpoint beyond = request(20, 30);
  beyond.old_size = 31;
  EXPECT_EQ(status(w, beyond), 400u);
  EXPECT_EQ(status(w, request(20, 30)), 200u);
}

TEST_F(WitnessTest, AForkIsNeverSigned) {
  const Witness w = witness();
  EXPECT_EQ(status(w, request(0, 20)), 200u);
  auto forked = leaves_;
  forked[7][0] ^= 1;
  EXPECT_EQ(status(w, {20, {}, note(20, forked)}), 409u);
  for (uint64_t to = 21; to <= 40; ++to) {
    AddCheckpoint fork{20, {}, note(to, forked)};
    fork.proof =
        kernel::consistency_proof(20, {forked.begin(), forked.begin() + static_cast<long>(to)});
    EXPECT_EQ(status(w, fork), 422u) << to;
    fork.proof = request(20, to).proof;
    EXPECT_EQ(status(w, fork), 422u) << to;
  }
  AddCheckpoint bad = request(20, 40);
  bad.proof.pop_back();
  EXPECT_EQ(status(w, bad), 422u);
  bad.proof.clear();
  EXPECT_EQ(status(w, bad), 422u);
  EXPECT_EQ(status(w, request(20, 40)), 200u);
}

TEST_F(WitnessTest, WhoItDoesNotKnowAndWhatItCannotReadIsRefused) {
  const Witness w = witness();
  const auto stranger = SigningKey::generate();
  const std::string text = Checkpoint{stranger->name(), 1, leaves_[0]}.text();
  EXPECT_EQ(status(w, {0, {}, note_of(text, stranger->verifier(), *stranger->sign(text))}), 404u);
  const std::string ours = Checkpoint{log_->name(), 1, leaves_[0]}.text();
  VerifierKey pretended = stranger->verifier();
  pretended.name = log_->name();
  EXPECT_EQ(status(w, {0, {}, note_of(ours, pretended, *stranger->sign(ours))}), 403u);
  std::string changed = note(5, leaves_);
  changed[changed.find("\n5\n") + 1] = '6';
  EXPECT_EQ(status(w, {0, {}, changed}), 403u);
  const std::string good = add_checkpoint_body(request(0, 5));
  for (size_t i = 0; i < good.size(); ++i) {
    EXPECT_NE(w.add_checkpoint(good.substr(0, i)).status, 200u) << i;
  }
  for (const char* body :
       {"", "old 0\n", "old -1\n\nx", "old 00\n\nx", "old 0\nAA==\n\nx", "new 0\n\nx"})
    EXPECT_EQ(w.add_checkpoint(body).status, 400u) << body;
}

TEST_F(WitnessTest, AKeyIsReadBackFromItsText) {
  const auto again = CosignerKey::parse(own_.text());
  ASSERT_TRUE(again) << again.error().what;
  EXPECT_EQ(again->text(), own_.text());
  std::string text = own_.text();
  for (size_t i = 0; i < text.size(); ++i) {
    std::string changed = text;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    const auto other = CosignerKey::parse(changed);
    EXPECT_FALSE(other && other->name == own_.name && other->key == own_.key && changed != text)
        << i;
  }
  EXPECT_FALSE(CosignerKey::parse(log_->verifier().text()));  // a log's key is no witness's
}

}  // namespace
}  // namespace certgate::agentd
