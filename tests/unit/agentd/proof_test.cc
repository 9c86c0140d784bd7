#include "agentd/proof.h"

#include <openssl/evp.h>

#include <cstdlib>
#include <memory>

#include "agentd/cosignature.h"
#include "agentd/log_reader.h"
#include "agentd/log_witnessed.h"
#include "log_fixture.h"

namespace certgate::agentd {
namespace {

using kernel::Digest;
using kernel::Record;

class ProofTest : public LogTest {
 protected:
  LogReader reader() {
    auto log = LogReader::open(state_);
    if (!log) ADD_FAILURE() << log.error().what;
    return std::move(*log);
  }
  std::vector<Digest> leaves(LogReader& log) {
    std::vector<Digest> all;
    for (uint64_t i = 0; i < log.size(); ++i) {
      const auto bytes = log.entry(i);
      EXPECT_TRUE(bytes) << i << ": " << bytes.error().what;
      all.push_back(kernel::leaf_hash(bytes->data(), bytes->size()));
    }
    return all;
  }
};

TEST_F(ProofTest, ProofsFromTilesAreThoseOfTheWholeTree) {
  LogStore store = opened();
  for (const uint64_t size : {1u, 2u, 7u, 255u, 1u, 1u, 250u, 90u}) {
    whole_run(store, "r" + std::to_string(store.size()), size);
    LogReader log = reader();
    const std::vector<Digest> all = leaves(log);
    ASSERT_EQ(all.size(), store.size());
    for (uint64_t i = 0; i < all.size(); i += i < 10 ? 1 : 31) {
      const auto path = log.inclusion_proof(i);
      ASSERT_TRUE(path) << path.error().what;
      EXPECT_EQ(*path, kernel::inclusion_proof(i, all)) << i << " of " << all.size();
    }
    for (uint64_t old = 1; old <= all.size(); old += old < 10 ? 1 : 31) {
      const auto path = log.consistency_proof(old);
      ASSERT_TRUE(path) << path.error().what;
      EXPECT_EQ(*path, kernel::consistency_proof(old, all)) << old << " of " << all.size();
    }
    EXPECT_EQ(*log.root_at(all.size()), log.checkpoint().root);
    EXPECT_FALSE(log.entry(all.size()));
    EXPECT_FALSE(log.inclusion_proof(all.size()));
    EXPECT_FALSE(log.consistency_proof(all.size() + 1));
  }
}

TEST_F(ProofTest, WhatIsNotUnderTheCheckpointIsNotRead) {
  {
    LogStore store = opened();
    whole_run(store, "one", 600);
  }
  for (const char* file : {"/log/tile/entries/001", "/log/tile/0/001", "/log/tile/1/000.p/2",
                           "/log/tile/0/002.p/88", "/log/tile/entries/002.p/88"}) {
    const std::string good = read(state_ + file);
    std::string bad = good;
    bad[40] = static_cast<char>(bad[40] ^ 4);
    write(state_ + file, bad);
    auto log = LogReader::open(state_);
    bool refused = !log;
    for (uint64_t i = 0; log && i < 600; ++i) refused = refused || !log->entry(i);
    EXPECT_TRUE(refused) << file;
    write(state_ + file, good);
  }
}

TEST_F(ProofTest, ATlogProofIsOneTextAndSaysOneThing) {
  LogStore store = opened();
  whole_run(store, "one", 300);
  LogReader log = reader();
  const auto proof = prove_inclusion(log, 299);
  ASSERT_TRUE(proof);
  const std::string text = proof->text();
  EXPECT_TRUE(text.starts_with("c2sp.org/tlog-proof@v1\nextra "));
  const auto again = TlogProof::parse(text);
  ASSERT_TRUE(again) << again.error().what;
  EXPECT_EQ(again->text(), text);
  EXPECT_TRUE(again->check(log.key(), again->extra));
  EXPECT_FALSE(again->check(log.key(), again->extra + "x"));
  for (size_t i = 0; i < text.size(); ++i) {
    std::string bad = text;
    bad[i] = static_cast<char>(bad[i] ^ 1);
    const auto parsed = TlogProof::parse(bad);
    EXPECT_FALSE(parsed && parsed->check(log.key(), parsed->extra)) << i;
  }
  for (size_t size = 0; size < text.size(); ++size) {
    const auto parsed = TlogProof::parse(text.substr(0, size));
    EXPECT_FALSE(parsed && parsed->check(log.key(), parsed->extra)) << size;
  }
}

TEST_F(ProofTest, TheFormOfATlogProofIsStrict) {
  const std::string note = "o\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n";
  const std::string hash = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
  const std::string magic = "c2sp.org/tlog-proof@v1\n";
  EXPECT_TRUE(TlogProof::parse(magic + "index 0\n\n" + note));
  EXPECT_TRUE(TlogProof::parse(magic + "extra QQ==\nindex 10\n" + hash + "\n" + note));
  for (const std::string& bad :
       {magic + "index 00\n\n" + note, magic + "index -1\n\n" + note, magic + "index 1 \n\n" + note,
        magic + "extra \nindex 0\n\n" + note, magic + "extra Q\nindex 0\n\n" + note,
        magic + "\n" + note, magic + "index 18446744073709551616\n\n" + note,
        "c2sp.org/tlog-proof@v2\nindex 0\n\n" + note, magic + "index 0\nAAAA\n\n" + note,
        magic + "index 0\n" + hash, std::string(),
        magic + "index 0\n" + std::string(65 * hash.size(), 'A')}) {
    EXPECT_FALSE(TlogProof::parse(bad)) << bad;
  }
  std::string many = magic + "index 0\n";
  for (int i = 0; i < 65; ++i) many += hash;
  EXPECT_FALSE(TlogProof::parse(many + "\n" + note));
}

TEST_F(ProofTest, AConsistencyProofBindsBothCheckpoints) {
  LogStore store = opened();
  const std::string empty = read(state_ + "/log/checkpoint");
  whole_run(store, "one", 5);
  const std::string old = read(state_ + "/log/checkpoint");
  whole_run(store, "two", 300);
  LogReader log = reader();
  const auto proof = prove_consistency(log, 5);
  ASSERT_TRUE(proof);
  const auto again = ConsistencyProof::parse(proof->text());
  ASSERT_TRUE(again) << again.error().what;
  EXPECT_EQ(again->text(), proof->text());
  EXPECT_TRUE(again->check(log.key(), old));
  EXPECT_FALSE(again->check(log.key(), empty));
  EXPECT_FALSE(again->check(log.key(), log.note()));
  EXPECT_TRUE(prove_consistency(log, 0)->check(log.key(), empty));
  EXPECT_FALSE(prove_consistency(log, 6)->check(log.key(), old));
}

// Tessera's published log, of records that are not ours: read, proven and continued by the same
// code.
TEST_F(ProofTest, ThePublishedLogOfTesseraIsProvenRecordByRecord) {
  const char* vectors = std::getenv("CERTGATE_VECTORS");
  if (vectors == nullptr) GTEST_SKIP() << "CERTGATE_VECTORS is not set: no published log here";
  const std::string published = std::string(vectors) + "/tessera/";
  std::filesystem::create_directories(state_);
  std::filesystem::create_symlink(published, state_ + "/log");
  write(state_ + "/key.pub",
        "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx\n");
  LogReader log = reader();
  ASSERT_EQ(log.size(), 15u);
  for (uint64_t i = 0; i < log.size(); ++i) {
    const auto proof = prove_inclusion(log, i);
    ASSERT_TRUE(proof) << proof.error().what;
    EXPECT_TRUE(proof->check(log.key(), proof->extra)) << i;
  }
  for (uint64_t old = 0; old <= log.size(); ++old) {
    const auto proof = prove_consistency(log, old);
    ASSERT_TRUE(proof) << proof.error().what;
    const auto holds =
        proof->check(log.key(), read(published + "checkpoint." + std::to_string(old)));
    EXPECT_TRUE(holds) << old << ": " << holds.error().what;
    if (old > 0) {
      EXPECT_FALSE(
          proof->check(log.key(), read(published + "checkpoint." + std::to_string(old - 1))));
    }
  }
}

// A witness of our own making, by the letter of C2SP tlog-cosignature.
struct Witness {
  Witness() : key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"), EVP_PKEY_free) {
    size_t size = verifier.key.size();
    EVP_PKEY_get_raw_public_key(key.get(), verifier.key.data(), &size);
    verifier.name = "witness.test";
  }
  std::string line(const std::string& text, uint64_t time) const {
    const std::string message = cosigned_message(text, time);
    std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                    EVP_MD_CTX_free);
    EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key.get());
    std::string bytes;
    for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(verifier.id() >> shift);
    for (int shift = 56; shift >= 0; shift -= 8) bytes += static_cast<char>(time >> shift);
    uint8_t signature[64];
    size_t size = sizeof signature;
    EVP_DigestSign(context.get(), signature, &size,
                   reinterpret_cast<const uint8_t*>(message.data()), message.size());
    bytes.append(reinterpret_cast<const char*>(signature), size);
    return "\xE2\x80\x94 witness.test " + base64_encode(bytes.data(), bytes.size()) + '\n';
  }
  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key;
  WitnessKey verifier;
};

TEST_F(ProofTest, WitnessedSaysWhoCosignedWhatIsTheStartOfThisLog) {
  LogStore store = opened();
  whole_run(store, "one", 5);
  const std::string note = read(state_ + "/log/checkpoint");
  whole_run(store, "two", 9);
  const Witness witness, stranger;
  const std::string text = note.substr(0, note.find("\n\n") + 1);
  OutsideView view{note + witness.line(text, 1795430400), {witness.verifier}};
  const auto yes = verify_log(state_, "", view);
  ASSERT_TRUE(yes);
  EXPECT_TRUE(yes->good);
  EXPECT_EQ(yes->witnessed.word, "yes") << yes->witnessed.detail;
  EXPECT_NE(yes->witnessed.detail.find("witness.test at 2026-11-23T10:40:00"), std::string::npos);
  view.keys = {stranger.verifier};
  EXPECT_EQ(verify_log(state_, "", view)->witnessed.word, "none");
  view.keys = {witness.verifier};
  view.checkpoint = note + witness.line(text + "x", 7);
  EXPECT_EQ(verify_log(state_, "", view)->witnessed.word, "no");
  EXPECT_FALSE(verify_log(state_, "", view)->good);
  EXPECT_EQ(verify_log(state_)->witnessed.word, "none");
  EXPECT_TRUE(WitnessKey::parse(witness.verifier.text()));
  EXPECT_FALSE(WitnessKey::parse(store.key().verifier().text()));  // a log's key is not a witness's
}

TEST_F(ProofTest, AWitnessIsFoundByItsKeyInWhatIsKeptBesideTheLog) {
  LogStore store = opened();
  whole_run(store, "one", 5);
  const std::string old_note = read(state_ + "/log/checkpoint");
  whole_run(store, "two", 9);
  const std::string note = read(state_ + "/log/checkpoint");
  const auto text_of = [](const std::string& n) { return n.substr(0, n.find("\n\n") + 1); };
  const auto keep = [&](const std::string& name, const std::string& bytes) {
    write(state_ + '/' + name, bytes);
  };
  const Witness first, second;
  const auto verdict = [&](std::vector<WitnessKey> keys) {
    return verify_log(state_, "", {"", std::move(keys)})->witnessed;
  };
  EXPECT_EQ(verdict({first.verifier}).word, "none");
  EXPECT_NE(verdict({first.verifier}).detail.find("audit witness add"), std::string::npos);
  std::filesystem::create_directory(state_ + "/cosignatures");
  keep(cosignature_path(first.verifier.id()), old_note + first.line(text_of(old_note), 1795430400));
  EXPECT_EQ(verdict({first.verifier}).word, "yes");
  EXPECT_EQ(verdict({first.verifier}).detail,
            "by witness.test up to 5 of 14 records, at 2026-11-23T10:40:00.000000000Z");
  EXPECT_EQ(verdict({first.verifier, second.verifier}).word, "so far");
  keep("cosigned", note + second.line(text_of(note), 1795430401));
  EXPECT_EQ(verdict({first.verifier, second.verifier}).word, "yes");
  EXPECT_NE(verdict({second.verifier}).detail.find("up to 14 of 14"), std::string::npos);
  // Of two checkpoints that it cosigned, the larger counts.
  keep(cosignature_path(second.verifier.id()), old_note + second.line(text_of(old_note), 7));
  EXPECT_NE(verdict({second.verifier}).detail.find("up to 14 of 14"), std::string::npos);
  keep("cosigned", note + second.line(text_of(note) + "x", 7));
  EXPECT_EQ(verdict({second.verifier}).word, "no");
  EXPECT_FALSE(verify_log(state_, "", {"", {second.verifier}})->good);
}

TEST_F(ProofTest, ALogThatWasCutIsShownByWhatAWitnessCosigned) {
  const Witness witness;
  std::string longer;
  {
    LogStore store = opened();
    whole_run(store, "one", 5);
    std::filesystem::copy(state_, state_ + ".early", std::filesystem::copy_options::recursive);
    whole_run(store, "two", 9);
    longer = read(state_ + "/log/checkpoint");
  }
  const std::string early = state_ + ".early";
  write(early + "/cosigned",
        longer + witness.line(longer.substr(0, longer.find("\n\n") + 1), 7));
  EXPECT_TRUE(verify_log(early)->good);
  const auto cut = verify_log(early, "", {"", {witness.verifier}});
  EXPECT_FALSE(cut->good);
  EXPECT_EQ(cut->witnessed.word, "no");
  EXPECT_NE(cut->what.find("it was cut back"), std::string::npos) << cut->what;
}

TEST_F(ProofTest, CompleteSpeaksOfGapsAndOpenRunsUnalteredDoesNot) {
  LogStore store = opened();
  whole_run(store, "one", 4);
  EXPECT_EQ(verify_log(state_)->complete.word, "yes");
  auto live = store.create_segment("live");
  ASSERT_TRUE(append_record(live->append.get(), record("live", 1)));
  ASSERT_TRUE(store.seal(live->tail));
  EXPECT_EQ(verify_log(state_)->complete.word, "so far");
  ASSERT_TRUE(store.finish(live->tail));  // without a stop record: a gap
  const auto report = verify_log(state_);
  EXPECT_EQ(report->unaltered.word, "yes");
  EXPECT_EQ(report->complete.word, "no");
  EXPECT_NE(report->complete.detail.find("run live: a gap record"), std::string::npos)
      << report->complete.detail;
  EXPECT_TRUE(report->good);
}

}  // namespace
}  // namespace certgate::agentd
