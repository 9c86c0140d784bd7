#include "supervisor/label_view.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <vector>

#include "supervisor/label_format.h"

namespace certgate::supervisor {
namespace {

constexpr size_t kMaxProbes = 4096;
constexpr size_t kMaxNameBytes = 64u << 20;

}  // namespace

struct LabelView::Impl {
  ~Impl() {
    if (map != nullptr) ::munmap(map, kLabelFileBytes);
  }

  const LabelSlot* slots() const {
    // NOLINTNEXTLINE: the file's layout, checked by open()
    return reinterpret_cast<const LabelSlot*>(static_cast<const char*>(map) + sizeof(LabelHeader));
  }

  Result<kernel::Label> label(uint32_t id) {
    {
      const std::shared_lock lock(mutex);
      if (id - 1 < labels.size()) return labels[id - 1];
    }
    const std::unique_lock lock(mutex);
    CG_CHECK(read_more());
    if (id - 1 < labels.size()) return labels[id - 1];
    return fail("the label table names a label that was never written");
  }

  // Parses the whole lines that were appended since.
  Status read_more() {
    char buffer[16384];
    for (;;) {
      const ssize_t n = ::pread(names.get(), buffer, sizeof buffer, static_cast<off_t>(read_to));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_errno("read the label names", errno);
      if (n == 0) break;
      read_to += static_cast<size_t>(n);
      if (read_to > kMaxNameBytes) return fail("the label names are larger than 64 MiB");
      partial.append(buffer, static_cast<size_t>(n));
    }
    size_t at = 0;
    for (size_t end = partial.find('\n', at); end != std::string::npos;
         end = partial.find('\n', at)) {
      CG_TRY(kernel::Label parsed,
             kernel::Label::parse(std::string_view(partial).substr(at, end - at)));
      labels.push_back(std::move(parsed));
      at = end + 1;
    }
    partial.erase(0, at);
    return ok();
  }

  void* map = nullptr;
  sandbox::UniqueFd names;
  std::shared_mutex mutex;            // guards all below
  std::vector<kernel::Label> labels;  // id - 1
  std::string partial;
  size_t read_to = 0;
};

LabelView::LabelView(LabelView&& other) noexcept : impl_(std::exchange(other.impl_, nullptr)) {}
LabelView& LabelView::operator=(LabelView&& other) noexcept {
  std::swap(impl_, other.impl_);
  return *this;
}
LabelView::~LabelView() { delete impl_; }

Result<LabelView> LabelView::open(sandbox::UniqueFd table, sandbox::UniqueFd names) {
  struct stat s {};
  if (::fstat(table.get(), &s) != 0 || static_cast<uint64_t>(s.st_size) != kLabelFileBytes) {
    return fail(
        "the label table has another size than it should; move it away to start afresh (all files "
        "become unlabelled)");
  }
  auto impl = std::make_unique<Impl>();
  void* map = ::mmap(nullptr, kLabelFileBytes, PROT_READ, MAP_SHARED, table.get(), 0);
  if (map == MAP_FAILED) return fail_errno("map the label table", errno);
  impl->map = map;
  impl->names = std::move(names);
  const auto* header = static_cast<const LabelHeader*>(map);
  if (header->magic != kLabelMagic || header->capacity != kLabelSlots)
    return fail("the label table is damaged");
  return LabelView(impl.release());
}

Result<kernel::Label> LabelView::named(uint32_t id) const { return impl_->label(id); }

Result<std::optional<kernel::Label>> LabelView::find(const kernel::FileIdentity& file) const {
  const LabelSlot* slots = impl_->slots();
  uint64_t at = label_hash(file) & (kLabelSlots - 1);
  for (size_t probes = 0; probes < kMaxProbes; ++probes) {
    const LabelSlot& slot = slots[at];
    const uint32_t id = slot.label.load(std::memory_order_acquire);
    if (id == 0) return std::optional<kernel::Label>();
    const kernel::FileIdentity key{slot.fsid, slot.ino, slot.btime_ns};
    if (slot.check != label_check(key)) return fail("a damaged slot in the label table");
    if (same_key(slot, file)) {
      if (id == kNoLabel) return std::optional<kernel::Label>();
      CG_TRY(kernel::Label label, impl_->label(id));
      return std::optional<kernel::Label>(std::move(label));
    }
    at = (at + 1) & (kLabelSlots - 1);
  }
  return fail("the label table is too full");
}

}  // namespace certgate::supervisor
