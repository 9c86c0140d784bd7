#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <memory>
#include <random>

#include "kernel/merkle.h"
#include "kernel/token.h"
#include "kernel/token_check.h"

namespace certgate::kernel {
namespace {

struct Key {
  struct Free {
    void operator()(EVP_PKEY* k) const { EVP_PKEY_free(k); }
  };
  std::unique_ptr<EVP_PKEY, Free> key{EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519")};
  RawPublicKey raw() const {
    RawPublicKey out{};
    size_t size = out.size();
    EXPECT_EQ(EVP_PKEY_get_raw_public_key(key.get(), out.data(), &size), 1);
    return out;
  }
  std::string holder() const { return holder_of(raw()); }
  std::string seal(Token token, const std::string& issuer) const {
    token.issuer = issuer;
    const std::string payload = token.payload();
    const std::string pae = dsse_pae(kTokenPayloadType, payload);
    const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> ctx(EVP_MD_CTX_new(), EVP_MD_CTX_free);
    std::vector<uint8_t> out(64);
    size_t size = out.size();
    EXPECT_EQ(EVP_DigestSignInit(ctx.get(), nullptr, nullptr, nullptr, key.get()), 1);
    EXPECT_EQ(EVP_DigestSign(ctx.get(), out.data(), &size,
                             reinterpret_cast<const unsigned char*>(pae.data()), pae.size()),
              1);
    return dsse_envelope(kTokenPayloadType, payload, issuer, out);
  }
};

std::string digest_of(const Token& token) {
  const std::string payload = token.payload();
  std::string out;
  for (const uint8_t b : sha256(payload.data(), payload.size())) {
    out += "0123456789abcdef"[b >> 4];
    out += "0123456789abcdef"[b & 15];
  }
  return out;
}

Scope scope(std::vector<Verb> verbs, const std::vector<std::string>& paths,
            const std::vector<std::string>& endpoints = {}) {
  Scope out;
  out.verbs = std::move(verbs);
  for (const auto& p : paths) out.paths.push_back(PathPattern::parse(p).value());
  for (const auto& e : endpoints) out.endpoints.push_back(EndpointPattern::parse(e).value());
  return out;
}

Token token_for(const std::string& holder) {
  Token out;
  out.holder = holder;
  out.nonce = "00";
  out.expires_ns = 1000;
  out.scopes = every_scope();
  return out;
}

class TokenChainTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = token_for(alice_.holder());
    root_.issuer = "certgate.local/test";
    second_ = token_for(bob_.holder());
    second_.issuer = alice_.holder();
    second_.parent = digest_of(root_);
    third_ = token_for("abcdefgh");
    third_.issuer = bob_.holder();
    third_.parent = digest_of(second_);
  }
  std::string lines(const std::vector<std::string>& all) const {
    std::string out;
    for (const auto& one : all) out += one + "\n";
    return out;
  }
  Key authority_, alice_, bob_;
  Token root_, second_, third_;
};

TEST_F(TokenChainTest, EachIsSignedByTheHolderBefore) {
  const std::string a = authority_.seal(root_, root_.issuer);
  const std::string b = alice_.seal(second_, second_.issuer);
  const std::string c = bob_.seal(third_, third_.issuer);
  const RawPublicKey key = authority_.raw();
  const auto whole = verify_chain(lines({a, b, c}), key);
  ASSERT_TRUE(whole) << whole.error().what;
  EXPECT_EQ(whole->size(), 3u);
  EXPECT_EQ(whole->back().holder, "abcdefgh");
  EXPECT_TRUE(verify_chain(lines({a}), key));
  for (const auto& bad : std::vector<std::vector<std::string>>{
           {}, {b}, {b, c}, {a, c}, {a, a}, {b, a}, {a, b, b}, {a, b, c, c}, {c, b, a}}) {
    EXPECT_FALSE(verify_chain(lines(bad), key)) << bad.size();
  }
  EXPECT_FALSE(verify_chain(lines({a, b, c}), alice_.raw()));
  EXPECT_TRUE(read_chain(lines({a, b, c})));
  EXPECT_FALSE(read_chain(lines({a, bob_.seal(second_, second_.issuer)}))) << "signed by another";
  EXPECT_FALSE(verify_chain(lines({a, bob_.seal(second_, bob_.holder())}), key));
}

TEST_F(TokenChainTest, ARunCannotHandItsTokenOn) {
  Token run = token_for("abcdefgh");
  run.issuer = root_.issuer;
  second_.parent = digest_of(run);
  second_.issuer = run.holder;
  EXPECT_FALSE(verify_chain(
      lines({authority_.seal(run, run.issuer), authority_.seal(second_, second_.issuer)}),
      authority_.raw()));
}

TEST_F(TokenChainTest, EightAreTheMost) {
  std::string all = authority_.seal(root_, root_.issuer) + "\n";
  Token before = root_;
  for (int i = 1; i <= 8; ++i) {
    Token next = token_for(alice_.holder());
    next.issuer = alice_.holder();
    next.parent = digest_of(before);
    all += alice_.seal(next, next.issuer) + "\n";
    EXPECT_EQ(static_cast<bool>(verify_chain(all, authority_.raw())), i < 8) << i;
    before = next;
  }
}

TEST_F(TokenChainTest, EveryWideningIsRefused) {
  root_.expires_ns = 500;
  root_.not_before_ns = 10;
  root_.budget = 5;
  root_.ttl_ns = 7;
  root_.policy.fill(1);
  root_.scopes = {scope({Verb::kExec}, {"/usr/bin/**"}), scope({Verb::kRead}, {"/a", "/b/**"}),
                  scope({Verb::kConnect}, {}, {"*.a.test:443", "10.0.0.0/8:1-99"})};
  Token good = root_;
  good.parent = digest_of(root_);
  ASSERT_TRUE(narrows(root_, good)) << narrows(root_, good).error().what;
  using Change = void (*)(Token&);
  const Change kWider[] = {
      [](Token& t) { t.epoch = 2; },
      [](Token& t) { t.expires_ns = 501; },
      [](Token& t) { t.not_before_ns = 9; },
      [](Token& t) { t.budget = 6; },
      [](Token& t) { t.ttl_ns = 8; },
      [](Token& t) { t.policy.fill(2); },
      [](Token& t) { t.policy = {}; },
      [](Token& t) { t.scopes = every_scope(); },
      [](Token& t) { t.scopes = {scope({Verb::kExec}, {})}; },
      [](Token& t) { t.scopes = {scope({Verb::kExec}, {"/usr/**"})}; },
      [](Token& t) {
        t.scopes = {scope({Verb::kExec}, {"/usr/bin/x", "/usr/sbin/x"})};
      },
      [](Token& t) { t.scopes = {scope({Verb::kExec}, {"@private"})}; },
      [](Token& t) { t.scopes = {scope({Verb::kWrite}, {"/usr/bin/x"})}; },
      [](Token& t) { t.scopes = {scope({Verb::kRead}, {"/usr/bin/x"})}; },
      [](Token& t) { t.scopes = {scope({Verb::kRead}, {"/a/x"})}; },
      [](Token& t) { t.scopes = {scope({Verb::kRead}, {"/?"})}; },
      [](Token& t) { t.scopes = {scope({Verb::kConnect}, {})}; },
      [](Token& t) { t.scopes = {scope({Verb::kConnect}, {}, {"a.test:443"})}; },
      [](Token& t) { t.scopes = {scope({Verb::kConnect}, {}, {"*.test:443"})}; },
      [](Token& t) { t.scopes = {scope({Verb::kConnect}, {}, {"x.a.test:1-443"})}; },
      [](Token& t) { t.scopes = {scope({Verb::kConnect}, {}, {"udp:x.a.test:443"})}; },
      [](Token& t) { t.scopes = {scope({Verb::kConnect}, {}, {"10.0.0.0/7:1"})}; },
      [](Token& t) { t.scopes = {scope({Verb::kConnect}, {}, {"10.0.0.0/8:*"})}; },
      [](Token& t) { t.scopes = {scope({Verb::kConnect}, {}, {"unix:/run/x"})}; },
  };
  for (size_t i = 0; i < std::size(kWider); ++i) {
    Token wide = good;
    kWider[i](wide);
    EXPECT_FALSE(narrows(root_, wide)) << i;
  }
  const Change kNarrower[] = {
      [](Token& t) { t.expires_ns = 499; },
      [](Token& t) { t.budget = 0; },  // claims nothing: the one before still counts
      [](Token& t) { t.scopes = {}; },
      [](Token& t) { t.scopes = {scope({Verb::kExec}, {"/usr/bin/git"})}; },
      [](Token& t) {
        t.scopes = {scope({Verb::kRead}, {"/a", "/b/c/**"})};
      },
      [](Token& t) { t.scopes = {scope({Verb::kConnect}, {}, {"*.x.a.test:443"})}; },
      [](Token& t) { t.scopes = {scope({Verb::kConnect}, {}, {"10.1.0.0/16:5-6"})}; },
  };
  for (size_t i = 0; i < std::size(kNarrower); ++i) {
    Token narrow = good;
    kNarrower[i](narrow);
    EXPECT_TRUE(narrows(root_, narrow)) << i << narrows(root_, narrow).error().what;
  }
}

// Whatever narrows() lets through allows no call that the token before does not.
TEST(TokenNarrowing, NeverWidens) {
  const std::vector<std::string> patterns{"/**",   "/a", "/a/**", "/a/*",    "/*/b",
                                          "/**/b", "/b", "/a/b",  "@private"};
  const std::vector<std::string> paths{"/", "/a", "/b", "/a/b", "/a/c", "/b/b", "/a/b/c", "/c"};
  const std::vector<std::string> endpoints{"a.test:1-9", "*.a.test:*", "a.test:5", "10.0.0.0/8:*",
                                           "10.1.2.3:7"};
  std::mt19937 random(1);
  const auto pick = [&](const auto& all) { return all[random() % all.size()]; };
  const auto any = [&] {
    Token t = token_for("x");
    t.scopes.clear();
    for (size_t i = 0, n = 1 + random() % 3; i < n; ++i) {
      Scope s;
      for (const Verb v : {Verb::kExec, Verb::kRead, Verb::kConnect}) {
        if (random() % 2) s.verbs.push_back(v);
      }
      for (size_t k = random() % 3; k > 0; --k)
        s.paths.push_back(PathPattern::parse(pick(patterns)).value());
      for (size_t k = random() % 3; k > 0; --k)
        s.endpoints.push_back(EndpointPattern::parse(pick(endpoints)).value());
      t.scopes.push_back(std::move(s));
    }
    return t;
  };
  std::vector<ConnectEffect> peers;
  for (const char* host : {"a.test", "x.a.test", "b.test"}) {
    for (const uint16_t port : {1, 5, 443}) {
      ConnectEffect e;
      e.host = host;
      e.port = port;
      peers.push_back(e);
    }
  }
  const TokenStates fresh;
  int held = 0;
  for (int round = 0; round < 20'000; ++round) {
    const Token wide = any(), narrow = any();
    if (!narrows(wide, narrow)) continue;
    ++held;
    std::vector<MeterUse> uses;
    const auto allows = [&](const Token& t, const Asked& asked) {
      return !check_scope({t}, fresh, {}, asked, uses);
    };
    for (const Verb verb : {Verb::kExec, Verb::kRead}) {
      for (const std::string& path : paths) {
        for (const bool inside : {false, true}) {
          const Asked asked{verb, path, inside, nullptr};
          ASSERT_LE(allows(narrow, asked), allows(wide, asked))
              << wide.payload() << narrow.payload() << path;
        }
      }
    }
    for (const ConnectEffect& peer : peers) {
      const Asked asked{Verb::kConnect, {}, false, &peer};
      ASSERT_LE(allows(narrow, asked), allows(wide, asked)) << wide.payload() << narrow.payload();
    }
  }
  EXPECT_GT(held, 500);
}

class TokenCheckTest : public testing::Test {
 protected:
  TokenCheckTest() {
    Token a = token_for("x"), b = token_for("run");
    a.id = b.id = std::string(32, '0');
    chain_ = {a, b};
  }
  Reason live(const std::string& holder = "run") const {
    const auto fault = check_live(chain_, holder, states_, now_);
    return fault ? fault->reason : Reason{};
  }
  Reason scoped(const Asked& asked) {
    uses_.clear();
    const auto fault = check_scope(chain_, states_, now_, asked, uses_);
    return fault ? fault->reason : Reason{};
  }
  // As whoever performs would take it.
  void take() {
    states_.of.resize(2);
    for (const MeterUse& use : uses_) {
      auto& meters = states_.of[use.token].meters;
      meters.resize(std::max<size_t>(meters.size(), use.meter + 1));
      meters[use.meter] = {use.used, use.full_ns};
    }
  }
  TokenChain chain_;
  TokenStates states_;
  Instant now_{500, 0, 0};
  std::vector<MeterUse> uses_;
};

TEST_F(TokenCheckTest, AnyOfTheChainThatIsOverEndsIt) {
  EXPECT_EQ(live(), Reason{});
  EXPECT_EQ(live("other"), Reason::kTokenWrongHolder);
  for (size_t i = 0; i < 2; ++i) {
    const TokenChain chain = chain_;
    const TokenStates states = states_;
    chain_[i].expires_ns = 500;
    EXPECT_EQ(live(), Reason::kTokenExpired);
    chain_[i] = chain[i];
    chain_[i].not_before_ns = 501;
    EXPECT_EQ(live(), Reason::kTokenExpired);
    chain_[i] = chain[i];
    chain_[i].ttl_ns = 5;
    now_.run_ns = 5;
    EXPECT_EQ(live(), Reason::kTokenExpired);
    now_.run_ns = 4;
    EXPECT_EQ(live(), Reason{});
    chain_[i].epoch = 2;
    EXPECT_EQ(live(), Reason::kTokenStaleEpoch);
    chain_[i] = chain[i];
    states_.of.resize(2);
    states_.of[i].revoked = true;
    EXPECT_EQ(live(), Reason::kTokenRevoked);
    states_ = states;
  }
  states_.epoch = 2;
  EXPECT_EQ(live(), Reason::kTokenStaleEpoch);
  chain_.clear();
  states_.epoch = 1;
  EXPECT_EQ(live(), Reason::kTokenMissing);
}

TEST_F(TokenCheckTest, EachBudgetOfTheChainCountsEachCallOnce) {
  chain_[0].budget = 3;
  chain_[1].scopes[0].budget = 5;
  const Asked asked{Verb::kRead, "/a", false, nullptr};
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(scoped(asked), Reason{});
    // Another part of the same call.
    EXPECT_FALSE(check_scope(chain_, states_, now_, {Verb::kWrite, "/a", false, nullptr}, uses_));
    ASSERT_EQ(uses_.size(), 2u);
    EXPECT_EQ(uses_[0].token, 1u) << "the last token's first";
    EXPECT_EQ(uses_[1].used, static_cast<uint64_t>(i) + 1);
    take();
  }
  EXPECT_EQ(scoped(asked), Reason::kBudgetExhausted);
  EXPECT_TRUE(uses_.size() <= 1);
}

TEST_F(TokenCheckTest, AScopeThatIsUsedUpLeavesTheNext) {
  chain_[1].scopes = {scope({Verb::kRead}, {"/a/**"}), scope({Verb::kRead}, {"/a/b"})};
  chain_[1].scopes[0].budget = 1;
  const Asked asked{Verb::kRead, "/a/b", false, nullptr},
      other{Verb::kRead, "/a/c", false, nullptr};
  EXPECT_EQ(scoped(asked), Reason{});
  take();
  EXPECT_EQ(scoped(other), Reason::kBudgetExhausted);
  EXPECT_EQ(scoped(asked), Reason{});
  EXPECT_TRUE(uses_.empty());
  EXPECT_EQ(scoped({Verb::kRead, "/b", false, nullptr}), Reason::kConstraint);
  EXPECT_EQ(scoped({Verb::kExec, "/a/b", false, nullptr}), Reason::kTokenMissing);
}

TEST_F(TokenCheckTest, ARateHoldsInEveryPeriod) {
  chain_[1].rate = {10, 1000};
  const Asked asked{Verb::kRead, "/a", false, nullptr};
  std::vector<int64_t> done;
  std::mt19937 random(2);
  for (now_.boot_ns = 0; now_.boot_ns < 100'000; now_.boot_ns += random() % 60) {
    if (scoped(asked) != Reason{}) continue;
    take();
    done.push_back(now_.boot_ns);
  }
  size_t most = 0;
  for (size_t i = 0, begin = 0; i < done.size(); ++i) {
    while (done[i] - done[begin] >= 1000) ++begin;
    most = std::max(most, i - begin + 1);
  }
  // An evenly used rate, plus what had been saved up before: fewer than twice as many.
  EXPECT_GE(most, 10u);
  EXPECT_LT(most, 20u);
  EXPECT_NEAR(static_cast<double>(done.size()), 1000, 15);
}

}  // namespace
}  // namespace certgate::kernel
