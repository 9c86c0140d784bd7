#include "supervisor/token_ledger.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "agentd/state_dir.h"
#include "agentd/token_store.h"

namespace certgate::supervisor {
namespace {

namespace fs = std::filesystem;
using agentd::Keep;
using agentd::TokenStore;
using sandbox::UniqueFd;

kernel::Token token(char id, uint64_t budget) {
  kernel::Token out;
  out.id = std::string(32, id);
  out.budget = budget;
  out.scopes = kernel::every_scope();
  return out;
}

class TokenLedgerTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "certgate-ledger-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    fd_ = *agentd::open_state_dir(dir_ + "/state");
    ASSERT_TRUE(agentd::make_dir(fd_.get(), "tmp"));
  }
  void TearDown() override { fs::remove_all(dir_); }
  TokenStore store() const { return *TokenStore::open(fd_.get()); }
  Result<TokenLedger> ledger(const kernel::TokenChain& chain) const {
    std::vector<UniqueFd> slots;
    for (const kernel::Token& one : chain) {
      CG_TRY(UniqueFd slot, store().slot(one, Keep::kForGood));
      slots.push_back(std::move(slot));
    }
    CG_TRY(UniqueFd epoch, store().epoch_for_reading());
    return TokenLedger::open(chain, std::move(epoch), std::move(slots));
  }
  static std::vector<kernel::MeterUse> uses(const kernel::TokenChain& chain) {
    std::vector<kernel::MeterUse> out;
    for (size_t i = chain.size(); i-- > 0;)
      out.push_back({static_cast<uint32_t>(i), 0, chain[i].budget, 0, 0, 0, 0});
    return out;
  }
  // As after a loss of power in between: counts beyond what is durable are gone.
  void lose_power(const kernel::Token& token) const {
    const std::string path = dir_ + "/state/tokens/" + token.id;
    const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    TokenSlot slot;
    ASSERT_EQ(::pread(fd.get(), static_cast<void*>(&slot), sizeof slot, 0),
              static_cast<ssize_t>(sizeof slot));
    slot.boot[0] = slot.boot[0] == 'x' ? 'y' : 'x';
    slot.meters[0].used.store(0);
    slot.meters[0].durable.store(0);
    ASSERT_EQ(::pwrite(fd.get(), static_cast<const void*>(&slot), sizeof slot, 0),
              static_cast<ssize_t>(sizeof slot));
  }

  std::string dir_;
  UniqueFd fd_;
};

TEST_F(TokenLedgerTest, ManyProcessesAtTheLimitGetExactlyIt) {
  for (const uint64_t budget : {1u, 7u, 500u}) {
    const kernel::TokenChain chain{token('a', budget), token('b', budget * 2)};
    fs::remove_all(dir_ + "/state/tokens");
    int pipes[2];
    ASSERT_EQ(::pipe2(pipes, O_CLOEXEC), 0);
    std::vector<pid_t> children;
    for (int i = 0; i < 4; ++i) {
      const pid_t child = ::fork();
      if (child == 0) {
        auto mine = ledger(chain);
        uint64_t got = 0;
        std::vector<std::thread> threads;
        std::atomic<uint64_t> sum = 0;
        for (int t = 0; t < 3 && mine; ++t) {
          threads.emplace_back([&] {
            while (*mine->take(uses(chain), 0)) ++sum;
          });
        }
        for (auto& t : threads) t.join();
        got = sum;
        ::_exit(::write(pipes[1], &got, sizeof got) == sizeof got ? 0 : 1);
      }
      children.push_back(child);
    }
    uint64_t all = 0;
    for (const pid_t child : children) {
      int status = 0;
      ::waitpid(child, &status, 0);
      uint64_t got = 0;
      ASSERT_EQ(::read(pipes[0], &got, sizeof got), static_cast<ssize_t>(sizeof got));
      all += got;
    }
    ::close(pipes[0]);
    ::close(pipes[1]);
    EXPECT_EQ(all, budget);
  }
}

TEST_F(TokenLedgerTest, WhatIsRefusedFurtherUpIsGivenBack) {
  const kernel::TokenChain chain{token('a', 1), token('b', 100)};
  auto mine = ledger(chain);
  ASSERT_TRUE(mine) << mine.error().what;
  EXPECT_TRUE(*mine->take(uses(chain), 0));
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(*mine->take(uses(chain), 0));
  kernel::TokenStates states;
  mine->read(states);
  EXPECT_EQ(states.of[0].meters[0].used, 1u);
  EXPECT_EQ(states.of[1].meters[0].used, 1u);
}

TEST_F(TokenLedgerTest, PowerLossGivesNoCallBack) {
  for (const uint64_t budget : {3u, 100u, 10'000u}) {
    const kernel::TokenChain chain{token('a', budget)};
    fs::remove_all(dir_ + "/state/tokens");
    uint64_t all = 0;
    for (int boot = 0; boot < 5; ++boot) {
      auto mine = ledger(chain);
      ASSERT_TRUE(mine) << mine.error().what;
      for (uint64_t i = 0; i < budget / 4 + 1 && *mine->take(uses(chain), 0); ++i) ++all;
      lose_power(chain[0]);
    }
    EXPECT_LE(all, budget);
    EXPECT_GE(all, budget / 2) << "and costs few";
  }
}

TEST_F(TokenLedgerTest, RevocationAndRotationReachARunningOneAtOnce) {
  const kernel::TokenChain chain{token('a', 0), token('b', 0)};
  auto mine = ledger(chain);
  ASSERT_TRUE(mine) << mine.error().what;
  EXPECT_TRUE(mine->live());
  ASSERT_TRUE(store().revoke(chain[0].id));
  EXPECT_FALSE(mine->live());
  kernel::TokenStates states;
  mine->read(states);
  EXPECT_TRUE(states.of[0].revoked);
  EXPECT_FALSE(states.of[1].revoked);

  auto other = ledger({token('c', 0)});
  EXPECT_TRUE(other->live());
  TokenStore rotated = store();
  EXPECT_EQ(*rotated.rotate(), 2u);
  EXPECT_FALSE(other->live());
  EXPECT_EQ(store().epoch(), 2u) << "durable";
}

TEST_F(TokenLedgerTest, WhatIsRevokedBeforeItIsUsedStaysRevoked) {
  ASSERT_TRUE(store().revoke(std::string(32, 'd')));
  auto mine = ledger({token('d', 0)});
  ASSERT_TRUE(mine) << mine.error().what;
  EXPECT_FALSE(mine->live());
  EXPECT_FALSE(store().revoke("../../key"));
  EXPECT_FALSE(store().revoke(std::string(31, 'a')));
}

TEST_F(TokenLedgerTest, AnotherTokensSlotAndADamagedOneAreRefused) {
  UniqueFd slot = *store().slot(token('a', 1), Keep::kForGood);
  std::vector<UniqueFd> slots;
  slots.push_back(std::move(slot));
  EXPECT_FALSE(TokenLedger::open({token('b', 1)}, *store().epoch_for_reading(), std::move(slots)));
  EXPECT_FALSE(TokenLedger::open({token('b', 1)}, *store().epoch_for_reading(), {}));
  fs::resize_file(dir_ + "/state/tokens/" + std::string(32, 'a'), 100);
  EXPECT_FALSE(store().slot(token('a', 1), Keep::kForGood));
}

}  // namespace
}  // namespace certgate::supervisor
