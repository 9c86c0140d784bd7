#include "supervisor/token_ledger.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "kernel/mutant.h"

namespace certgate::supervisor {
namespace {

constexpr uint64_t kMostAhead = 64;

Result<void*> map_page(int fd, int protection) {
  struct stat s {};
  if (::fstat(fd, &s) != 0) return fail_errno("a token's slot", errno);
  if (static_cast<size_t>(s.st_size) != kTokenPageBytes)
    return fail("a token's slot has a wrong size; restore the state directory from a copy");
  void* page = ::mmap(nullptr, kTokenPageBytes, protection, MAP_SHARED, fd, 0);
  if (page == MAP_FAILED) return fail_errno("map a token's slot", errno);
  return page;
}

template <typename T>
void raise(std::atomic<T>& value, T to) {
  for (T now = value.load(); now < to && !value.compare_exchange_weak(now, to);) continue;
}

// Few calls ahead of a small budget: a loss of power costs them.
uint64_t ahead(const kernel::MeterUse& use, uint64_t used) {
  const uint64_t step = std::clamp<uint64_t>(use.budget / 8, 1, kMostAhead);
  return std::min(use.budget, used + step);
}

}  // namespace

void TokenLedger::Unmap::operator()(const void* page) const {
  ::munmap(const_cast<void*>(page), kTokenPageBytes);
}

Result<TokenLedger> TokenLedger::open(const kernel::TokenChain& chain, sandbox::UniqueFd epoch,
                                      std::vector<sandbox::UniqueFd> slots) {
  TokenLedger out;
  if (slots.size() != chain.size()) return fail("a token of the chain has no slot");
  out.epoch_fd_ = std::move(epoch);
  CG_TRY(void* const epoch_page, map_page(out.epoch_fd_.get(), PROT_READ));
  out.epoch_.reset(static_cast<const EpochSlot*>(epoch_page));
  if (out.epoch_->magic != kEpochMagic) return fail("the epoch's page is damaged");
  for (size_t i = 0; i < chain.size(); ++i) {
    Slot slot;
    slot.fd = std::move(slots[i]);
    CG_TRY(void* const page, map_page(slot.fd.get(), PROT_READ | PROT_WRITE));
    slot.page.reset(static_cast<TokenSlot*>(page));
    slot.meters = 1 + chain[i].scopes.size();
    slot.epoch = chain[i].epoch;
    const std::string& id = chain[i].id;
    if (slot.page->magic != kTokenSlotMagic || id.size() != sizeof slot.page->id ||
        std::memcmp(slot.page->id, id.data(), id.size()) != 0) {
      return fail("the slot of token " + id + " is damaged");
    }
    out.slots_.push_back(std::move(slot));
  }
  return out;
}

void TokenLedger::read(kernel::TokenStates& tokens) const {
  tokens.epoch = epoch_->epoch.load();
  tokens.of.resize(slots_.size());
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    tokens.of[i].revoked = slot.page->revoked.load() != 0;
    tokens.of[i].meters.resize(slot.meters);
    for (size_t m = 0; m < slot.meters; ++m) {
      const MeterSlot& meter = slot.page->meters[m];
      tokens.of[i].meters[m] = {meter.used.load(), meter.full_ns.load()};
    }
  }
}

bool TokenLedger::live() const {
  if (mutant(Mutant::kTokenEnd)) return true;
  return std::all_of(slots_.begin(), slots_.end(), [this](const Slot& slot) {
    return slot.page->revoked.load() == 0 && slot.epoch == epoch_->epoch.load();
  });
}

Result<bool> TokenLedger::take(const std::vector<kernel::MeterUse>& uses, int64_t boot_ns) {
  if (mutant(Mutant::kBudget)) return true;
  for (size_t i = 0; i < uses.size(); ++i) {
    const auto taken = take_one(uses[i], boot_ns);
    if (taken && *taken) continue;
    while (i-- > 0) give_back(uses[i]);
    return taken;
  }
  return true;
}

Result<bool> TokenLedger::take_one(const kernel::MeterUse& use, int64_t boot_ns) {
  const Slot& slot = slots_[use.token];
  MeterSlot& meter = slot.page->meters[use.meter];
  if (use.budget != 0) {
    uint64_t used = meter.used.load();
    for (;;) {
      if (used >= use.budget) return false;
      if (used >= meter.durable.load()) {
        const uint64_t ceiling = ahead(use, used);
        raise(meter.ceiling, ceiling);
        if (::fdatasync(slot.fd.get()) != 0)
          return fail_errno("reserve calls of a token's budget (is the disk full?)", errno);
        raise(meter.durable, ceiling);
      }
      if (meter.used.compare_exchange_weak(used, used + 1)) break;
    }
  }
  if (use.rate_calls == 0) return true;
  int64_t full = meter.full_ns.load();
  for (;;) {
    const auto after = kernel::rate_after({use.rate_calls, use.rate_per_ns}, full, boot_ns);
    if (!after) {
      if (use.budget != 0) meter.used.fetch_sub(1);
      return false;
    }
    if (meter.full_ns.compare_exchange_weak(full, *after)) return true;
  }
}

void TokenLedger::give_back(const kernel::MeterUse& use) {
  MeterSlot& meter = slots_[use.token].page->meters[use.meter];
  if (use.budget != 0) meter.used.fetch_sub(1);
  if (use.rate_calls != 0)
    meter.full_ns.fetch_sub(use.rate_per_ns / static_cast<int64_t>(use.rate_calls));
}

}  // namespace certgate::supervisor
